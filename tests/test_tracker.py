"""The public tracker with fresh `lite` weights: contract, bad input, repeatability."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_tracker import BOX, HEIGHT, OTHER, WIDTH, check, make_tracker, same, video

import tracker_ar
from tracker_ar import Prediction, build_tracker
from tracker_ar.errors import AlphaRefineError, InputError
from tracker_ar.prediction import without_overlap
from tracker_ar.tracker import AlphaRefineTracker, are_several


def run(tracker: AlphaRefineTracker, images: list[np.ndarray]) -> list[Prediction]:
    tracker.initialize(images[0], BOX)
    return [tracker.track(image) for image in images[1:]]


def test_two_runs_are_bit_identical() -> None:
    images = video()
    tracker = make_tracker()
    first, second, third = run(tracker, images), run(tracker, images), run(make_tracker(), images)
    for one, two, three in zip(first, second, third, strict=True):
        check(one)
        for other in (two, three):
            assert same(one, other)


def test_the_seed_changes_the_draws() -> None:
    images = video()
    first, second = run(make_tracker(seed=0), images), run(make_tracker(seed=1), images)
    assert any((one.box != two.box).any() for one, two in zip(first, second))


def test_a_mask_and_its_box_are_the_same_region() -> None:
    images = video(2)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[40:64, 60:90] = 255
    tracker = make_tracker()
    tracker.initialize(images[0], mask)
    from_mask = tracker.track(images[1])
    tracker.initialize(images[0], BOX)
    np.testing.assert_array_equal(from_mask.mask, tracker.track(images[1]).mask)


def test_tracking_goes_on_after_bad_frames() -> None:
    images = video(4)
    expected = run(make_tracker(), images)
    tracker = make_tracker()
    tracker.initialize(images[0], BOX)
    bad_frames = [
        np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        np.full((HEIGHT, WIDTH, 3), np.nan),
        None,
    ]
    for image, bad, wanted in zip(images[1:], bad_frames, expected):
        with pytest.raises(InputError):
            tracker.track(bad)
        np.testing.assert_array_equal(tracker.track(image).mask, wanted.mask)


def test_a_refused_region_leaves_the_old_target() -> None:
    images = video(2)
    expected = run(make_tracker(), images)[0]
    tracker = make_tracker()
    tracker.initialize(images[0], BOX)
    with pytest.raises(InputError):
        tracker.initialize(images[0], np.zeros((HEIGHT, WIDTH), np.uint8))
    np.testing.assert_array_equal(tracker.track(images[1]).mask, expected.mask)


@pytest.mark.parametrize(
    ("region", "cause"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "marks no pixel"),
        (np.ones((HEIGHT - 1, WIDTH), np.uint8), "mask is 160 x 119"),
        ((WIDTH, 10, 20, 20), "outside the image"),
        ((-30, 10, 20, 20), "outside the image"),
        ((10, 10, 0, 20), "positive width"),
        ((10, 10, -5, 20), "positive width"),
        ((10, float("nan"), 5, 20), "finite"),
        ((10, 10, 20), "neither a mask"),
        ("a box", "neither a mask"),
        ([], "no target"),
        (np.ones((HEIGHT, WIDTH, 3), np.uint8), "neither a mask"),
    ],
)
def test_bad_regions(region: object, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        make_tracker().initialize(video(1)[0], region)


@pytest.mark.parametrize("region", [(80, 60, 1, 1), (-20, -10, 40, 30), (0, 0, WIDTH, HEIGHT), (150, 110, 60, 60)])
def test_odd_regions_are_tracked(region: tuple) -> None:
    tracker = make_tracker()
    images = video(3)
    tracker.initialize(images[0], region)
    for image in images[1:]:
        check(tracker.track(image))


def test_grey_and_rgba_frames() -> None:
    images = video(2)
    tracker = make_tracker()
    tracker.initialize(images[0], BOX)
    check(tracker.track(images[1].mean(axis=2).astype(np.uint8)))
    check(tracker.track(np.dstack([images[1], np.full((HEIGHT, WIDTH), 255, np.uint8)])))


def test_uniform_frames() -> None:
    tracker = make_tracker()
    tracker.initialize(video(1)[0], BOX)
    for value in (0, 255, 127):
        check(tracker.track(np.full((HEIGHT, WIDTH, 3), value, np.uint8)))


def test_track_before_initialize() -> None:
    with pytest.raises(InputError, match="before initialize"):
        make_tracker().track(video(1)[0])


@pytest.mark.parametrize(
    ("arguments", "cause"), [({"name": "vot2019"}, "no tracker"), ({"device": "abacus"}, "device 'abacus'")]
)
def test_wrong_arguments(arguments: dict, cause: str) -> None:
    with pytest.raises(AlphaRefineError, match=cause):
        build_tracker(**arguments)


# ---- several targets


def test_several_are_lists_of_regions() -> None:
    mask = np.zeros((4, 4), np.uint8)
    assert not any(are_several(one) for one in (BOX, list(BOX), np.array(BOX), mask))
    assert all(are_several(some) for some in ([BOX], (mask, BOX), [list(BOX)], []))


def test_each_of_several_is_tracked_as_if_alone() -> None:
    images, mask = video(4), np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[40:64, 60:90] = 1
    several = make_tracker()
    given = several.initialize(images[0], [mask, OTHER])
    assert [prediction.score for prediction in given] == [1.0, 1.0]
    found = [several.track(image) for image in images[1:]]
    for index, region in enumerate((mask, OTHER)):
        for one in (region, [region]):
            alone = make_tracker()
            first = alone.initialize(images[0], one)
            assert (first[0] if isinstance(first, list) else first).score == 1.0
            for image, expected in zip(images[1:], found):
                result = alone.track(image)
                result = result[0] if isinstance(result, list) else result
                np.testing.assert_array_equal(result.box, expected[index].box)
                np.testing.assert_array_equal(result.probabilities, expected[index].probabilities)
                assert (expected[index].mask <= result.mask).all()  # less what the other claims more strongly


def test_targets_come_and_go() -> None:
    images = video(4)
    tracker, first, later = make_tracker(), make_tracker(), make_tracker()
    for one in (tracker, first):
        one.initialize(images[0], BOX)
    assert isinstance(tracker.track(images[1]), Prediction)
    first.track(images[1])
    assert same(tracker.add(images[1], OTHER), later.initialize(images[1], OTHER))
    found = tracker.track(images[2])
    np.testing.assert_array_equal(found[0].box, first.track(images[2]).box)
    np.testing.assert_array_equal(found[1].box, later.track(images[2]).box)
    tracker.remove(0)
    (left,) = tracker.track(images[3])
    assert same(left, later.track(images[3]))
    tracker.remove(0)
    assert tracker.track(images[3]) == []
    with pytest.raises(InputError, match="no target 0: there are 0"):
        tracker.remove(0)


def test_bad_input_changes_no_target() -> None:
    images, bad = video(3), np.zeros((HEIGHT, WIDTH), np.uint8)
    tracker, undisturbed = make_tracker(), make_tracker()
    with pytest.raises(InputError, match="add.. was called before initialize"):
        tracker.add(images[0], BOX)
    for one in (tracker, undisturbed):
        one.initialize(images[0], [BOX, OTHER])
    for wrong, cause in (
        (lambda: tracker.initialize(images[0], [BOX, bad]), "Target 2 of 2: The mask marks no pixel"),
        (lambda: tracker.initialize(images[0], []), "no target"),
        (lambda: tracker.add(images[1], bad), "^The mask marks no pixel"),
        (lambda: tracker.add(images[1][:-1], BOX), "first one was"),
        (lambda: tracker.track(images[1][:-1]), "first one was"),
        (lambda: tracker.correct(2, BOX), "no target 2: there are 2"),
        (lambda: tracker.correct(0, (1, 2, 0, 4)), "positive"),
    ):
        with pytest.raises(InputError, match=cause):
            wrong()
    assert all(same(*pair) for pair in zip(tracker.track(images[1]), undisturbed.track(images[1]), strict=True))


def test_a_correction_moves_the_target() -> None:
    images = video(3)
    moved, left = make_tracker(), make_tracker()
    for tracker in (moved, left):
        tracker.initialize(images[0], BOX)
    moved.correct(0, (5, 90, 30, 24))  # its search region does not reach the target from here
    (place,) = (target.base.place for target in moved._targets)
    assert place.position.tolist() == [102, 20] and place.size.tolist() == [24, 30]
    assert not same(moved.track(images[1]), left.track(images[1]))


def test_masks_that_meet_do_not_overlap() -> None:
    tracker, images = make_tracker(), video(3)
    tracker.initialize(images[0], [BOX, (56, 36, 36, 30)])  # the same object twice
    for image in images[1:]:
        found = tracker.track(image)
        assert (found[0].mask.astype(int) + found[1].mask).max() == 1
        for prediction in found:
            check(prediction)


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
    assert set(tracker_ar.__all__) <= set(dir(tracker_ar))
