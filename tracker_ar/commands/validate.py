"""`alpharefine validate`: the tracker of `lite` on held-out clips and scenes."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracker_ar.errors import InputError

if TYPE_CHECKING:  # torch comes with it, and takes seconds
    from tracker_ar.data.sequence import Frame, Track
    from tracker_ar.evaluate.closed_loop import LiteLoop, OpenCVLoop

SYNTHETIC_FRAMES = 40


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--clips", type=Path, help="a folder of clips in the layout of YouTube-VOS")
    parser.add_argument("--images", type=Path, help="a folder of annotated images: scenes are made of held-out ones")
    parser.add_argument("--scenes", type=int, default=12, help="number of made scenes (default: %(default)s)")
    parser.add_argument("--split", choices=("train", "validation"), default="validation")
    parser.add_argument("--only", default="", help="clips whose names contain this")
    parser.add_argument("--weights", type=Path, help="of the base tracker (default: as shipped)")
    parser.add_argument("--from-box", action="store_true", help="show the refiner the first box, not the mask")
    parser.add_argument("--step", type=int, default=1, help="take every so many frames, as of faster motion")
    parser.add_argument(
        "--true-boxes", action="store_true", help="no refiner: the true box wherever the base tracker overlaps with it"
    )
    parser.add_argument("--teacher-forced", action="store_true", help="tell the true box before every frame")
    parser.add_argument("--nano", type=Path, help="folder of the two models of OpenCV's NanoTrack, to run it instead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="write what every frame rests on to this JSON file")


def run(args: argparse.Namespace) -> int:
    """Run the tracker and print a line for every target, and the means."""
    import cv2
    import torch

    from tracker_ar.evaluate.closed_loop import LiteLoop, closed_loop, frames_of, strangers, summary, teacher_forced

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if args.clips is None and args.images is None:
        raise InputError("say what to validate on: --clips FOLDER, --images FOLDER, or both")
    if args.nano and args.teacher_forced:
        raise InputError("--teacher-forced is for the tracker of lite, not for --nano")
    tracker = _nano(args.nano) if args.nano else _lite(args)
    groups: dict[str, list] = {}
    saved: list[dict] = []
    others: list[Frame] = []
    for group, track in _tracks(args):
        frames = frames_of(track, args.step)
        if len(frames) < 5:
            continue
        started = time.perf_counter()
        if args.teacher_forced:
            assert isinstance(tracker, LiteLoop)
            rows = teacher_forced(frames, tracker)
            means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            groups.setdefault(group, []).append(means)
            absent = strangers(frames, others, tracker) if others else []
            saved.append({"name": track.name, "rows": rows, "absent": absent})
            others = frames
        else:
            result = closed_loop(track.name, frames, tracker)
            groups.setdefault(group, []).append(result)
            means = summary([result])
            saved.append({"name": track.name, "overlaps": result.overlaps.tolist(), "details": result.details})
        spent = 1e3 * (time.perf_counter() - started) / (len(frames) - 1)
        print(f"{track.name:<44} {len(frames):>4} frames {spent:6.1f} ms  {_shown(means)}", flush=True)
    for group, results in groups.items():
        if args.teacher_forced:
            means = {key: float(np.mean([one[key] for one in results])) for key in results[0]}
        else:
            means = summary(results)
        print(f"{group} ({len(results)} targets): {_shown(means)}", flush=True)
    if args.save is not None:
        args.save.write_text(json.dumps(saved, default=_plain), encoding="utf-8")
    return 0


def _shown(means: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.3f}" for key, value in means.items())


def _plain(value: np.ndarray | np.floating) -> list | float:
    return value.tolist() if isinstance(value, np.ndarray) else float(value)


def _tracks(args: argparse.Namespace) -> Iterator[tuple[str, Track]]:
    from tracker_ar.data.clips import open_clips
    from tracker_ar.data.synthetic.dataset import SyntheticVideos
    from tracker_ar.data.synthetic.library import ImageLibrary
    from tracker_ar.data.synthetic.scenes import SceneSampler
    from tracker_ar.train.recipes import RECIPES

    if args.clips is not None:
        clips = open_clips(args.clips, args.split)
        for index in range(len(clips)):
            track = clips.track(index)
            if args.only in track.name:
                yield "clips", track
    if args.images is not None:
        sampler = SceneSampler(ImageLibrary(args.images, args.split), RECIPES["lite-classifier"].scenes)
        scenes = SyntheticVideos(sampler, args.scenes, SYNTHETIC_FRAMES, seed=1)
        for index in range(len(scenes)):
            yield "scenes", scenes.track(index)


def _lite(args: argparse.Namespace) -> LiteLoop:
    import torch

    from tracker_ar.base.lite import LITE, LiteTracker
    from tracker_ar.engine.runner import Runner
    from tracker_ar.evaluate.closed_loop import LiteLoop, TrueBoxes
    from tracker_ar.models.lite_base import build_lite_base
    from tracker_ar.weights.store import checkpoint_dir, load_into
    from tracker_ar.zoo import build_refiner

    network = build_lite_base(LITE.network)
    load_into(network, args.weights or checkpoint_dir() / "lite_base.safetensors")
    base = LiteTracker(Runner(network, torch.device("cpu")), LITE, args.seed)
    return LiteLoop(base, TrueBoxes() if args.true_boxes else build_refiner("lite", "cpu"), from_mask=not args.from_box)


def _nano(folder: Path) -> OpenCVLoop:
    import cv2

    from tracker_ar.evaluate.closed_loop import OpenCVLoop

    parameters = cv2.TrackerNano.Params()
    parameters.backbone = str(folder / "v2_nanotrack_backbone_sim.onnx")
    parameters.neckhead = str(folder / "v2_nanotrack_head_sim.onnx")
    return OpenCVLoop(lambda: cv2.TrackerNano.create(parameters))
