"""Several targets in one batch: each part of a frame goes through the networks once for all of them.

That is faster on a GPU, where a launch costs more than what it computes; on a CPU targets go one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracker_ar.frame import as_rgb_image
from tracker_ar.device_crops import uploaded_once
from tracker_ar.engine.fallback import on_cpu_when_full
from tracker_ar.engine.cuda_graphs import together
from tracker_ar.engine.precision import tf32_allowed
from tracker_ar.prediction import Prediction
from tracker_ar.tracker import AlphaRefineTracker, prediction_of


class TargetBatch:
    """Initialised trackers that share their networks and are `in_batches`. What one that runs alone would find, up to
    rounding; where the GPU is too small for all at once, they go on one by one on the CPU."""

    def __init__(self, trackers: Sequence[AlphaRefineTracker]) -> None:
        self._trackers = trackers

    def move_to_cpu(self) -> bool:
        """Go on on the CPU; False where that is so already."""
        return self._trackers[0].move_to_cpu()  # the others start again there with their next frame

    @on_cpu_when_full
    def rehearse(self, image: np.ndarray, boxes: Sequence[np.ndarray]) -> None:
        """Record now what the next frames replay. boxes: (4,) x, y, w, h in pixels, where the targets are in `image`."""
        if not self._trackers[0].in_batches:
            return
        image = as_rgb_image(image)
        with uploaded_once(image):
            together([tracker.base.rehearse(image) for tracker in self._trackers])
            together([tracker.refiner.rehearse(image, box) for tracker, box in zip(self._trackers, boxes)])

    @on_cpu_when_full
    def track(self, image: np.ndarray) -> list[Prediction]:
        """`AlphaRefineTracker.track` of every target. Errors as there."""
        if not self._trackers[0].in_batches:
            return [tracker.track(image) for tracker in self._trackers]
        image = [tracker.ready(image) for tracker in self._trackers][0]
        with uploaded_once(image), tf32_allowed(convolutions=False, products=False):
            found = together([tracker.base.steps(image) for tracker in self._trackers])
            accepted = [tracker.accept(result) for tracker, result in zip(self._trackers, found)]
            refined = together([
                tracker.refiner.steps(image, box, confident)
                for tracker, (box, confident) in zip(self._trackers, accepted)
            ])
        return [prediction_of(box, result, mask) for (box, _), result, mask in zip(accepted, found, refined)]
