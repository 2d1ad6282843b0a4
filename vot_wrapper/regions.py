"""Between TraX regions and the boxes and masks of this project."""

from __future__ import annotations

import numpy as np
import trax

from tracker_ar.errors import InputError
from tracker_ar.geometry import box_from_mask, checked_box, pad_mask, place_mask
from tracker_ar.prediction import Prediction


def decode_region(region: trax.Region, image_size: tuple[int, int]) -> np.ndarray:
    """The initial region as the tracker takes it.

    A mask becomes a uint8 {0,1} array of ``image_size`` (height, width); what TraX sends ends at its lower
    right corner. A rectangle becomes a float64 box ``x, y, w, h``. A polygon becomes the box around its
    corners. Raises InputError for any other kind and for regions without area.
    """
    if region.type == trax.Region.MASK:
        mask = place_mask(region.array(), region.offset(), image_size)
        if not mask.any():
            raise InputError("the initial mask has no pixel inside the image; start on a frame with a target")
        return mask
    if region.type == trax.Region.RECTANGLE:
        return checked_box(region.bounds())
    if region.type == trax.Region.POLYGON:
        corners = np.asarray([region.get(i) for i in range(region.size())], dtype=np.float64)
        return checked_box(np.concatenate([corners.min(axis=0), np.ptp(corners, axis=0)]))
    raise InputError(f"an initial region of type {region.type!r}; send a mask, a rectangle or a polygon")


def encode_mask(mask: np.ndarray, image_size: tuple[int, int]) -> trax.Mask:
    """A mask (H, W) as a TraX region of exactly ``image_size``; all-zero means 'not visible'.

    TraX copies raw memory: anything but contiguous uint8 would arrive garbled.
    """
    return trax.Mask.create(np.ascontiguousarray(pad_mask(mask, image_size), dtype=np.uint8))


def encode_box(prediction: Prediction) -> trax.Rectangle:
    """The box around a prediction's mask, or where that is empty the base tracker's box, as a TraX region."""
    box = box_from_mask(prediction.mask) if prediction.mask.any() else prediction.box
    return trax.Rectangle.create(*(float(value) for value in box))
