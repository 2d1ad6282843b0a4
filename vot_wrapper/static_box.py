"""Tracker id ``StaticBox``: the box of the first frame for ever. The least that a tracker must beat."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vot_wrapper.launch import launch

if TYPE_CHECKING:
    import numpy as np

    from tracker_ar.multi_target import SingleTargetTracker
    from tracker_ar.prediction import Prediction


def make_tracker() -> SingleTargetTracker:
    """A tracker without weights."""
    from types import SimpleNamespace

    from tracker_ar.geometry import box_from_mask, mask_from_box
    from tracker_ar.prediction import Prediction

    class StaticBox:
        profile = SimpleNamespace(name="static-box")

        def initialize(self, image: np.ndarray, region: np.ndarray) -> None:
            self.box = region if region.ndim == 1 else box_from_mask(region)

        def track(self, image: np.ndarray) -> Prediction:
            return Prediction(self.box, mask_from_box(self.box, image.shape[:2]), 1.0)

    return StaticBox()


if __name__ == "__main__":
    sys.exit(launch(make_tracker))
