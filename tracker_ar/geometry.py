"""Boxes and masks: clipping, conversion, overlap.

A box is (x, y, width, height) in pixels, 0-based, measured from the top left corner of the image;
an image size is (height, width); a mask is uint8 {0, 1}, H x W, C-contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tracker_ar.errors import InputError

MAX_COORDINATE = 1e9  # pixels; arithmetic on boxes stays finite and exact to a thousandth
MAX_BOX_TO_IMAGE = 16  # a target this many times larger than its image is a mistake

BoxLike = Sequence[float] | np.ndarray
Region = Sequence[float] | np.ndarray  # a mask (H, W), non-zero on the target, or a box


def checked_box(box: BoxLike) -> np.ndarray:
    """The box as (4,) float64, after checking that it has four finite values and a positive size.

    Raises InputError otherwise. Boxes that lie partly or wholly outside an image pass.
    """
    values = _four_finite_values(box)
    if min(values[2:]) <= 0:
        raise InputError(f"The box {values.tolist()} has no area: width and height must be positive.")
    return values


def clip_box(box: BoxLike, image_size: tuple[int, int], min_side: float = 10.0) -> np.ndarray:
    """Move the corners of a box into the image, (4,) float64, as the VOT2020 entry does.

    The top left corner stays at least `min_side` pixels away from the right and bottom borders, the bottom
    right corner as far from the left and top ones. So a box that reaches a border or lies outside keeps at
    least `min_side` pixels in that direction, while a small box well inside is left as it is. In an image
    narrower than `min_side` the result spans the image.

    Raises InputError for values that are not finite and when no area is left (a negative size).
    """
    return checked_box(clip_corners(box, image_size, min_side))


def clip_corners(box: BoxLike, image_size: tuple[int, int], min_side: float = 10.0) -> np.ndarray:
    """What `clip_box` does with the corners, whether or not a box comes out: a size that was negative, because the
    corners are exchanged, may stay so. Raises InputError for values that are not finite."""
    values = _four_finite_values(box)
    near, far = values[:2], values[:2] + values[2:]
    limits = np.array([image_size[1], image_size[0]], dtype=np.float64)
    margins = np.minimum(min_side, limits)
    near = np.clip(near, 0.0, limits - margins)
    far = np.clip(far, margins, limits)
    return np.concatenate([near, far - near])


def box_from_mask(mask: np.ndarray) -> np.ndarray:
    """The smallest box that holds every non-zero pixel of an H x W mask, (4,) float64 of whole numbers.

    Raises InputError when the mask is empty or not two-dimensional.
    """
    _check_mask(mask)
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        raise InputError("The mask marks no pixel, so it has no box: set at least one pixel.")
    left, right = columns[[0, -1]]
    top, bottom = rows[[0, -1]]
    return np.array([left, top, right - left + 1, bottom - top + 1], dtype=np.float64)


def box_from_largest_part(mask: np.ndarray, more_than: float = 100.0) -> np.ndarray | None:
    """The box (4,) float64, of whole numbers, of the largest connected part of an H x W mask, or None if that is small.

    Parts touch at sides or corners. Their size is the area of the polygon through the centres of the border pixels:
    (a - 1) (b - 1) for a full a x b rectangle, nearly nothing for thin lines; holes are not taken off. It must exceed
    `more_than`. The rule of Alpha-Refine's base version. Raises InputError for a mask that is not two-dimensional.
    """
    _check_mask(mask)
    outlines, _ = cv2.findContours((mask != 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea, default=None)
    if largest is None or cv2.contourArea(largest) <= more_than:
        return None
    return np.array(cv2.boundingRect(largest), dtype=np.float64)


def mask_from_box(box: BoxLike, image_size: tuple[int, int]) -> np.ndarray:
    """A uint8 {0, 1} mask of `image_size` that is one inside the box.

    Corners are rounded to the nearest whole pixel, halves to the even one. The mask is empty when the box
    lies outside the image or rounds to nothing. Raises InputError for a box without a positive, finite size.
    """
    x, y, width, height = checked_box(box)
    left, top = max(round(x), 0), max(round(y), 0)
    right, bottom = max(round(x + width), 0), max(round(y + height), 0)
    mask = np.zeros(image_size, dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def pad_mask(mask: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """The mask as uint8 {0, 1} of exactly `image_size`, zeros added or pixels cut at the right and bottom.

    A mask that arrives over TraX reaches only as far as the lower right corner of the target. Any dtype is
    accepted; what is not zero counts as target. Raises InputError for a mask that is not two-dimensional.
    """
    return place_mask(mask, (0, 0), image_size)


def place_mask(mask: np.ndarray, offset: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """A mask whose first pixel lies at `offset` (x, y) of the image, as uint8 {0, 1} of `image_size`.

    It may start anywhere, also left of or above the image; what lies outside is dropped. Any dtype is accepted;
    what is not zero counts as target. Raises InputError for a mask that is not two-dimensional.
    """
    _check_mask(mask)
    left, top = offset
    visible = mask[max(-top, 0):, max(-left, 0):]
    left, top = max(left, 0), max(top, 0)
    visible = visible[:max(image_size[0] - top, 0), :max(image_size[1] - left, 0)]
    placed = np.zeros(image_size, dtype=np.uint8)
    placed[top:top + visible.shape[0], left:left + visible.shape[1]] = visible != 0
    return placed


def region_box(region: Region, image_size: tuple[int, int]) -> np.ndarray:
    """The box (4,) float64 x, y, w, h of a region, which is a mask of `image_size` (height, width) or a box.

    Raises InputError for an empty mask, a mask of another size, and a box that is not four finite numbers of
    positive size with some part inside the image, or is many times larger than the image.
    """
    region = np.asarray(region)
    if region.ndim == 2:
        if region.shape != tuple(image_size):
            raise InputError(
                f"The mask is {region.shape[1]} x {region.shape[0]}, the image {image_size[1]} x {image_size[0]}: "
                "give a mask of the image's size (tracker_ar.geometry.pad_mask pads a smaller one)."
            )
        return box_from_mask(region != 0)
    try:
        box = region.astype(np.float64)
    except (TypeError, ValueError):
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise InputError(
            f"The region {region.tolist()!r:.80} is neither a mask (height x width) nor a box x, y, w, h of finite "
            "numbers with positive width and height."
        )
    x, y, width, height = box
    if x + width <= 0 or y + height <= 0 or x >= image_size[1] or y >= image_size[0]:
        raise InputError(
            f"The box {box.tolist()} lies outside the image of {image_size[1]} x {image_size[0]} pixels: "
            "boxes are x, y, w, h in pixels from the top-left corner."
        )
    if max(width, height) > MAX_BOX_TO_IMAGE * max(image_size):
        raise InputError(
            f"The box {box.tolist()} is over {MAX_BOX_TO_IMAGE} times larger than the image of {image_size[1]} x "
            f"{image_size[0]} pixels: give one that fits the target."
        )
    return box


def box_iou(first: BoxLike, second: BoxLike) -> float:
    """Intersection over union of two boxes with positive size, 0..1. Raises InputError for other boxes."""
    first, second = checked_box(first), checked_box(second)
    near = np.maximum(first[:2], second[:2])
    far = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    intersection = float(np.prod(np.maximum(far - near, 0.0)))
    union = float(np.prod(first[2:]) + np.prod(second[2:])) - intersection
    return intersection / union


def _four_finite_values(box: BoxLike) -> np.ndarray:
    try:
        values = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"A box is four numbers (x, y, width, height), not {box!r}.") from error
    if values.shape != (4,):
        raise InputError(f"A box is four numbers (x, y, width, height), not shape {values.shape}.")
    if not np.isfinite(values).all():
        raise InputError(f"The box {values.tolist()} holds NaN or infinity: give finite pixel coordinates.")
    if np.abs(values).max() > MAX_COORDINATE:
        raise InputError(f"The box {values.tolist()} is beyond measure: coordinates are pixels, at most 1e9.")
    return values


def _check_mask(mask: np.ndarray) -> None:
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:
        kind = f"shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(f"A mask is an H x W array, not {kind}.")
