"""Bilinear samples of boxes of a feature map, as RT-MDNet takes them.

Not the RoI alignment of Mask R-CNN (He et al. 2017), from which it comes: samples lie on the box's edges, and its size
counts one cell more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def roi_samples(
    features: Tensor, boxes: Tensor, size: tuple[int, int], scale: float = 1.0, owners: Tensor | None = None
) -> Tensor:
    """A grid of samples from edge to edge of every box.

    features: (B, C, H, W) float32. boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the image, of
    which features have `scale` cells each. size: (rows, columns) of the grid. owners: (N,) int64, the map of each box;
    None for the first. Returns (N, C, rows, columns) float32, channels last in memory.

    Samples outside the map are 0. In its last row and column, where the neighbour beyond is missing, values are
    extrapolated from the two before.
    """
    channels, height, width = features.shape[1:]
    cells = features.permute(0, 2, 3, 1).reshape(-1, channels)
    y0, y_far, y_inside = _positions(boxes[:, 1::2] * scale, size[0], height)
    x0, x_far, x_inside = _positions(boxes[:, 0::2] * scale, size[1], width)
    first = (y0 * width)[:, :, None] + x0[:, None]
    if owners is not None:
        first = first + (owners * (height * width))[:, None, None]
    right, below = int(width > 1), width * int(height > 1)
    neighbours = torch.stack((first, first + right, first + below, first + below + right), -1)
    rows = torch.stack((1 - y_far, y_far), -1) * y_inside[..., None]
    columns = torch.stack((1 - x_far, x_far), -1) * x_inside[..., None]
    weights = rows[:, :, None, :, None] * columns[:, None, :, None, :]
    values = F.embedding_bag(neighbours.view(-1, 4), cells, per_sample_weights=weights.reshape(-1, 4), mode="sum")
    return values.view(len(boxes), *size, channels).permute(0, 3, 1, 2)


def roi_max_pool(features: Tensor, boxes: Tensor, side: int, scale: float, owners: Tensor | None = None) -> Tensor:
    """(N, C, side, side): the largest of every 3 x 3 among `roi_samples`, at every other one of them."""
    grid = 2 * side + 1
    return F.max_pool2d(roi_samples(features, boxes, (grid, grid), scale, owners), 3, stride=2)


def _positions(edges: Tensor, count: int, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """`count` places between edges (N, 2), cells: the first of two neighbours, how far towards the second, whether the
    place is on the map; each (N, count)."""
    length = (edges[:, 1:] - edges[:, :1] + 1).clamp(min=0)
    steps = torch.arange(count, dtype=edges.dtype, device=edges.device)
    places = steps * (length / (count - 1)) + edges[:, :1]
    inside = (places >= 0) & (places < limit)
    near = places.clamp(0, limit - 1).floor().clamp(max=max(limit - 2, 0))
    return near.long(), (places - near) * inside, inside.to(edges.dtype)
