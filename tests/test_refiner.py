"""The refiner on its own, as behind any base tracker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tracker_ar import zoo
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.alpha_refine import Segmentation, Target, build_mask_refiner
from tracker_ar.prediction import Refinement
from tracker_ar.refine import refiner as module
from tracker_ar.refine.masks import drop_small_parts
from tracker_ar.refine.refiner import MaskTarget, RefinerSettings, SegmentingRefiner
from tracker_ar.refine.second_pass import Correction

LITE = zoo.profile("lite_dimp+lite")

SIZE = (90, 120)


@pytest.fixture
def refiner() -> SegmentingRefiner:
    """Without a box branch: the box is that of the mask."""
    masks_only = replace(LITE.refiner.network, boxes=False)
    return made(replace(LITE.refiner, network=masks_only, input_size=128, threshold=0.4))


def made(settings: RefinerSettings) -> SegmentingRefiner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_mask_refiner(settings.network)
    return SegmentingRefiner(Runner(network, torch.device("cpu")), settings)


FRAME = Frame(np.random.default_rng(2).integers(0, 255, (*SIZE, 3), dtype=np.uint8))
BOX = np.array([40.0, 30, 30, 25])


def refined(refiner: SegmentingRefiner, target: MaskTarget, box: object, learn: bool = True) -> Refinement:
    (result,) = refiner.refine(FRAME, [target], [np.array(box, np.float64)], [learn])
    return result


def test_a_refinement_describes_its_mask(refiner: SegmentingRefiner) -> None:
    found = refined(refiner, refiner.start(FRAME, BOX), [42, 31, 30, 25])
    assert found.mask.shape == SIZE and found.mask.dtype == np.uint8
    assert found.probabilities.shape == SIZE and found.probabilities.dtype == np.float32
    rows, columns = np.nonzero(found.mask)
    assert found.box.tolist() == [
        columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
    ]
    assert found.score == pytest.approx(found.probabilities[found.mask > 0].mean())
    assert (found.probabilities[found.mask > 0] > 0.4).all()


def test_nothing_found_keeps_the_box(refiner: SegmentingRefiner) -> None:
    refiner.settings = replace(refiner.settings, threshold=1.0)
    found = refined(refiner, refiner.start(FRAME, BOX), [42, 31, 30, 25])
    assert not found.mask.any() and found.score == 0.0
    assert found.box.tolist() == [42.0, 31, 30, 25]


def test_the_initial_mask_weighs_the_reference(refiner: SegmentingRefiner) -> None:
    box = np.array([40.0, 30, 32, 24])
    mask = np.zeros(SIZE, np.uint8)
    mask[30:54, 40:56] = 1  # the left half of the box ...
    mask[30, 71] = 1  # ... and one pixel that keeps the box as it is
    whole = np.zeros(SIZE, np.uint8)
    whole[30:54, 40:72] = 1
    of_box, of_mask = (refiner.start(FRAME, region).learned.kernel for region in (whole, mask))
    width = of_box.shape[-1]
    inside = (..., slice(1, -1), slice(1, width // 2 - 1))  # cells at the border are covered in part
    torch.testing.assert_close(of_mask[inside], of_box[inside], rtol=0.05, atol=1e-4)
    assert of_mask[..., 2:, width // 2 + 1 :].abs().max() < 0.05 * of_box.abs().max()
    refiner.settings = replace(refiner.settings, use_initial_mask=False)
    without, given = (refiner.start(FRAME, region).learned.kernel for region in (mask, box))
    torch.testing.assert_close(without, given)


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
    settings = replace(LITE.refiner, input_size=128, threshold=0.0, learning_rate=0.2, learning_interval=2)

    def learned(**changes: float) -> list[bool]:
        """Whether each of four frames changed what is known of the target."""
        refiner = made(replace(settings, **changes))
        target = refiner.start(FRAME, BOX)
        seen = []
        for frame in range(4):
            before = target.learned
            refined(refiner, target, BOX, learn=frame != 1)
            seen.append(target.learned is not before)
        return seen

    assert learned(learning_score=0.0) == [False, False, True, False]
    assert not any(learned(learning_score=1.0))
    assert not any(learned(learning_score=0.0, learning_rate=0.0))


def test_a_look_leaves_no_trace(refiner: SegmentingRefiner) -> None:
    one, other = (refiner.start(FRAME, BOX) for _ in range(2))
    refiner.look(FRAME, one, BOX)
    assert (one.frames, one.since_second_pass, one.correction) == (other.frames, other.since_second_pass, None)
    assert torch.equal(one.learned.weights, other.learned.weights)


class Square(torch.nn.Module):
    """Sees a square of 20 pixels at (60, 40) of the image, as surely as it is told, whatever is in the crops."""

    target_model = None

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[tuple[int, int, int, int]] = []
        self.logits = [9.0]

    def learn(self, *first_frame: object) -> Target:
        return Target(torch.zeros(1))

    def segment(self, target: object, crop: torch.Tensor) -> Segmentation:
        left, top, right, bottom = self.windows[-1]
        columns = left + (torch.arange(128) + 0.5) * (right - left) / 128
        rows = top + (torch.arange(128) + 0.5) * (bottom - top) / 128
        inside = ((columns >= 60) & (columns < 80))[None] & ((rows >= 40) & (rows < 60))[:, None]
        logit = self.logits[min(len(self.windows), len(self.logits)) - 1]
        return Segmentation(torch.where(inside, logit, -9.0)[None, None], {})


@pytest.fixture
def square(monkeypatch: pytest.MonkeyPatch) -> tuple[SegmentingRefiner, Square]:
    network = Square()
    settings = replace(
        LITE.refiner, input_size=128, threshold=0.5, second_pass=0.75, second_pass_interval=1, learning_rate=0.0
    )
    refiner = SegmentingRefiner(Runner(network, torch.device("cpu")), settings)
    cut = module.refiner_crop

    def noted(*arguments: object) -> object:
        made = cut(*arguments)
        network.windows.append(made.window)
        return made

    monkeypatch.setattr(module, "refiner_crop", noted)
    return refiner, network


CUT_OFF = [50.0, 40, 16, 20]  # the crop of this box ends inside the square


def passes(square: tuple[SegmentingRefiner, Square], boxes: list[list[float]]) -> tuple[list[int], list[Refinement]]:
    """How many crops were taken for each frame of one target, and what was found."""
    refiner, network = square
    target = refiner.start(FRAME, BOX)
    counts, found = [], []
    for box in boxes:
        network.windows.clear()
        found.append(refined(refiner, target, box))
        counts.append(len(network.windows))
    return counts, found


def test_a_second_pass_is_taken_around_a_mask_that_disagrees_with_the_box(square: tuple) -> None:
    counts, found = passes(square, [CUT_OFF, [60.0, 40, 20, 20]])
    assert counts == [2, 1]
    assert np.abs(found[0].box - [60, 40, 20, 20]).max() <= 1


def test_in_between_the_correction_of_the_last_second_pass_holds(square: tuple) -> None:
    square[0].settings = replace(square[0].settings, second_pass_interval=3)
    counts, found = passes(square, [CUT_OFF] * 7)
    assert counts == [2, 1, 1, 2, 1, 1, 2]
    assert np.abs(np.stack([one.box for one in found]) - [60, 40, 20, 20]).max() <= 1


@pytest.mark.parametrize(("logits", "count", "kept"), [
    ([0.5, 9.0], 1, "first"),  # the first mask is not sure enough (0.62)
    ([1.2, 0.9], 2, "first"),  # the second is less sure (0.71) than the first (0.77)
    ([1.2, 1.3], 2, "second"),
])
def test_conditions_of_a_second_pass(square: tuple, logits: list[float], count: int, kept: str) -> None:
    square[1].logits = logits
    (counts,), (found,) = passes(square, [CUT_OFF])
    assert counts == count
    assert (found.box[2] >= 19) == (kept == "second")


def test_a_second_mask_must_keep_most_of_the_first(square: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    refiner, network = square
    segment = network.segment

    def elsewhere(target: object, crop: torch.Tensor) -> Segmentation:
        """In the second pass only the right half of the square."""
        found = segment(target, crop)
        if len(network.windows) == 2:
            left, _, right, _ = network.windows[-1]
            columns = left + (torch.arange(128) + 0.5) * (right - left) / 128
            return Segmentation(torch.where(columns < 70, -9.0, found.logits), {})
        return found

    monkeypatch.setattr(network, "segment", elsewhere)
    counts, (found,) = passes(square, [CUT_OFF])
    assert counts == [2] and found.box[0] == pytest.approx(60, abs=1)


def test_without_the_setting_there_is_no_second_pass(square: tuple) -> None:
    square[0].settings = replace(square[0].settings, second_pass=0.0)
    counts, (found,) = passes(square, [CUT_OFF])
    assert counts == [1] and found.box[2] < 16


@given(boxes=st.lists(st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(1, 200)] * 2), min_size=2, max_size=2))
def test_a_correction_takes_one_box_to_the_other(boxes: list[tuple[float, ...]]) -> None:
    box, wanted = (np.array(values) for values in boxes)
    correction = Correction.between(box, wanted)
    np.testing.assert_allclose(correction.of(box), wanted, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(correction.of(2 * box), 2 * wanted, rtol=1e-9, atol=1e-6)
