"""Preparing networks for tracking changes how they are computed, not what."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tracker_ar.models.inference import prepare_for_inference
from tracker_ar.models.mask_refiner import MASK_REFINER_LITE, build_mask_refiner
from tracker_ar.models.super_dimp import SUPER_DIMP_LITE, build_super_dimp


def with_lived_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after training: statistics, gains and offsets away from where they start."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, middle in ((module.running_mean, 0), (module.running_var, 1), (module.weight, 1), (module.bias, 0)):
                values.data = middle + 0.3 * (torch.rand(values.shape, generator=generator) - 0.5)
    return network.double().eval()


@pytest.mark.parametrize("name", ["base", "refiner"])
def test_outputs_are_the_same(name: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    box = torch.tensor([[32.0, 40.0, 64.0, 50.0]], dtype=torch.float64)
    if name == "base":
        network = with_lived_statistics(build_super_dimp(SUPER_DIMP_LITE))

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
