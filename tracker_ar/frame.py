"""An image of a video that was checked once and is then handed from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracker_ar.errors import InputError


@dataclass(frozen=True)
class Frame:
    """pixels: (H, W, 3) uint8 RGB, C-contiguous; not to be changed while the frame is in use."""

    pixels: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @staticmethod
    def of(image: np.ndarray | Frame) -> Frame:
        """A frame of anything that `as_rgb_image` takes; a frame is returned as it is. Errors as there."""
        return image if isinstance(image, Frame) else Frame(as_rgb_image(image))


def as_rgb_image(image: np.ndarray) -> np.ndarray:
    """The image as uint8 H x W x 3, C-contiguous; not copied when it is that already.

    Accepted: grey (H x W or H x W x 1, repeated into three channels), RGB, RGBA (alpha is dropped), and other
    number types whose values are in 0..255 (rounded). Raises InputError for anything else.
    """
    try:
        pixels = np.asarray(image)
    except ValueError as error:
        raise InputError("An image is an H x W x 3 array; these rows differ in length.") from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.size == 0:
        raise InputError(f"An image is a non-empty H x W x 3, grey or RGBA array, not {pixels.shape}.")
    if pixels.dtype != np.uint8:
        pixels = _as_uint8(pixels)
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _as_uint8(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == bool or not np.issubdtype(pixels.dtype, np.number) or np.iscomplexobj(pixels):
        raise InputError(f"An image holds numbers from 0 to 255, not {pixels.dtype}.")
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 255):
        raise InputError(f"An image holds finite values from 0 to 255; this one ({pixels.dtype}) does not: "
                         "scale it and convert it to uint8.")
    if 0 < high <= 1 and np.issubdtype(pixels.dtype, np.floating):
        raise InputError("The image seems to be scaled to 0..1: multiply it by 255 and convert it to uint8.")
    return np.rint(pixels).astype(np.uint8)
