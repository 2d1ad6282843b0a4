"""Any object with `init(image, box)` and `update(image)` as a base tracker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tracker_ar.errors import InputError
from tracker_ar.frame import Frame
from tracker_ar.geometry import checked_box
from tracker_ar.prediction import BaseResult
from tracker_ar.trace import stage


class InitUpdate(Protocol):
    """The contract of the GOT-10k toolkit, of OpenCV and of many trackers besides.

    Boxes are x, y, w, h in pixels, 0-based. `update` returns a box, or a box with a score from 0 to 1, or, as
    OpenCV does, whether the target was found with a box.
    """

    def init(self, image: np.ndarray, box: np.ndarray) -> Any: ...

    def update(self, image: np.ndarray) -> Any: ...


@dataclass
class AdaptedTarget:
    """The object that follows one target, and its last box, (4,) x, y, w, h."""

    tracker: InitUpdate
    box: np.ndarray


class AdaptedTracker:
    """A `BaseTracker` around a class with `init` and `update`.

    The box that goes back into the base tracker reaches an object that has a method `correct(box)` itself.
    Others go on from their own box: starting them anew from a corrected one would lose what they have
    learned. Where the object reports no target, or a box that cannot be one, the last box stands, with
    score 0.
    """

    def __init__(self, create: Callable[[], InitUpdate]) -> None:
        """create: makes a new object for every target: a class, or a function (`cv2.TrackerMIL.create`)."""
        self._create = create

    def start(self, frame: Frame, box: np.ndarray) -> AdaptedTarget:
        """A new object, told of the target. box: (4,) x, y, w, h in pixels."""
        tracker = self._create()
        tracker.init(frame.pixels, box)
        return AdaptedTarget(tracker, checked_box(box))

    def track(self, frame: Frame, targets: Sequence[AdaptedTarget]) -> list[BaseResult]:
        """Find every target in the next frame. The score is None where the object gives none. Raises InputError where
        it returns something else than it should."""
        return [self._update(frame, target) for target in targets]

    def correct(self, target: AdaptedTarget, box: np.ndarray) -> None:
        """Continue from this box, (4,) x, y, w, h, if the object can."""
        correct = getattr(target.tracker, "correct", None)
        if correct is not None:
            correct(box)
            target.box = box

    def _update(self, frame: Frame, target: AdaptedTarget) -> BaseResult:
        with stage("base tracker"):
            found, score, box = _read(target.tracker.update(frame.pixels))
        if not (found and np.isfinite(box).all() and min(box[2:]) > 0):
            return BaseResult(target.box, 0.0)
        target.box = box
        return BaseResult(box, score)


def _read(answer: Any) -> tuple[bool, float | None, np.ndarray]:
    """Whether the target was found, the score or None, and the box (4,) float64, as `update` said."""
    found, score, box = True, None, answer
    if isinstance(answer, tuple) and len(answer) == 2:
        said, box = answer if np.ndim(answer[0]) == 0 else reversed(answer)
        if isinstance(said, (bool, np.bool_)):
            found = bool(said)
        else:
            score = said
    try:
        values = np.array(box, dtype=np.float64)
        score = None if score is None else float(np.clip(score, 0, 1))
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (4,):
        raise InputError(f"The base tracker's update() returned {answer!r:.80}: it should be a box x, y, w, "
                         "h, a box and a score, or whether the target was found and a box.")
    return found, score, values
