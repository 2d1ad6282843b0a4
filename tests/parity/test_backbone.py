"""Both backbones against recorded features of the authors' networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from recipe import net_input
from recorded import Reference

from tracker_ar.models.alpha_refine import LEVELS, MaskRefiner
from tracker_ar.models.dimp import DiMP


@torch.inference_mode()
def test_base_tracker_backbone(super_dimp: DiMP, reference: Callable[[str], Reference]) -> None:
    names = ("conv1", "layer1", "layer2", "layer3", "layer4")
    features = super_dimp.feature_extractor(torch.from_numpy(net_input(352, 352)), names)
    assert tuple(features) == names
    for name in names:
        reference("backbone").check(f"dimp.{name}", features[name])


@torch.inference_mode()
def test_refiner_backbone(mask_refiner: MaskRefiner, reference: Callable[[str], Reference]) -> None:
    backbone = mask_refiner.feature_extractor
    features = backbone(torch.from_numpy(net_input(384, 384)), ("conv1", *LEVELS.values()))
    reference("backbone").check("ar.layer1", backbone.maxpool(features["conv1"]))
    for level, stage in LEVELS.items():
        reference("backbone").check(f"ar.{level}", features[stage])


def test_layers_beyond_the_deepest_wanted_are_not_computed(super_dimp: DiMP) -> None:
    called = []
    handle = super_dimp.feature_extractor.layer4.register_forward_hook(lambda *_: called.append(1))
    super_dimp.extract_backbone(torch.zeros(1, 3, 64, 64))
    handle.remove()
    assert not called
