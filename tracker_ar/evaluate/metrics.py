"""Measures of masks and boxes, as the benchmarks define them that publish results with them.

Masks: region similarity J and contour accuracy F of DAVIS (Perazzi et al., "A Benchmark Dataset and
Evaluation Methodology for Video Object Segmentation", CVPR 2016). Boxes: success and precision of OTB (Wu et
al., "Object Tracking Benchmark", TPAMI 2015), normalised precision of TrackingNet (Müller et al., ECCV 2018), which
LaSOT uses too: as the fraction at one threshold, which published tables give, and as the mean over all thresholds.

Boxes are x, y, width, height in pixels; a row of NaN stands for a frame without a target or without
annotation. Such frames are left out, as NaN in per-frame values is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

CONTOUR_TOLERANCE = 0.008  # of the image diagonal (DAVIS)
RECALL_THRESHOLD = 0.5  # DAVIS: a frame counts as found above it
PRECISION_PIXELS = 20  # OTB ranks trackers by the precision at this distance

OVERLAP_THRESHOLDS = np.linspace(0.0, 1.0, 21)  # OTB
DISTANCE_THRESHOLDS = np.arange(51)  # OTB, pixels
NORMALISED_THRESHOLDS = np.linspace(0.0, 0.5, 51)  # TrackingNet, of the target's size
RANKING_THRESHOLD = 0.2  # of them, by which the toolkits of TrackingNet and LaSOT rank


@dataclass(frozen=True)
class DavisStatistics:
    """J or F over the frames of a sequence (Perazzi et al., section 5): all NaN without a frame to judge.

    mean: 0..1. recall: fraction of frames above 0.5. decay: mean of the first quarter of the frames minus that
    of the last, negative for a tracker that gets better.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(predicted: np.ndarray, truth: np.ndarray) -> float:
    """J, intersection over union of two masks (H, W) of any dtype, non-zero on the target: 0..1.

    Two empty masks agree: 1. Raises ValueError for masks of different sizes, as does `contour_accuracy`.
    """
    predicted, truth = _same_size(predicted, truth)
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def contour_accuracy(predicted: np.ndarray, truth: np.ndarray, tolerance: float = CONTOUR_TOLERANCE) -> float:
    """F, harmonic mean of precision and recall of the contour of a mask (H, W): 0..1.

    A contour pixel is right when the other contour passes within `tolerance` of the image diagonal, rounded
    up to whole pixels. Instead of matching pixels one to one, each contour is dilated by a disk, the
    approximation that the paper uses for speed. Two masks without a contour agree: 1; if only one has none,
    the result is 0.
    """
    predicted, truth = _same_size(predicted, truth)
    contours = mask_contour(predicted), mask_contour(truth)
    if not (contours[0].any() and contours[1].any()):
        return float(contours[0].any() == contours[1].any())
    disk = _disk(math.ceil(tolerance * math.hypot(*truth.shape)))
    near_predicted, near_truth = (cv2.dilate(contour.view(np.uint8), disk).view(bool) for contour in contours)
    precision = near_truth[contours[0]].mean()
    recall = near_predicted[contours[1]].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def mask_contour(mask: np.ndarray) -> np.ndarray:
    """The contour of a mask (H, W), as bool (H, W): pixels that differ from one to the right or below.

    The border of the image is no contour: a mask that covers the whole image has none.
    """
    extended = np.pad(np.asarray(mask) != 0, ((0, 1), (0, 1)), mode="edge")
    pixel = extended[:-1, :-1]
    return (pixel != extended[:-1, 1:]) | (pixel != extended[1:, :-1]) | (pixel != extended[1:, 1:])


def davis_statistics(values: np.ndarray) -> DavisStatistics:
    """The statistics of J or F (N,) over the frames of a sequence.

    The first frame (it was given) and the last one are left out, as DAVIS 2016 does; frames that are NaN as
    well. Neighbouring quarters share the frame between them, as in the evaluation that DAVIS publishes.
    """
    judged = np.asarray(values, np.float64)[1:-1]
    judged = judged[~np.isnan(judged)]
    if judged.size == 0:
        return DavisStatistics(math.nan, math.nan, math.nan)
    borders = np.floor(np.linspace(0, judged.size - 1, 5) + 0.5).astype(int)
    first, last = judged[:borders[1] + 1], judged[borders[3]:]
    return DavisStatistics(
        mean=float(judged.mean()),
        recall=float((judged > RECALL_THRESHOLD).mean()),
        decay=float(first.mean() - last.mean()),
    )


def box_overlaps(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union (N,) of boxes (N, 4) with boxes (N, 4), 0..1; NaN where a box is NaN."""
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    near = np.maximum(predicted[:, :2], truth[:, :2])
    far = np.minimum(predicted[:, :2] + predicted[:, 2:], truth[:, :2] + truth[:, 2:])
    intersection = np.maximum(far - near, 0).prod(axis=1)
    union = predicted[:, 2:].prod(axis=1) + truth[:, 2:].prod(axis=1) - intersection
    return intersection / np.where(union > 0, union, 1)


def centre_distances(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance in pixels (N,) between the centres of boxes (N, 4); NaN where a box is NaN (OTB)."""
    return np.hypot(*_centre_offsets(predicted, truth).T)


def normalised_distances(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance (N,) of the centres, x in widths and y in heights of the true boxes (N, 4) (TrackingNet).

    NaN where a box is NaN. True boxes must have an area.
    """
    return np.hypot(*(_centre_offsets(predicted, truth) / np.asarray(truth, np.float64)[:, 2:]).T)


def success_curve(overlaps: np.ndarray) -> np.ndarray:
    """Fraction of frames whose overlap (N,) exceeds each of `OVERLAP_THRESHOLDS`: (21,), 0..1.

    Its mean is the AUC. The comparison is strict, as in OTB, so that nothing counts at the threshold 1 and
    the AUC of a perfect tracker is 20 / 21.
    """
    return _fraction(_known(overlaps)[:, None] > OVERLAP_THRESHOLDS)


def precision_curve(distances: np.ndarray) -> np.ndarray:
    """Fraction of frames whose distance (N,) is within each of `DISTANCE_THRESHOLDS`, pixels: (51,), 0..1.

    The precision of OTB is the value at `PRECISION_PIXELS`.
    """
    return _fraction(_known(distances)[:, None] <= DISTANCE_THRESHOLDS)


def normalised_precision_curve(distances: np.ndarray) -> np.ndarray:
    """Fraction of frames whose normalised distance (N,) is within each of `NORMALISED_THRESHOLDS`: (51,), 0..1.

    Two numbers are taken from it: `normalised_precision_at_20`, which published tables of TrackingNet and LaSOT give,
    and its mean, as TrackingNet's paper defines it. The first is the larger one for most trackers.
    """
    return _fraction(_known(distances)[:, None] <= NORMALISED_THRESHOLDS)


def normalised_precision_at_20(curve: np.ndarray) -> float:
    """The value at the threshold 0.20 of a curve (51,) of `normalised_precision_curve`."""
    return float(curve[np.isclose(NORMALISED_THRESHOLDS, RANKING_THRESHOLD)][0])


def fraction_tracked(overlaps: np.ndarray, minimum: float = 0.1) -> float:
    """Fraction of frames whose overlap (N,) exceeds `minimum`, 0..1; NaN when no frame has a target.

    VOT counts a target as lost at an overlap of 0.1 (Kristan et al., ECCVW 2020).
    """
    return float(_fraction(_known(overlaps) > minimum))


def _same_size(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = np.asarray(predicted) != 0, np.asarray(truth) != 0
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"Masks of one size H x W are compared, not {predicted.shape} with {truth.shape}.")
    return predicted, truth


def _disk(radius: int) -> np.ndarray:
    squares = np.arange(-radius, radius + 1) ** 2
    return (squares[:, None] + squares <= radius**2).astype(np.uint8)


def _centre_offsets(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    return (predicted[:, :2] + predicted[:, 2:] / 2) - (truth[:, :2] + truth[:, 2:] / 2)


def _known(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[~np.isnan(values)]


def _fraction(hits: np.ndarray) -> np.ndarray:
    return hits.mean(axis=0) if len(hits) else np.full(hits.shape[1:], np.nan)
