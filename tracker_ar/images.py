"""Image files, for all that reads one: frames, data sets, masks, uploads.

An image is RGB uint8 (H, W, 3), upright unless it is asked for as stored; grey is spread over the channels, alpha is
dropped, of 16 bits the upper 8 are kept.

The size is known, and too large an image refused, before pixels take memory. Two libraries may read two sizes in
one file; so Pillow, which says the size, also decodes. Only JPEG is left to OpenCV, for the pixels that public trackers
see: the size stands in its one frame header, and libjpeg refuses a file with two of them before it takes memory.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from tracker_ar.errors import DataError

# Pillow's names, each with an ending.
FORMATS = {"BMP": ".bmp", "JPEG": ".jpg", "PNG": ".png", "PPM": ".ppm", "TIFF": ".tif", "WEBP": ".webp"}
MOST_PIXELS = 1 << 27  # four 8K images
_TILE_WIDTH, _TILE_HEIGHT, _STRIP_ROWS = 322, 323, 278  # tags of TIFF
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class TooLarge(DataError):
    """An image with more pixels than are taken."""


def read_image(path: str | os.PathLike, upright: bool = True) -> np.ndarray:
    """An image file, see above. upright: turned as its orientation tag says; annotations are often made without.

    Raises DataError that names the file when it is missing, damaged, too large or not an image.
    """
    return decode_image(_bytes_of(path), str(path), upright=upright)


def decode_image(
    data: bytes, name: str, formats: Iterable[str] = FORMATS, most_pixels: int = MOST_PIXELS, upright: bool = True
) -> np.ndarray:
    """The image in an encoded file. name: of the file, for errors. formats: that are taken, of `FORMATS`.

    Raises TooLarge, and DataError for what is damaged or of another format.
    """
    image = _opened(data, name, formats, most_pixels)
    if image.format != "JPEG":
        pixels = _loaded(image, name, upright)
        if pixels.mode in _DEEP_MODES:
            grey = (np.asarray(pixels).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.array(pixels.convert("RGB"))
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        found = None
    if found is None:
        raise DataError(f"{name}: damaged")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def image_header(
    data: bytes, name: str, formats: Iterable[str] = FORMATS, most_pixels: int = MOST_PIXELS
) -> tuple[str, int, int]:
    """Format, width and height of an encoded file, or of its beginning; arguments and errors as of `decode_image`."""
    image = _opened(data, name, formats, most_pixels)
    return image.format or "", *image.size


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """A label map as stored, uint8 or uint16 (H, W): the indices of a palette, else the first channel.

    Pixels of one bit are 0 and 255. Raises DataError as `read_image`.
    """
    labels = np.asarray(_loaded(_opened(_bytes_of(path), str(path), FORMATS, MOST_PIXELS), str(path), upright=False))
    labels = labels[..., 0] if labels.ndim == 3 else labels
    if labels.dtype == bool:
        return labels.astype(np.uint8) * 255
    return labels if labels.dtype == np.uint8 else labels.astype(np.uint16)


def read_visible(path: str | os.PathLike) -> np.ndarray:
    """bool (H, W): where an image file is neither black nor transparent; a palette counts by its colours.

    Raises DataError as `read_image`.
    """
    image = _loaded(_opened(_bytes_of(path), str(path), FORMATS, MOST_PIXELS), str(path), upright=True)
    if image.mode in (*_DEEP_MODES, "F", "1", "L"):
        return np.asarray(image) != 0
    pixels = np.asarray(image.convert("RGBA"))
    return pixels[..., :3].any(axis=2) & (pixels[..., 3] > 0)


def _bytes_of(path: str | os.PathLike) -> bytes:
    try:
        if not os.path.isfile(path):  # a device or a pipe might never end
            raise DataError(f"{path}: missing, or not a file")
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _opened(data: bytes, name: str, formats: Iterable[str], most_pixels: int) -> Image.Image:
    """With its header read, and no more."""
    try:
        image = Image.open(io.BytesIO(data), formats=list(formats))
        width, height = image.size
        tags = getattr(image, "tag_v2", {})
        piece = max(int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_HEIGHT, 0)),
                    width * min(int(tags.get(_STRIP_ROWS, 0)), height))
    except Image.DecompressionBombError:
        raise TooLarge(f"{name} has more than {most_pixels / 1e6:.0f} million pixels") from None
    except Exception as error:  # whatever a damaged header leads to
        raise DataError(f"{name}: damaged, or not an image of the kinds {', '.join(formats)}") from error
    if max(width * height, piece) > most_pixels:
        raise TooLarge(f"{name} is {width} x {height} pixels, more than {most_pixels / 1e6:.1f} million")
    return image


def _loaded(image: Image.Image, name: str, upright: bool) -> Image.Image:
    try:
        image.load()
        return ImageOps.exif_transpose(image) if upright else image
    except Exception as error:  # whatever damaged data lead to
        raise DataError(f"{name}: damaged") from error
