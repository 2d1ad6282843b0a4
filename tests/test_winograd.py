"""Winograd's convolution against the direct one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tracker_ar.ops import convolution as models_convolution
from tracker_ar.ops.convolution import PackedConvolution, can_pack
from tracker_ar.ops import winograd
from tracker_ar.ops.winograd import WinogradConvolution, pays


@settings(max_examples=40, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)), size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    channels_last=st.booleans(), seed=st.integers(0, 1000),
)
def test_is_the_direct_convolution(
    channels: tuple[int, int], size: tuple[int, int], channels_last: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(*channels, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(1, channels[1], *size, generator=generator, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    found = WinogradConvolution(weight, torch.Size(size))(x)
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=1), rtol=1e-10, atol=1e-10)


def test_rounding_in_single_precision_is_small() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(64, 256, 3, 3, generator=generator), torch.rand(1, 256, 22, 22, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (WinogradConvolution(weight, x.shape[2:])(x) - exact).abs().max()
    assert 0 < error < 3e-5 * exact.abs().max()


@pytest.mark.parametrize("outputs, inputs, side, worth", [
    (256, 256, 22, True), (512, 1024, 22, True), (208, 208, 96, True),
    (128, 128, 16, False), (512, 512, 12, False), (64, 64, 96, False), (64, 208, 96, False), (256, 256, 8, False),
])
def test_is_chosen_for_many_channels_and_tiles(outputs: int, inputs: int, side: int, worth: bool) -> None:
    assert pays(torch.empty(outputs, inputs, 3, 3, device="meta"), torch.Size((side, side))) == worth


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [12, 14])
def test_takes_part_in_packed_convolutions(monkeypatch: pytest.MonkeyPatch, bias: bool, side: int) -> None:
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 4)
    monkeypatch.setattr(winograd, "FEWEST_TILES", 9)
    monkeypatch.setattr(models_convolution, "LARGEST_PLAIN", 0)
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 4, 3, padding=1, bias=bias).requires_grad_(False)
    if not can_pack(convolution):
        pytest.skip("torch cannot pack convolutions here")
    packed = PackedConvolution(convolution, rectify=False)
    x, added = (torch.rand(1, count, side, side).to(memory_format=torch.channels_last) for count in (8, 4))
    direct = convolution(x)
    for found, wanted in (
        (packed(x), direct), (packed(x, added), direct + added),
        (packed(x, added, rectify=True), F.relu(direct + added)), (packed(x, rectify=True), F.relu(direct)),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert packed._run == packed._by_winograd
    other = torch.rand(1, 8, side + 1, side)
    torch.testing.assert_close(packed(other), convolution(other), rtol=1e-4, atol=1e-4)
    strided = PackedConvolution(torch.nn.Conv2d(8, 4, 3, stride=2, padding=1).requires_grad_(False), rectify=False)
    strided(x)
    assert strided._run == strided._fused
