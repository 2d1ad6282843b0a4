"""Measures of masks and boxes: cases counted by hand, an independent contour matching, properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_ar.evaluate import metrics
from tracker_ar.geometry import box_iou

SIZE = (60, 80)  # diagonal 100: a tolerance of 0.008 is 0.8, so one pixel


def square(top: int, left: int, side: int = 20) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:top + side, left:left + side] = 1
    return mask


EMPTY = np.zeros(SIZE, np.uint8)


def test_region_similarity_of_a_shifted_square() -> None:
    assert metrics.region_similarity(square(10, 10), square(10, 10)) == 1
    # 15 of 20 columns are shared: 300 / (400 + 400 - 300)
    assert metrics.region_similarity(square(10, 10), square(10, 15)) == pytest.approx(0.6)
    assert metrics.region_similarity(square(10, 10), square(10, 40)) == 0


@pytest.mark.parametrize("measure", [metrics.region_similarity, metrics.contour_accuracy])
def test_empty_masks_agree_with_each_other_alone(measure) -> None:
    assert measure(EMPTY, EMPTY) == 1
    assert measure(EMPTY, square(10, 10)) == 0
    assert measure(square(10, 10), EMPTY) == 0


@pytest.mark.parametrize("measure", [metrics.region_similarity, metrics.contour_accuracy])
def test_masks_of_two_sizes_are_refused(measure) -> None:
    with pytest.raises(ValueError, match="one size"):
        measure(EMPTY, np.zeros((60, 81)))


def test_contour_lies_on_both_sides_of_the_edge_but_not_on_the_image_border() -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[2, 2:4] = 1
    expected = np.zeros((5, 6), bool)
    expected[1, 1:4] = True  # above, and diagonal to the first pixel
    expected[2, [1, 2, 3]] = True  # left of it, and the two over background
    np.testing.assert_array_equal(metrics.mask_contour(mask), expected)
    assert not metrics.mask_contour(np.ones((5, 6))).any()
    half = np.zeros((4, 6))
    half[:, 3:] = 1  # touches three borders
    np.testing.assert_array_equal(np.argwhere(metrics.mask_contour(half))[:, 1], [2] * 4)


def test_contour_accuracy_allows_the_tolerance_and_no_more() -> None:
    truth = square(20, 20)
    assert metrics.contour_accuracy(square(21, 20), truth) == 1
    assert metrics.contour_accuracy(square(20, 22), truth) < 1
    assert metrics.contour_accuracy(square(20, 22), truth, tolerance=0.02) == 1
    # The contour has 80 pixels: 2 rows of 21, and between them 2 columns of 19. Shifted by 2 columns, each
    # row keeps 20 within reach, the column inside the other square the 2 next to the rows, the other none.
    assert metrics.contour_accuracy(square(20, 22), truth) == pytest.approx((2 * 20 + 2) / 80)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.008, 0.05, 0.15]))
def test_contour_accuracy_equals_one_from_distances_between_all_pixels(seed: int, tolerance: float) -> None:
    random = np.random.default_rng(seed)
    first, second = (np.kron(random.random((5, 6)) > 0.6, np.ones((4, 4))) for _ in range(2))
    points = [np.argwhere(metrics.mask_contour(mask)) for mask in (first, second)]
    if not (len(points[0]) and len(points[1])):
        return
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    limit = math.ceil(tolerance * math.hypot(*first.shape))
    precision, recall = ((distances.min(axis=axis) <= limit).mean() for axis in (1, 0))
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert metrics.contour_accuracy(first, second, tolerance) == pytest.approx(expected)
    assert metrics.contour_accuracy(second, first, tolerance) == pytest.approx(expected)


def test_davis_statistics_leave_out_the_first_and_the_last_frame() -> None:
    values = [0.0, 1.0, 1.0, 0.6, 0.5, 0.4, 0.1, 1.0]
    statistics = metrics.davis_statistics(values)
    assert statistics.mean == pytest.approx(3.6 / 6)
    assert statistics.recall == pytest.approx(3 / 6)  # 0.5 is not above 0.5
    # quarters of 6 frames border at 0, 1.25, 2.5, 3.75, 5, rounded 0, 1, 3, 4, 5, and share those frames
    assert statistics.decay == pytest.approx((1 + 1) / 2 - (0.4 + 0.1) / 2)


def test_davis_statistics_skip_frames_that_are_not_annotated() -> None:
    assert metrics.davis_statistics([1, 0.2, np.nan, 0.4, 1]).mean == pytest.approx(0.3)
    for values in ([1.0, 1.0], [1, np.nan, 1]):
        statistics = metrics.davis_statistics(values)
        assert np.isnan([statistics.mean, statistics.recall, statistics.decay]).all()


def test_decay_is_negative_for_a_tracker_that_gets_better() -> None:
    assert metrics.davis_statistics(np.linspace(0, 1, 300)).decay == pytest.approx(-0.747, abs=0.01)


def test_overlaps_and_distances_of_boxes_by_hand() -> None:
    truth = np.array([[10, 10, 20, 40]] * 4 + [[np.nan] * 4])
    predicted = np.array([[10, 10, 20, 40], [20, 10, 20, 40], [50, 10, 20, 40], [10, 10, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(metrics.box_overlaps(predicted, truth), [1, 1 / 3, 0, 0, np.nan])
    np.testing.assert_allclose(metrics.centre_distances(predicted, truth),
                               [0, 10, 40, math.hypot(10, 20), np.nan])
    np.testing.assert_allclose(metrics.normalised_distances(predicted, truth),
                               [0, 0.5, 2, math.hypot(0.5, 0.5), np.nan])


boxes = st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0.5, 60)] * 2)


@given(boxes, boxes)
def test_overlap_equals_that_of_the_runtime(first, second) -> None:
    assert metrics.box_overlaps([first], [second])[0] == pytest.approx(box_iou(first, second))


@given(boxes, st.floats(-50, 50), st.floats(-50, 50))
def test_a_box_that_moves_with_its_truth_scores_the_same(box, right, down) -> None:
    truth = np.array([[0.0, 0, 10, 20]])
    shift = np.array([right, down, 0, 0])
    for measure in (metrics.box_overlaps, metrics.centre_distances, metrics.normalised_distances):
        before, after = measure([box], truth), measure(np.array([box]) + shift, truth + shift)
        assert after == pytest.approx(before, abs=1e-9)


def test_curves_of_a_perfect_tracker() -> None:
    success = metrics.success_curve(np.ones(7))
    assert success.shape == (21,) and success[-1] == 0
    assert success.mean() == pytest.approx(20 / 21)
    for curve in (metrics.precision_curve(np.zeros(7)), metrics.normalised_precision_curve(np.zeros(7))):
        assert curve.shape == (51,) and (curve == 1).all()


def test_curves_by_hand() -> None:
    success = metrics.success_curve([0.0, 0.5, 0.72, np.nan])
    assert success[0] == pytest.approx(2 / 3)  # no overlap is not above 0
    assert success[9] == pytest.approx(2 / 3)  # 0.45
    assert success[10] == pytest.approx(1 / 3)  # 0.5 is not above 0.5
    assert success[15] == 0  # 0.75
    precision = metrics.precision_curve([20.0, 20.5, 100.0, np.nan])
    assert precision[metrics.PRECISION_PIXELS] == pytest.approx(1 / 3)
    assert precision[21] == pytest.approx(2 / 3)
    # within reach from 0.2 on: 31 of 51 thresholds
    assert metrics.normalised_precision_curve([0.2 - 1e-9]).mean() == pytest.approx(31 / 51)
    curve = metrics.normalised_precision_curve([0.195, 0.2 - 1e-9, 0.205, 0.4])
    assert metrics.normalised_precision_at_20(curve) == 0.5


def test_fraction_tracked_counts_overlaps_over_a_tenth() -> None:
    assert metrics.fraction_tracked([0.1, 0.11, 0.9, np.nan]) == pytest.approx(2 / 3)


def test_without_a_target_nothing_is_measured() -> None:
    nothing = np.full(3, np.nan)
    assert math.isnan(metrics.fraction_tracked(nothing))
    assert np.isnan(metrics.success_curve(nothing)).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_curves_are_monotone_fractions(values) -> None:
    falling = metrics.success_curve(values)
    rising = metrics.normalised_precision_curve(values)
    assert (np.diff(falling) <= 0).all() and (np.diff(rising) >= 0).all()
    for curve in (falling, rising):
        assert curve.min() >= 0 and curve.max() <= 1
