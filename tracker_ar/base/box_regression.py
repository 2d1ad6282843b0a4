"""Ridge regression from a box's features to a better box (R-CNN, Girshick et al. 2014, appendix C), as in MDNet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracker_ar.base.candidates import Range, overlaps


@dataclass(frozen=True)
class BoxRegression:
    """coefficients: (4, F) float32; intercept: (4,) float32; overlap, area: ranges in which a new box is believed,
    the old one's area relative to it."""

    coefficients: Tensor
    intercept: Tensor
    overlap: Range
    area: Range

    def improved(self, features: Tensor, boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """features: (N, F) float32; boxes: (N, 4) float32 x, y, w, h; image_size: (height, width). Returns (N, 4)."""
        moves = (features @ self.coefficients.T + self.intercept).cpu().numpy()
        centres = moves[:, :2] * boxes[:, 2:] + (boxes[:, :2] + boxes[:, 2:] / 2)
        sizes = np.exp(moves[:, 2:]) * boxes[:, 2:]
        better = np.concatenate((centres - sizes / 2, sizes), axis=1)
        overlap = overlaps(boxes, better)
        area = boxes[:, 2:].prod(axis=1) / sizes.prod(axis=1)
        believed = _within(overlap, self.overlap) & _within(area, self.area)
        better = np.where(believed[:, None], better, boxes)
        limits = np.array(image_size[::-1], dtype=np.float32)
        # Bounded by the corner of the box before, as the authors have it.
        return np.concatenate((np.maximum(better[:, :2], 0), np.minimum(better[:, 2:], limits - boxes[:, :2])), axis=1)


def fit_box_regression(
    features: Tensor, boxes: np.ndarray, truth: np.ndarray, regularization: float,
    overlap: Range, area: Range,
) -> BoxRegression:
    """In the dual, which has as many unknowns as samples, and float64.

    features: (N, F) float32 of boxes (N, 4) float32 x, y, w, h, all near `truth`, (4,).
    """
    moves = (truth[:2] + truth[2:] / 2 - boxes[:, :2] - boxes[:, 2:] / 2) / boxes[:, 2:]
    targets = torch.from_numpy(np.concatenate((moves, np.log(truth[2:] / boxes[:, 2:])), axis=1)).to(features.device)
    targets = targets.double()
    centre, mean = features.mean(0), targets.mean(0)
    centred = features - centre
    gram = (centred @ centred.T).double()
    gram.diagonal().add_(regularization)
    dual = torch.linalg.solve(gram, targets - mean)
    coefficients = dual.T.float() @ centred
    return BoxRegression(coefficients, mean.float() - coefficients @ centre, overlap, area)


def _within(values: np.ndarray, limits: Range) -> np.ndarray:
    return (values >= limits[0]) & (values <= limits[1])
