"""Every tracker at work, in a table: `python tests/family_table.py --sequence DIR [--frames 30] [NAME ...]`.

Each runs twice over the first frames of a sequence in the VOT layout: as the TraX server that the VOT toolkit starts,
and as `alpharefine track --tracker NAME`. The table says what base tracker and refiner took of a frame in the second
run, and whether both runs gave the same masks and confidences. Base tracker and refiner are told apart by the names of
their stages; 'unnamed' is what lies between the stages.

Weights are those of the parity tests' recipe, so that nothing has to be downloaded, but for the project's own. They are
written once, into a folder that --weights names, else a temporary one. Exits with 1 where a tracker fails or where its
runs differ; MIL of OpenCV draws at random and cannot be seeded, so it may.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

import cv2
import numpy as np
import torch
import trax

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from recipe_checkpoints import write_recipe_checkpoints  # noqa: E402
from trax_session import Session  # noqa: E402

from tracker_ar import build_tracker, zoo  # noqa: E402
from tracker_ar.commands import track  # noqa: E402
from tracker_ar.places import CHECKPOINTS_VARIABLE  # noqa: E402
from tracker_ar.speed.stages import REST, StageMeter  # noqa: E402
from tracker_ar.trace import listening  # noqa: E402

REFINING = {"refiner crop", "refiner backbone", "correlation", "branch selector", "box head", "corner head",
            "target model", "mask head", "paste back", "target model update"}
UNSEEDED = {"mil"}
PATIENCE = 3600.0  # seconds: for the server of one tracker
COLUMNS = (
    "tracker", "first frame", "base", "refiner", "unnamed", "slowest", "longest stage of the base", "TraX = track",
)


def everything() -> list[str]:
    """Every base tracker alone, and the combinations worth having; those of authors first."""
    behind = [f"{base}+{refiner}" for base in zoo.BASES for refiner in ("ar34", "ar_base", "lite")]
    names = [*zoo.BASES, *zoo.NAMED, *zoo.PUBLISHED, "super_dimp+ar18", *behind]
    return list(dict.fromkeys(zoo.profile(name).name for name in names))


class Watched:
    """A tracker whose stages are timed by a clock that reads seconds."""

    def __init__(self, clock: Callable[[], float], *arguments: object, **options: object) -> None:
        self._tracker = build_tracker(*arguments, **options)
        self._clock = clock
        self._meter = StageMeter(clock)
        self.profile = self._tracker.profile
        self.first = 0.0
        self.frames: list[dict[str, float]] = []

    def initialize(self, image: np.ndarray, region: object) -> object:
        begun = self._clock()
        found = self._tracker.initialize(image, region)
        self.first = self._clock() - begun
        return found

    def track(self, image: np.ndarray) -> object:
        with listening(self._meter), self._meter.stage(REST):
            found = self._tracker.track(image)
        self.frames.append(self._meter.take())
        return found


@dataclass
class States:
    """What was reported: masks (H, W) and confidences, six digits, of every frame."""

    masks: list[np.ndarray] = field(default_factory=list)
    confidences: list[str] = field(default_factory=list)

    def add(self, mask: np.ndarray, confidence: str) -> None:
        self.masks.append(mask)
        self.confidences.append(confidence)

    def differ_from(self, other: States) -> int | None:
        """The first frame, counted from 1, that is not the same."""
        pairs = zip(self.masks, other.masks, self.confidences, other.confidences, strict=True)
        differ = (number for number, (a, b, c, d) in enumerate(pairs, 1) if not (np.array_equal(a, b) and c == d))
        return next(differ, None)


def through_trax(name: str, images: Sequence[Path], box: Sequence[float], threads: int, weights: Path) -> States:
    """As the VOT toolkit runs it. Raises TraxException where the server fails."""
    environment = {**os.environ, "ALPHAREFINE_TRACKER": name, CHECKPOINTS_VARIABLE: str(weights),
                   "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    server = subprocess.Popen([sys.executable, "-m", "vot_wrapper.alpharefine"], env=environment, cwd=ROOT, bufsize=0,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    session = Session(server, PATIENCE)
    states = States()
    try:
        for index, image in enumerate(images):
            region, properties = session.frame(image) if index else session.initialize(
                image, trax.Rectangle.create(*box))
            states.add(region, properties["confidence"])
        session.client.quit()
        session.end()
    finally:
        session.close()
    return states


def through_track(
    name: str, images: Sequence[Path], box: Sequence[float], weights: Path, clock: Callable[[], float]
) -> tuple[States, Watched]:
    """As `alpharefine track` runs it. Errors as there."""
    watched: list[Watched] = []

    def build(*arguments: object, **options: object) -> Watched:
        watched.append(Watched(clock, *arguments, **options))
        return watched[0]

    parser = argparse.ArgumentParser()
    track.configure(parser)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        out = Path(folder) / "tracked"
        words = [str(images[0].parent), "--box", ",".join(map(str, box)), "--tracker", name, "--checkpoint",
                 str(weights), "--device", "cpu", "--end", str(len(images)), "--out", str(out), "--no-video"]
        if track.run(parser.parse_args(words), build) != 0:
            raise RuntimeError("`alpharefine track` failed")
        states = States()
        confidences = (out / "target_1_confidence.value").read_text().split()
        for mask, confidence in zip(sorted((out / "masks").iterdir()), confidences, strict=True):
            states.add(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), confidence)
    return states, watched[0]


def row(
    name: str, images: Sequence[Path], box: Sequence[float], threads: int, weights: Path, clock: Callable[[], float]
) -> tuple[list[str], bool]:
    """The line of the table, and whether all is as it should be."""
    if lacking := zoo.lacks(name, weights):
        return [name, f"not run: {', '.join(lacking)} not installed"], True
    try:
        served = through_trax(name, images, box, threads, weights)
        tracked, watched = through_track(name, images, box, weights, clock)
    except Exception as error:  # the other trackers are of interest all the same
        return [name, f"FAILED: {type(error).__name__}: {str(error):.300}"], False
    base = [
        sum(seconds for stage, seconds in frame.items() if stage not in REFINING | {REST}) for frame in watched.frames
    ]
    refiner = [sum(frame.get(stage, 0.0) for stage in REFINING) for frame in watched.frames]
    rest = [frame.get(REST, 0.0) for frame in watched.frames]
    whole = [sum(frame.values()) for frame in watched.frames]
    stages = {stage for frame in watched.frames for stage in frame}
    totals = {stage: sum(frame.get(stage, 0.0) for frame in watched.frames) for stage in sorted(stages)}
    longest = max((stage for stage in totals if stage not in REFINING | {REST}), key=totals.__getitem__, default="-")
    share = f"{longest} {totals.get(longest, 0.0) / sum(whole):.0%}"
    times = [watched.first, *map(np.median, (base, refiner, rest)), max(whole)]
    different = tracked.differ_from(served)
    same = "identical" if different is None else f"from frame {different} on different"
    may_differ = bool(UNSEEDED & {zoo.parts_of(name)[0]})
    return [name, *(f"{1e3 * seconds:.1f}" for seconds in times), share, same], different is None or may_differ


def first_box(sequence: Path) -> list[float]:
    """x, y, w, h of the first frame of a sequence in the VOT layout; of a mask, its box."""
    line = (sequence / "groundtruth.txt").read_text().split("\n", 1)[0]
    values = [float(value) for value in re.split(r"[,\s]+", line.strip().removeprefix("m"))]
    if len(values) == 4 or line.startswith("m"):
        return values[:4]
    raise SystemExit(f"{sequence}: the first region is neither a box nor a mask.")


@contextlib.contextmanager
def folder_of_weights(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when all trackers ran and gave the same twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of trackers (default: all that are worth having)")
    parser.add_argument("--sequence", type=Path, required=True, metavar="DIR", help="in the VOT layout")
    parser.add_argument("--frames", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--processor-time", action="store_true",
                        help="time of all threads on the processor instead of the clock's: for a busy machine")
    parser.add_argument("--weights", type=Path, metavar="DIR",
                        help="to write the recipe's weights to, and to keep them")
    parser.add_argument("--models", type=Path, metavar="DIR", help="with the ONNX files of OpenCV's trackers")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    images = sorted(path.absolute() for path in (args.sequence / "color").iterdir())[: args.frames]
    box, names = first_box(args.sequence), args.names or everything()
    clock, of = (process_time, " of processor time") if args.processor_time else (perf_counter, "")
    height, width = cv2.imread(str(images[0])).shape[:2]
    print(f"{args.sequence.name}, {len(images)} frames, {width} x {height}, box {box}; {args.threads} threads; "
          f"milliseconds{of}, medians over the frames after the first\n{' | '.join(COLUMNS)}", flush=True)
    fine = True
    with folder_of_weights(args.weights) as weights:
        write_recipe_checkpoints(weights, names)
        for model in args.models.glob("*.onnx") if args.models else ():
            shutil.copyfile(model, weights / model.name)
        for number, name in enumerate(names, 1):
            print(f"{number} of {len(names)}: {name} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
            cells, good = row(name, images, box, args.threads, weights, clock)
            print(" | ".join(cells), flush=True)
            fine &= good
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
