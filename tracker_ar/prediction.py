"""What the parts of a tracker say of a frame, and what a base tracker and a refiner must offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tracker_ar.frame import Frame
from tracker_ar.geometry import Region


class State(str, Enum):
    """What is known of a target after a frame."""

    FOUND = "found"
    UNCERTAIN = "uncertain"
    LOST = "lost"


@dataclass(frozen=True)
class Prediction:
    """The target in one frame.

    box: (4,) float64 x, y, w, h in pixels: the box that goes back to the base tracker (`Profile.feedback`): its own,
    clipped to the image, or the refined one.
    mask: (H, W) uint8 {0, 1}, C-contiguous, of the image's size; may be empty.
    score: confidence of the base tracker, 0 to 1; of the refiner, where the base tracker gives none.
    probabilities: (H, W) float32, of the target, from which the mask was made; None where there are none.
    state: None from trackers that do not say it. Of a lost target the mask is empty and the box the last one.
    """

    box: np.ndarray
    mask: np.ndarray
    score: float
    probabilities: np.ndarray | None = None
    state: State | None = None


@dataclass(frozen=True)
class BaseResult:
    """What a base tracker says of one target in one frame.

    box: (4,) float64 x, y, w, h in image pixels; may reach beyond the image.
    score: confidence, 0 to 1, or None from a tracker that knows none.
    """

    box: np.ndarray
    score: float | None


@dataclass(frozen=True)
class Refinement:
    """What a refiner says of one target in one frame.

    box: (4,) float64 x, y, w, h in image pixels: refined, or the box that was given where the refiner sees nothing.
    mask: (H, W) uint8 {0, 1}, C-contiguous; None from a refiner without a mask branch.
    score: confidence, 0 to 1: for a mask the mean probability of its pixels, 0 where it is empty.
    probabilities: (H, W) float32, from which the mask was made; None where there is no mask.
    presence: the probability that the target is where was looked; quality: the expected overlap of the mask with the
    target, 0 to 1. None from a refiner that does not judge itself.
    """

    box: np.ndarray
    mask: np.ndarray | None
    score: float
    probabilities: np.ndarray | None = None
    presence: float | None = None
    quality: float | None = None


class Tracker(Protocol):
    """What follows all targets of a video: `tracker_ar.tracker.AlphaRefineTracker` is one."""

    profile: Any

    def initialize(self, image: np.ndarray, region: list[Region]) -> list[Prediction]: ...

    def track(self, image: np.ndarray) -> Prediction | list[Prediction]: ...

    def add(self, image: np.ndarray, region: Region) -> Prediction: ...


def listed(found: Prediction | list[Prediction]) -> list[Prediction]:
    """What `Tracker.track` returned, as a list however many targets are followed."""
    return found if isinstance(found, list) else [found]


def single(found: Prediction | list[Prediction]) -> Prediction:
    """What `Tracker.track` returned of the one target that is followed. Raises ValueError where there are others."""
    (prediction,) = listed(found)
    return prediction


@dataclass(frozen=True)
class Verdict:
    """What is believed of a target after a frame. box: (4,) float64 x, y, w, h in image pixels, from which the base
    tracker goes on. score: that the target is there, 0 to 1. trusted: whether the refined box is believed."""

    state: State
    box: np.ndarray
    score: float
    trusted: bool

    @property
    def learns(self) -> bool:
        """Whether the frame teaches."""
        return self.state is State.FOUND and self.trusted


class BaseTracker(Protocol):
    """One engine for all targets: it holds networks and settings and does not change while it tracks.

    All that is known of one target is in what `start` returns, an object of the engine's own class (a dataclass as a
    rule). One target is the ordinary case; several are given in one call so that an engine may compute them together.
    An engine with networks has a `runner` (`tracker_ar.engine.runner.Runner`) too, which can move them to another
    device.
    """

    def start(self, frame: Frame, box: np.ndarray) -> Any:
        """Learn a target. box: (4,) float64 x, y, w, h in pixels, of positive size."""

    def track(self, frame: Frame, targets: Sequence[Any]) -> list[BaseResult]:
        """Find every target in the next frame and remember where it is; one result per target, in their order."""

    def correct(self, target: Any, box: np.ndarray) -> None:
        """Continue from this box, (4,) x, y, w, h, instead of from the one last returned."""


@runtime_checkable
class FedBack(BaseTracker, Protocol):
    """A base tracker that waits for what the refiner says before it learns."""

    def settle(self, target: Any, found: BaseResult, refined: Refinement | None) -> Verdict:
        """End a frame of a target. found: what `track` said. refined: what the refiner made of it, None without one."""


class Refiner(Protocol):
    """One engine for all targets, as `BaseTracker`: turns boxes into masks or more precise boxes."""

    def start(self, frame: Frame, region: Region) -> Any:
        """Remember a target. region: a mask (H, W), non-zero on the target, or a box x, y, w, h in pixels.
        Raises InputError for a region that cannot be used."""

    def refine(
        self, frame: Frame, targets: Sequence[Any], boxes: Sequence[np.ndarray], learn: Sequence[bool]
    ) -> list[Refinement]:
        """Every target near its box, (4,) x, y, w, h in pixels. learn: whether it may be learned from this frame."""

    def look(self, frame: Frame, target: Any, box: np.ndarray) -> Refinement:
        """One target near a box, without remembering anything of it."""


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
