"""Crops made with torch on a device, against those made with NumPy and OpenCV."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_ar import device_crops
from tracker_ar.crops import normalize, paste_back, refiner_crop, sample_patch
from tracker_ar.device_crops import on_device, paste, refiner_patch, search_region, uploaded_once
from tracker_ar.errors import InputError
from tracker_ar.geometry import MAX_BOX_TO_IMAGE

CPU = torch.device("cpu")
images = st.builds(
    lambda height, width, seed: np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8),
    st.integers(1, 90), st.integers(1, 90), st.integers(0, 99),
)
place = st.floats(-60, 150, width=32)
length = st.floats(1, 200, width=32)


@settings(max_examples=150, deadline=None)
@given(images, st.tuples(place, place), st.tuples(length, length), st.integers(4, 48),
       st.sampled_from(["replicate", "inside", "inside_major"]), st.sampled_from([None, 1.5]))
def test_search_regions_are_the_same(image, position, size, output, border_mode, change) -> None:
    expected = sample_patch(image, position, size, output, border_mode, change)
    found = search_region(on_device(image, CPU), position, size, output, border_mode, change)
    assert torch.equal(found.coords, expected.coords)
    # Noise is the worst case: a place that is off by a millionth of a cell moves a sample by 1e-4 grey levels.
    torch.testing.assert_close(found.patch, expected.patch, rtol=0, atol=5e-3)


@settings(max_examples=150, deadline=None)
@given(images, st.tuples(place, place, length, length), st.integers(4, 48), st.floats(1, 3))
def test_refiner_crops_are_the_same(image, box, size, factor) -> None:
    if max(box[2:]) > MAX_BOX_TO_IMAGE * max(image.shape[:2]):
        with pytest.raises(InputError, match="larger than the image"):
            refiner_patch(on_device(image, CPU), box, factor, size)
        return
    expected = refiner_crop(image, box, factor, size)
    pixels, window = refiner_patch(on_device(image, CPU), box, factor, size)
    assert window == expected.window
    off = (pixels[0].permute(1, 2, 0) - torch.from_numpy(expected.pixels)).abs()
    assert off.max() <= 1  # OpenCV rounds its weights to 1/2048


@settings(max_examples=100, deadline=None)
@given(st.tuples(place, place, length, length), st.integers(4, 48), st.integers(1, 90), st.integers(1, 90))
def test_masks_are_pasted_alike(box, size, height, width) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    if max(box[2:]) > MAX_BOX_TO_IMAGE * max(height, width):
        return
    crop = refiner_crop(image, box, 2.0, size)
    inside = np.random.default_rng(size).random((size, size), dtype=np.float32)
    expected = paste_back(inside, crop, (height, width))
    found = paste(torch.from_numpy(inside), crop.window, (height, width))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)


def test_large_region_is_thinned_alike() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    expected = sample_patch(image, (200.7, 300.2), 700.0, 128, "inside_major", 1.5)
    found = search_region(on_device(image, CPU), (200.7, 300.2), 700.0, 128, "inside_major", 1.5)
    assert torch.equal(found.coords, expected.coords)
    torch.testing.assert_close(normalize(found.patch), normalize(expected.patch), rtol=0, atol=1e-4)


def test_an_image_is_copied_once_within_a_frame_and_anew_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[np.ndarray] = []
    copy = device_crops.to_device
    monkeypatch.setattr(device_crops, "to_device", lambda array, device: (copies.append(array), copy(array, device))[1])
    image = np.zeros((4, 5, 3), np.uint8)
    with uploaded_once(image):
        with uploaded_once(image[:, :, :3]):  # another array object, the same pixels
            first = on_device(image, CPU)
        assert on_device(image, CPU) is first
        assert on_device(image[:2], CPU).shape == (2, 5, 3)
    assert len(copies) == 2
    image[:] = 7  # a camera that fills the same buffer again
    with uploaded_once(image):
        assert on_device(image, CPU).eq(7).all() and first.eq(0).all()


def test_images_that_cannot_be_written_to_are_copied_silently() -> None:
    image = np.frombuffer(bytes(range(12)), np.uint8).reshape(2, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(on_device(image, CPU), torch.arange(12, dtype=torch.uint8).view(2, 2, 3))
