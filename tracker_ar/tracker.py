"""AlphaRefine: a base tracker finds the targets, the refiner turns their boxes into masks.

The order of one frame: the base tracker's box is clipped to the image, and the refiner makes a mask or a better box
from it. What goes back to the base tracker is the clipped base box in the VOT2020 real-time entry, and the clipped
refined box in Alpha-Refine's scripts for LaSOT, TrackingNet and GOT-10k (`Profile.feedback`). A base tracker that
is `FedBack` is told both boxes and decides itself which of them it goes on from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast, overload

import numpy as np
import torch

from tracker_ar.engine.fallback import announce, is_out_of_memory
from tracker_ar.errors import InputError
from tracker_ar.frame import Frame
from tracker_ar.geometry import Region, checked_box, clip_box, mask_from_box, region_box
from tracker_ar.prediction import (
    BaseResult,
    BaseTracker,
    FedBack,
    Prediction,
    Refinement,
    Refiner,
    State,
    without_overlap,
)
from tracker_ar.profile import Profile

CPU = torch.device("cpu")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Target:
    """One target: what base tracker and refiner know of it, where it was last, (4,) x, y, w, h, and its first frame and
    region, where they may be needed again."""

    base: Any
    refiner: Any
    box: np.ndarray
    first: tuple[Frame, Region] | None


class AlphaRefineTracker:
    """Follows one target or several through a video: `initialize` with the first frame, then `track` each further one.

        tracker.initialize(first_frame, mask)          # one target: one prediction per frame
        tracker.initialize(first_frame, [mask, box])   # several: a list of predictions per frame, in this order

    Masks of several targets do not overlap (`without_overlap`). One target is followed in the same way alone and beside
    others. Targets may be added and removed while tracking; the results are lists from then on.
    When the GPU runs out of memory it goes on on the CPU, with a RuntimeWarning; what was learned since the first
    frame is then lost, but not where the targets are.
    """

    def __init__(self, base: BaseTracker, refiner: Refiner | None, profile: Profile) -> None:
        """refiner: None reports the base tracker's box as the mask."""
        self.base = base
        self.refiner = refiner
        self.profile = profile
        self._size: tuple[int, int] | None = None
        self._targets: list[_Target] = []
        self._several = False

    @overload
    def initialize(self, image: np.ndarray, region: Region) -> Prediction: ...

    @overload
    def initialize(self, image: np.ndarray, region: list[Region]) -> list[Prediction]: ...

    def initialize(self, image: np.ndarray, region: Region | list[Region]) -> Prediction | list[Prediction]:
        """Learn the target or targets anew; returns what is known of the first frame.

        image: (H, W, 3) uint8 RGB; grey and RGBA are taken as well. region: a mask (H, W), non-zero on the target, or a
        box x, y, w, h in pixels (0-based, top-left origin); a list of them for several targets. What was given is the
        result, with score 1; in a box the mask is what the refiner sees. Raises InputError for an image or region that
        cannot be used, naming the target; the tracker then keeps the targets it had.
        """
        several = are_several(region)
        regions = cast("list[Region]", list(region) if several else [region])
        if not regions:
            raise InputError("There is no target: give at least one region.")
        frame = Frame.of(image)
        targets, predictions = self._safely(lambda: self._started(frame, regions))
        self._size, self._targets, self._several = frame.size, targets, several
        self._safely(lambda: self._warm_up(frame))
        return without_overlap(predictions) if several else predictions[0]

    def add(self, image: np.ndarray, region: Region) -> Prediction:
        """Follow one more target, given in this frame of the video; it comes last in the results.

        The frame itself is tracked by `track`, before or after. Raises InputError as `initialize`, and before it.
        """
        frame = self._checked(image, "add")
        targets, predictions = self._safely(lambda: self._started(frame, [region]))
        self._targets += targets
        self._several = True
        self._safely(lambda: self._warm_up(frame))
        return predictions[0]

    def remove(self, index: int) -> None:
        """Follow the target at this place of the results no longer. Raises InputError where there is none."""
        self._targets.remove(self._at(index))
        self._several = True

    def correct(self, index: int, box: np.ndarray) -> None:
        """Continue from this box, (4,) x, y, w, h in pixels, with the target at this place of the results (0-based).

        Base trackers of one's own follow it where they can. Raises InputError where there is no such target.
        """
        target = self._at(index)
        target.box = checked_box(box)
        self.base.correct(target.base, target.box)

    def track(self, image: np.ndarray) -> Prediction | list[Prediction]:
        """Find the target or targets in the next frame, an image of the first frame's size.

        Returns one prediction where `initialize` was given one region, else a list. Raises InputError for an image that
        cannot be used and for a call before `initialize`; the next good frame is tracked as if the bad one had not
        been.
        """
        frame = self._checked(image, "track")
        predictions = self._safely(lambda: self._follow(frame))
        return without_overlap(predictions) if self._several else predictions[0]

    def _at(self, index: int) -> _Target:
        if not 0 <= index < len(self._targets):
            raise InputError(f"There is no target {index}: there are {len(self._targets)}, counted from 0.")
        return self._targets[index]

    # ---- one frame

    def _checked(self, image: np.ndarray, verb: str) -> Frame:
        if self._size is None:
            raise InputError(f"{verb}() was called before initialize(): give the first frame and its region first.")
        frame = Frame.of(image)
        if frame.size != self._size:
            raise InputError(
                f"The frame is {frame.size[1]} x {frame.size[0]} pixels, the first one was "
                f"{self._size[1]} x {self._size[0]}: scale the frames of a video to one size."
            )
        return frame

    def _follow(self, frame: Frame) -> list[Prediction]:
        targets = self._targets
        found = self.base.track(frame, [target.base for target in targets])
        boxes = [clip_box(result.box, frame.size, self.profile.minimum_side) for result in found]
        sure = [result.score is None or result.score >= self.profile.confident_score for result in found]
        refined: Sequence[Refinement | None] = [None] * len(targets)
        if self.refiner is not None:
            given = boxes
            if self.profile.feedback == "refined":  # the scripts that feed it back hand the base box over as it is
                given = [_usable(result.box, box, frame) for result, box in zip(found, boxes)]
            refined = self.refiner.refine(frame, [target.refiner for target in targets], given, sure)
        predictions = []
        for target, result, box, refinement in zip(targets, found, boxes, refined):
            prediction = self._prediction(frame, result, box, refinement)
            if isinstance(self.base, FedBack):
                prediction = self._settled(frame, target, result, refinement, prediction)
            else:
                target.box = clip_box(prediction.box, frame.size, self.profile.minimum_side)
                self.base.correct(target.base, target.box)
            predictions.append(prediction)
        return predictions

    def _settled(
        self, frame: Frame, target: _Target, found: BaseResult, refined: Refinement | None, prediction: Prediction
    ) -> Prediction:
        """The prediction as the base tracker sees it, which goes on from its own choice of both boxes."""
        assert isinstance(self.base, FedBack)
        verdict = self.base.settle(target.base, found, refined)
        target.box = clip_box(verdict.box, frame.size, self.profile.minimum_side)
        if verdict.state is State.LOST:
            return Prediction(target.box, np.zeros_like(prediction.mask), verdict.score, state=State.LOST)
        box = target.box
        if refined is not None and verdict.trusted:
            box = clip_box(refined.box, frame.size, self.profile.minimum_side)
        return replace(prediction, box=box, score=verdict.score, state=verdict.state)

    def _prediction(
        self, frame: Frame, found: BaseResult, box: np.ndarray, refined: Refinement | None
    ) -> Prediction:
        if refined is None:
            return Prediction(box, mask_from_box(box, frame.size), 1.0 if found.score is None else found.score)
        score = refined.score if found.score is None else found.score
        if self.profile.feedback == "refined":
            box = refined.box
        mask = mask_from_box(box, frame.size) if refined.mask is None else refined.mask
        return Prediction(box, mask, score, refined.probabilities)

    # ---- starting

    def _started(self, frame: Frame, regions: Sequence[Region]) -> tuple[list[_Target], list[Prediction]]:
        """New targets and what is known of them in this frame."""
        targets, predictions = [], []
        for number, region in enumerate(regions, 1):
            try:
                target = self._start(frame, region)
                predictions.append(self._first_prediction(frame, target, region))
            except InputError as error:
                which = f"Target {number} of {len(regions)}: " if len(regions) > 1 else ""
                raise InputError(f"{which}{error}") from error
            targets.append(target)
        return targets, predictions

    def _start(self, frame: Frame, region: Region) -> _Target:
        box = region_box(region, frame.size)
        return _Target(*self._learned(frame, region, box), box, self._kept(frame, region))

    def _learned(self, frame: Frame, region: Region, box: np.ndarray) -> tuple[Any, Any]:
        base = self.base.start(frame, box)
        return base, None if self.refiner is None else self.refiner.start(frame, region)

    def _kept(self, frame: Frame, region: Region) -> tuple[Frame, Region] | None:
        """Copies of what a target is learned from, where that may have to be done again on the CPU."""
        return (Frame(frame.pixels.copy()), np.array(region)) if self._on_gpu() else None

    def _first_prediction(self, frame: Frame, target: _Target, region: Region) -> Prediction:
        if np.ndim(region) == 2:
            return Prediction(target.box, np.ascontiguousarray(np.asarray(region) != 0, dtype=np.uint8), 1.0)
        inside = clip_box(target.box, frame.size, self.profile.minimum_side)
        seen = None if self.refiner is None else self.refiner.look(frame, target.refiner, inside)
        if seen is None or seen.mask is None or not seen.mask.any():
            return Prediction(target.box, mask_from_box(inside, frame.size), 1.0)
        return Prediction(target.box, seen.mask, 1.0, seen.probabilities)

    def _warm_up(self, frame: Frame) -> None:
        """On a GPU record now what the next frames replay: a first replay would cost the first frame a second."""
        gpu = self._on_gpu()
        if self.base in gpu:
            self.base.track(frame, copy.deepcopy([target.base for target in self._targets]))
        if self.refiner is not None and self.refiner in gpu:
            targets = copy.deepcopy([target.refiner for target in self._targets])
            self.refiner.refine(frame, targets, [target.box for target in self._targets], [False] * len(targets))

    # ---- a GPU that is full

    def _on_gpu(self) -> list[Any]:
        """Those of both engines whose networks are not on the CPU."""
        parts: tuple[Any, ...] = (self.base, self.refiner)
        return [part for part in parts if getattr(part, "runner", None) is not None and part.runner.device != CPU]

    def _safely(self, action: Callable[[], Result]) -> Result:
        """Do this, on the CPU where a GPU turns out to be full: everything goes on there, the targets learned anew."""
        try:
            return action()
        except RuntimeError as error:
            if not self._on_gpu() or not is_out_of_memory(error):
                raise
            announce(error)
        self._move_to_cpu()
        return action()

    def _move_to_cpu(self) -> None:
        for engine in self._on_gpu():
            engine.runner.move_to(CPU)
        for target in self._targets:
            assert target.first is not None
            (frame, region), target.first = target.first, None
            target.base, target.refiner = self._learned(frame, region, region_box(region, frame.size))
            self.base.correct(target.base, target.box)


def are_several(region: Region | list[Region]) -> bool:
    """Whether this is a list of regions: a list or tuple whose entries are not numbers."""
    return isinstance(region, (list, tuple)) and (not region or np.ndim(region[0]) > 0)


def _usable(box: np.ndarray, clipped: np.ndarray, frame: Frame) -> np.ndarray:
    """The box itself, (4,) x, y, w, h, unless it is not finite, without a size or far larger than the frame."""
    sane = bool(np.isfinite(box).all()) and min(box[2:]) >= 1 and max(box[2:]) <= 2 * max(frame.size)
    return np.asarray(box, dtype=np.float64) if sane else clipped
