"""The box of the first frame for ever: the least that a tracker must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracker_ar.frame import Frame
from tracker_ar.prediction import BaseResult


class StaticTracker:
    """A base tracker whose targets never move; see `tracker_ar.prediction.BaseTracker`."""

    def start(self, frame: Frame, box: np.ndarray) -> np.ndarray:
        """box: (4,) x, y, w, h in pixels."""
        return np.asarray(box, dtype=np.float64)

    def track(self, frame: Frame, targets: Sequence[np.ndarray]) -> list[BaseResult]:
        """Every target where it was."""
        return [BaseResult(box, None) for box in targets]

    def correct(self, target: np.ndarray, box: np.ndarray) -> None:
        """A corrected box would move it."""
