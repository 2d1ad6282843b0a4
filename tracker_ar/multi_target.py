"""Several targets at once: one set of networks, one decoded image, masks that do not overlap."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tracker_ar.errors import InputError
from tracker_ar.geometry import Region, clip_box, mask_from_box, region_box
from tracker_ar.prediction import Prediction


class SingleTargetTracker(Protocol):
    """What follows one of the targets: `AlphaRefineTracker`, or another tracker with its contract."""

    profile: Any

    def initialize(self, image: np.ndarray, region: Region) -> None: ...

    def track(self, image: np.ndarray) -> Prediction: ...


class MultiTargetTracker:
    """Follows several targets through a video, each with a tracker of its own that shares the networks.

        tracker = MultiTargetTracker(build_tracker("lite"))
        tracker.initialize(first_frame, [mask, box])
        first, second = tracker.track(next_frame)

    Every prediction is that of a single tracker, less the pixels that another target claims more strongly:
    see `without_overlap`. One target is followed exactly as `AlphaRefineTracker` follows it. On a GPU several go
    through the networks in one batch, on a CPU one by one, which is as fast there.
    """

    def __init__(self, tracker: SingleTargetTracker) -> None:
        """tracker: every target gets a copy of it (`copy.copy`); it is never initialised itself."""
        self.profile = tracker.profile
        self._tracker = tracker
        self._targets: list[SingleTargetTracker] = []

    def initialize(self, image: np.ndarray, regions: Sequence[Region]) -> list[Prediction]:
        """Learn all targets anew; returns what was given: see `start_target`.

        image: (H, W, 3) uint8 RGB; grey and RGBA are taken as well. regions: one a target, each a mask
        (H, W), non-zero on the target, or a box x, y, w, h in pixels. Raises InputError for an image that
        cannot be used, no region, and a region that cannot be used, naming it; the targets of before then
        stay.
        """
        if not len(regions):
            raise InputError("There is no target: give at least one region.")
        self._targets, predictions = self._start(image, regions)
        self._rehearse(image, predictions)
        return without_overlap(predictions)

    def track(self, image: np.ndarray, new_regions: Sequence[Region] = ()) -> list[Prediction]:
        """Find all targets in the next frame, in the order in which they came.

        image: of the first frame's size. new_regions: of targets that are given in this frame; their
        predictions follow those of the others. Raises InputError for an image or new region that cannot be
        used and for a call before `initialize`; the next good frame is tracked as if the bad one had not
        been.
        """
        if not self._targets:
            raise InputError("track() was called before initialize(): give the first frame and its regions.")
        targets, given = self._start(image, new_regions)
        predictions = self._follow(image) + given
        if targets:
            self._targets += targets
            self._rehearse(image, predictions)
        return without_overlap(predictions)

    def _follow(self, image: np.ndarray) -> list[Prediction]:
        if not self._in_batches:
            return [target.track(image) for target in self._targets]
        from tracker_ar.batch import TargetBatch  # torch comes with it

        return TargetBatch(self._targets).track(image)

    def _rehearse(self, image: np.ndarray, predictions: Sequence[Prediction]) -> None:
        if self._in_batches:
            from tracker_ar.batch import TargetBatch

            TargetBatch(self._targets).rehearse(image, [prediction.box for prediction in predictions])

    @property
    def _in_batches(self) -> bool:
        return len(self._targets) > 1 and getattr(self._tracker, "in_batches", False)

    def _start(
        self, image: np.ndarray, regions: Sequence[Region]
    ) -> tuple[list[SingleTargetTracker], list[Prediction]]:
        targets = [copy.copy(self._tracker) for _ in regions]
        predictions = []
        for number, (target, region) in enumerate(zip(targets, regions), 1):
            try:
                predictions.append(start_target(target, image, region))
            except InputError as error:
                which = f"Target {number} of {len(targets)}: " if len(targets) > 1 else ""
                raise InputError(f"{which}{error}") from error
        return targets, predictions


def start_target(tracker: SingleTargetTracker, image: np.ndarray, region: Region) -> Prediction:
    """Initialise a tracker; what was given is the result, with score 1.

    image: (H, W, 3) uint8 RGB. A region that is a box gets the refiner's mask of what is in it, or the whole
    box where the tracker has no refiner or the refiner sees nothing.
    """
    tracker.initialize(image, region)
    region = np.asarray(region)
    size = np.shape(image)[:2]
    box = region_box(region, size)
    if region.ndim == 2:
        return Prediction(box, np.ascontiguousarray(region != 0, dtype=np.uint8), 1.0)
    refiner = getattr(tracker, "refiner", None)
    if refiner is None:
        return Prediction(box, mask_from_box(box, size), 1.0)
    inside = clip_box(box, size, tracker.profile.minimum_side)
    refined = refiner.refine(image, inside, learn=False)
    if not refined.mask.any():
        return Prediction(box, mask_from_box(inside, size), 1.0)
    return Prediction(box, refined.mask, 1.0, refined.probabilities)


def without_overlap(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions with every pixel in one mask at most.

    A pixel that several masks hold, which is one where several probabilities are over their threshold, goes
    to the target whose probability is highest there, to the earlier target where they are equal. Where a
    prediction brings no probabilities, its score stands for them; a mask that was given counts with 1.
    """
    if len(predictions) < 2:
        return list(predictions)
    shape = predictions[0].mask.shape
    strongest = np.zeros(shape, dtype=np.float32)
    owner = np.full(shape, -1, dtype=np.int32)
    for index, prediction in enumerate(predictions):
        claimed = prediction.mask != 0
        strength = prediction.score if prediction.probabilities is None else prediction.probabilities
        wins = claimed & ((owner < 0) | (strength > strongest))
        np.copyto(strongest, np.float32(strength), where=wins)
        owner[wins] = index
    return [replace(prediction, mask=(owner == index).astype(np.uint8))
            for index, prediction in enumerate(predictions)]
