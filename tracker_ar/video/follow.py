"""The loop over the frames: every target in every frame, whatever the frames are like."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Literal

import numpy as np

from tracker_ar.errors import InputError
from tracker_ar.geometry import clip_box, mask_from_box, region_box
from tracker_ar.tracker import AlphaRefineTracker, Prediction, build_tracker
from tracker_ar.video.sources import Frame

State = Literal["given", "tracked", "repeated"]


@dataclass(frozen=True)
class TrackedFrame:
    """All targets in one frame.

    number, name: as the source has them.
    image: (H, W, 3) uint8 RGB, the last usable one where this frame is not.
    predictions: one a target; their masks do not overlap.
    state: 'given' for the first frame, 'tracked', or 'repeated' where the frame could not be used and the
        result of the one before stands again; problem: why not.
    seconds: spent on finding the targets.
    """

    number: int
    name: str
    image: np.ndarray
    predictions: list[Prediction]
    state: State
    problem: str = ""
    seconds: float = 0.0


def build_trackers(
    count: int, profile: str, device: str = "auto", checkpoint: str | PathLike[str] | None = None
) -> list[AlphaRefineTracker]:
    """`count` trackers that share one set of networks; arguments and errors as of `build_tracker`."""
    return copies_of(build_tracker(profile, device, checkpoint), count)


def copies_of(fresh: AlphaRefineTracker, count: int) -> list[AlphaRefineTracker]:
    """`count` trackers with the networks of one that was never initialised, which itself stays so."""
    # What a tracker learns it keeps beside its networks and settings, so shallow copies of a fresh one share
    # nothing that changes.
    return [
        AlphaRefineTracker(copy.copy(fresh.base), copy.copy(fresh.refiner), fresh.profile)
        for _ in range(count)
    ]


def follow(
    first: Frame,
    further: Iterable[Frame],
    regions: Sequence[np.ndarray],
    trackers: Sequence[AlphaRefineTracker],
) -> Iterator[TrackedFrame]:
    """Initialise every tracker with its region in the first frame, then track; a result for every frame.

    A frame that is not decoded, or that the trackers refuse with InputError (one of another size), repeats
    the result before it, and tracking goes on with the next one.
    """
    started = time.perf_counter()
    pairs = zip(trackers, regions, strict=True)
    predictions = without_overlap([start_target(tracker, first.image, region) for tracker, region in pairs])
    seconds = time.perf_counter() - started
    yield TrackedFrame(first.number, first.name, first.image, predictions, "given", seconds=seconds)
    image = first.image
    for frame in further:
        started = time.perf_counter()
        try:
            if frame.image is None:
                raise InputError("The frame cannot be decoded.")
            found = [tracker.track(frame.image) for tracker in trackers]
        except InputError as error:
            yield TrackedFrame(frame.number, frame.name, image, predictions, "repeated", str(error))
            continue
        predictions, image = without_overlap(found), frame.image
        seconds = time.perf_counter() - started
        yield TrackedFrame(frame.number, frame.name, image, predictions, "tracked", seconds=seconds)


def start_target(tracker: AlphaRefineTracker, image: np.ndarray, region: np.ndarray) -> Prediction:
    """Initialise a tracker; what was given is the result, with score 1.

    A region that is a box gets the refiner's mask of what is in it, or the whole box where the refiner sees
    nothing.
    """
    tracker.initialize(image, region)
    box = region_box(region, image.shape[:2])
    if region.ndim == 2:
        return Prediction(box, np.ascontiguousarray(region != 0, dtype=np.uint8), 1.0)
    inside = clip_box(box, image.shape[:2], tracker.profile.minimum_side)
    mask = tracker.refiner.refine(image, inside).mask
    return Prediction(box, mask if mask.any() else mask_from_box(inside, image.shape[:2]), 1.0)


def without_overlap(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions with every pixel in one mask at most.

    A pixel that several claim goes to the higher score, to the earlier target where scores are equal.
    """
    order = sorted(range(len(predictions)), key=lambda index: (predictions[index].score, -index))
    owner = np.full(predictions[0].mask.shape, -1, dtype=np.int16)
    for index in order:
        owner[predictions[index].mask != 0] = index
    return [replace(prediction, mask=(owner == index).astype(np.uint8))
            for index, prediction in enumerate(predictions)]
