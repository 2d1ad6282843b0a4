"""The refiners with branches against recorded outputs of the authors' networks, stage by stage."""

from __future__ import annotations

import pytest
import torch
from recipe import net_input
from recorded import Reference, key_shapes, load_recipe
from torch import Tensor, nn

from tracker_ar.models.box_head import boxes_from_deltas
from tracker_ar.models.branch_refiner import (
    BRANCH_REFINER_18,
    BRANCH_REFINER_34,
    BRANCH_REFINER_50,
    BranchRefiner,
    build_branch_refiner,
)
from tracker_ar.models.branch_selector import build_branch_selector

AR_34, AR_18, AR_BASE, AR_SELECTOR = "ar34", "ar18", "ar_base", "ar_selector"
CONFIGS = {AR_34: BRANCH_REFINER_34, AR_18: BRANCH_REFINER_18, AR_BASE: BRANCH_REFINER_50}
BOX = (63.5, 63.5, 128.0, 128.0)
# Recorded name -> module; what has no module of its own is added below.
TOWERS = {f"corner.conv{number}_{corner}": f"corner_head.conv{number}_{corner}"
          for number in (1, 4) for corner in ("tl", "br")}
MASKS = {f"mask.{name}": f"mask_head.{name}" for name in
         ("h2", "v2", "post0", "h1", "v1", "post1", "h0", "v0", "post2")}
COMMON = {"se": "neck.channel_attention", **TOWERS, **MASKS}
ADJUSTED = {"post_corr": "neck.post_corr", **{f"feat_adjust.{index}": f"feat_adjust.{index}" for index in range(3)}}
OWN = {
    AR_34: ADJUSTED, AR_18: ADJUSTED,
    AR_BASE: {"neck": "neck", "selector.conv1": "selector.conv1", "selector.conv2": "selector.conv2",
              "selector.fc1": "selector.fc1", "selector.fc2": "selector.fc2", "bbox.before_relu": "bbox_head.fc.0"},
}


def stages(network: BranchRefiner, modules: dict[str, str]) -> dict[str, Tensor]:
    """Every intermediate result of one reference and one search image, named as in the reference file."""
    seen: dict[str, Tensor] = {}
    for name, path in modules.items():
        network.get_submodule(path).register_forward_hook(lambda *call, name=name: seen.update({name: call[-1]}))
    with torch.inference_mode():
        kernel = network.learn(torch.from_numpy(net_input(258, 256)), torch.tensor([BOX], dtype=torch.float32))
        search = torch.from_numpy(net_input(256, 256))
        levels = network.levels(search)
        fused = network.neck(kernel, levels[-1])
        corners, _ = network.corner_head(fused)
        for corner in ("tl", "br"):
            heat = network.corner_head.heat(fused, corner)
            side = round(heat.shape[1] ** 0.5)
            seen[f"heat_{corner}"] = heat.view(1, side, side)
            if not network.corner_head.enlarge:
                seen[f"corner.conv5_{corner}"] = network.corner_head.get_submodule(f"conv5_{corner}")(
                    seen[f"corner.conv4_{corner}"])
        seen |= {"ref_kernel": kernel, "corr": network.neck.correlate(kernel, levels[-1]), "corner": corners}
        seen |= {f"bf.{name}": level for name, level in zip(("conv1", "layer1", "layer2", "layer3"), levels)}
        seen["mask.prob"] = torch.sigmoid(network.mask(fused, levels[:-1]))
        if network.bbox_head is not None:
            seen["bbox"] = network.bbox_head(fused)
            seen["bbox.xywh"] = boxes_from_deltas(seen["bbox"])
            seen["selector"] = network.selector(fused)
    return seen


def recipe_network(net: str) -> BranchRefiner:
    network = load_recipe(build_branch_refiner(CONFIGS[net]), net)
    if net == AR_BASE:
        network.selector = load_recipe(build_branch_selector(), AR_SELECTOR)
    return network


@pytest.mark.parametrize("net", CONFIGS)
def test_every_stage(net: str) -> None:
    reference = Reference(f"{net}_net")
    found = stages(recipe_network(net), COMMON | OWN[net])
    recorded = {name.removesuffix(".sub") for name in reference.arrays.files if not name.endswith((".stats", ".shape"))}
    if net == AR_BASE:  # made before the map is enlarged; the heat maps show it
        recorded -= {"corner.conv5_tl", "corner.conv5_br"}
    assert len(recorded) >= 30
    for name in sorted(recorded):
        reference.check(name, found[name])


@pytest.mark.parametrize("net", [*CONFIGS, AR_SELECTOR])
def test_state_dicts_have_the_keys_and_shapes_of_the_authors(net: str) -> None:
    with torch.device("meta"):
        network: nn.Module = build_branch_selector() if net == AR_SELECTOR else build_branch_refiner(CONFIGS[net])
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes == key_shapes(net)
