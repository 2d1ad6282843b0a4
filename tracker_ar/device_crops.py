"""The crops of `tracker_ar.crops` made on the device where the networks are: the image goes there once a frame.

The same windows, in whole numbers, and the same places between pixels. What differs is rounding: of float32 sums, and
in the refiner's crop of OpenCV's fixed-point arithmetic, by one grey level at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tracker_ar.crops import PairLike, SearchRegion, Window, refiner_window, search_window
from tracker_ar.geometry import BoxLike


class _Upload:
    """An image and its copies on devices."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image  # held, so that its memory is not given to another one
        self._copies: dict[torch.device, Tensor] = {}

    def is_of(self, image: np.ndarray) -> bool:
        return self._place(self._image) == self._place(image)

    def on(self, device: torch.device) -> Tensor:
        if device not in self._copies:
            self._copies[device] = to_device(self._image, device)
        return self._copies[device]

    @staticmethod
    def _place(image: np.ndarray) -> object:
        return image.ctypes.data, image.shape, image.strides


_shared: ContextVar[_Upload | None] = ContextVar("_shared", default=None)


@contextmanager
def uploaded_once(image: np.ndarray) -> Iterator[None]:
    """In here, where nobody may change the image, `on_device` copies it to each device once. May be nested."""
    held = _shared.get()
    if held is not None and held.is_of(image):
        yield
        return
    token = _shared.set(_Upload(image))
    try:
        yield
    finally:
        _shared.reset(token)


def on_device(image: np.ndarray, device: torch.device) -> Tensor:
    """The image, (H, W, 3) uint8, on a device; not to be written to."""
    held = _shared.get()
    return (held if held is not None and held.is_of(image) else _Upload(image)).on(device)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy that does not wait for what the device is doing."""
    on_gpu = device.type == "cuda"
    staged = torch.from_numpy(np.empty(0, array.dtype)).new_empty(array.shape, pin_memory=on_gpu)
    np.copyto(staged.numpy(), array)
    return staged.to(device, non_blocking=True)


def search_region(
    pixels: Tensor, position: PairLike, sample_size: PairLike, output_size: PairLike,
    border_mode: str = "replicate", max_scale_change: float | None = None,
) -> SearchRegion:
    """`sample_patch` of an image that is on a device, (H, W, 3) uint8; the patch is there, too."""
    window = search_window(
        tuple(pixels.shape[:2]), position, sample_size, output_size, border_mode, max_scale_change
    )
    taps = []
    for axis in (0, 1):
        first, side = window.top_left[axis], window.bottom_right[axis] - window.top_left[axis]
        cells, weights = _between(side, window.output[axis], np.float32)
        inside = np.clip(first + cells, 0, window.limits[axis] - 1)
        taps.append(np.concatenate((window.offset[axis] + window.stride * inside, weights)))
    return SearchRegion(_sampled(pixels, taps), window.coords)


def refiner_patch(pixels: Tensor, box: BoxLike, factor: float, size: int) -> tuple[Tensor, Window]:
    """The pixels of `refiner_crop`, (1, 3, S, S) float32 of whole numbers, and its window."""
    window, visible = refiner_window(box, factor, tuple(pixels.shape[:2]))
    taps = []
    for axis in (1, 0):
        first, side = window[axis], window[axis + 2] - window[axis]
        cells, weights = _between(side, size, np.float64)
        cells = first + cells
        seen = (cells >= visible[axis]) & (cells < visible[axis + 2])
        taps.append(np.concatenate((np.where(seen, cells, 0), weights * seen)))
    return _sampled(pixels, taps).round_(), window


def paste(probabilities: Tensor, window: Window, image_size: tuple[int, int]) -> Tensor:
    """`paste_back` of an S x S float32 map on its device: H x W."""
    left, top, right, bottom = window
    height, width = image_size
    resized = F.interpolate(
        probabilities[None, None], size=(bottom - top, right - left), mode="bilinear", align_corners=False
    )[0, 0]
    visible = resized[max(-top, 0):max(height - top, 0), max(-left, 0):max(width - left, 0)]
    full = probabilities.new_zeros(height, width)
    full[max(top, 0):max(top, 0) + visible.shape[0], max(left, 0):max(left, 0) + visible.shape[1]] = visible
    return full


def _between(cells: int, samples: int, precision: type) -> tuple[np.ndarray, np.ndarray]:
    """The two cells on either side of every sample of a line, (2, samples) int64, and what each counts, float."""
    places = (np.arange(samples, dtype=precision) + precision(0.5)) * (precision(cells) / precision(samples))
    places = np.clip(places - precision(0.5), 0, cells - 1)
    first = places.astype(np.int64)
    weight = places - first
    return np.stack((first, np.minimum(first + 1, cells - 1))), np.stack((1 - weight, weight))


def _sampled(pixels: Tensor, taps: list[np.ndarray]) -> Tensor:
    """Bilinear samples (1, C, n, m) float32 of pixels (H, W, C). taps: of the n rows and the m columns, (4, n) and
    (4, m): two places in the image and two weights. Places are whole numbers that float32 can hold."""
    sizes = [part.shape[1] for part in taps]
    rows, columns = to_device(np.concatenate(taps, axis=1, dtype=np.float32), pixels.device).split(sizes, dim=1)
    places = [part[:2].long().flatten() for part in (rows, columns)]
    corners = pixels.index_select(0, places[0]).index_select(1, places[1]).float()
    corners = corners.unflatten(0, (2, -1)).unflatten(2, (2, -1))
    across = (corners * columns[2:, :, None]).sum(dim=2)
    return (across * rows[2:, :, None, None]).sum(dim=0).permute(2, 0, 1)[None]
