"""Crops, augmentations and pasting against recorded outputs of the authors' system."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import synth
import torch

from tracker_ar.base import augmentation
from tracker_ar.base.augmentation import augment_first_frame
from tracker_ar.base.settings import AugmentationSettings
from tracker_ar.crops import normalize, paste_back, refiner_crop, sample_patch, to_tensor

DATA = Path(__file__).parent / "data"
PREPROC = np.load(DATA / "preproc.npz")
CASES = json.loads((DATA / "sample_patch_cases.json").read_text())
# A thousandth of a grey level: rounding of float32 arithmetic in another order, and nothing else.
GREY_LEVEL = 1e-3


def assert_matches(key: str, actual: np.ndarray, tolerance: float) -> None:
    """Compare with a recorded array; long ones are recorded as 1024 samples, shape and statistics."""
    if key in PREPROC:
        np.testing.assert_allclose(actual, PREPROC[key], rtol=0, atol=tolerance)
        return
    assert actual.shape == tuple(PREPROC[f"{key}.shape"])
    samples = actual.reshape(-1)[(np.arange(1024) * actual.size) // 1024]
    np.testing.assert_allclose(samples, PREPROC[f"{key}.sub"], rtol=0, atol=tolerance)
    values = actual.astype(np.float64)
    summary = [values.mean(), values.std(), values.min(), values.max()]
    np.testing.assert_allclose(summary, PREPROC[f"{key}.stats"][[0, 1, 3, 4]], rtol=0, atol=tolerance)


def uniform_map(seed: int, side: int) -> np.ndarray:
    """float32 (side, side) in [0, 1), a stand-in for the refiner's probabilities."""
    return np.random.Generator(np.random.Philox(key=seed)).random((side, side), dtype=np.float32)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_search_region(index: int) -> None:
    picture, position, sample_size, output_size, mode, max_change, shape, coords, *_ = CASES[index] + [None]
    image = synth.blocks(2000, 480, 640, 8) if picture == "big" else synth.frame(0)
    region = sample_patch(image, position, sample_size, output_size or sample_size, mode, max_change)
    assert list(region.patch.shape) == shape and region.patch.dtype == torch.float32
    assert region.coords.dtype == torch.int64
    assert region.coords.tolist() == coords[0] == PREPROC[f"sp{index}.coord"][0].tolist()
    assert_matches(f"sp{index}.patch", region.patch[0].numpy(), GREY_LEVEL)


TRANSFORMS = [
    augmentation._unchanged,
    augmentation._unchanged,
    augmentation._flip,
    *(partial(augmentation._blur, sigmas=sigmas) for sigmas in ((3, 1), (1, 3), (2, 2))),
    *(partial(augmentation._rotate, degrees=degrees) for degrees in (10, -10, 45, -45)),
]


@pytest.mark.parametrize("index", range(len(TRANSFORMS)))
def test_single_transform(index: int) -> None:
    region = to_tensor(synth.frame(0)[:, :240])
    shift = PREPROC[f"aug{index}.shift"].tolist()
    sample = augmentation._shifted_centre(TRANSFORMS[index](region), 120, shift)
    assert_matches(f"aug{index}", sample[0].numpy(), GREY_LEVEL)


def test_first_frame_samples() -> None:
    recorded = np.load(DATA / "track_synth.npz")
    position = torch.from_numpy(recorded["init.pos"])
    scale = torch.from_numpy(recorded["init.target_scale"])
    draws = torch.from_numpy(recorded["init.draws"])

    def draw(count: int) -> torch.Tensor:
        assert count == len(draws)
        return draws

    patches, shifts = augment_first_frame(synth.frame(0), position.round(), scale, 352, AugmentationSettings(), draw)
    assert patches.shape == (13, 3, 352, 352) and patches.dtype == torch.float32
    assert shifts.tolist() == recorded["init.shifts"].tolist()
    flat = patches.reshape(13, -1).numpy()
    samples = flat[:, (np.arange(512) * flat.shape[1]) // 512]
    np.testing.assert_allclose(samples, recorded["init.patches_sub"], rtol=0, atol=GREY_LEVEL)
    values = flat.astype(np.float64)
    summary = np.stack([values.mean(1), values.std(1), values.min(1), values.max(1)], axis=1)
    np.testing.assert_allclose(summary, recorded["init.patches_stats"], rtol=0, atol=GREY_LEVEL)


@pytest.mark.parametrize("index", range(len(PREPROC["se.boxes"])))
def test_refiner_crop_and_back(index: int) -> None:
    crop = refiner_crop(synth.frame(0), PREPROC["se.boxes"][index], factor=2.0, size=96)
    # OpenCV may round a resized 8-bit value either way, depending on its build.
    np.testing.assert_allclose(crop.pixels.astype(int), PREPROC[f"se{index}.crop"], rtol=0, atol=1)
    left, top, right, bottom = crop.window
    zoom = [96 / (bottom - top), 96 / (right - left)]
    np.testing.assert_allclose(zoom, PREPROC[f"se{index}.fac"], rtol=1e-12)
    np.testing.assert_allclose(crop.box_in_crop, PREPROC[f"se{index}.box"], rtol=0, atol=1e-5)

    pasted = paste_back(uniform_map(31, 48), crop, (synth.H, synth.W))
    assert pasted.dtype == np.float32
    assert_matches(f"se{index}.maskback", pasted, 1e-5)
    recorded = np.unpackbits(PREPROC[f"se{index}.mask065"]).reshape(synth.H, synth.W)
    assert recorded.sum() == PREPROC[f"se{index}.mask065sum"]
    assert np.array_equal(pasted > 0.65, recorded)


def test_refiner_input_at_full_size() -> None:
    crop = refiner_crop(synth.frame(0), PREPROC["se.boxes"][1])
    assert_matches("se384.crop", crop.pixels, 1)
    assert_matches("se384.tensor", normalize(to_tensor(crop.pixels)).numpy()[None], 1 / 255 / 0.224)
    assert_matches("se384.maskback", paste_back(uniform_map(32, 384), crop, (synth.H, synth.W)), 1e-5)
