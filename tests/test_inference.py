"""Preparing networks for tracking changes how they are computed, not what."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from tracker_ar.engine.inference import prepare_for_inference
from tracker_ar.models.alpha_refine import MASK_REFINER_LITE, build_mask_refiner
from tracker_ar.models.dimp import SUPER_DIMP_LITE, build_dimp
from tracker_ar.ops import convolution
from tracker_ar.ops.convolution import PackedConvolution, can_pack


def with_lived_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after training: statistics, gains and offsets away from where they start."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            around = ((module.running_mean, 0), (module.running_var, 1), (module.weight, 1), (module.bias, 0))
            for values, middle in around:
                values.data = middle + 0.3 * (torch.rand(values.shape, generator=generator) - 0.5)
    return network.double().eval()


@pytest.mark.parametrize("name", ["base", "refiner"])
def test_outputs_are_the_same(name: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    box = torch.tensor([[32.0, 40.0, 64.0, 50.0]], dtype=torch.float64)
    if name == "base":
        network = with_lived_statistics(build_dimp(SUPER_DIMP_LITE))

        def outputs() -> list[torch.Tensor]:
            backbone = network.extract_backbone(images)
            modulation, features = network.iou_modulation(backbone, box), network.iou_features(backbone)
            return [*modulation, *features, network.classification_features(backbone)]
    else:
        network = with_lived_statistics(build_mask_refiner(MASK_REFINER_LITE))

        def outputs() -> list[torch.Tensor]:
            return [network.segment(network.learn(images, box), images.flip(3)).logits]

    with torch.no_grad():
        before = outputs()
        assert prepare_for_inference(network, torch.device("cpu")) is network
        after = outputs()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-8, atol=1e-9)


class TestPacking:
    def test_is_used_on_this_machine_or_refused_as_a_whole(self) -> None:
        network = prepare_for_inference(build_dimp(SUPER_DIMP_LITE), torch.device("cpu"))
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        packed = [isinstance(module, PackedConvolution) for module in convolutions]
        assert all(packed) == any(packed) == can_pack(nn.Conv2d(3, 3, 3))

    @pytest.mark.parametrize("side", [128, 192])
    def test_computes_the_same_for_every_size(self, side: int) -> None:
        """Weights are laid out for the first size that is seen; other sizes and batches go the plain way."""
        plain, fast = (with_lived_statistics(_seeded_refiner()).float() for _ in range(2))
        prepare_for_inference(plain, torch.device("cpu"), fast=False)
        prepare_for_inference(fast, torch.device("cpu"))
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
        box = torch.tensor([[32.0, 40.0, 64.0, 50.0]])
        fast.segment(fast.learn(images[:1, :, :64, :64], box), images[:1, :, :64, :64])
        before = images.clone()
        expected, actual = (net.segment(net.learn(images[:1], box), images).logits for net in (plain, fast))
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        assert torch.equal(images, before)

    @pytest.mark.parametrize("inputs, outputs, kernel, stride, side", [
        (24, 16, 1, 1, 12), (24, 16, 1, 2, 13), (24, 16, 1, 1, 1), (64, 64, 1, 1, 32), (24, 16, 3, 1, 12),
        (24, 16, 3, 2, 13), (1, 16, 3, 1, 12), (128, 128, 3, 1, 24),
    ])
    @pytest.mark.parametrize("bias", [True, False])
    def test_fusing_computes_the_same(
        self, inputs: int, outputs: int, kernel: int, stride: int, side: int, bias: bool
    ) -> None:
        torch.manual_seed(0)
        plain = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias).requires_grad_(False)
        if not can_pack(plain):
            pytest.skip("torch cannot pack convolutions here")
        x = torch.randn(1, inputs, side, side).to(memory_format=torch.channels_last)
        expected, before = plain(x), x.clone()
        added = torch.randn(expected.shape).to(memory_format=torch.channels_last)
        for always in (False, True):
            packed = PackedConvolution(plain, relu=always)
            for more in (None, added):
                for relu in (False, True):
                    total = expected if more is None else expected + more
                    found = packed(x, more, relu)
                    torch.testing.assert_close(found, total.relu() if relu or always else total, rtol=1e-4, atol=1e-4)
                    assert found.is_contiguous(memory_format=torch.channels_last)
            assert packed._packed is not None
        assert torch.equal(x, before)

    def test_copies_pack_their_weights_anew(self) -> None:
        packed = PackedConvolution(nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False), relu=True)
        if not can_pack(nn.Conv2d(8, 8, 3)):
            pytest.skip("torch cannot pack convolutions here")
        x = torch.randn(1, 8, 6, 6)
        expected = packed(x)
        for made in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
            torch.testing.assert_close(made(x), expected)

    def test_falls_back_where_torch_lacks_the_operators(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        convolution._packing_works.cache_clear()
        try:
            network = prepare_for_inference(build_dimp(SUPER_DIMP_LITE), torch.device("cpu"))
        finally:
            convolution._packing_works.cache_clear()
        assert not any(isinstance(module, PackedConvolution) for module in network.modules())

    def test_double_precision_and_other_padding_are_left_alone(self) -> None:
        assert not can_pack(nn.Conv2d(3, 3, 3).double())
        assert not can_pack(nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate"))
        assert not can_pack(nn.Conv2d(3, 3, 3, padding="same"))


def _seeded_refiner() -> nn.Module:
    torch.manual_seed(0)
    return build_mask_refiner(MASK_REFINER_LITE)
