"""The network of SiamRPN++ against recorded outputs of the authors' network, stage by stage."""

from __future__ import annotations

import pytest
import torch
from recorded import Reference, key_shapes, load_recipe
from synth import blocks
from torch import Tensor

from tracker_ar.models.siam_rpn import SiamRPN

REFERENCE = Reference("siamrpn_net")
LEVELS = (2, 3, 4)


def picture(size: int) -> Tensor:
    return torch.from_numpy(blocks(size, size, size, 16)).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
@torch.no_grad()
def stages() -> dict[str, Tensor]:
    network = load_recipe(SiamRPN(), "siamrpn")
    seen: dict[str, Tensor] = {}
    adjusted = {}
    for name, size in (("z", 127), ("x", 255)):
        features = network.backbone(picture(size))
        adjusted[name] = network.neck(features)
        for level, stage, neck in zip(LEVELS, features, adjusted[name]):
            seen[f"{name}.layer{level}"] = stage
            seen[f"{name}.neck{level}"] = neck if name == "x" else neck[:, :, 4:11, 4:11]
    kernels = network.template(picture(127))
    for index, level in enumerate(LEVELS):
        rpn = getattr(network.rpn_head, f"rpn{level}")
        seen[f"kernel.cls{level}"] = kernels[2 * index]
        seen[f"cls{level}"] = rpn.cls(kernels[2 * index], adjusted["x"][index])
        seen[f"loc{level}"] = rpn.loc(kernels[2 * index + 1], adjusted["x"][index])
    seen["cls"], seen["loc"] = network.search(kernels, picture(255))
    return seen


STAGES = [name for name in REFERENCE.arrays if not name.endswith((".stats", ".shape"))]


@pytest.mark.parametrize("name", [name.removesuffix(".sub") for name in STAGES])
def test_stage(name: str, stages: dict[str, Tensor]) -> None:
    REFERENCE.check(name, stages[name])


def test_keys() -> None:
    shapes = {key: tuple(value.shape) for key, value in SiamRPN().state_dict().items()}
    assert shapes == key_shapes("siamrpn")
