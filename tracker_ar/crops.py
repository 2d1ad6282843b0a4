"""Cutting search regions out of images and pasting masks back.

The base tracker and the refiner cut differently. The base tracker takes a square around the target, keeps its
aspect ratio, and repeats border pixels (or moves inside the image). The refiner takes twice the target in
each direction, squeezes that to a square, and fills with black. Both follow the published VOT2020 entry to
the pixel, because the networks were trained and tuned on exactly these crops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from tracker_ar.errors import InputError
from tracker_ar.geometry import MAX_BOX_TO_IMAGE, BoxLike, checked_box

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_POSITION = 2.0**24  # float32 counts whole pixels up to here
MAX_REGION_PIXELS = 1 << 26

Window = tuple[int, int, int, int]  # left, top, right, bottom in image pixels, the last two exclusive
PairLike = float | np.floating | Sequence[float] | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class SearchRegion:
    """What the base tracker sees of an image.

    patch: (1, 3, h, w) float32, RGB 0..255, on the CPU.
    coords: (4,) int64, top, left, bottom, right in image pixels; the last two are exclusive. They may lie
        outside the image.
    """

    patch: torch.Tensor
    coords: torch.Tensor


@dataclass(frozen=True)
class RefinerCrop:
    """What the refiner sees of an image.

    pixels: (S, S, 3) uint8 RGB.
    window: the region in the image.
    box_in_crop: (4,) float32, the target's x, y, width, height in pixels of the crop.
    """

    pixels: np.ndarray
    window: Window
    box_in_crop: np.ndarray

    @property
    def zoom(self) -> tuple[float, float]:
        """Pixels of the crop per pixel of the image, along x and y."""
        left, top, right, bottom = self.window
        return self.pixels.shape[1] / (right - left), self.pixels.shape[0] / (bottom - top)


@dataclass(frozen=True)
class SearchWindow:
    """Where `sample_patch` cuts; int64 arrays (2,) of rows and columns.

    stride, offset: every how many pixels of the image count, and from which on. top_left, bottom_right: the
    window in the image that is thinned so, the latter exclusive; limits: that image's size. output: of the patch.
    """

    stride: int
    offset: np.ndarray
    top_left: np.ndarray
    bottom_right: np.ndarray
    limits: np.ndarray
    output: np.ndarray

    @property
    def coords(self) -> torch.Tensor:
        """See `SearchRegion`."""
        return torch.from_numpy(self.stride * np.concatenate([self.top_left, self.bottom_right]))


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """H x W x 3 numbers -> (1, 3, H, W) float32 of the same range."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).unsqueeze(0)


def normalize(patch: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) RGB 0..255 -> the same shape with ImageNet's mean and standard deviation removed."""
    gain, offset = _normalization(patch.dtype, patch.device)
    return patch.mul(gain).sub_(offset)


@cache
@torch.inference_mode(False)  # made while tracking it must still serve for training
def _normalization(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    # Kept, since a GPU would have to be waited for while they are copied to it.
    mean = torch.tensor(IMAGENET_MEAN, dtype=dtype, device=device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=dtype, device=device).view(1, 3, 1, 1)
    return 1 / (255 * std), mean / std


def normalized_pixels(image: np.ndarray) -> torch.Tensor:
    """H x W x 3 uint8 RGB -> (1, 3, H, W) float32 as from `normalize`, channels last, in one pass over the pixels."""
    return torch.from_numpy(cv2.LUT(image, _normalized_levels())).permute(2, 0, 1).unsqueeze(0)


@lru_cache(maxsize=1)
def _normalized_levels() -> np.ndarray:
    """(256, 1, 3) float32: what becomes of every level of red, green and blue."""
    levels = torch.arange(256, dtype=torch.float32).view(256, 1, 1, 1).expand(256, 3, 1, 1)
    return normalize(levels).reshape(256, 1, 3).numpy()


def sample_patch(
    image: np.ndarray,
    position: PairLike,
    sample_size: PairLike,
    output_size: PairLike,
    border_mode: str = "replicate",
    max_scale_change: float | None = None,
) -> SearchRegion:
    """Cut `sample_size` (height, width) pixels around `position` (y, x) and resize them to `output_size`.

    image: uint8 H x W x 3; only the pixels that are needed are converted.
    sample_size, output_size: (height, width), or one number for a square.
    border_mode: "replicate" repeats border pixels where the region leaves the image. "inside" shrinks the
        region until it fits, "inside_major" until its better fitting side fits, either by at most
        `max_scale_change` (no limit if None), and both shift it inside as far as it goes.
    The position is truncated to whole pixels. Regions over about twice the output are first thinned by a
    whole number of rows and columns, so the coordinates that come back are multiples of that stride.

    Raises InputError for a position or size that is not finite or over 16 million pixels, for a size that is not
    positive, and for a region so long and narrow that it cannot be thinned.
    """
    window = search_window(image.shape[:2], position, sample_size, output_size, border_mode, max_scale_change)
    thinned = image[window.offset[0]::window.stride, window.offset[1]::window.stride]
    patch = to_tensor(_window(thinned, window.top_left, window.bottom_right))
    if tuple(patch.shape[2:]) != tuple(window.output):
        # Not OpenCV, which is faster, but places samples so that features move by more than rounding.
        patch = F.interpolate(patch, size=window.output.tolist(), mode="bilinear", align_corners=False)
    return SearchRegion(patch, window.coords)


def search_window(
    shape: tuple[int, int], position: PairLike, sample_size: PairLike, output_size: PairLike,
    border_mode: str, max_scale_change: float | None,
) -> SearchWindow:
    """The window of `sample_patch` in an image of `shape` (height, width); arguments and errors as there."""
    image_size = np.array(shape)
    centre, size, output = _pair(position), _pair(sample_size), _pair(output_size).astype(np.int64)
    if not (np.abs(centre).max() < MAX_POSITION and size.max() < MAX_POSITION and size.min() > 0):
        raise InputError(f"No search region of size {size.tolist()} at {centre.tolist()}: "
                         "both must be finite, not beyond measure, and the size positive.")
    if border_mode != "replicate":
        size = _shrunken_size(size, image_size, border_mode, max_scale_change)

    stride = max(int(float((size / output.astype(np.float32)).min()) - 0.1), 1)
    centre = centre.astype(np.int64)
    offset = np.minimum(centre % stride, image_size - 1)
    limits = -((offset - image_size) // stride)
    # Half-sizes are cut to whole numbers, so that even regions reach one pixel farther down and right.
    side = np.maximum(np.rint(size / np.float32(stride)), 2).astype(np.int64)
    if side.prod() > MAX_REGION_PIXELS:
        raise InputError(f"The search region of size {size.tolist()} is too long and narrow.")
    top_left = centre // stride - (side - 1) // 2
    bottom_right = centre // stride + side // 2 + 1
    if border_mode != "replicate":
        shift = _shift_inside(top_left, bottom_right, limits)
        top_left, bottom_right = top_left + shift, bottom_right + shift
    return SearchWindow(stride, offset, top_left, bottom_right, limits, output)


def refiner_crop(image: np.ndarray, box: BoxLike, factor: float = 2.0, size: int = 384) -> RefinerCrop:
    """Cut `factor` times the box in each direction, centred on it, and resize to `size` x `size` pixels.

    image: uint8 H x W x 3. What lies outside the image is black, and so are the last row and column of the
    image wherever the region reaches them: the published entry pads one pixel early, and its weights know
    only that.
    The aspect ratio is not kept. The box may lie outside the image; then the crop is black.

    Raises InputError for a box without a positive, finite size, or many times larger than the image.
    """
    window, visible = refiner_window(box, factor, image.shape[:2])
    (left, top, right, bottom), (inner_left, inner_top, inner_right, inner_bottom) = window, visible
    region = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
    seen = image[inner_top:inner_bottom, inner_left:inner_right]
    rows = slice(inner_top - top, inner_top - top + seen.shape[0])
    columns = slice(inner_left - left, inner_left - left + seen.shape[1])
    region[rows, columns] = seen
    return RefinerCrop(cv2.resize(region, (size, size)), window, _box_in_crop(checked_box(box), window, size))


def refiner_window(box: BoxLike, factor: float, image_size: tuple[int, int]) -> tuple[Window, Window]:
    """The region that `refiner_crop` cuts, and the part of it that is not black; errors as there."""
    box = checked_box(box)
    height, width = image_size
    if max(box[2:]) > MAX_BOX_TO_IMAGE * max(height, width):
        raise InputError(f"The box {box.tolist()} is over {MAX_BOX_TO_IMAGE} times larger than the image "
                         f"({width} x {height}): clip it to the image first.")
    left, top, right, bottom = window = _refiner_window(box, factor)
    inner_right, inner_bottom = max(min(right, width - 1), left, 0), max(min(bottom, height - 1), top, 0)
    return window, (max(left, 0), max(top, 0), inner_right, inner_bottom)


def paste_back(probabilities: np.ndarray, crop: RefinerCrop, image_size: tuple[int, int]) -> np.ndarray:
    """Resize an S x S float32 map to the crop's region and lay it into an image of zeros, H x W float32.

    Resizing is bilinear. What falls outside the image is dropped.
    """
    left, top, right, bottom = crop.window
    resized = cv2.resize(np.ascontiguousarray(probabilities), (right - left, bottom - top))
    full = np.zeros(image_size, dtype=np.float32)
    visible = resized[max(-top, 0):max(image_size[0] - top, 0), max(-left, 0):max(image_size[1] - left, 0)]
    full[max(top, 0):max(top, 0) + visible.shape[0], max(left, 0):max(left, 0) + visible.shape[1]] = visible
    return full


def box_to_image(box_in_crop: BoxLike, zoom: tuple[float, float], box: BoxLike, factor: float = 2.0) -> np.ndarray:
    """A box x, y, w, h in pixels of a refiner's crop as (4,) float64 in pixels of the image; a negative size stays so.

    zoom: of the crop, see `RefinerCrop.zoom`; box, factor: from which it was cut. The corner is reckoned from the box
    that was given, as the authors do, and not from that of the window, which is rounded: up to half a pixel farther.
    """
    x, y, width, height = np.asarray(box_in_crop, dtype=np.float64) / np.tile(zoom, 2)
    given = np.asarray(box, dtype=np.float64)
    left, top = given[:2] - (factor - 1) / 2 * given[2:]
    return np.array([left + x, top + y, width, height])


def _pair(value: PairLike) -> np.ndarray:
    # float32, since the published boundaries come from float32 arithmetic and are then truncated.
    return np.broadcast_to(np.asarray(value, dtype=np.float32), (2,))


def _shrunken_size(
    size: np.ndarray, image_size: np.ndarray, border_mode: str, max_scale_change: float | None
) -> np.ndarray:
    excess = size / image_size.astype(np.float32)
    if border_mode == "inside":
        shrink = excess.max()
    elif border_mode == "inside_major":
        shrink = excess.min()
    else:
        raise InputError(f"Unknown border mode {border_mode!r}: use 'replicate', 'inside' or 'inside_major'.")
    shrink = np.clip(shrink, 1, max_scale_change)
    return np.trunc(size / np.float32(shrink))


def _shift_inside(top_left: np.ndarray, bottom_right: np.ndarray, image_size: np.ndarray) -> np.ndarray:
    """How far to move a region so that it lies inside, or stands out equally on both sides if larger."""
    shift = np.maximum(-top_left, 0) - np.maximum(bottom_right - image_size, 0)
    moved = top_left + shift
    outside = (np.maximum(-moved, 0) + np.maximum(bottom_right + shift - image_size, 0)) // 2
    return np.where(outside > 0, -outside - top_left, shift)


def _window(image: np.ndarray, top_left: np.ndarray, bottom_right: np.ndarray) -> np.ndarray:
    """image[top:bottom, left:right], border pixels repeated where that leaves the image."""
    slices, padding = [], []
    for start, stop, limit in zip(top_left.tolist(), bottom_right.tolist(), image.shape[:2]):
        inner_start, inner_stop = min(max(start, 0), limit - 1), max(min(stop, limit), 1)
        missing = (stop - start) - (inner_stop - inner_start)
        before = min(max(-start, 0), missing)
        slices.append(slice(inner_start, inner_stop))
        padding += [before, missing - before]
    inner = image[tuple(slices)]
    top, bottom, left, right = padding
    return cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE) if any(padding) else inner


def _refiner_window(box: np.ndarray, factor: float) -> Window:
    x, y, width, height = box.tolist()
    window_width, window_height = math.ceil(factor * width), math.ceil(factor * height)
    left = round(x + width / 2 - window_width / 2)
    top = round(y + height / 2 - window_height / 2)
    return left, top, left + window_width, top + window_height


def _box_in_crop(box: np.ndarray, window: Window, size: int) -> np.ndarray:
    # The box counts as centred in the crop; the window's own rounding, under a pixel, is ignored.
    left, top, right, bottom = window
    zoom = np.array([size / (right - left), size / (bottom - top)], dtype=np.float32)
    extent = box[2:].astype(np.float32) * zoom
    centre = np.float32((size - 1) / 2)
    near = np.clip(centre - extent / 2, 0, size)
    far = np.clip(centre + extent / 2, 0, size)
    return np.concatenate([near, far - near]).astype(np.float32)
