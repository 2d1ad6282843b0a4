"""Precise RoI pooling of many boxes in one image, again and again, with the gradient for the boxes in closed form.

The same values as `prroi_pool`, for the ascent on the predicted IoU: there one image is pooled ten times and only the
boxes' gradient is wanted, so that autograd costs several times the arithmetic. "Acquisition of Localization Confidence
for Accurate Object Detection" (Jiang et al. 2018), eq. 4 to 6: the derivative for an edge is the interpolated surface
along it, less the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tracker_ar.ops.prroi_pool import cell_range


# Boxes move by a few cells while they are refined; with a margin the window seldom has to be cut anew.
MARGIN = 2


class BoxPooling:
    """Pools boxes in the features of one image.

    features: (C, H, W) floating point; reads as zero outside the map. output_size: bins (rows, columns).
    spatial_scale: feature cells per image pixel.
    """

    def __init__(self, features: Tensor, output_size: tuple[int, int], spatial_scale: float) -> None:
        self._features = features
        self._output_size = output_size
        self._scale = spatial_scale
        self._window: Window | None = None

    def pool(self, boxes: Tensor) -> Pooled:
        """Pool boxes (K, 4) x1, y1, x2, y2 in image pixels; see `Pooled`."""
        boxes = boxes * self._scale
        window = self._window_around(boxes)
        bins_y = Bins(boxes[:, 1], boxes[:, 3], self._output_size[0], window.row_numbers)
        bins_x = Bins(boxes[:, 0], boxes[:, 2], self._output_size[1], window.column_numbers)
        return Pooled(window, bins_y, bins_x, self._scale)

    def _window_around(self, boxes: Tensor) -> Window:
        """The cells that the boxes touch; on a GPU all of them, since looking at the boxes would wait for it."""
        height, width = self._features.shape[1:]
        rows, columns = (0, height), (0, width)
        if not self._features.is_cuda:
            first, last = boxes.amin(0).tolist(), boxes.amax(0).tolist()
            rows, columns = cell_range(first[1], last[3], height), cell_range(first[0], last[2], width)
        if self._window is None or not self._window.holds(rows, columns):
            rows = (max(rows[0] - MARGIN, 0), min(rows[1] + MARGIN, height))
            columns = (max(columns[0] - MARGIN, 0), min(columns[1] + MARGIN, width))
            self._window = Window(self._features, rows, columns)
        return self._window


class Window:
    """A part of the features, from one row and column to one past the last.

    cells: (rows, columns * C): channels last, so that the large products of pooling are plain matrix products.
    """

    def __init__(self, features: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        self.rows, self.columns = rows, columns
        part = features[:, rows[0] : rows[1], columns[0] : columns[1]]
        self.cells = part.permute(1, 2, 0).flatten(1).contiguous()
        self.channels = features.shape[0]
        self.row_numbers = torch.arange(*rows, dtype=features.dtype, device=features.device)
        self.column_numbers = torch.arange(*columns, dtype=features.dtype, device=features.device)

    def holds(self, rows: tuple[int, int], columns: tuple[int, int]) -> bool:
        """Whether all of these cells are in the window."""
        inside = ((self.rows, rows), (self.columns, columns))
        return all(own[0] <= other[0] and other[1] <= own[1] for own, other in inside)


class Pooled:
    """The result of one pooling.

    values: (K, rows, columns, C) - channels last, unlike `prroi_pool`. Boxes without area give zeros.
    """

    def __init__(self, window: Window, bins_y: Bins, bins_x: Bins, scale: float) -> None:
        self._window, self._bins_y, self._bins_x, self._scale = window, bins_y, bins_x, scale
        count, rows, _ = bins_y.weights.shape
        down = bins_y.weights.flatten(0, 1) @ window.cells
        self._down = down.reshape(count, rows, -1, window.channels)
        self.values = bins_x.weights[:, None] @ self._down

    def gradient(self, of_values: Tensor) -> Tensor:
        """The gradient for the boxes, (K, 4), of a scalar whose gradient for `values` is given."""
        of_weights_x = (of_values @ self._down.transpose(2, 3)).sum(dim=1)
        across = self._bins_x.weights.transpose(1, 2)[:, None] @ of_values
        of_weights_y = across.flatten(0, 1).flatten(1) @ self._window.cells.T
        x1, x2 = self._bins_x.gradient(of_weights_x)
        y1, y2 = self._bins_y.gradient(of_weights_y.reshape(self._bins_y.weights.shape))
        return torch.stack((x1, y1, x2, y2), dim=-1) * self._scale


class Bins:
    """Equal bins of K intervals on a line of cells, of which those with the given numbers are looked at.

    weights: (K, bins, cells), the mean of each cell's hat function over each bin.
    """

    def __init__(self, start: Tensor, end: Tensor, num_bins: int, cells: Tensor) -> None:
        size = (end - start) / num_bins
        empty = size <= 0
        self._empty = empty[:, None, None]
        self._size = torch.where(empty, 1.0, size)[:, None, None]
        steps = torch.arange(num_bins + 1, dtype=start.dtype, device=start.device)
        edges = start[:, None] + self._size[:, 0] * steps
        offset = (edges[..., None] - cells).clamp(-1.0, 1.0)
        self._hats = 1.0 - offset.abs()
        self._share = (steps / num_bins)[None]
        self.weights = (offset - 0.5 * offset * offset.abs()).diff(dim=1) / self._size
        self.weights.masked_fill_(self._empty, 0.0)

    def gradient(self, of_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients for start and end, (K,) each."""
        per_edge = F.pad(of_weights, (0, 0, 1, 0)) - F.pad(of_weights, (0, 0, 0, 1))
        of_edges = (per_edge * self._hats).sum(dim=2) / self._size[:, 0]
        of_size = -(of_weights * self.weights).sum(dim=(1, 2)) / self._size[:, 0, 0]
        # An edge moves with both ends of the interval, and the bin size is their distance over the number of bins.
        of_edges = of_edges.masked_fill(self._empty[:, 0], 0.0)
        per_bin = of_size / (self._share.shape[1] - 1)
        return (of_edges * (1 - self._share)).sum(1) - per_bin, (of_edges * self._share).sum(1) + per_bin
