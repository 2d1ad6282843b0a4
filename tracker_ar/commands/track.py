"""`alpharefine track SOURCE`: follow targets through one's own video."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tracker_ar.commands.options import DEVICE_HELP, PLAIN_HELP, TRACKER, TRACKER_HELP
from tracker_ar.errors import DataError, InputError
from tracker_ar.interrupts import Interruption, interruptible
from tracker_ar.places import expanded
from tracker_ar.video.sources import Frame, Source, open_source
from tracker_ar.video.targets import MOST_TARGETS, parse_box, regions_of, select_boxes

if TYPE_CHECKING:  # torch comes with it, and takes seconds
    from tracker_ar.tracker import AlphaRefineTracker
    from tracker_ar.video.follow import TrackedFrame
    from tracker_ar.video.results import ResultsFolder

WARNINGS_SHOWN = 5
EPILOG = """\
examples:
  alpharefine track video.mp4 --box 120,80,64,48
  alpharefine track frames/ --mask car.png --mask person.png --out tracked
  alpharefine track 0 --select            (a camera; Ctrl-C ends)

what is written (frames are numbered from 1, targets in the order given):
  overlay.mp4        the video with masks, numbers and scores painted over it
  masks/%08d.png     grey, 8 bit: 0 background, 1 the first target, 2 the second, ...
  masks.jsonl        one line per target and frame; 'segmentation' is uncompressed COCO RLE, which
                     pycocotools reads with mask.frPyObjects
  boxes.csv          box that goes back to the base tracker, score, pixels of the mask, state
  target_1.txt, ...  masks in the VOT text format, one line per frame; beside them target_1_boxes.txt and
                     target_1_confidence.value, boxes and scores in that format
Masks do not overlap: a pixel that several targets claim belongs to the one that is more probable there.
A frame that cannot be used repeats the previous result (state 'repeated').
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = "Follow one or more targets through a video and write their masks and boxes."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="SOURCE", help="video file, folder of images, or a camera's number")
    targets = parser.add_argument_group("targets in the first frame (repeat for several)")
    targets.add_argument("--box", dest="targets", action="append", type=parse_box, metavar="X,Y,W,H",
                         help="a box in pixels from the top-left corner")
    targets.add_argument("--mask", dest="targets", action="append", type=Path, metavar="FILE",
                         help="an image of the frame's size, black where there is no target")
    targets.add_argument("--select", action="store_true", help="draw boxes with the mouse")
    parser.add_argument(*TRACKER, metavar="NAME", help=TRACKER_HELP)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="weights folder (default: the installed ones)")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--plain", action="store_true", help=PLAIN_HELP)
    parser.add_argument("--start", type=int, default=1, metavar="N", help="first frame (default: 1)")
    parser.add_argument("--end", type=int, metavar="N", help="last frame (default: the source's)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go (default: NAME-tracked)")
    parser.add_argument("--no-video", action="store_true", help="do not write the overlay video")
    parser.add_argument("--force", action="store_true", help="replace results that are there")


def run(args: argparse.Namespace, build: Callable[..., AlphaRefineTracker] | None = None) -> int:
    """Track, write the results, print a summary.

    Returns 0, 130 after Ctrl-C or SIGTERM, 1 when the video had to be left out.
    build: makes the tracker, `build_tracker` if None. Raises InputError, DataError and
    CheckpointError with cause and fix; what was tracked until then is kept unless writing it failed.
    """
    if not args.targets and not args.select:
        raise InputError("Nothing to follow: give a target with --box x,y,w,h, --mask FILE or --select.")
    source = open_source(args.source, args.start, args.end)
    with contextlib.closing(source.frames), interruptible() as interruption:
        from tracker_ar.video.follow import follow
        from tracker_ar.video.results import ResultsFolder, check_folder, unfinished
        from tracker_ar.zoo import build_tracker

        folder = expanded(args.out or f"{source.name}-tracked").resolve()
        check_folder(folder, args.force)
        for left in unfinished(folder):
            print(f"{left} was left by a run that was killed; it may be removed.", file=sys.stderr)
        first, image = _first_frame(source, args)
        regions = _regions(args, image)
        tracker = (build or build_tracker)(args.tracker, args.device, args.checkpoint, fast=not args.plain)
        interruption.check()
        results = ResultsFolder(folder, len(regions), source.fps, not args.no_video, args.force)
        progress = Progress(source.length)
        files = _write_all(follow(first, source.frames, regions, tracker), results, progress, interruption)
    for line in progress.summary():
        print(line)
    print(f"tracker {tracker.profile.name}, results in {folder}: {', '.join(file.name for file in files)}")
    if not results.video_is_whole:
        print("The overlay video could not be read back and was left out; everything else is complete.",
              file=sys.stderr)
        return 1
    return 130 if progress.stopped else 0


class Progress:
    """The bar on stderr, and what there is to say at the end."""

    def __init__(self, length: int | None) -> None:
        """length: how many frames there should be, None where that is not known."""
        self.stopped = False
        self.frames = self.tracked = self.repeated = self.last = 0
        self._length = length
        self._seconds = 0.0
        self._started = time.perf_counter()
        self._bar = tqdm(total=length, unit="frame", file=sys.stderr, dynamic_ncols=True)

    def add(self, frame: TrackedFrame) -> None:
        """Count one frame; the first few that could not be used are named."""
        self.frames += 1
        self.last = frame.number
        if frame.state == "tracked":
            self.tracked += 1
            self._seconds += frame.seconds
        elif frame.state == "repeated":
            self.repeated += 1
            if self.repeated <= WARNINGS_SHOWN:
                more = " Further ones are only counted." if self.repeated == WARNINGS_SHOWN else ""
                name = f" ({frame.name})" if frame.name else ""
                tqdm.write(f"frame {frame.number}{name} is skipped: {frame.problem}{more}", file=sys.stderr)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
        self._wall = time.perf_counter() - self._started

    def summary(self) -> list[str]:
        """Lines for the user: how many frames, how fast, and what was not as it should be."""
        lines = [f"stopped after frame {self.last}"] if self.stopped else []
        speed = f", {self.tracked / self._seconds:.1f} fps" if self.tracked else ""
        lines.append(f"{self.frames} frames{speed}; {self._wall:.1f} s in all, with reading and writing")
        if self.repeated:
            lines.append(f"{self.repeated} of them could not be used and repeat the previous result")
        missing = 0 if self.stopped else (self._length or 0) - self.frames
        if missing > max(2, self.frames // 50):  # containers may announce an estimate
            lines.append(f"the file announces {self._length} frames, but {missing} of them could not be "
                         "read; it may be truncated or damaged")
        return lines


def _write_all(
    frames: Iterable[TrackedFrame], results: ResultsFolder, progress: Progress, interruption: Interruption
) -> list[Path]:
    """Write every frame until the end or an interruption, and complete the results; the paths of the files."""
    try:
        for frame in frames:
            results.add(frame)
            progress.add(frame)
            if interruption.asked:
                progress.stopped = True
                break
    except BaseException:
        progress.close()
        if results.close():
            print(f"The results up to frame {progress.last} are in {results.folder}.", file=sys.stderr)
        raise
    progress.close()
    return results.close()


def _first_frame(source: Source, args: argparse.Namespace) -> tuple[Frame, np.ndarray]:
    first = next(source.frames, None)
    if first is None:
        cause = "it has fewer frames, or" if args.start > 1 else "it is not a video, or"
        raise DataError(f"{args.source}: there is no frame {args.start}; {cause} is damaged.")
    if first.image is None:
        raise DataError(f"{args.source}: the first frame ({first.name or first.number}) cannot be decoded; "
                        "begin with a later one with --start.")
    return first, first.image


def _regions(args: argparse.Namespace, image: np.ndarray) -> list[np.ndarray]:
    regions = regions_of(list(args.targets or []), image)
    if args.select:
        regions += regions_of(select_boxes(image), image)
    if len(regions) > MOST_TARGETS:
        raise InputError(f"{len(regions)} targets are too many: masks have values up to {MOST_TARGETS}.")
    return regions
