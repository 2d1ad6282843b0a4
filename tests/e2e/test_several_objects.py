"""Several objects, and boxes instead of masks, through the real VOT toolkit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from short_videos import ROOT, UNSUPERVISED, vot

from tracker_ar.data.datasets.vot_layout import write_list
from tracker_ar.data.synthetic.procedural import anchor_values
from tracker_ar.evaluate.vot_toolkit import load_workspace
from tracker_ar.run_lengths import encode_mask_line

pytestmark = pytest.mark.e2e

LENGTH, SIZE = 6, (120, 160)
BOXES = ((15, 20, 34, 26), (110, 25, 30, 36), (60, 80, 40, 28))  # of the objects in the first frame
STEPS = ((3, 0), (-3, 1), (0, -2))
COLOURS = ((40, 60, 230), (220, 120, 30), (60, 220, 90))
BOX_STACK = UNSUPERVISED + """\
  baseline:
    type: multistart
    analyses:
      - type: multistart_average_ar
        name: ar
"""


def box_at(target: int, frame: int) -> list[int]:
    (x, y, width, height), (dx, dy) = BOXES[target], STEPS[target]
    return [x + dx * frame, y + dy * frame, width, height]


def write_sequence(folder: Path, objects: int, boxes: bool = False) -> None:
    """Textured ellipses on their way, the later ones in front."""
    rng = np.random.default_rng(objects)
    ground = cv2.GaussianBlur(rng.integers(60, 160, (*SIZE, 3), dtype=np.uint8), (0, 0), 2)
    textures = [np.clip(np.array(colour) + rng.integers(-40, 40, (*SIZE, 3)), 0, 255).astype(np.uint8)
                for colour in COLOURS]
    (folder / "color").mkdir(parents=True)
    lines: list[list[str]] = [[] for _ in range(objects)]
    for frame in range(LENGTH):
        image = ground.copy()
        owner = np.zeros(SIZE, np.uint8)
        for target in range(objects):
            x, y, width, height = box_at(target, frame)
            centre, axes = (x + width // 2, y + height // 2), (width // 2, height // 2)
            cv2.ellipse(owner, centre, axes, 0, 0, 360, target + 1, -1)
        for target in range(objects):
            image[owner == target + 1] = np.roll(textures[target], frame, axis=1)[owner == target + 1]
            mask = (owner == target + 1).astype(np.uint8)
            box = ",".join(map(str, box_at(target, frame)))
            lines[target].append(box if boxes else encode_mask_line(mask))
        cv2.imwrite(str(folder / "color" / f"{frame + 1:08d}.jpg"), image)
    for target, regions in enumerate(lines, 1):
        name = "groundtruth.txt" if objects == 1 else f"groundtruth_{target:03d}.txt"
        (folder / name).write_text("\n".join(regions) + "\n")
    (folder / "anchor.value").write_text("\n".join(map(str, anchor_values(LENGTH))) + "\n")
    (folder / "sequence").write_text(f"fps=20\nname={folder.name}\nlength={LENGTH}\n")


def make_workspace(folder: Path, stack: str, **sequences: int) -> Path:
    for name, objects in sequences.items():
        write_sequence(folder / "sequences" / name, objects, boxes=objects == 1)
    write_list(folder / "sequences", list(sequences))
    (folder / "stack.yaml").write_text(stack)
    (folder / "config.yaml").write_text(f"registry:\n  - {ROOT / 'trackers.ini'}\nstack: stack.yaml\n")
    return folder


def test_two_and_three_objects(tmp_path: Path) -> None:
    stack = (ROOT / "workspace/multi-object/multi-object.yaml").read_text()
    workspace = make_workspace(tmp_path, stack, two=2, three=3)
    output = vot(workspace, "evaluate", "AlphaRefine-Lite")
    assert "Evaluation concluded successfuly" in output, output
    loaded = load_workspace(workspace)
    experiment = loaded.stack.experiments["baseline"]
    for sequence in loaded.dataset:
        trajectories = experiment.gather(loaded.registry["AlphaRefine-Lite"], sequence)
        assert len(trajectories) == len(sequence.objects()) == {"two": 2, "three": 3}[sequence.name]
        for frame in range(1, LENGTH):
            bounds = (0, 0, SIZE[1] - 1, SIZE[0] - 1)
            masks = [trajectory.region(frame).rasterize(bounds) > 0 for trajectory in trajectories]
            assert np.sum(masks, axis=0).max() == 1
            for name, mask in zip(sequence.objects(), masks):
                truth = sequence.frame(frame).object(name).rasterize(bounds) > 0
                assert (mask & truth).sum() / (mask | truth).sum() > 0.5, (sequence.name, name, frame)
            for trajectory in trajectories:
                assert 0 < float(trajectory.properties(frame)["confidence"]) <= 1
    logged = vot(workspace, "analysis", "AlphaRefine-Lite")
    assert "Analysis successful" in logged, logged


def test_boxes_on_sequences_with_boxes(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, BOX_STACK, short=1)
    assert "Evaluation concluded successfuly" in vot(workspace, "evaluate", "AlphaRefine-Box")
    loaded = load_workspace(workspace)
    (sequence,) = loaded.dataset
    experiment = loaded.stack.experiments["unsupervised"]
    (trajectory,) = experiment.gather(loaded.registry["AlphaRefine-Box"], sequence)
    for frame in range(1, LENGTH):
        region = trajectory.region(frame)
        assert str(region.type) == "RegionType.RECTANGLE"
        found = np.array([region.x, region.y, region.width, region.height])
        true = np.array(box_at(0, frame), float)
        near = np.maximum(found[:2], true[:2])
        far = np.minimum(found[:2] + found[2:], true[:2] + true[2:])
        shared = np.prod(np.maximum(far - near, 0))
        assert shared / (found[2:].prod() + true[2:].prod() - shared) > 0.6, frame
    assert "Analysis successful" in vot(workspace, "analysis", "AlphaRefine-Box")
