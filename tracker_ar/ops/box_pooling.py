"""Precise RoI pooling of many boxes in one image, again and again, with the gradient for the boxes in closed form.

The same integrals as in `prroi_pool`, for the ascent on the predicted IoU: there one image is pooled ten times and only
the boxes' gradient is wanted, so that autograd costs several times the arithmetic. "Acquisition of Localization
Confidence for Accurate Object Detection" (Jiang et al. 2018), eq. 4 to 6: the derivative for the edge of a bin is the
interpolated surface along it.

A step takes microseconds of arithmetic, so what counts is how few operators it is made of and that none of them
allocates: all levels and both axes are handled together, in buffers that live as long as the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tracker_ar.ops.prroi_pool import cell_range

# Boxes move by a few cells while they are refined; with a margin the window seldom has to be cut anew.
MARGIN = 2
Cells = tuple[int, int]  # first, and one past the last


@dataclass(frozen=True)
class Level:
    """features: (C, H, W) floating point; reads as zero outside the map. bins: of a box, along each axis.
    scale: cells per image pixel."""

    features: Tensor
    bins: int
    scale: float


class BoxPooling:
    """Integrates boxes in the features of one image, which may have several levels.

    `integrate` gives, per level, (K, bins * bins * C): the integral, in square cells, of every channel over every bin,
    bins column by column, channels last. (The mean over a bin, which Precise RoI pooling is, is that over the bin's
    area.) `gradient` goes back from there. Both results lie in buffers that the next call overwrites.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        self._levels = levels
        self._windows: list[_Window] = []

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
        """The gradient for the boxes (K, 4) of the last call of a scalar whose gradients for the integrals are given."""
        for window, of_integral in zip(self._windows, of_integrals):
            window.to_edges(of_integral)
        return torch.mm(self._per_edge.mul_(self._hats), self._edges.T, out=self._gradient)

    def _cut_windows(self, boxes: Tensor) -> None:
        """Windows of the cells that the boxes touch; on a GPU all cells, since looking at the boxes would wait for it."""
        if boxes.is_cuda:
            touched = [((0, level.features.shape[1]), (0, level.features.shape[2])) for level in self._levels]
        else:
            left, top, width, height = zip(*boxes.tolist())
            right, bottom = map(max, zip(*((x + w, y + h) for x, y, w, h in zip(left, top, width, height))))
            touched = [
                (cell_range(min(top) * level.scale, bottom * level.scale, level.features.shape[1]),
                 cell_range(min(left) * level.scale, right * level.scale, level.features.shape[2]))
                for level in self._levels
            ]
        if self._windows and all(window.holds(*cells) for window, cells in zip(self._windows, touched)):
            return
        self._allocate(boxes, [
            [_with_margin(cells, limit) for cells, limit in zip(both, level.features.shape[1:])]
            for level, both in zip(self._levels, touched)
        ])

    def _allocate(self, boxes: Tensor, windows: list[list[Cells]]) -> None:
        # One row of numbers per box: for every level and axis the bin edges, and for every edge the window's cells.
        segments = [
            _edges_on_cells(level, axis, cells, boxes)
            for level, window in zip(self._levels, windows) for axis, cells in zip((1, 0), window)
        ]
        self._edges = torch.cat([edges for edges, _ in segments], dim=1)
        self._cells = torch.cat([cells for _, cells in segments])
        shape = (len(boxes), len(self._cells))
        self._offset, self._hats, self._integral, self._per_edge = (boxes.new_empty(shape) for _ in range(4))
        self._gradient = torch.empty_like(boxes)
        lengths = [len(cells) for _, cells in segments]
        integrals, per_edge = self._integral.split(lengths, dim=1), self._per_edge.split(lengths, dim=1)
        self._windows = [
            _Window(level, window, integrals[2 * i : 2 * i + 2], per_edge[2 * i : 2 * i + 2])
            for i, (level, window) in enumerate(zip(self._levels, windows))
        ]


class _Window:
    """A part of one level, rows by columns, and the buffers and views in which its boxes are integrated.

    Letters in the names of buffers: k boxes, i and j bins along y and x, y and x cells, c channels.
    """

    def __init__(self, level: Level, window: list[Cells], integrals: Sequence[Tensor], per_edge: Sequence[Tensor]) -> None:
        self._rows, self._columns = window
        part = level.features[:, slice(*self._rows), slice(*self._columns)]
        self._yxc = part.permute(1, 2, 0).contiguous()
        self._xyc = self._yxc.transpose(0, 1)
        (height, width, channels), bins, count = self._yxc.shape, level.bins, len(integrals[0])
        new = level.features.new_empty
        self._hats_y, self._hats_x = (hats.unflatten(1, (bins + 1, -1)) for hats in integrals)
        self._edge_y, self._edge_x = (edges.unflatten(1, (bins + 1, -1)) for edges in per_edge)
        self._weights_y, self._weights_x = new(count, bins, height), new(count, bins, width)
        self._wide_y = self._weights_y.flatten(0, 1).expand(width, -1, -1)
        self._wide_x = self._weights_x.flatten(0, 1).expand(height, -1, -1)
        self._x_kic, self._y_kjc = new(width, count * bins, channels), new(height, count * bins, channels)
        # Zeros before the first and after the last bin: the outer edges bound one bin only.
        self._of_y, self._of_x = (new(count, bins + 2, side).zero_() for side in (height, width))
        self._k_x_ic, self._k_y_jc = (
            strips.unflatten(1, (count, bins)).transpose(0, 1).flatten(2) for strips in (self._x_kic, self._y_kjc)
        )
        self._integrals = new(count, bins, bins * channels)
        self._kijc = new(count, bins, bins, channels)

    def holds(self, rows: Cells, columns: Cells) -> bool:
        """Whether all of these cells are in the window."""
        inside = ((self._rows, rows), (self._columns, columns))
        return all(own[0] <= other[0] and other[1] <= own[1] for own, other in inside)

    def integrate(self) -> Tensor:
        torch.sub(self._hats_y[:, 1:], self._hats_y[:, :-1], out=self._weights_y)
        torch.sub(self._hats_x[:, 1:], self._hats_x[:, :-1], out=self._weights_x)
        # Strips of bins along one axis: the second is needed for the gradient alone, and costs less than rearranging.
        torch.bmm(self._wide_y, self._xyc, out=self._x_kic)
        torch.bmm(self._wide_x, self._yxc, out=self._y_kjc)
        return torch.bmm(self._weights_x, self._k_x_ic, out=self._integrals).flatten(1)

    def to_edges(self, of_integrals: Tensor) -> None:
        """From the gradient for the integrals, (K, bins * bins * C), to that for the offsets of the bins' edges."""
        kjic = of_integrals.view_as(self._integrals)
        self._kijc.copy_(kjic.unflatten(2, (kjic.shape[1], -1)).transpose(1, 2))
        self._of_x[:, 1:-1] = torch.bmm(kjic, self._k_x_ic.transpose(1, 2))
        self._of_y[:, 1:-1] = torch.bmm(self._kijc.flatten(2), self._k_y_jc.transpose(1, 2))
        torch.sub(self._of_x[:, :-1], self._of_x[:, 1:], out=self._edge_x)
        torch.sub(self._of_y[:, :-1], self._of_y[:, 1:], out=self._edge_y)


def _edges_on_cells(level: Level, axis: int, cells: Cells, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """With which a row x, y, w, h becomes the distances of the bins' edges from the cells along axis 0 (x) or 1 (y):
    a (4, (bins + 1) * cells) matrix, and the cells' numbers to be added, negative."""
    numbers = torch.arange(*cells, dtype=boxes.dtype, device=boxes.device)
    share = torch.linspace(0, 1, level.bins + 1, dtype=boxes.dtype, device=boxes.device)
    edges = boxes.new_zeros(4, level.bins + 1, len(numbers))
    edges[axis] = level.scale
    edges[axis + 2] = level.scale * share[:, None]
    return edges.flatten(1), -numbers.repeat(level.bins + 1)


def _with_margin(cells: Cells, limit: int) -> Cells:
    return max(cells[0] - MARGIN, 0), min(cells[1] + MARGIN, limit)
