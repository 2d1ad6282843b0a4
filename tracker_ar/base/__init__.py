"""Base trackers: they find the target and give a box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class BaseResult:
    """What a base tracker says of one frame.

    box: (4,) float64 x, y, w, h in image pixels; may reach beyond the image.
    score: confidence, 0 to 1, or None from a tracker that knows none.
    """

    box: np.ndarray
    score: float | None


class BaseTracker(Protocol):
    """What `AlphaRefineTracker` needs of a base tracker."""

    def initialize(self, image: np.ndarray, box: np.ndarray) -> None:
        """image: (H, W, 3) uint8 RGB; box: (4,) x, y, w, h in pixels."""

    def track(self, image: np.ndarray) -> BaseResult:
        """Find the target in the next frame."""

    def correct(self, box: np.ndarray) -> None:
        """Continue from this box, (4,) x, y, w, h, instead of from the one last returned."""
