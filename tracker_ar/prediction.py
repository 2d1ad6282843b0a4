"""What a tracker says of one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """The target in one frame.

    box: (4,) float64 x, y, w, h in pixels: the base tracker's box clipped to the image.
    mask: (H, W) uint8 {0, 1}, C-contiguous, of the image's size; may be empty.
    score: confidence of the base tracker, 0 to 1; of the refiner, where the base tracker gives none.
    probabilities: (H, W) float32, of the target, from which the mask was made; None where there are none.
    """

    box: np.ndarray
    mask: np.ndarray
    score: float
    probabilities: np.ndarray | None = None
