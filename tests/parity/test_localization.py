"""Decisions of DiMP, PrDiMP and ATOM on synthetic score maps against the authors' systems: exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from recorded import find, read_json
from torch import Tensor

from tracker_ar.base.atom import ATOM_DEFAULT
from tracker_ar.base.dimp import DIMP_18, DIMP_50, PRDIMP_18, PRDIMP_50
from tracker_ar.base.localization import Decision, SearchGeometry, localize, peak
from tracker_ar.base.settings import LocalizationSettings
from tracker_ar.models.density_filter import score_density
from tracker_ar.ops.fourier import sample, series

DIMPS = {
    "dimp18": DIMP_18, "dimp50": DIMP_50,
    "prdimp18": PRDIMP_18, "prdimp50": PRDIMP_50,
}


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def check(case: dict[str, Any], translation: Tensor, decision: Decision) -> None:
    assert decision is Decision(case["flag"])
    np.testing.assert_array_equal(translation.numpy(), np.float32(case["translation"]))


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("net", DIMPS)
def test_dimp_decides_as_the_reference(net: str, index: int) -> None:
    case, chosen = read_json(f"{net}_localize.json")[index], DIMPS[net].localization
    scores = torch.from_numpy(np.load(find(f"{net}_localize.npz"))[f"loc{index}.scores"])[0, 0]
    if chosen.softmax:
        scores = score_density(scores)
    search = SearchGeometry(tensor(case["sample_pos"]), tensor(case["sample_scale"]), tensor([16.0, 16.0]))
    check(case, *localize(scores, search, tensor(case["pos"]), tensor(case["target_sz"]), chosen))
    assert scores.max().item() == pytest.approx(case["max"], rel=1e-6)


@pytest.mark.parametrize("index", range(12))
def test_atom_decides_as_the_reference(index: int) -> None:
    case, recorded = read_json("atom_localize.json")[index], np.load(find("atom_localize.npz"))
    raw = torch.from_numpy(recorded[f"loc{index}.scores_raw"])[0]
    scores = sample(series(raw) / 18**2, (288, 288))[0]
    taken = (np.arange(1024) * scores.numel()) // 1024
    # Ten times the rounding of the reference, as the whole trackers show it.
    np.testing.assert_allclose(scores.flatten()[taken], recorded[f"loc{index}.scores.sub"], rtol=0, atol=2e-5)
    best, at = peak(scores)
    assert at.tolist() == case["peak"] and best.item() == pytest.approx(case["max"], rel=1e-5)
    somewhere = tensor([100.0, 140.0])
    search = SearchGeometry(somewhere, tensor(case["target_scale"]), tensor([1.0, 1.0]), tensor([144.0, 144.0]))
    check(case, *localize(scores, search, somewhere, tensor(case["target_sz"]), ATOM_DEFAULT.localization))


@pytest.mark.parametrize("center, period", [(None, 20), (9.5, 21)])
@pytest.mark.parametrize("window, expected", [("none", "far"), ("first peak", "near"), ("both peaks", "near")])
def test_window(window: str, expected: str, center: float | None, period: int) -> None:
    """A far peak loses to a near one under the window; it counts as a distractor only where it is not weighed."""
    scores = torch.zeros(19, 19)
    scores[9, 10], scores[17, 1] = 0.5, 0.55
    middle = None if center is None else tensor([center, center])
    search = SearchGeometry(tensor([0.0, 0.0]), tensor(1.0), tensor([16.0, 16.0]), middle)
    chosen = LocalizationSettings(window=window, distractor_threshold=100)
    translation, decision = localize(scores, search, tensor([0.0, 0.0]), tensor([30.0, 30.0]), chosen)
    at = translation / 16 + (9 if center is None else center)
    assert at.tolist() == ([9, 10] if expected == "near" else [17, 1])
    weighed = decision is Decision.NORMAL
    assert weighed == (window == "both peaks")
    # One at the middle, zero a cell beyond the map.
    steps = torch.arange(19) - (9 if center is None else center)
    hann = 0.5 + 0.5 * torch.cos(2 * torch.pi * steps / period)
    threshold = (0.5 * hann[9] * hann[10]).item()
    if window != "none":
        for slack, found in ((-1e-4, True), (1e-4, False)):
            chosen = LocalizationSettings(window=window, not_found_threshold=threshold + slack)
            _, decision = localize(scores, search, tensor([0.0, 0.0]), tensor([30.0, 30.0]), chosen)
            assert (decision is not Decision.NOT_FOUND) == found
