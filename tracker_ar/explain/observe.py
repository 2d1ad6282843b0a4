"""One frame of a tracker with the results of its stages, as the stages themselves tell them: see `tracker_ar.trace`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tracker_ar.base.dimp import DiMPTracker
from tracker_ar.crops import RefinerCrop, SearchRegion
from tracker_ar.errors import InputError
from tracker_ar.geometry import Region
from tracker_ar.prediction import Prediction, Refinement, single
from tracker_ar.trace import listening
from tracker_ar.tracker import AlphaRefineTracker


@dataclass(frozen=True)
class Ascent:
    """The boxes that were refined, x, y, w, h in pixels of the search region, (n, 4), and their scores, (n,).

    A score is what the IoU network says of a box. Trained as in ATOM it is an overlap, 0 to 1; trained as in
    PrDiMP, like both profiles, it is a log-likelihood without its constant, and of any size.
    """

    start: np.ndarray
    start_scores: np.ndarray
    end: np.ndarray
    end_scores: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """What the stages made of one frame.

    image: (H, W, 3) uint8 RGB. region: what the base tracker saw of it. scores: (h, w) float32, the score
    map; decision: what was read from it. ascent: None where the target was not found. crop: what the
    refiner saw. correlation: (p * p, h, w) float32, the response of each of p x p cells of the target, row by
    row, at each cell of the crop. refinement: of the box, and the mask with its probabilities, where the refiner makes
    one. threshold: above which a pixel is target. prediction: what the tracker reports.
    """

    image: np.ndarray
    region: SearchRegion
    scores: np.ndarray
    decision: str
    ascent: Ascent | None
    crop: RefinerCrop
    correlation: np.ndarray
    refinement: Refinement
    threshold: float
    prediction: Prediction


@dataclass(frozen=True)
class Reference:
    """The first frame, (H, W, 3) uint8 RGB, and what the refiner saw of the target in it."""

    image: np.ndarray
    crop: RefinerCrop


class Notes:
    """A listener that remembers the last result of every name."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Times do not matter here."""
        return nullcontext()

    def note(self, name: str, value: Any) -> None:
        """Remember it."""
        self.last[name] = value


def start(tracker: AlphaRefineTracker, image: np.ndarray, region: Region) -> Reference:
    """`tracker.initialize(image, region)`, and what it showed to the refiner. Errors as there; InputError for a tracker
    without a refiner, and for a base tracker that is not of the DiMP family."""
    name = tracker.profile.name
    if not isinstance(tracker.base, DiMPTracker):
        raise InputError(f"The base tracker of {name} has no stages that can be shown: choose one of the DiMP family "
                         "with a refiner, such as lite or dimp50+ar34.")
    if tracker.refiner is None:
        raise InputError(f"{name} has no refiner: there is nothing to explain. Choose one with a refiner, such as "
                         f"{name}+lite.")
    notes = Notes()
    with listening(notes):
        tracker.initialize(image, region)
    return Reference(image, notes.last["reference crop"])


def explain_frame(tracker: AlphaRefineTracker, image: np.ndarray) -> Explanation:
    """Track one frame, as `tracker.track` does, and keep what its stages did. Errors as of `track`.

    The tracker's base must be of the DiMP family, and follow one target.
    """
    notes = Notes()
    with listening(notes):
        prediction = single(tracker.track(image))
    found = notes.last
    target = found["localisation"]
    crop, refinement = found["refined"]
    return Explanation(
        image=image,
        region=found["search regions"][0],
        scores=target.scores.numpy(),
        decision=target.decision.value,
        ascent=_ascent(*found["ascent"][:4]) if "ascent" in found else None,
        crop=crop,
        correlation=found["correlation"][0].float().cpu().numpy(),
        refinement=refinement,
        threshold=tracker.profile.refiner.threshold,
        prediction=prediction,
    )


def _ascent(start: torch.Tensor, before: torch.Tensor, end: torch.Tensor, after: torch.Tensor) -> Ascent:
    return Ascent(*(value.float().cpu().numpy() for value in (start, before, end, after)))
