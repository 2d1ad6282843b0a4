"""When a crop was badly placed: the refiner's second pass, and what it teaches about the next crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracker_ar.geometry import box_iou
from tracker_ar.prediction import Refinement

SURE = 0.7  # mean probability that the first mask must reach
KEPT = 0.8  # fraction of the first mask that the second must keep


@dataclass(frozen=True)
class Correction:
    """From one box to another, relative to the size of the first: shift of the centre and growth, (2,) each."""

    shift: np.ndarray
    growth: np.ndarray

    @staticmethod
    def between(box: np.ndarray, wanted: np.ndarray) -> Correction:
        """What takes `box` to `wanted`, (4,) x, y, w, h each."""
        centres = wanted[:2] + wanted[2:] / 2 - (box[:2] + box[2:] / 2)
        return Correction(centres / box[2:], wanted[2:] / box[2:])

    def of(self, box: np.ndarray) -> np.ndarray:
        """The box, (4,) x, y, w, h, corrected."""
        size = box[2:] * self.growth
        return np.concatenate((box[:2] + box[2:] / 2 + self.shift * box[2:] - size / 2, size))


def is_due(first: Refinement, box: np.ndarray, overlap: float) -> bool:
    """Whether a sure mask disagrees with the box, (4,) x, y, w, h, that the crop was placed by: IoU under `overlap`."""
    return first.score >= SURE and box_iou(first.box, box) < overlap


def is_better(second: Refinement, first: Refinement) -> bool:
    """Whether the second mask is as sure as the first and keeps most of it; both have masks."""
    assert second.mask is not None and first.mask is not None
    kept = np.count_nonzero(second.mask & first.mask) / np.count_nonzero(first.mask)
    return second.score >= first.score and kept >= KEPT
