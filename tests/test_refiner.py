"""The refiner on its own, as behind any base tracker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tracker_ar.crops import RefinerCrop
from tracker_ar.models.mask_refiner import Segmentation, build_mask_refiner
from tracker_ar.profiles import LITE
from tracker_ar.refine import Refiner
from tracker_ar.refine.mask_refiner import Correction, drop_small_parts

SIZE = (90, 120)


@pytest.fixture
def refiner() -> Refiner:
    torch.manual_seed(0)
    settings = replace(LITE.refiner, input_size=128, threshold=0.5)
    return Refiner(build_mask_refiner(settings.network), settings, torch.device("cpu"))


def image() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


def test_a_refinement_describes_its_mask(refiner: Refiner) -> None:
    refiner.initialize(image(), np.array([40.0, 30, 30, 25]))
    found = refiner.refine(image(), np.array([42.0, 31, 30, 25]))
    assert found.mask.shape == SIZE and found.mask.dtype == np.uint8
    assert found.probabilities.shape == SIZE and found.probabilities.dtype == np.float32
    rows, columns = np.nonzero(found.mask)
    assert found.box.tolist() == [
        columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
    ]
    assert found.score == pytest.approx(found.probabilities[found.mask > 0].mean())
    assert (found.probabilities[found.mask > 0] > 0.5).all()


def test_nothing_found_keeps_the_box(refiner: Refiner) -> None:
    refiner._settings = replace(refiner._settings, threshold=1.0)
    refiner.initialize(image(), np.array([40.0, 30, 30, 25]))
    found = refiner.refine(image(), np.array([42.0, 31, 30, 25]))
    assert not found.mask.any() and found.score == 0.0
    assert found.box.tolist() == [42.0, 31, 30, 25]


def test_the_initial_mask_weighs_the_reference(refiner: Refiner) -> None:
    box = np.array([40.0, 30, 32, 24])
    mask = np.zeros(SIZE, np.uint8)
    mask[30:54, 40:56] = 1  # the left half of the box ...
    mask[30, 71] = 1  # ... and one pixel that keeps the box as it is
    whole = np.zeros(SIZE, np.uint8)
    whole[30:54, 40:72] = 1
    refiner.initialize(image(), whole)
    of_box = refiner._target.kernel
    refiner.initialize(image(), mask)
    of_mask = refiner._target.kernel
    width = of_box.shape[-1]
    inside = (..., slice(1, -1), slice(1, width // 2 - 1))  # cells at the border are covered in part
    torch.testing.assert_close(of_mask[inside], of_box[inside], rtol=0.05, atol=1e-4)
    assert of_mask[..., 2:, width // 2 + 1 :].abs().max() < 0.05 * of_box.abs().max()
    refiner._settings = replace(refiner._settings, use_initial_mask=False)
    refiner.initialize(image(), mask)
    without = refiner._target.kernel
    refiner.initialize(image(), box)
    torch.testing.assert_close(without, refiner._target.kernel)


def test_small_parts_are_dropped() -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[10:30, 10:30] = 1  # 400 pixels
    mask[50:60, 50:70] = 1  # 200
    mask[80:82, 80:90] = 1  # 20
    mask[9, 9] = 1  # touches the largest at its corner
    for minimum, areas in ((0.01, [401, 200, 20]), (0.25, [401, 200]), (0.5, [401]), (1.0, [401])):
        kept = mask.copy()
        drop_small_parts(kept, minimum)
        assert kept.sum() == sum(areas)
        assert (kept <= mask).all()


def test_the_target_model_learns_from_confident_frames_only() -> None:
    torch.manual_seed(0)
    network = replace(LITE.refiner.network, target_model=(4, 8, 8))
    settings = replace(
        LITE.refiner, network=network, input_size=128, threshold=0.0, learning_rate=0.2, learning_interval=2
    )
    box = np.array([40.0, 30, 30, 25])

    def learned(**changes: float) -> list[bool]:
        """Whether each of four frames changed what is known of the target."""
        changed = replace(settings, **changes)
        refiner = Refiner(build_mask_refiner(network), changed, torch.device("cpu"))
        refiner.initialize(image(), box)
        seen = []
        for frame in range(4):
            before = refiner._target
            refiner.refine(image(), box, learn=frame != 1)
            seen.append(refiner._target is not before)
        return seen

    assert learned(learning_score=0.0) == [False, False, True, False]
    assert not any(learned(learning_score=1.0))
    assert not any(learned(learning_score=0.0, learning_rate=0.0))


def test_a_second_look_is_taken_around_a_mask_that_disagrees_with_the_box(refiner: Refiner) -> None:
    class Square(torch.nn.Module):
        """Sees a square of 20 pixels at (60, 40) of the image, whatever is in it."""

        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.windows: list[tuple[int, int, int, int]] = []

        def learn(self, *first_frame: object) -> object:
            return first_frame

        def segment(self, target: object, crop: torch.Tensor) -> Segmentation:
            left, top, right, bottom = self.windows[-1]
            columns = left + (torch.arange(128) + 0.5) * (right - left) / 128
            rows = top + (torch.arange(128) + 0.5) * (bottom - top) / 128
            inside = ((columns >= 60) & (columns < 80))[None] & ((rows >= 40) & (rows < 60))[:, None]
            return Segmentation(torch.where(inside, 9.0, -9.0)[None, None], {})

    refiner.initialize(image(), np.array([40.0, 30, 30, 25]))
    refiner._settings = replace(refiner._settings, second_look=0.75, second_look_interval=1, learning_rate=0.0)
    network = refiner._network = Square()
    crop = refiner._crop

    def noted(pixels: np.ndarray, box: np.ndarray) -> RefinerCrop:
        made = crop(pixels, box)
        network.windows.append(made.window)
        return made

    refiner._crop = noted
    cut_off = refiner.refine(image(), np.array([50.0, 40, 16, 20]))  # the crop ends inside the square
    assert len(network.windows) == 2
    assert np.abs(cut_off.box - [60, 40, 20, 20]).max() <= 1
    refiner.refine(image(), np.array([60.0, 40, 20, 20]))
    assert len(network.windows) == 3
    refiner._settings = replace(refiner._settings, second_look_interval=3)
    refiner.initialize(image(), np.array([40.0, 30, 30, 25]))
    seen, found = [], []
    for _ in range(7):
        before = len(network.windows)
        found.append(refiner.refine(image(), np.array([50.0, 40, 16, 20])).box)
        seen.append(len(network.windows) - before)
    assert seen == [2, 1, 1, 2, 1, 1, 2]
    assert np.abs(np.stack(found) - [60, 40, 20, 20]).max() <= 1  # the frames between profit from the correction
    refiner._settings = replace(refiner._settings, second_look=0.0)
    refiner._correction = None
    assert refiner.refine(image(), np.array([50.0, 40, 16, 20])).box[2] < 16


@given(boxes=st.lists(st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(1, 200)] * 2), min_size=2, max_size=2))
def test_a_correction_takes_one_box_to_the_other(boxes: list[tuple[float, ...]]) -> None:
    box, wanted = (np.array(values) for values in boxes)
    correction = Correction.between(box, wanted)
    np.testing.assert_allclose(correction.of(box), wanted, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(correction.of(2 * box), 2 * wanted, rtol=1e-9, atol=1e-6)
