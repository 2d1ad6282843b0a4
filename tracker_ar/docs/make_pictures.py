"""Make the pictures of the guides, from the project's own rendered sequences and its shipped weights.

    python tracker_ar/docs/make_pictures.py
    python tracker_ar/docs/make_pictures.py --workspace W

The first form makes those of the tracker. The second one needs Chromium and photographs the report of a
workspace that `alpharefine evaluate --tracker AlphaRefine-Lite --with-static --workspace W` has made.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tracker_ar.commands.report import write_page
from tracker_ar.data.datasets.vot_layout import write_list
from tracker_ar.data.synthetic.procedural import LENGTH, write_synthetic_sequences
from tracker_ar.evaluate.vot_toolkit import load_workspace
from tracker_ar.explain import panels
from tracker_ar.explain.observe import Explanation, Reference, explain_frame, start
from tracker_ar.images import read_image
from tracker_ar.places import DOCUMENTS
from tracker_ar.prediction import listed
from tracker_ar.video.overlay import paint
from tracker_ar.zoo import build_tracker

PICTURES = DOCUMENTS / "pictures"
SHOWN = ("made_scaled", "made_articulated")  # side by side; in the others `lite` drifts to the distractor
TRACKER_OF_STAGES = "lite_dimp+lite"  # has all stages of the challenge entry
STAGES_OF, STAGES_FRAME = "made_articulated", 24
STEP, MILLISECONDS = 2, 90
STAGE_WIDTH, REPORT_SIZE = 320, (1240, 1150)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of the guides.")
    parser.add_argument("--workspace", type=Path, help="an evaluated workspace to show the report of")
    args = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if args.workspace:
            photograph_report(args.workspace.resolve(), Path(folder))
        else:
            track_synthetic_sequences(Path(folder))
    for file in sorted(PICTURES.iterdir()):
        print(f"{file.name}: {file.stat().st_size / 1024:.0f} KB")


def track_synthetic_sequences(folder: Path) -> None:
    """The animation of two sequences side by side, and the stages of one frame."""
    write_synthetic_sequences(folder / "sequences")
    write_list(folder / "sequences", list(SHOWN))
    (folder / "config.yaml").write_text("registry: []\nstack: tests/segmentation\n")
    videos = []
    for sequence in load_workspace(folder).dataset:
        images = [sequence.frame(index).image() for index in range(LENGTH)]
        height, width = images[0].shape[:2]
        region = sequence.frame(0).groundtruth().rasterize((0, 0, width - 1, height - 1))
        tracker = build_tracker("lite", "cpu")
        tracker.initialize(images[0], region)
        videos.append([paint(image, listed(tracker.track(image))) for image in images[1:]][::STEP])
        if sequence.name == STAGES_OF:
            staged = build_tracker(TRACKER_OF_STAGES, "cpu")
            reference = start(staged, images[0], region)
            for image in images[1:STAGES_FRAME]:
                staged.track(image)
            write_stages(explain_frame(staged, images[STAGES_FRAME]), reference)
        print(f"{sequence.name} tracked", flush=True)
    frames = [Image.fromarray(np.hstack(pictures)) for pictures in zip(*videos)]
    frames[0].save(PICTURES / "tracking.webp", save_all=True, append_images=frames[1:],
                   duration=MILLISECONDS, loop=0, quality=55, method=4)


def write_stages(explanation: Explanation, reference: Reference) -> None:
    """The panels of `alpharefine explain`, smaller and as JPEG."""
    cells = round(len(explanation.correlation) ** 0.5)
    shown = {
        "frame": panels.frame(explanation),
        "score_map": panels.score_map(explanation),
        "boxes_before": panels.boxes(explanation, after=False),
        "boxes_after": panels.boxes(explanation, after=True),
        "target_cells": panels.target_cells(reference, cells),
        "correlation": panels.correlation(explanation),
        "mask_probability": panels.mask_probability(explanation),
        "result": panels.result(explanation),
    }
    for name, picture in shown.items():
        height = round(picture.shape[0] * STAGE_WIDTH / picture.shape[1])
        write_jpeg(f"stage_{name}", cv2.resize(picture, (STAGE_WIDTH, height), interpolation=cv2.INTER_AREA))


def photograph_report(workspace: Path, folder: Path) -> None:
    """The upper part of the page that `alpharefine report` makes, as Chromium shows it."""
    page, _ = write_page(workspace, [], folder / "report.html")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("The report can only be photographed with Chromium or Chrome; install one.")
    shot = folder / "report.png"
    subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                    "--disable-background-networking", f"--user-data-dir={folder / 'profile'}",
                    f"--screenshot={shot}", "--window-size={},{}".format(*REPORT_SIZE), page.as_uri()],
                   check=True, capture_output=True, timeout=120)
    picture = read_image(shot)
    height, width = picture.shape[:2]
    write_jpeg("report", cv2.resize(picture, (900, height * 900 // width), interpolation=cv2.INTER_AREA))


def write_jpeg(name: str, picture: np.ndarray) -> None:
    """Write one picture, RGB uint8."""
    Image.fromarray(picture).save(PICTURES / f"{name}.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
