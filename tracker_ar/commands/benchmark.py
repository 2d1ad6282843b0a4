"""``alpharefine benchmark``: how good a tracker is on annotated videos, and how fast."""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from tracker_ar import __version__
from tracker_ar.atomic import write_atomically
from tracker_ar.commands.options import DEVICE_HELP, PLAIN_HELP, TRACKER, TRACKER_HELP
from tracker_ar.data.datasets.vot_layout import SequenceInfo
from tracker_ar.errors import InputError
from tracker_ar.evaluate.scores import (
    COMPARISONS,
    SequenceScores,
    Tracker,
    comparison_tracker,
    find_sequences,
    measure,
)
from tracker_ar.interrupts import interruptible
from tracker_ar.report.tables import format_tables, write_numbers, write_plots
from tracker_ar.speed import measure as speed
from tracker_ar.speed.start import Start, use_threads
from tracker_ar.speed.summary import format_report, summarize, write_report
from tracker_ar.zoo import best_installed, build_tracker, weight_files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alpharefine benchmark``."""
    parser.description = "Measure a tracker outside the VOT toolkit."
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    summary = "masks as DAVIS, boxes as OTB, TrackingNet and LaSOT measure them"
    accuracy = benchmarks.add_parser("accuracy", help=summary, description=(
        f"Track each sequence once from its first frame and measure the result: {summary}. "
        "Prints a table; writes it with results.json, results.csv and plots to --out."
    ), usage="%(prog)s SEQUENCES [SEQUENCES ...] [options]")
    accuracy.add_argument("sequences", type=Path, nargs="+", metavar="SEQUENCES",
                          help="a VOT-layout sequence, or a folder of them")
    accuracy.add_argument(*TRACKER, metavar="NAME", help=TRACKER_HELP)
    accuracy.add_argument("--checkpoint", type=Path, metavar="DIR",
                          help="folder with the tracker's checkpoints (default: the installed ones)")
    accuracy.add_argument("--device", default="auto", help=DEVICE_HELP)
    accuracy.add_argument("--plain", action="store_true", help=PLAIN_HELP)
    accuracy.add_argument("--compare", nargs="+", choices=COMPARISONS, default=[],
                          help="others to run beside it: OpenCV's CSRT and KCF (extra 'compare'), each also with "
                               "the refiner behind it; a box that never moves")
    accuracy.add_argument("--out", type=Path, metavar="DIR", default=Path("benchmark-accuracy"),
                          help="where the results go; earlier ones there are replaced (default: %(default)s)")
    accuracy.set_defaults(run_benchmark=_accuracy)
    summary = "the time per frame and per stage, against the machine's ceilings"
    speed_parser = benchmarks.add_parser("speed", help=summary, description=(
        f"Measure {summary}. Prints a table; writes speed.txt, speed.json and speed.png to --out."
    ), usage="%(prog)s [FRAMES] [options]")
    _configure_speed(speed_parser)
    speed_parser.set_defaults(run_benchmark=_speed)


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen benchmark; 130 after Ctrl-C, when what was done has been kept.

    Raises DataError for bad sequences, CheckpointError for missing weights, InputError for an unknown device
    and where a tracker to compare with is not installed.
    """
    return args.run_benchmark(args)


def _accuracy(args: argparse.Namespace) -> int:
    infos = find_sequences(args.sequences)
    tracker = build_tracker(args.tracker, args.device, args.checkpoint, fast=not args.plain)
    compared = {name: comparison_tracker(name, tracker) for name in args.compare}
    trackers = {f"AlphaRefine {tracker.profile.name}": tracker, **compared}

    scores: list[SequenceScores] = []
    try:
        _measure_all(trackers, infos, scores, args.out, _settings(args, tracker.profile.name))
    except KeyboardInterrupt:
        done = len(scores) // len(trackers)
        print(f"\nStopped: {done} of {len(infos)} sequences are done and reported.", file=sys.stderr)
        if scores:
            _report(scores, args.out)
        return 130
    _report(scores, args.out)
    return 0


def _report(scores: list[SequenceScores], out: Path) -> None:
    table = format_tables(scores)
    write_atomically(out / "summary.txt", f"{table}\n".encode())
    print(f"\n{table}\n\n{out}:")
    files = ["summary.txt", "results.json", "results.csv", *(file.name for file in write_plots(out, scores))]
    print(*(f"  {name}" for name in files), sep="\n")


def _measure_all(
    trackers: Mapping[str, Tracker],
    infos: list[SequenceInfo],
    scores: list[SequenceScores],
    out: Path,
    settings: dict[str, Any],
) -> None:
    """Extend `scores` sequence by sequence, all trackers at once, so that they always cover the same ones."""
    frames = len(trackers) * sum(info.length for info in infos)
    with interruptible() as interruption, tqdm(total=frames, unit=" frames") as progress:

        def one_frame() -> None:
            interruption.check()
            progress.update()

        for done, info in enumerate(infos, 1):
            of_sequence = []
            for name, tracker in trackers.items():
                progress.set_description(f"{info.path.name}, {name}")
                of_sequence.append(measure(name, tracker, info, one_frame))
            scores.extend(of_sequence)
            write_numbers(out, scores, {**settings, "complete": done == len(infos)})


def _settings(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What somebody needs to know to get the same numbers."""
    checkpoints = weight_files(name, args.checkpoint)
    return {
        "profile": name,
        "checkpoints": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoints},
        "device": args.device,
        "plain": args.plain,
        "versions": {
            "alpharefine": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "vot-toolkit": version("vot-toolkit"),
        },
    }


def _configure_speed(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``benchmark speed``."""
    parser.add_argument("frames_from", nargs="?", metavar="FRAMES",
                        help="a VOT-layout sequence, or a folder of images or a video with --box "
                             f"(default: a synthetic one, {speed.SYNTHETIC_SIZE[0]} x {speed.SYNTHETIC_SIZE[1]})")
    parser.add_argument("--box", type=float, nargs=4, metavar=("X", "Y", "W", "H"),
                        help="the target in the first image, pixels; not for a VOT-layout sequence")
    parser.add_argument(*TRACKER, metavar="NAME", help=TRACKER_HELP)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, metavar="DIR",
                         help="folder with the tracker's checkpoints (default: the installed ones)")
    weights.add_argument("--random-weights", action="store_true",
                         help="random weights: the same work without checkpoints")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--threads", type=_count, default=0, metavar="N",
                        help="number of CPU threads (default: torch's)")
    parser.add_argument("--frames", type=_count, default=60, metavar="N",
                        help=f"frames to measure, after {speed.WARM_UP} to warm up (default: %(default)s)")
    parser.add_argument("--targets", type=_count, nargs="+", default=[], metavar="N",
                        help="also the time per frame with N targets, for each N (1 2 4)")
    parser.add_argument("--baseline", action="store_true",
                        help="also the same networks as they are trained, in turn (batch norms not folded, plain "
                             "memory layout, on a GPU no graphs); gives the ratio, and how far the masks agree")
    parser.add_argument("--plain", action="store_true", help=PLAIN_HELP)
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("benchmark-speed"),
                        help="where the results go; earlier ones there are replaced (default: %(default)s)")


def _speed(args: argparse.Namespace) -> int:
    """Measure, print and write; raises CheckpointError for missing weights, DataError for bad frames,
    InputError for a device or box that cannot be used."""
    use_threads(args.threads)
    if args.targets and args.random_weights:
        raise InputError("--targets needs trained weights: with random ones the targets would wander off.")
    clip = speed.read_clip(args.frames_from, args.box, args.frames + 1)
    name = args.tracker or best_installed(args.checkpoint)
    checkpoint = str(args.checkpoint.resolve()) if args.checkpoint else None
    start = Start(name, args.device, checkpoint, args.random_weights, args.plain)
    document = summarize(speed.measure(start, clip, args.frames, args.threads, args.baseline, args.targets))
    print(f"\n{format_report(document)}\n\n{args.out}:")
    print(*(f"  {file.name}" for file in write_report(args.out, document)), sep="\n")
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
