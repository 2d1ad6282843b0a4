"""Precise RoI pooling of many boxes in one image, again and again, with the gradient for the boxes in closed form.

The same integrals as in `prroi_pool`, for the ascent on the predicted IoU: there one image is pooled ten times and only
the boxes' gradient is wanted, so that autograd costs several times the arithmetic. "Acquisition of Localization
Confidence for Accurate Object Detection" (Jiang et al. 2018), eq. 4 to 6: the derivative for the edge of a bin is the
interpolated surface along it.

A step takes microseconds of arithmetic, so what counts is how few operators it is made of and that none of them
allocates: all levels and both axes are handled together, in buffers that live as long as the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tracker_ar.ops.prroi_pool import cell_range

# Boxes move by a few cells while they are refined; with a margin the window seldom has to be cut anew.
MARGIN = 2
# Sides of windows are multiples of this, so that from image to image the buffers mostly stay.
STEP = 4
Cells = tuple[int, int]  # first, and one past the last
NOTHING: Cells = (0, -1)


@dataclass(frozen=True)
class Level:
    """bins: of a box, along each axis. scale: feature cells per image pixel."""

    bins: int
    scale: float


class BoxPooling:
    """Integrates boxes in the features of one image after the other, on several levels.

    `load` takes the features. `integrate` gives, per level, (bins, K, bins * C): for every column of bins and every box
    the integrals, in square cells, of the channels over the bins of that column, channels last. (The mean over a bin,
    which Precise RoI pooling is, is that over the bin's area.) `gradient` goes back from there. Results lie in buffers
    that the next call overwrites.
    """

    def __init__(self, levels: Sequence[Level], whole_maps: bool = False) -> None:
        """whole_maps: never look at the boxes to see which cells they touch."""
        self._levels = levels
        self._whole_maps = whole_maps
        self._features: Sequence[Tensor] = ()
        self._windows: list[_Window] = []
        self._shape: object = None

    def load(self, features: Sequence[Tensor]) -> None:
        """features: of every level, (C, H, W) floating point; reads as zero outside the map."""
        self._features = features
        for window in self._windows:
            window.forget()

    def integrate(self, boxes: Tensor) -> list[Tensor]:
        """Boxes (K, 4) as x, y, w, h in image pixels; w and h of zero integrate to zero."""
        self._cut_windows(boxes)
        # Distance of every bin edge from every cell, and the integral of the cell's hat function up to there.
        offset = torch.addmm(self._cells, boxes, self._edges, out=self._offset).clamp_(-1.0, 1.0)
        torch.abs(offset, out=self._hats)
        torch.addcmul(offset, offset, self._hats, value=-0.5, out=self._integral)
        torch.sub(1.0, self._hats, out=self._hats)
        return [window.integrate() for window in self._windows]

    def gradient(self, of_integrals: Sequence[Tensor]) -> Tensor:
        """Of a scalar with these gradients for the last integrals: the gradient for their boxes, (K, 4)."""
        for window, of_integral in zip(self._windows, of_integrals):
            window.to_edges(of_integral)
        return torch.mm(self._per_edge.mul_(self._hats), self._edges.T, out=self._gradient)

    def _cut_windows(self, boxes: Tensor) -> None:
        """The cells that the boxes touch; on a GPU all of them, since looking at the boxes would wait for it."""
        limits = [features.shape[1:] for features in self._features]
        if self._whole_maps or boxes.is_cuda:
            touched = [((0, rows), (0, columns)) for rows, columns in limits]
        else:
            numbers = boxes.tolist()
            left, top = min(row[0] for row in numbers), min(row[1] for row in numbers)
            right, bottom = max(row[0] + row[2] for row in numbers), max(row[1] + row[3] for row in numbers)
            touched = [
                (cell_range(top * level.scale, bottom * level.scale, rows),
                 cell_range(left * level.scale, right * level.scale, columns))
                for level, (rows, columns) in zip(self._levels, limits)
            ]
        if self._windows and all(window.holds(*cells) for window, cells in zip(self._windows, touched)):
            return
        ranges = [
            [_with_margin(cells, limit) for cells, limit in zip(*pair)] for pair in zip(touched, limits)
        ]
        shape = boxes.shape, boxes.dtype, [[last - first for first, last in both] for both in ranges]
        if shape != self._shape:
            self._allocate(boxes, shape[2])
            self._shape = shape
        for window, features, both in zip(self._windows, self._features, ranges):
            window.cut(features, *both)

    def _allocate(self, boxes: Tensor, sides: list[list[int]]) -> None:
        # One row of numbers per box: for every level and axis the bin edges, and for every edge the window's cells.
        segments = [
            _edges_on_cells(level, axis, side, boxes)
            for level, both in zip(self._levels, sides) for axis, side in zip((1, 0), both)
        ]
        self._edges = torch.cat(segments, dim=1)
        shape = (len(boxes), self._edges.shape[1])
        self._offset, self._hats, self._integral, self._per_edge = (boxes.new_empty(shape) for _ in range(4))
        self._cells = boxes.new_empty(shape[1])
        self._gradient = torch.empty_like(boxes)
        parts = [
            rows.split([segment.shape[1] for segment in segments], dim=-1)
            for rows in (self._cells, self._integral, self._per_edge)
        ]
        self._windows = [
            _Window(level.bins, features.shape[0], *(part[2 * i : 2 * i + 2] for part in parts))
            for i, (level, features) in enumerate(zip(self._levels, self._features))
        ]


class _Window:
    """A part of one level, rows by columns, and the buffers and views in which its boxes are integrated.

    Letters in the names of buffers: k boxes, i and j bins along y and x, y and x cells, c channels.
    """

    def __init__(
        self, bins: int, channels: int, cells: Sequence[Tensor], integrals: Sequence[Tensor],
        per_edge: Sequence[Tensor],
    ) -> None:
        """cells, integrals and per_edge: the level's parts of the rows of `BoxPooling`, along y and x."""
        (self._cells_y, self._cells_x), count = (part.view(bins + 1, -1) for part in cells), len(integrals[0])
        height, width = self._cells_y.shape[1], self._cells_x.shape[1]
        new = integrals[0].new_empty
        self._numbers = torch.arange(max(height, width), dtype=cells[0].dtype, device=cells[0].device)
        self._rows = self._columns = NOTHING
        self._yxc = new(height, width, channels)
        self._xyc = self._yxc.transpose(0, 1)
        hats_y, hats_x = (hats.unflatten(1, (bins + 1, -1)) for hats in integrals)
        self._bin_ends = ((hats_y[:, 1:], hats_y[:, :-1]), (hats_x[:, 1:], hats_x[:, :-1]))
        self._edge_y, self._edge_x = (edges.unflatten(1, (bins + 1, -1)) for edges in per_edge)
        self._weights_y, self._weights_x = new(count, bins, height), new(count, bins, width)
        self._wide_y = self._weights_y.flatten(0, 1).expand(width, -1, -1)
        self._wide_x = self._weights_x.flatten(0, 1).expand(height, -1, -1)
        self._x_ki_c, self._y_kj_c = new(width, count * bins, channels), new(height, count * bins, channels)
        self._k_x_ic, self._k_y_jc = (
            strips.unflatten(1, (count, bins)).transpose(0, 1).flatten(2) for strips in (self._x_ki_c, self._y_kj_c)
        )
        self._k_ic_x, self._k_jc_y = self._k_x_ic.transpose(1, 2), self._k_y_jc.transpose(1, 2)
        self._k_j_ic = new(count, bins, bins * channels)
        self._j_k_ic = self._k_j_ic.transpose(0, 1)
        self._kijc = new(count, bins, bins, channels)
        self._k_i_jc = self._kijc.flatten(2)
        # Zeros before the first and after the last bin: the outer edges bound one bin only.
        self._of_y, self._of_x = (new(count, bins + 2, side).zero_() for side in (height, width))

    def forget(self) -> None:
        """The features that the window was cut from are no longer the image's."""
        self._rows = self._columns = NOTHING

    def holds(self, rows: Cells, columns: Cells) -> bool:
        """Whether all of these cells are in the window."""
        inside = ((self._rows, rows), (self._columns, columns))
        return all(own[0] <= other[0] and other[1] <= own[1] for own, other in inside)

    def cut(self, features: Tensor, rows: Cells, columns: Cells) -> None:
        """Take these cells, as many as the window has, out of (C, H, W)."""
        self._rows, self._columns = rows, columns
        self._yxc.copy_(features[:, slice(*rows), slice(*columns)].permute(1, 2, 0))
        for numbers, (first, last) in ((self._cells_y, rows), (self._cells_x, columns)):
            numbers.copy_(-first - self._numbers[: last - first])

    def integrate(self) -> Tensor:
        for (ends, starts), weights in zip(self._bin_ends, (self._weights_y, self._weights_x)):
            torch.sub(ends, starts, out=weights)
        # Strips of bins along one axis: the second is needed for the gradient alone, and costs less than rearranging.
        torch.bmm(self._wide_y, self._xyc, out=self._x_ki_c)
        torch.bmm(self._wide_x, self._yxc, out=self._y_kj_c)
        torch.bmm(self._weights_x, self._k_x_ic, out=self._k_j_ic)
        return self._j_k_ic

    def to_edges(self, of_integrals: Tensor) -> None:
        """From the gradient for the integrals, (bins, K, bins * C), to that for the offsets of the bins' edges."""
        bins = len(of_integrals)
        self._kijc.copy_(of_integrals.unflatten(2, (bins, -1)).permute(1, 2, 0, 3))
        self._of_x[:, 1:-1] = torch.bmm(of_integrals.transpose(0, 1), self._k_ic_x)
        self._of_y[:, 1:-1] = torch.bmm(self._k_i_jc, self._k_jc_y)
        torch.sub(self._of_x[:, :-1], self._of_x[:, 1:], out=self._edge_x)
        torch.sub(self._of_y[:, :-1], self._of_y[:, 1:], out=self._edge_y)


def _edges_on_cells(level: Level, axis: int, side: int, boxes: Tensor) -> Tensor:
    """What makes of a row x, y, w, h the places of the bins' edges along axis 0 (x) or 1 (y), each repeated for every
    one of `side` cells: (4, (bins + 1) * side)."""
    share = torch.linspace(0, 1, level.bins + 1, dtype=boxes.dtype, device=boxes.device)
    edges = boxes.new_zeros(4, level.bins + 1, side)
    edges[axis].fill_(level.scale)
    edges[axis + 2] = level.scale * share[:, None]
    return edges.flatten(1)


def _with_margin(cells: Cells, limit: int) -> Cells:
    first, last = max(cells[0] - MARGIN, 0), min(cells[1] + MARGIN, limit)
    side = min(math.ceil((last - first) / STEP) * STEP, limit)
    first = min(first, limit - side)
    return first, first + side
