"""Enlarging maps, alone and together with the 3 x 3 convolution that follows, as matrix products.

Interpolation is linear and separable: an enlarged map is `rows @ map @ columns.T` for two small matrices. So is a
convolution after it, with zero padding and all, if every tap has its own pair of matrices, shifted by the tap; what a
tap does with the channels then happens at the small size. The same as `F.interpolate`, bicubic or bilinear without
aligned corners, and the convolution of its result; maps are worked on with channels last.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Cubic convolution (Keys 1981, a = -0.75) a quarter of a cell before the third of four taps.
QUARTER = (-0.03515625, 0.26171875, 0.87890625, -0.10546875)
Line = tuple[str, int, int]  # how, from how many cells, to how many


def double(x: Tensor) -> Tensor:
    """Bicubic: (N, C, h, w) -> (N, C, 2 h, 2 w), channels last; border cells are repeated outside."""
    rows, columns = (_matrix(("bicubic", side, 2 * side), x.dtype, x.device) for side in x.shape[2:])
    count, _, height, width = x.shape
    lines = rows @ x.permute(0, 2, 3, 1).reshape(count, height, -1)
    return _columns(columns, lines.view(count, 2 * height, width, -1))


def convolve_doubled(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """`convolution(double(x))` for a 3 x 3 convolution with zero padding of one: (N, C, h, w) -> (N, O, 2 h, 2 w).

    Worth it for few output channels: the doubled map of all input channels is never made.
    """
    (height, width), bias = x.shape[2:], convolution.bias
    result = _convolve(x, convolution.weight, ("bicubic", height, 2 * height), ("bicubic", width, 2 * width))
    return result if bias is None else result + bias[:, None, None]


def convolve_enlarged(x: Tensor, weight: Tensor, size: torch.Size) -> Tensor:
    """A 3 x 3 convolution with zero padding of one and no bias, weight (O, C, 3, 3), of `x`, (N, C, h, w), after
    bilinear interpolation to `size` (H, W) -> (N, O, H, W). Worth it where the maps become several times larger."""
    rows, columns = (("bilinear", *sides) for sides in zip(x.shape[2:], size))
    return _convolve(x, weight, rows, columns)


def _convolve(x: Tensor, weight: Tensor, rows: Line, columns: Line) -> Tensor:
    count, channels, height, width = x.shape
    taps = weight.permute(1, 2, 3, 0).reshape(channels, -1)
    small = x.permute(0, 2, 3, 1).reshape(-1, channels) @ taps
    # Rows as (tap along y, y), columns as (tap along x, x), output channels last.
    small = small.view(count, height, width, 3, 3, -1).permute(0, 3, 1, 4, 2, 5).reshape(count, 3 * height, -1)
    lines = _shifted(rows, x.dtype, x.device) @ small
    return _columns(_shifted(columns, x.dtype, x.device), lines.view(count, rows[2], 3 * width, -1))


def _columns(matrix: Tensor, lines: Tensor) -> Tensor:
    """(W, w) and (N, H, w, C) -> (N, C, H, W), channels last."""
    count, height, width, channels = lines.shape
    if channels == 1:
        return (lines.view(-1, width) @ matrix.T).view(count, 1, height, -1)
    large = torch.bmm(matrix.expand(count * height, -1, -1), lines.view(-1, width, channels))
    return large.view(count, height, -1, channels).permute(0, 3, 1, 2)


@cache  # a CUDA graph reads them where they lie: none may ever go
@torch.inference_mode(False)  # made while tracking it must still serve for training
def _matrix(line: Line, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(to, from): a line of cells to its enlarged line."""
    how, cells, enlarged = line
    unit = torch.eye(cells, dtype=torch.float64)
    if how == "bilinear":
        matrix = F.interpolate(unit[:, None], size=enlarged, mode="linear", align_corners=False)[:, 0].T
    else:
        padded = torch.cat((unit[:1], unit[:1], unit, unit[-1:], unit[-1:]))
        shifted = [padded[start : start + cells] for start in range(5)]
        nothing = torch.zeros_like(unit)
        before = sum((weight * taps for weight, taps in zip(QUARTER, shifted[:4])), start=nothing)
        after = sum((weight * taps for weight, taps in zip(QUARTER, reversed(shifted[1:]))), start=nothing)
        matrix = torch.stack((before, after), dim=1).flatten(0, 1)
    return matrix.to(device, dtype).contiguous()


@cache
@torch.inference_mode(False)
def _shifted(line: Line, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(to, 3 * from): what each of three taps along the enlarged line reads, zeros beyond its ends."""
    matrix = _matrix(line, dtype, device)
    nothing = torch.zeros_like(matrix[:1])
    return torch.cat((torch.cat((nothing, matrix[:-1])), matrix, torch.cat((matrix[1:], nothing))), dim=1)
