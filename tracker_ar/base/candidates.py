"""Boxes around a target, drawn at random: candidates for where it is, and samples to learn from.

Draws come from numpy's legacy generator in the order of the authors' code, so that theirs can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import RandomState

Range = tuple[float, float]
SMALLEST_SIDE = 5.0  # pixels; boxes stay as many smaller than the image


@dataclass(frozen=True)
class Spread:
    """How boxes are spread around a target.

    translation: farthest move, in mean sides of the target; scale: largest factor of size; aspect: largest factor of
    width, and divisor of height, None to keep both. inside: whether all of a box must lie in the image, or its centre
    only. 'gaussian' moves have half of the farthest as deviation and end there.
    """

    distribution: Literal["gaussian", "uniform"]
    translation: float
    scale: float
    aspect: float | None = None
    inside: bool = False


def draw(random: RandomState, spread: Spread, box: np.ndarray, image_size: tuple[int, int], count: int) -> np.ndarray:
    """(count, 4) float32 boxes x, y, w, h around `box`, (4,); image_size: (height, width)."""
    box = np.asarray(box, dtype=np.float32)
    boxes = np.tile(np.concatenate((box[:2] + box[2:] / 2, box[2:])), (count, 1))
    if spread.aspect is not None:
        ratio = random.rand(count, 1) * 2 - 1
        boxes[:, 2:] *= spread.aspect ** np.concatenate((ratio, -ratio), axis=1)
    boxes[:, :2] += spread.translation * np.mean(box[2:]) * _steps(random, spread, count, 2)
    boxes[:, 2:] *= spread.scale ** _steps(random, spread, count, 1)
    limits = np.array(image_size[::-1])
    boxes[:, 2:] = np.clip(boxes[:, 2:], SMALLEST_SIDE, np.maximum(limits - SMALLEST_SIDE, SMALLEST_SIDE))
    if spread.inside:
        boxes[:, :2] = np.clip(boxes[:, :2], boxes[:, 2:] / 2, limits - boxes[:, 2:] / 2 - 1)
    else:
        boxes[:, :2] = np.clip(boxes[:, :2], 0, limits)
    boxes[:, :2] -= boxes[:, 2:] / 2
    return boxes


def draw_overlapping(
    random: RandomState, spread: Spread, box: np.ndarray, image_size: tuple[int, int], count: int,
    overlap: Range, area: Range | None = None,
) -> np.ndarray:
    """At most `count` boxes, as `draw`, whose overlap with `box` is in a range, and their area relative to it as well.

    Where after drawing 14 times as many not enough fit, there are fewer, perhaps none.
    """
    found = np.empty((0, 4), dtype=np.float32)
    for factor in (2, 4, 8):
        missing = count - len(found)
        if missing <= 0:
            break
        boxes = draw(random, spread, box, image_size, missing * factor)
        ratio = overlaps(boxes, box)
        fits = (ratio >= overlap[0]) & (ratio <= overlap[1])
        if area is not None:
            relative = np.prod(boxes[:, 2:], axis=1) / np.prod(box[2:])
            fits &= (relative >= area[0]) & (relative <= area[1])
        found = np.concatenate((found, boxes[fits][:missing]))
    return found


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of boxes (N, 4) x, y, w, h with one box, (4,), or one each, (N, 4)."""
    others = np.atleast_2d(others)
    near = np.maximum(boxes[:, :2], others[:, :2])
    far = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    shared = np.maximum(far - near, 0).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + others[:, 2:].prod(axis=1) - shared
    return np.clip(shared / union, 0, 1)


def _steps(random: RandomState, spread: Spread, count: int, columns: int) -> np.ndarray:
    if spread.distribution == "gaussian":
        return np.clip(0.5 * random.randn(count, columns), -1, 1)
    return random.rand(count, columns) * 2 - 1
