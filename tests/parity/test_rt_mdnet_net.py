"""The network of RT-MDNet and its parts against recorded outputs of the authors' code."""

from __future__ import annotations

import pytest
import torch
from recorded import Reference, key_shapes, load_recipe
from synth import blocks
from torch import Tensor
from torch.nn import functional as F

from tracker_ar.models.mdnet import FEATURE_SCALE, MDNet, pooled_features, scores
from tracker_ar.ops.roi_align import roi_samples

REFERENCE = Reference("rtmdnet_net")


@pytest.fixture(scope="module")
def network() -> MDNet:
    return load_recipe(MDNet(), "rtmdnet")


@pytest.fixture(scope="module")
@torch.no_grad()
def stages(network: MDNet) -> dict[str, Tensor]:
    scene = torch.from_numpy(blocks(211, 211, 240, 16)).permute(2, 0, 1)[None].float() - 128
    seen, x = {}, scene
    for name in ("conv1", "conv2", "conv3"):
        seen[name] = x = network.layers.get_submodule(name)(x)
    assert torch.equal(x, network.scene_features(scene))
    rois = REFERENCE["rois"]
    pooled = pooled_features(x, rois[:, 1:], rois[:, 0].long())
    layers = network.initial_layers()
    fc4 = F.linear(pooled, layers.fc4, layers.fc4_bias).relu()
    return seen | {
        "grid7": roi_samples(x, rois[:, 1:], (7, 7), FEATURE_SCALE),
        "pooled": pooled.view(-1, 512, 3, 3),
        "fc4": fc4,
        "fc5": F.linear(fc4, layers.fc5, layers.fc5_bias).relu(),
        "scores": scores(layers, pooled),
    }


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "grid7", "pooled", "fc4", "fc5", "scores"])
def test_stage(name: str, stages: dict[str, Tensor]) -> None:
    REFERENCE.check(name, stages[name])


def test_keys() -> None:
    assert {key: tuple(value.shape) for key, value in MDNet().state_dict().items()} == key_shapes("rtmdnet")
