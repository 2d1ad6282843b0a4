"""Several targets at once: like single trackers, sharing networks, without overlap."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import tracker_ar
from tracker_ar import AlphaRefineTracker, MultiTargetTracker, Prediction
from tracker_ar.errors import InputError
from tracker_ar.multi_target import without_overlap

HEIGHT, WIDTH, FRAMES = 120, 160, 4
BOXES = ((20.0, 30.0, 30.0, 24.0), (100.0, 60.0, 26.0, 30.0))
STEPS = ((3, 1), (-3, 0))


@pytest.fixture(scope="module")
def lite() -> AlphaRefineTracker:
    return tracker_ar.build_tracker("lite", device="cpu")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Two textured rectangles that come closer to each other."""
    rng = np.random.default_rng(4)
    ground = cv2.GaussianBlur(rng.integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 2)
    paint = [rng.integers(low, high, (int(box[3]), int(box[2]), 3), dtype=np.uint8)
             for box, (low, high) in zip(BOXES, ((170, 255), (0, 40)))]
    frames = []
    for number in range(FRAMES):
        frame = ground.copy()
        for box, step, texture in zip(BOXES, STEPS, paint):
            x, y = int(box[0]) + step[0] * number, int(box[1]) + step[1] * number
            frame[y : y + texture.shape[0], x : x + texture.shape[1]] = texture
        frames.append(frame)
    return frames


def true_mask(target: int, frame: int) -> np.ndarray:
    x, y, width, height = (int(value) for value in BOXES[target])
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y = x + STEPS[target][0] * frame, y + STEPS[target][1] * frame
    mask[y : y + height, x : x + width] = 1
    return mask


def same(one: Prediction, other: Prediction) -> None:
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.box, other.box)
    assert one.score == other.score


def test_apart_from_one_another_targets_are_tracked_as_if_alone(
    lite: AlphaRefineTracker, images: list[np.ndarray]
) -> None:
    together = MultiTargetTracker(lite)
    given = together.initialize(images[0], [true_mask(0, 0), BOXES[1]])
    assert [prediction.score for prediction in given] == [1.0, 1.0]
    np.testing.assert_array_equal(given[0].mask, true_mask(0, 0))
    results = [together.track(image) for image in images[1:]]
    for index, region in enumerate((true_mask(0, 0), BOXES[1])):
        alone = MultiTargetTracker(lite)
        alone.initialize(images[0], [region])
        for frame, (image, found) in enumerate(zip(images[1:], results), 1):
            same(alone.track(image)[0], found[index])
            true = true_mask(index, frame)
            assert (found[index].mask & true).sum() / (found[index].mask | true).sum() > 0.6
    lite.initialize(images[0], true_mask(0, 0))
    for image, found in zip(images[1:], results):
        same(lite.track(image), found[0])


def test_a_target_that_comes_later(lite: AlphaRefineTracker, images: list[np.ndarray]) -> None:
    both, first, second = (MultiTargetTracker(lite) for _ in range(3))
    both.initialize(images[0], [BOXES[0]])
    first.initialize(images[0], [BOXES[0]])
    found = both.track(images[1], [true_mask(1, 1)])
    assert len(found) == 2
    same(found[0], first.track(images[1])[0])
    np.testing.assert_array_equal(found[1].mask, true_mask(1, 1))
    second.initialize(images[1], [true_mask(1, 1)])
    found = both.track(images[2])
    same(found[0], first.track(images[2])[0])
    same(found[1], second.track(images[2])[0])


def test_bad_input_changes_nothing(lite: AlphaRefineTracker, images: list[np.ndarray]) -> None:
    tracker, undisturbed = MultiTargetTracker(lite), MultiTargetTracker(lite)
    with pytest.raises(InputError, match="before initialize"):
        tracker.track(images[1])
    for one in (tracker, undisturbed):
        one.initialize(images[0], list(BOXES))
    bad = np.zeros((HEIGHT, WIDTH), np.uint8)
    with pytest.raises(InputError, match="Target 2 of 2: The mask marks no pixel"):
        tracker.initialize(images[0], [BOXES[0], bad])
    with pytest.raises(InputError, match="no target"):
        tracker.initialize(images[0], [])
    with pytest.raises(InputError, match="^The mask marks no pixel"):
        tracker.track(images[1], [bad])
    with pytest.raises(InputError, match="first one was"):
        tracker.track(images[1][:-1])
    with pytest.raises(InputError):
        tracker.track(images[1][:-1], [BOXES[0]])
    found, expected = tracker.track(images[1]), undisturbed.track(images[1])
    assert len(found) == 2
    for one, other in zip(found, expected):
        same(one, other)


def test_masks_that_meet_do_not_overlap(lite: AlphaRefineTracker, images: list[np.ndarray]) -> None:
    tracker = MultiTargetTracker(lite)
    larger = (BOXES[0][0] - 4, BOXES[0][1] - 4, 36, 30)
    tracker.initialize(images[0], [BOXES[0], larger])  # the same object twice
    for image in images[1:]:
        found = tracker.track(image)
        total = found[0].mask.astype(int) + found[1].mask
        assert total.max() == 1 and total.sum() > 300
        for prediction in found:
            assert prediction.mask.dtype == np.uint8 and prediction.mask.flags.c_contiguous


# ---- the rule


def prediction(mask: list[int], score: float, probabilities: list[float] | None = None) -> Prediction:
    known = None if probabilities is None else np.array([probabilities], np.float32)
    return Prediction(np.array([0.0, 0, len(mask), 1]), np.array([mask], np.uint8), score, known)


def test_a_pixel_goes_to_the_highest_probability_whatever_the_scores() -> None:
    first = prediction([1, 1, 1, 1, 0, 0], 0.9, [0.9, 0.6, 0.8, 0.7, 0.6, 0.1])
    second = prediction([0, 1, 1, 1, 1, 0], 0.2, [0.0, 0.9, 0.8, 0.6, 0.55, 0.1])
    resolved = without_overlap([first, second])
    assert resolved[0].mask.tolist() == [[1, 0, 1, 1, 0, 0]]
    # The last but one is in the second mask alone: the first one's higher probability there does not count.
    assert resolved[1].mask.tolist() == [[0, 1, 0, 0, 1, 0]]
    for before, after in zip((first, second), resolved):
        assert after.score == before.score and after.box is before.box
    swapped = without_overlap([second, first])
    assert swapped[0].mask.tolist() == [[0, 1, 1, 0, 1, 0]]  # equal probabilities: the earlier target
    assert without_overlap([first])[0].mask is first.mask


def test_given_masks_and_scores_stand_for_probabilities() -> None:
    given = prediction([1, 1, 0, 0], 1.0)
    sure = prediction([0, 1, 1, 0], 0.3, [0.0, 0.99, 0.99, 0.0])
    scored = prediction([0, 0, 1, 1], 0.5)
    weak = prediction([1, 1, 1, 1], 0.0, [0.4, 0.4, 0.4, 0.6])
    masks = [one.mask.tolist()[0] for one in without_overlap([given, sure, scored, weak])]
    assert masks == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    # A mask with score 0 still is a claim.
    lost = prediction([1, 0, 0, 0], 0.0)
    assert without_overlap([lost, prediction([0, 0, 0, 1], 0.0)])[0].mask.tolist() == [[1, 0, 0, 0]]


def test_the_public_names() -> None:
    for name in tracker_ar.__all__:
        assert getattr(tracker_ar, name).__name__ == name
    program = "import sys, tracker_ar.multi_target; sys.exit('torch' in sys.modules)"
    import subprocess
    import sys

    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1]).returncode == 0
