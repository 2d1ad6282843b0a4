"""The public tracker with fresh `lite` weights: contract, bad input, repeatability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tracker_ar.base.dimp import SuperDiMPTracker
from tracker_ar.errors import AlphaRefineError, InputError
from tracker_ar.models.alpha_refine import build_mask_refiner
from tracker_ar.models.dimp import build_super_dimp
from tracker_ar.profiles import LITE
from tracker_ar.refine import Refiner
from tracker_ar.tracker import AlphaRefineTracker, Prediction, build_tracker

HEIGHT, WIDTH = 120, 160
BOX = (60.0, 40.0, 30.0, 24.0)
# Fresh weights score low: without the threshold every frame is refined and may be learned from. Smaller is faster.
ALWAYS_FOUND = replace(
    LITE.base, input_size=128, localization=replace(LITE.base.localization, not_found_threshold=-1.0)
)
SMALL_REFINER = replace(LITE.refiner, input_size=128, use_initial_mask=False)


def video(frames: int = 4) -> list[np.ndarray]:
    """A bright textured square that moves by two pixels a frame over a dark textured ground."""
    rng = np.random.default_rng(5)
    ground = rng.integers(20, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    target = rng.integers(150, 255, (24, 30, 3), dtype=np.uint8)
    images = []
    for frame in range(frames):
        image = ground.copy()
        image[40 : 40 + 24, 60 + 2 * frame : 90 + 2 * frame] = target
        images.append(image)
    return images


@pytest.fixture(scope="module")
def make_tracker() -> Callable[..., AlphaRefineTracker]:
    torch.manual_seed(3)
    base_weights = build_super_dimp(LITE.base.network).state_dict()
    refiner_weights = build_mask_refiner(LITE.refiner.network).state_dict()

    def make(seed: int = 0) -> AlphaRefineTracker:
        base = build_super_dimp(LITE.base.network)
        base.load_state_dict(base_weights)
        refiner = build_mask_refiner(LITE.refiner.network)
        refiner.load_state_dict(refiner_weights)
        cpu = torch.device("cpu")
        return AlphaRefineTracker(
            SuperDiMPTracker(base, ALWAYS_FOUND, cpu, seed), Refiner(refiner, SMALL_REFINER, cpu), LITE
        )

    return make


def check(prediction: Prediction) -> None:
    assert prediction.mask.shape == (HEIGHT, WIDTH)
    assert prediction.mask.dtype == np.uint8 and prediction.mask.flags.c_contiguous
    assert set(np.unique(prediction.mask)) <= {0, 1}
    x, y, width, height = prediction.box
    assert prediction.box.dtype == np.float64
    assert 0 <= x and 0 <= y and x + width <= WIDTH and y + height <= HEIGHT and min(width, height) > 0
    assert isinstance(prediction.score, float) and 0.0 <= prediction.score <= 1.0


def run(tracker: AlphaRefineTracker, images: list[np.ndarray]) -> list[Prediction]:
    tracker.initialize(images[0], BOX)
    return [tracker.track(image) for image in images[1:]]


def test_two_runs_are_bit_identical(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
    images = video()
    tracker = make_tracker()
    first, second, third = run(tracker, images), run(tracker, images), run(make_tracker(), images)
    for one, two, three in zip(first, second, third, strict=True):
        check(one)
        for other in (two, three):
            np.testing.assert_array_equal(one.mask, other.mask)
            np.testing.assert_array_equal(one.box, other.box)
            assert one.score == other.score


def test_the_seed_changes_the_draws(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
    images = video()
    first, second = run(make_tracker(seed=0), images), run(make_tracker(seed=1), images)
    assert any((one.box != two.box).any() for one, two in zip(first, second))


def test_a_mask_and_its_box_are_the_same_region(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
    images = video(2)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[40:64, 60:90] = 255
    tracker = make_tracker()
    tracker.initialize(images[0], mask)
    from_mask = tracker.track(images[1])
    tracker.initialize(images[0], BOX)
    np.testing.assert_array_equal(from_mask.mask, tracker.track(images[1]).mask)


def test_tracking_goes_on_after_bad_frames(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
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


def test_a_refused_region_leaves_the_old_target(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
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
        (np.ones((HEIGHT, WIDTH, 3), np.uint8), "neither a mask"),
    ],
)
def test_bad_regions(make_tracker: Callable[..., AlphaRefineTracker], region: object, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        make_tracker().initialize(video(1)[0], region)


@pytest.mark.parametrize("region", [(80, 60, 1, 1), (-20, -10, 40, 30), (0, 0, WIDTH, HEIGHT), (150, 110, 60, 60)])
def test_odd_regions_are_tracked(make_tracker: Callable[..., AlphaRefineTracker], region: tuple) -> None:
    tracker = make_tracker()
    images = video(3)
    tracker.initialize(images[0], region)
    for image in images[1:]:
        check(tracker.track(image))


def test_grey_and_rgba_frames(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
    images = video(2)
    tracker = make_tracker()
    tracker.initialize(images[0], BOX)
    check(tracker.track(images[1].mean(axis=2).astype(np.uint8)))
    check(tracker.track(np.dstack([images[1], np.full((HEIGHT, WIDTH), 255, np.uint8)])))


def test_uniform_frames(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
    tracker = make_tracker()
    tracker.initialize(video(1)[0], BOX)
    for value in (0, 255, 127):
        check(tracker.track(np.full((HEIGHT, WIDTH, 3), value, np.uint8)))


def test_track_before_initialize(make_tracker: Callable[..., AlphaRefineTracker]) -> None:
    with pytest.raises(InputError, match="before initialize"):
        make_tracker().track(video(1)[0])


@pytest.mark.parametrize(
    ("arguments", "cause"), [({"profile": "vot2019"}, "no profile"), ({"device": "abacus"}, "device 'abacus'")]
)
def test_wrong_arguments(arguments: dict, cause: str) -> None:
    with pytest.raises(AlphaRefineError, match=cause):
        build_tracker(**arguments)
