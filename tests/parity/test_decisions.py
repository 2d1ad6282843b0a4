"""Localisation decisions and sample-memory weights against the authors' system: decisions exactly."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tracker_ar.base.dimp import DiMPSettings, DiMPTracker
from tracker_ar.base.localization import Decision, SearchGeometry, keep_inside, localize, peak
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.overlap import Place
from tracker_ar.base.settings import LocalizationSettings, MemorySettings
from tracker_ar.crops import SearchRegion

DATA = Path(__file__).parent / "data"
LOCALIZE = json.loads((DATA / "localize.json").read_text())
HELPERS = json.loads((DATA / "helpers.json").read_text())


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("index", range(len(LOCALIZE["cases"])))
def test_localization_decides_as_the_reference(index: int) -> None:
    case = LOCALIZE["cases"][index]
    scores = torch.from_numpy(np.load(DATA / "localize.npz")[f"loc{index}.scores"])[0, 0]
    search = SearchGeometry(
        tensor(LOCALIZE["sample_pos"][0]), tensor(LOCALIZE["sample_scale"][0]), tensor([16.0, 16.0])
    )
    translation, decision = localize(
        scores, search, tensor(case["pos"]), tensor(case["target_sz"]), LocalizationSettings()
    )
    assert decision is Decision(case["flag"])
    np.testing.assert_array_equal(translation.numpy(), np.float32(case["translation"]))


def test_ties_go_to_the_first_column() -> None:
    scores = torch.zeros(3, 3)
    scores[1, 0] = scores[0, 2] = scores[2, 2] = 3.0
    best, at = peak(scores)
    assert best == HELPERS["max2d_ties"][0][0]
    assert at.tolist() == HELPERS["max2d_ties"][1][0]


def test_the_target_is_kept_partly_inside() -> None:
    for proposed, size, expected in HELPERS["update_state_pos"]:
        kept = keep_inside(tensor(proposed), tensor(size), tensor([320.0, 240.0]).flip(0), 0.2)
        np.testing.assert_array_equal(kept.numpy(), np.float32(expected))


TRACKER = DiMPTracker(SimpleNamespace(), DiMPSettings())  # for its conversions alone


def test_boxes_in_the_search_region() -> None:
    for (position, size, sample_position, sample_scale), expected in HELPERS["get_iounet_box"]:
        place = Place(tensor(position), tensor(size), tensor(1.0))
        search = SearchGeometry(tensor(sample_position), tensor(sample_scale), tensor([16.0, 16.0]))
        np.testing.assert_array_equal(TRACKER._box_in_search(place, search).numpy(), np.float32(expected))


def test_centre_and_place_of_the_search_region() -> None:
    (row, column, scale), expected = HELPERS["centered_sample_pos"]
    features = torch.zeros(1, 1, 22, 22)
    target = SimpleNamespace(
        place=Place(tensor([row, column]), tensor([1.0, 1.0]), tensor(scale)),
        memory=SimpleNamespace(features=features), filter=torch.zeros(1, 1, 4, 4),
    )
    np.testing.assert_array_equal(TRACKER._search_center(target).numpy(), np.float32(expected))
    (corners,), ((center,), (zoom,)) = HELPERS["get_sample_location"]
    place = TRACKER._geometry(SearchRegion(features, torch.tensor(corners)), target, features)
    np.testing.assert_array_equal(place.position.numpy(), np.float32(center))
    assert place.scale.item() == np.float32(zoom)


def test_memory_weights_over_eighty_frames() -> None:
    reference = np.load(DATA / "memory.npz")
    memory = SampleMemory(torch.zeros(15, 1, 1, 1), torch.zeros(15, 4), MemorySettings())
    for frame, rate in enumerate(reference["lr"]):
        slot = memory.add(torch.full((1, 1, 1, 1), float(frame)), torch.full((4,), float(frame)), float(rate))
        assert slot == reference["replace_ind"][frame]
        np.testing.assert_array_equal(memory.weights.numpy(), reference["weights"][frame])
        assert memory.features[slot].item() == frame and memory.targets[slot, 0].item() == frame
    assert memory.count == 50
    assert memory.active_weights[:15].sum() >= 0.25 - 1e-6
