"""One frame of a tracker with the results of its stages noted down, without a hook in the runtime.

For the time of that frame a few functions of the runtime are replaced by ones that call them and remember.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tracker_ar.base import dimp as super_dimp
from tracker_ar.crops import RefinerCrop, SearchRegion, refiner_crop
from tracker_ar.geometry import Region, region_box
from tracker_ar.models.neck import CorrelationNeck
from tracker_ar.refine import Refinement, Refiner
from tracker_ar.tracker import AlphaRefineTracker, Prediction


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
    row, at each cell of the crop. refinement: the mask and its probabilities. threshold: above which a pixel
    is target. prediction: what the tracker reports.
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


@dataclass(frozen=True)
class _Call:
    arguments: tuple
    result: Any


def reference_of(tracker: AlphaRefineTracker, image: np.ndarray, region: Region) -> Reference:
    """What `tracker.initialize(image, region)` showed to the refiner."""
    settings = tracker.profile.refiner
    box = region_box(region, image.shape[:2])
    return Reference(image, refiner_crop(image, box, settings.search_factor, settings.input_size))


def explain_frame(tracker: AlphaRefineTracker, image: np.ndarray) -> Explanation:
    """Track one frame, as `tracker.track` does, and keep what its stages did. Errors as of `track`.

    The tracker's base must be SuperDiMP.
    """
    with (
        tracker.base.graphs.paused(),
        tracker.refiner.graphs.paused(),
        _observed(super_dimp, "sample_patch") as regions,
        _observed(super_dimp, "ascend") as ascents,
        _observed(CorrelationNeck, "correlate") as correlations,
        _observed(Refiner, "refine") as refinements,
    ):
        prediction = tracker.track(image)
    settings = tracker.profile.refiner
    return Explanation(
        image=image,
        region=regions[-1].result,
        scores=tracker.base.scores.numpy(),
        decision=tracker.base.decision.value,
        ascent=_ascent(ascents[-1]) if ascents else None,
        crop=refiner_crop(image, prediction.box, settings.search_factor, settings.input_size),
        correlation=correlations[-1].result[0].float().cpu().numpy(),
        refinement=refinements[-1].result,
        threshold=settings.threshold,
        prediction=prediction,
    )


@torch.inference_mode()
def _ascent(call: _Call) -> Ascent:
    predict, start = call.arguments[:2]
    end = call.result[0]
    # The predictor may give away its own buffers.
    values = (start, predict(start)[0].clone(), end, predict(end)[0].clone())
    return Ascent(*(value.float().cpu().numpy() for value in values))


@contextlib.contextmanager
def _observed(owner: Any, name: str) -> Iterator[list[_Call]]:
    """Within the block every call of the function `name` of a module or class is remembered."""
    function = getattr(owner, name)
    calls: list[_Call] = []

    def remembering(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        calls.append(_Call(arguments, result))
        return result

    setattr(owner, name, remembering)
    try:
        yield calls
    finally:
        setattr(owner, name, function)
