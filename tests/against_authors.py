"""Our `vot2020` beside the authors' code: `python tests/against_authors.py --authors DIR`.

Both trackers run on the CPU in one process, in turn on each frame, with the same weights (the recipe of the
parity tests, so no download), the same random draws, and the same state before every frame: with such weights
a free run is chaotic. Prints ms per frame and per stage, the ratio, and how far boxes and masks agree;
exits with 1 when they do not. The authors' code is not part of this project: fetch its branch `vot2020` and
name its folder.

Such weights often score too low for the target to count as found, and then a frame skips half of the base
tracker's work. So the threshold for that is 0 on both sides; `--published-threshold` leaves it.

Its Precise RoI pooling, a CUDA extension, is replaced by this project's plain torch operator with the
gradient by autograd: not the closed form that our own box ascent uses. The rest runs as published.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from authors_code import build_authors, calls_of_authors, find_code, replaced, watched  # noqa: E402
from recipe import MASK_REFINER, SUPER_DIMP  # noqa: E402
from recorded import load_recipe  # noqa: E402

from tracker_ar import zoo  # noqa: E402
from tracker_ar.base import overlap  # noqa: E402
from tracker_ar.base.dimp import DiMPTracker  # noqa: E402
from tracker_ar.base.overlap import Place  # noqa: E402
from tracker_ar.data.synthetic.procedural import LENGTH, _deforming, render  # noqa: E402
from tracker_ar.engine.runner import Runner  # noqa: E402
from tracker_ar.errors import AlphaRefineError  # noqa: E402
from tracker_ar.evaluate.metrics import region_similarity  # noqa: E402
from tracker_ar.evaluate.scores import find_sequences, read_frames  # noqa: E402
from tracker_ar.models.alpha_refine import build_mask_refiner  # noqa: E402
from tracker_ar.models.dimp import build_dimp  # noqa: E402
from tracker_ar.refine.refiner import SegmentingRefiner  # noqa: E402
from tracker_ar.speed.stages import StageMeter  # noqa: E402
from tracker_ar.trace import listening  # noqa: E402
from tracker_ar.tracker import CPU, AlphaRefineTracker  # noqa: E402

VOT2020 = zoo.profile("vot2020")

WARM_UP = 3
# Of the median frame: rounding alone gives about 1e-4 pixels, and now and then moves a crop by one.
MOST_PIXELS, LEAST_OVERLAP = 0.01, 0.999


class SharedDraws:
    """Draws from torch's global generator, call by call as the authors' code does."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)

    def augmentation_shifts(self, count: int) -> torch.Tensor:
        return torch.stack([torch.rand(2) for _ in range(count)])

    def kept_channels(self, samples: int, channels: int, dropout: float) -> torch.Tensor:
        ones = torch.ones(samples, channels, 1, 1)
        return functional.dropout2d(ones, dropout, training=True)[:, :, 0, 0] > 0

    def box_noise(self, count: int) -> torch.Tensor:
        return torch.rand(count, 4)


@dataclass
class Side:
    """What one tracker took: seconds of each frame, and of its stages."""

    frames: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)

    def stage(self, name: str) -> float | None:
        """Median milliseconds over the frames in which the stage ran; None if it never did."""
        spent = [stages[name] for stages in self.stages if name in stages]
        return 1e3 * float(np.median(spent)) if spent else None


def ratios(ours: Sequence[float], authors: Sequence[float]) -> dict[str, float]:
    """Ours over the authors': of the medians, of the minima, and the median of the ratios of each frame."""
    ours, authors = np.asarray(ours), np.asarray(authors)
    return {
        "medians": float(np.median(ours) / np.median(authors)),
        "fastest frames": float(ours.min() / authors.min()),
        "frame by frame": float(np.median(ours / authors)),
    }


def build_ours(not_found_threshold: float) -> AlphaRefineTracker:
    """The challenge entry as this project runs it, with the recipe's weights."""
    localization = replace(VOT2020.base.localization, not_found_threshold=not_found_threshold)
    settings = replace(VOT2020.base, localization=localization)
    base = DiMPTracker(Runner(load_recipe(build_dimp(), SUPER_DIMP), CPU), settings)
    refiner = SegmentingRefiner(Runner(load_recipe(build_mask_refiner(), MASK_REFINER), CPU), VOT2020.refiner)
    return AlphaRefineTracker(base, refiner, VOT2020)


def read_sequence(folder: Path | None, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """At most `count` RGB frames and the first one's mask: of a folder in the VOT layout, or rendered.

    Raises DataError for a folder that is not one.
    """
    if folder is None:
        images, masks = zip(*(render(_deforming(), frame) for frame in range(min(count, LENGTH))))
        return list(images), masks[0]
    frames = list(islice(read_frames(find_sequences([folder])[0]), count))
    image, truth = frames[0]
    mask = truth.mask
    if mask is None:
        mask = np.zeros(image.shape[:2], np.uint8)
        x, y, width, height = np.rint(truth.box).astype(int)
        mask[max(y, 0) : y + height, max(x, 0) : x + width] = 1
    return [image for image, _ in frames], np.ascontiguousarray(mask, np.uint8)


def put_state(authors: Any, ours: AlphaRefineTracker) -> None:
    """Let our base tracker go on from where the authors' is."""
    theirs, target = authors.dimp, ours._targets[0].base
    target.place = Place(theirs.pos.clone(), theirs.target_sz.clone(), torch.as_tensor(theirs.target_scale).clone())
    target.filter = theirs.target_filter.detach().clone().reshape(target.filter.shape)
    if hasattr(theirs, "pos_iounet"):
        target.refined = theirs.pos_iounet.clone()


def compare(authors: Any, ours: AlphaRefineTracker, images: list[np.ndarray], mask: np.ndarray) -> bool:
    """Run both over the frames and print what was seen; whether they agree."""
    sides = {"authors": Side(), "ours": Side()}
    meters = {name: StageMeter(time.perf_counter) for name in sides}
    errors, overlaps, flags = [], [], 0
    with ExitStack() as stack:
        stack.enter_context(replaced(overlap, "RandomSource", SharedDraws))
        torch.manual_seed(0)
        authors.initialize(images[0], mask)
        ours.initialize(images[0], mask)
        stack.enter_context(watched(calls_of_authors(authors), meters["authors"]))
        stack.enter_context(listening(meters["ours"]))
        run = {"authors": authors.track, "ours": ours.track}
        for number, image in enumerate(images[1:], 1):
            put_state(authors, ours)
            results = {}
            for name in sorted(sides, reverse=bool(number % 2)):  # each is first in every second frame
                torch.manual_seed(number)
                begun = time.perf_counter()
                results[name] = run[name](image)
                seconds = time.perf_counter() - begun
                spent = meters[name].take()
                if number > WARM_UP:
                    sides[name].frames.append(seconds)
                    sides[name].stages.append(spent)
            box, their_mask, *_ = results["authors"]
            errors.append(float(np.abs(np.array(box) - results["ours"].box).max()))
            overlaps.append(region_similarity(their_mask, results["ours"].mask))
            flag = authors.dimp.debug_info["flag"]
            flags += flag == ours._targets[0].base.decision.value
            print(f"frame {number:3}: authors {flag:13} box {errors[-1]:8.4f} px apart, overlap"
                  f" of masks {overlaps[-1]:.5f} ({int(their_mask.sum())} pixels)", flush=True)
    show(sides)
    agree = float(np.median(errors)) <= MOST_PIXELS and float(np.median(overlaps)) >= LEAST_OVERLAP
    print(f"\nBoxes apart: median {np.median(errors):.4f} px, most {max(errors):.4f}\n"
          f"overlap of masks: median {np.median(overlaps):.5f}, least {min(overlaps):.5f}\n"
          f"decisions equal in {flags} of {len(errors)}: {'they agree' if agree else 'THEY DO NOT AGREE'}")
    return agree


def show(sides: dict[str, Side]) -> None:
    """Print the times of both, and their ratios."""
    authors, ours = sides["authors"], sides["ours"]
    print(f"\nms per frame over {len(ours.frames)} frames after {WARM_UP} of warm-up, "
          f"{torch.get_num_threads()} threads\n{'':26}{'authors':>9}{'ours':>9}{'ratio':>8}")
    quantiles = {"fastest": 0, "quarter": 25, "median": 50, "three quarters": 75, "slowest": 100}
    for label, quantile in quantiles.items():
        pair = [1e3 * float(np.percentile(side.frames, quantile)) for side in (authors, ours)]
        print(f"{label:26}{pair[0]:9.1f}{pair[1]:9.1f}{pair[1] / pair[0]:8.2f}")
    print("median of the stage, where it ran")
    for name in dict.fromkeys(name for side in (ours, authors) for stages in side.stages for name in stages):
        first, second = authors.stage(name), ours.stage(name)
        if first is not None and second is not None:
            print(f"  {name:24}{first:9.1f}{second:9.1f}{second / first:8.2f}")
    found = [number for number, stages in enumerate(authors.stages) if "box refinement" in stages]
    for label, chosen in (("all frames", range(len(ours.frames))), ("frames with box refinement", found)):
        pair = [[side.frames[number] for number in chosen] for side in (ours, authors)]
        if chosen:
            values = ", ".join(f"{name} {value:.3f}" for name, value in ratios(*pair).items())
            print(f"ours / authors, {len(chosen)} {label}: {values}")
    print("The authors' Precise RoI pooling: this project's plain torch operator, gradients by autograd.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when both agree, 1 when they do not, 2 for what cannot be run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--authors", type=Path, required=True, help="checkout of the authors' branch vot2020")
    parser.add_argument("--frames", type=int, default=20, help="to track, with the warm-up (default: 20)")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--sequence", type=Path, help="in the VOT layout (default: a rendered one)")
    parser.add_argument("--published-threshold", action="store_true", help="let targets count as not found")
    args = parser.parse_args(arguments)
    if args.frames <= WARM_UP or args.threads < 1:
        parser.error(f"give more than {WARM_UP} frames (that many are warm-up) and at least one thread")
    torch.set_num_threads(args.threads)
    try:
        find_code(args.authors)
        images, mask = read_sequence(args.sequence, args.frames + 1)
        if len(images) <= WARM_UP + 1:
            parser.error(f"the sequence has only {len(images)} frames: at least {WARM_UP + 2} are needed")
        threshold = VOT2020.base.localization.not_found_threshold if args.published_threshold else 0.0
        authors = build_authors(args.authors)
        authors.dimp.params.target_not_found_threshold = threshold
        return 0 if compare(authors, build_ours(threshold), images, mask) else 1
    except AlphaRefineError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
