"""Doubling a map by bicubic interpolation, alone and together with the convolution that follows.

The same as `F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)`, which is several times slower
forward and backward.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Cubic convolution (Keys 1981, a = -0.75) a quarter of a cell before the third of four taps.
QUARTER = (-0.03515625, 0.26171875, 0.87890625, -0.10546875)


def double(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, 2 h, 2 w); border cells are repeated outside."""
    rows, columns = (_doubling_matrix(side, x.dtype, x.device) for side in x.shape[2:])
    return rows @ (x @ columns.T)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # made while tracking it must still serve for training
def _doubling_matrix(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2 side, side): a line of cells to its doubled line."""
    line = torch.eye(side, dtype=torch.float64)
    padded = torch.cat((line[:1], line[:1], line, line[-1:], line[-1:]))
    shifted = [padded[start : start + side] for start in range(5)]
    before = sum(weight * taps for weight, taps in zip(QUARTER, shifted[:4]))
    after = sum(weight * taps for weight, taps in zip(QUARTER, reversed(shifted[1:])))
    return torch.stack((before, after), dim=1).flatten(0, 1).to(device, dtype)


def convolve_doubled(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """`convolution(double(x))` for a 3 x 3 convolution with zero padding of one: (N, C, h, w) -> (N, O, 2 h, 2 w).

    Doubling is linear, so both together are one 5 x 5 convolution of the small map with four outputs a cell, one for
    each quarter. Worth it for few output channels: the doubled map of all input channels is never made.
    """
    kernel = _kernel_of_quarters(convolution.weight)
    bias = None if convolution.bias is None else convolution.bias.repeat_interleave(4)
    quarters = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, bias)
    result = F.pixel_shuffle(quarters, 2)
    # The convolution reads zeros around the doubled map, the kernel above repeated cells: the outermost row and column
    # are made the long way. They see three cells deep.
    result[:, :, :1] = convolution(double(x[:, :, :3]))[:, :, :1]
    result[:, :, -1:] = convolution(double(x[:, :, -3:]))[:, :, -1:]
    result[:, :, :, :1] = convolution(double(x[:, :, :, :3]))[:, :, :, :1]
    result[:, :, :, -1:] = convolution(double(x[:, :, :, -3:]))[:, :, :, -1:]
    return result


def _kernel_of_quarters(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) on the doubled map -> (4 O, C, 5, 5) on the small one, in the order of pixel_shuffle."""
    q0, q1, q2, q3 = QUARTER
    # Cells 2 i - 1 to 2 i + 2 of a doubled line as sums over cells i - 2 to i + 2 of the line itself.
    lines = weight.new_tensor([[q3, q2, q1, q0, 0], [q0, q1, q2, q3, 0], [0, q3, q2, q1, q0], [0, q0, q1, q2, q3]])
    taps = torch.stack((lines[:3], lines[1:]))
    kernel = torch.einsum("pkr,ockl,qls->opqcrs", taps, weight, taps)
    return kernel.flatten(0, 2)
