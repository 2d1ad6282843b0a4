"""Networks with the weights that the reference outputs were recorded with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recipe import MASK_REFINER, SUPER_DIMP, weights
from recorded import Reference, key_shapes
from torch import nn

from tracker_ar.models.mask_refiner import MaskRefiner, build_mask_refiner
from tracker_ar.models.super_dimp import SuperDiMP, build_super_dimp


def load_recipe(module: nn.Module, net: str) -> nn.Module:
    module.load_state_dict({key: torch.from_numpy(array) for key, array in weights(net, key_shapes(net))})
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Reference]:
    return Reference


@pytest.fixture(scope="session")
def super_dimp() -> SuperDiMP:
    return load_recipe(build_super_dimp(), SUPER_DIMP)


@pytest.fixture(scope="session")
def mask_refiner() -> MaskRefiner:
    return load_recipe(build_mask_refiner(), MASK_REFINER)
