"""Doubling a map by bicubic interpolation, alone and together with the convolution that follows.

The same as `F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)`, which is several times slower.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Cubic convolution (Keys 1981, a = -0.75) a quarter of a cell before the third of four taps.
QUARTER = (-0.03515625, 0.26171875, 0.87890625, -0.10546875)


def double(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, 2 h, 2 w); border cells are repeated outside."""
    for dim in (3, 2):
        length = x.shape[dim]
        padded = F.pad(x, (2, 2, 0, 0) if dim == 3 else (0, 0, 2, 2), mode="replicate")
        shifted = [padded.narrow(dim, start, length) for start in range(5)]
        before = sum(weight * taps for weight, taps in zip(QUARTER, shifted[:4]))
        after = sum(weight * taps for weight, taps in zip(QUARTER, reversed(shifted[1:])))
        x = torch.stack((before, after), dim=dim + 1).flatten(dim, dim + 1)
    return x


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
