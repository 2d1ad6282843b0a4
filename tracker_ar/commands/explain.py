"""`alpharefine explain SOURCE`: what every stage of the tracker does in one frame of a video."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tracker_ar.commands.options import DEVICE_HELP, TRACKER, TRACKER_HELP
from tracker_ar.errors import DataError, InputError
from tracker_ar.interrupts import Interruption, interruptible
from tracker_ar.places import expanded
from tracker_ar.video.sources import Frame, open_source
from tracker_ar.video.targets import parse_box, regions_of

if TYPE_CHECKING:  # torch comes with it, and takes seconds
    from tracker_ar.explain.observe import Explanation
    from tracker_ar.tracker import AlphaRefineTracker

FRAME = 20
EPILOG = """\
example:
  alpharefine explain video.mp4 --box 120,80,64,48 --frame 40 --out explained

what is written:
  overview.png             all stages in one picture
  1_frame.png ...          the picture of each stage: search region, score map, boxes before and after
                           the ascent, cells of the target, correlation, mask probability, result
  numbers.txt              what the pictures show, in numbers
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = ("Follow one target up to a frame, and show what every stage of the tracker does in "
                          "that frame: to understand the method, or why a target is lost.")
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="SOURCE", help="video file or folder of images")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--box", dest="target", type=parse_box, metavar="X,Y,W,H",
                        help="the target in the first frame, in pixels from the top-left corner")
    target.add_argument("--mask", dest="target", type=Path, metavar="FILE",
                        help="an image of the frame's size, black where there is no target")
    parser.add_argument("--frame", type=int, default=FRAME, metavar="N",
                        help="the frame to explain (default: %(default)s, or the last)")
    parser.add_argument("--start", type=int, default=1, metavar="N", help="first frame (default: 1)")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where the pictures go; earlier ones there are replaced (default: NAME-explained)")
    parser.add_argument(*TRACKER, metavar="NAME", help=TRACKER_HELP)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="weights folder (default: the installed ones)")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)


def run(args: argparse.Namespace) -> int:
    """Track up to the frame, write the pictures, print the numbers.

    Raises InputError, DataError and CheckpointError with cause and fix.
    """
    if args.frame <= args.start:
        raise InputError(f"--frame {args.frame} is not after --start {args.start}: the first frame only "
                         "shows the target, there is nothing to explain in it.")
    source = open_source(args.source, args.start, args.frame)
    with contextlib.closing(source.frames), interruptible() as interruption:
        first = next(source.frames, None)
        if first is None or first.image is None:
            raise DataError(f"{args.source}: frame {args.start} is missing or cannot be decoded; begin with "
                            "another one with --start.")
        (region,) = regions_of([args.target], first.image)

        from tracker_ar.explain.observe import start
        from tracker_ar.explain.pages import describe, write_explanation
        from tracker_ar.zoo import build_tracker

        tracker = build_tracker(args.tracker, args.device, args.checkpoint)
        reference = start(tracker, first.image, region)
        frames = tqdm(source.frames, total=source.length, initial=1, unit="frame", file=sys.stderr)
        number, explanation = _follow(tracker, frames, args, interruption)
        folder = args.out or Path(f"{source.name}-explained")
        files = write_explanation(expanded(folder), explanation, reference, number)
    print(describe(explanation, number))
    names = ", ".join(file.name for file in files)
    print(f"\ntracker {tracker.profile.name}, pictures in {folder}: {names}")
    return 0


def _follow(
    tracker: AlphaRefineTracker, frames: Iterable[Frame], args: argparse.Namespace, interruption: Interruption
) -> tuple[int, Explanation]:
    """Track all frames and explain the last one; one that cannot be decoded does not count."""
    from tracker_ar.explain.observe import explain_frame

    last: tuple[int, np.ndarray] | None = None
    for frame in frames:
        interruption.check()
        if frame.image is None:
            tqdm.write(f"frame {frame.number} cannot be decoded and is skipped", file=sys.stderr)
            continue
        if last is not None:
            tracker.track(last[1])
        last = frame.number, frame.image
    if last is None:
        raise DataError(f"{args.source}: there is no frame after frame {args.start}; it has no more, or the "
                        "rest is damaged.")
    number, image = last
    return number, explain_frame(tracker, image)
