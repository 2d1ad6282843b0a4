"""Trackers over annotated sequences, once from the first frame to the last, and what came out.

The tracker gets the ground truth of the first frame, the mask where there is one, else the box, and is never
restarted. Its boxes are the bounding boxes of its masks, or the box it reports where the mask is empty; true
boxes are annotated ones or the bounding boxes of masks. A tracker that knows boxes only is judged as a mask
tracker by its filled box. Box curves include the first frame, in which every tracker is right, as the
evaluations of OTB, TrackingNet and LaSOT do; J and F leave out the first and the last, as that of DAVIS does.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from vot.dataset import load_sequence
from vot.region import Region as VotRegion
from vot.region import RegionType

from tracker_ar.base.opencv import opencv_tracker
from tracker_ar.base.static import StaticTracker
from tracker_ar.data.datasets.vot_layout import SequenceInfo, inspect_sequence, read_list
from tracker_ar.errors import DataError
from tracker_ar.evaluate import metrics
from tracker_ar.evaluate.vot_workspace import listed_sequences
from tracker_ar.geometry import Region, box_from_mask
from tracker_ar.images import read_image
from tracker_ar.prediction import Prediction, single
from tracker_ar.tracker import AlphaRefineTracker

NO_BOX = np.full(4, np.nan)
COMPARISONS = ("csrt", "csrt+refiner", "kcf", "kcf+refiner", "static")


class Tracker(Protocol):
    """What is measured; `tracker_ar.AlphaRefineTracker` is one."""

    def initialize(self, image: np.ndarray, region: Region) -> Any: ...

    def track(self, image: np.ndarray) -> Prediction | list[Prediction]: ...


@dataclass(frozen=True)
class Truth:
    """The annotation of a frame: mask (H, W) uint8 {0, 1} or None; box (4,), NaN without a (known) target."""

    mask: np.ndarray | None
    box: np.ndarray


@dataclass(frozen=True)
class Measures:
    """Of a sequence, or means over sequences. Measures of masks are NaN where boxes are annotated.

    j, f: region similarity and contour accuracy with recall and decay (DAVIS). success: AUC (OTB). precision:
    at 20 pixels (OTB). normalised_precision_at_20: at 0.20 of the target's size, as published tables of TrackingNet
    and LaSOT. normalised_precision_auc: the mean over 0..0.5 (TrackingNet's paper). tracked: fraction of the frames
    after the first with an overlap of the boxes over 0.1. reported_success: AUC of the boxes that the tracker
    reports beside its masks, which tells a weak base tracker from weak masks.
    """

    j: float
    j_recall: float
    j_decay: float
    f: float
    f_recall: float
    f_decay: float
    success: float
    precision: float
    normalised_precision_at_20: float
    normalised_precision_auc: float
    tracked: float
    reported_success: float


@dataclass(frozen=True)
class Curves:
    """Fractions of frames over the thresholds of `metrics`: (21,), (51,) and (51,), 0..1."""

    success: np.ndarray
    precision: np.ndarray
    normalised_precision: np.ndarray


@dataclass(frozen=True)
class SequenceScores:
    """How one tracker did on one sequence."""

    tracker: str
    sequence: str
    frames: int
    has_masks: bool
    measures: Measures
    curves: Curves


def find_sequences(folders: Iterable[Path]) -> list[SequenceInfo]:
    """The sequences that the folders are or hold, checked; those in ``list.txt`` where a folder has one.

    Raises DataError for a folder without sequences, for a damaged one, and for two of one name.
    """
    infos: dict[Path, SequenceInfo] = {}
    for folder in folders:
        if (folder / "sequence").is_file() or (folder / "groundtruth.txt").is_file():
            found = [inspect_sequence(folder)]
        elif read_list(folder):
            found = listed_sequences(folder)
        else:
            found = [inspect_sequence(file.parent) for file in sorted(folder.glob("*/groundtruth.txt"))]
        if not found:
            raise DataError(f"{folder}: neither a VOT-layout sequence nor a folder of them; one has "
                            "color/%08d.jpg, groundtruth.txt, anchor.value and sequence")
        infos.update((info.path.resolve(), info) for info in found)
    names = [path.name for path in infos]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise DataError(f"two different sequences are called {doubled}; rename one, results are kept by name")
    return list(infos.values())


def measure(
    name: str, tracker: Tracker, info: SequenceInfo, on_frame: Callable[[], object]
) -> SequenceScores:
    """Run a tracker over a sequence and measure it; `on_frame` is called after every frame.

    Raises DataError for an image that cannot be read or a first frame without a target.
    """
    similarities, contours, boxes, reported, true_boxes = [], [], [], [], []
    for index, (image, truth) in enumerate(read_frames(info)):
        if index == 0:
            prediction = _start(tracker, image, truth, info)
        else:
            prediction = single(tracker.track(image))
        true_mask = truth.mask if info.has_masks else None
        similarities.append(np.nan if true_mask is None else metrics.region_similarity(prediction.mask, true_mask))
        contours.append(np.nan if true_mask is None else metrics.contour_accuracy(prediction.mask, true_mask))
        boxes.append(box_from_mask(prediction.mask) if prediction.mask.any() else prediction.box)
        reported.append(prediction.box)
        true_boxes.append(truth.box)
        on_frame()

    found, truths = np.array(boxes), np.array(true_boxes)
    overlaps = metrics.box_overlaps(found, truths)
    curves = Curves(
        metrics.success_curve(overlaps),
        metrics.precision_curve(metrics.centre_distances(found, truths)),
        metrics.normalised_precision_curve(metrics.normalised_distances(found, truths)),
    )
    region, contour = (metrics.davis_statistics(np.array(values)) for values in (similarities, contours))
    measures = Measures(
        j=region.mean, j_recall=region.recall, j_decay=region.decay,
        f=contour.mean, f_recall=contour.recall, f_decay=contour.decay,
        success=float(curves.success.mean()),
        precision=float(curves.precision[metrics.PRECISION_PIXELS]),
        normalised_precision_at_20=metrics.normalised_precision_at_20(curves.normalised_precision),
        normalised_precision_auc=float(curves.normalised_precision.mean()),
        tracked=metrics.fraction_tracked(overlaps[1:]),
        reported_success=float(metrics.success_curve(metrics.box_overlaps(np.array(reported), truths)).mean()),
    )
    return SequenceScores(name, info.path.name, info.length, info.has_masks, measures, curves)


def mean_measures(scores: Iterable[SequenceScores]) -> Measures:
    """Means over sequences, each sequence weighing the same; NaN, what was not measured, is left out."""
    rows = np.array([dataclasses.astuple(score.measures) for score in scores])
    return Measures(*map(float, _mean(rows)))


def mean_curves(scores: Iterable[SequenceScores]) -> Curves:
    """Means over sequences, each sequence weighing the same."""
    curves = [dataclasses.astuple(score.curves) for score in scores]
    return Curves(*(_mean(np.array(column)) for column in zip(*curves)))


def read_frames(info: SequenceInfo) -> Iterator[tuple[np.ndarray, Truth]]:
    """The frames of a sequence: RGB uint8 (H, W, 3) and the annotation."""
    sequence = load_sequence(str(info.path))
    for index in range(info.length):
        frame = sequence.frame(index)
        image = read_image(frame.filename())
        yield image, read_truth(frame.groundtruth(), image.shape[:2])


def read_truth(region: VotRegion, image_size: tuple[int, int]) -> Truth:
    """An annotation of the toolkit for an image of `image_size` (height, width).

    Polygons become the box around them. Boxes without an area stand for a target that cannot be seen.
    """
    if region.type == RegionType.SPECIAL:
        return Truth(None, NO_BOX)
    if region.type == RegionType.MASK:
        mask = np.zeros(image_size, np.uint8)
        if region.mask.any():
            mask = region.rasterize((0, 0, image_size[1] - 1, image_size[0] - 1))
        return Truth(mask, box_from_mask(mask) if mask.any() else NO_BOX)
    bounds = region.convert(RegionType.RECTANGLE)
    box = np.array([bounds.x, bounds.y, bounds.width, bounds.height], np.float64)
    return Truth(None, box if min(box[2:]) > 0 else NO_BOX)


def comparison_tracker(name: str, tracker: AlphaRefineTracker) -> AlphaRefineTracker:
    """A tracker to compare `tracker` with, one of COMPARISONS.

    'static', a box that never moves; OpenCV's 'csrt' or 'kcf', whose box is their mask; or 'csrt+refiner' or
    'kcf+refiner', the same with the refiner of `tracker` behind it. Raises InputError where this OpenCV lacks the one
    that is asked for.
    """
    base, _, refined = name.partition("+")
    engine = StaticTracker() if base == "static" else opencv_tracker(base)
    if refined:
        return AlphaRefineTracker(engine, tracker.refiner, replace(tracker.profile, name=name))
    return AlphaRefineTracker(engine, None, replace(tracker.profile, name=name, minimum_side=1.0))


def _start(tracker: Tracker, image: np.ndarray, truth: Truth, info: SequenceInfo) -> Prediction:
    """Give the tracker its target; the 'prediction' of the first frame is what it was given."""
    if np.isnan(truth.box).any():
        raise DataError(f"{info.path}: the first frame has no target to start from")
    tracker.initialize(image, truth.box if truth.mask is None else truth.mask)
    # An annotated box has no mask; an empty one leaves the box as it is.
    mask = np.zeros(image.shape[:2], np.uint8) if truth.mask is None else truth.mask
    return Prediction(truth.box, mask, 1.0)


def _mean(rows: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN has no mean: NaN
        return np.nanmean(rows, axis=0)
