"""Networks with the weights that the reference outputs were recorded with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from recipe import MASK_REFINER, SUPER_DIMP
from recorded import Reference, load_recipe

from tracker_ar.models.alpha_refine import MaskRefiner, build_mask_refiner
from tracker_ar.models.dimp import DiMP, build_dimp


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Reference]:
    return Reference


@pytest.fixture(scope="session")
def super_dimp() -> DiMP:
    return load_recipe(build_dimp(), SUPER_DIMP)


@pytest.fixture(scope="session")
def mask_refiner() -> MaskRefiner:
    return load_recipe(build_mask_refiner(), MASK_REFINER)
