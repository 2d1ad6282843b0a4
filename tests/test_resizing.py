"""Enlarging against torch's interpolation, and the convolutions after it against their two parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tracker_ar.ops.resizing import convolve_doubled, convolve_enlarged, double

SIZES = [(2, 3), (3, 5), (8, 8), (7, 13)]


@pytest.mark.parametrize("size", SIZES)
def test_double_is_bicubic_interpolation(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(double(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_fused_convolution(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    convolution = nn.Conv2d(3, 2, 3, padding=1, bias=bias).double()
    parts = convolution(F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False))
    fused = convolve_doubled(x, convolution)
    torch.testing.assert_close(fused, parts, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(parts)
    wanted = [x, *convolution.parameters()]
    expected = torch.autograd.grad((parts * weights).sum(), wanted)
    for gradient, other in zip(torch.autograd.grad((fused * weights).sum(), wanted), expected):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1, 2, 4, 2.5])
def test_convolution_of_an_enlarged_map(size: tuple[int, int], factor: float) -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    enlarged = torch.Size(int(side * factor) for side in size)
    parts = F.conv2d(F.interpolate(x, size=enlarged, mode="bilinear", align_corners=False), weight, padding=1)
    fused = convolve_enlarged(x, weight, enlarged)
    torch.testing.assert_close(fused, parts, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(parts)
    expected = torch.autograd.grad((parts * weights).sum(), (x, weight))
    for gradient, other in zip(torch.autograd.grad((fused * weights).sum(), (x, weight)), expected):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-10)


def test_channels_last() -> None:
    """What comes out is laid out as the convolutions of a prepared network want it."""
    x = torch.randn(1, 8, 6, 6).to(memory_format=torch.channels_last)
    assert double(x).is_contiguous(memory_format=torch.channels_last)
    assert convolve_enlarged(x, torch.randn(4, 8, 3, 3), torch.Size((12, 12))).is_contiguous(memory_format=torch.channels_last)
