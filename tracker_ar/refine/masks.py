"""From the probabilities of an image's pixels to the mask that a refiner reports."""

from __future__ import annotations

import cv2
import numpy as np

from tracker_ar.crops import Window
from tracker_ar.geometry import box_from_mask
from tracker_ar.prediction import Refinement


def described(
    probabilities: np.ndarray, window: Window, box: np.ndarray, threshold: float, minimum_part: float = 0.0
) -> Refinement:
    """What these probabilities, (H, W) float32, zero outside the window, say of the target that was given by `box`.

    threshold: above which a pixel is target. minimum_part: see `drop_small_parts`; 0 keeps all. Only the window is
    looked at. Where the mask is empty the box is the one given, and the score 0.
    """
    left, top = max(window[0], 0), max(window[1], 0)
    seen = probabilities[top : max(window[3], top), left : max(window[2], left)]
    inside = (seen > threshold).view(np.uint8)
    mask = np.zeros(probabilities.shape, np.uint8)
    if not inside.any():
        return Refinement(box, mask, 0.0, probabilities)
    if minimum_part > 0:
        drop_small_parts(inside, minimum_part)
    mask[top : top + seen.shape[0], left : left + seen.shape[1]] = inside
    around = box_from_mask(inside) + [left, top, 0, 0]
    return Refinement(around, mask, float(cv2.mean(seen, inside)[0]), probabilities)


def drop_small_parts(mask: np.ndarray, minimum: float) -> None:
    """Clear, in place, the connected parts of a non-empty mask (H, W) uint8 {0, 1} that are smaller than `minimum`
    (0 to 1) times the area of the largest one. Pixels that touch at a corner are connected."""
    x, y, width, height = box_from_mask(mask).astype(int)
    inside = mask[y : y + height, x : x + width]
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(inside), connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    kept = areas >= minimum * areas[1:].max()
    inside &= kept[parts].astype(np.uint8)
