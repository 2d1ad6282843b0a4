"""Precise RoI pooling: the exact mean of the bilinear surface over each bin of a box.

From "Acquisition of Localization Confidence for Accurate Object Detection" (IoU-Net, Jiang et al. 2018),
section 3.3.

Bilinear interpolation puts a hat function on every cell, and the hat of a cell is the product of one in y
and one in x. The integral over a bin therefore separates: with the integrated hats as matrices, a box is
pooled by `Wy @ features @ Wx.T`. The weights are smooth functions of the box, so autograd gives the
gradient of the paper (features: the weights themselves; box edges: the surface along the edge minus the
mean) without a kernel of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def prroi_pool2d(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float
) -> Tensor:
    """Pool boxes that name their image.

    features: (N, C, H, W) floating point; reads as zero outside the map.
    rois: (R, 5) rows of (image index, x1, y1, x2, y2), in pixels of the image.
    output_size: bins (rows, columns).
    spatial_scale: feature cells per image pixel, such as 1 / 16.
    Returns (R, C, rows, columns). Boxes without area give zeros, and no gradient. Differentiable in
    features and rois.
    """
    boxes = rois[:, 1:]
    if features.shape[0] == 1:
        return prroi_pool_boxes(features, boxes[None], output_size, spatial_scale)[0]
    return prroi_pool_boxes(features[rois[:, 0].long()], boxes[:, None], output_size, spatial_scale)[:, 0]


def prroi_pool_boxes(
    features: Tensor, boxes: Tensor, output_size: tuple[int, int], spatial_scale: float
) -> Tensor:
    """Pool the same number of boxes in every image.

    features: (N, C, H, W); boxes: (N, K, 4) as x1, y1, x2, y2 in image pixels. Returns (N, K, C, rows,
    columns).
    """
    num_images, channels, height, width = features.shape
    num_boxes = boxes.shape[1]
    rows, columns = output_size
    x1, y1, x2, y2 = (boxes * spatial_scale).unbind(-1)
    cells_x, cells_y = _touched_cells(x1, x2, width), _touched_cells(y1, y2, height)
    features = features[:, :, cells_y[0] : cells_y[1], cells_x[0] : cells_x[1]]
    height, width = features.shape[2:]
    weights_x = _bin_weights(x1, x2, columns, cells_x)
    weights_y = _bin_weights(y1, y2, rows, cells_y)

    # x first: one large product serves all boxes of an image, and what is left for y is small.
    across = weights_x.reshape(num_images, num_boxes * columns, width).transpose(1, 2)
    strips = features.reshape(num_images, channels * height, width) @ across
    strips = strips.reshape(num_images, channels, height, num_boxes, columns).permute(0, 3, 2, 1, 4)
    pooled = weights_y @ strips.reshape(num_images, num_boxes, height, channels * columns)
    return pooled.reshape(num_images, num_boxes, rows, channels, columns).transpose(2, 3)


def _touched_cells(start: Tensor, end: Tensor, num_cells: int) -> tuple[int, int]:
    first, last = torch.stack((start.detach().amin(), end.detach().amax())).tolist()
    return cell_range(first, last, num_cells)


def cell_range(first: float, last: float, num_cells: int) -> tuple[int, int]:
    """First and one past the last of `num_cells` cells that an interval (in cells) touches; at least one cell."""
    first, last = (value if math.isfinite(value) else 0.0 for value in (first, last))
    lower = min(max(math.floor(first), 0), num_cells - 1)
    return lower, min(max(math.ceil(last) + 1, lower + 1), num_cells)


def _bin_weights(start: Tensor, end: Tensor, num_bins: int, cell_range: tuple[int, int]) -> Tensor:
    """The mean of every cell's hat function over every bin of the interval: (..., num_bins, cells)."""
    bin_size = (end - start) / num_bins
    empty = bin_size <= 0
    bin_size = torch.where(empty, torch.ones_like(bin_size), bin_size)[..., None]
    edges = start[..., None] + bin_size * torch.arange(num_bins + 1, dtype=start.dtype, device=start.device)
    cells = torch.arange(*cell_range, dtype=start.dtype, device=start.device)
    offset = (edges[..., None] - cells).clamp(-1.0, 1.0)
    integral = offset - 0.5 * offset * offset.abs()
    weights = integral.diff(dim=-2) / bin_size[..., None]
    return weights.masked_fill(empty[..., None, None], 0.0)
