"""Where pairs for the refiner and sequences for the base tracker come from: scenes or data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from tracker_ar.crops import refiner_crop, sample_patch
from tracker_ar.data.mixture import FrameSampling, Mixture
from tracker_ar.data.sequence import Frame
from tracker_ar.data.synthetic.photometry import to_grey
from tracker_ar.data.synthetic.samples import BaseSequence, RefinerPair, Shot, plan_sequence, refiner_pair, take
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.errors import DataError


class PairSource(Protocol):
    """Pairs for the refiner."""

    def pair(self, rng: np.random.Generator, size: int) -> RefinerPair:
        """A pair of crops of `size` pixels; it depends on the generator alone."""
        ...


class SequenceSource(Protocol):
    """Sequences for the base tracker."""

    def sequence(self, rng: np.random.Generator, geometry: SequenceGeometry) -> BaseSequence:
        """Train and test search regions; they depend on the generator alone."""
        ...


@dataclass(frozen=True)
class SequenceGeometry:
    """Search regions: numbers of train and test frames, side in pixels, side over target, jitters.

    The centre moves by up to half of `centre_jitter` target sizes either way, the scale by exp(N(0, jitter))
    (DiMP; Bhat et al., 2019), for train and test frames.
    """

    frames: tuple[int, int]
    size: int
    factor: float
    centre_jitter: tuple[float, float]
    scale_jitter: tuple[float, float]


@dataclass(frozen=True)
class SyntheticSource:
    """Crops rendered straight from scenes: only what a crop shows is drawn."""

    sampler: SceneSampler

    def pair(self, rng: np.random.Generator, size: int) -> RefinerPair:
        return refiner_pair(self.sampler, rng, size)

    def sequence(self, rng: np.random.Generator, geometry: SequenceGeometry) -> BaseSequence:
        shots, boxes = self.plan(rng, geometry)
        return BaseSequence(np.stack([take(shot, geometry.size)[0] for shot in shots]), boxes)

    def plan(self, rng: np.random.Generator, geometry: SequenceGeometry) -> tuple[list[Shot], np.ndarray]:
        """The crops of `sequence` before they are made, and their boxes."""
        return plan_sequence(
            self.sampler,
            rng,
            geometry.frames,
            geometry.size,
            geometry.factor,
            geometry.centre_jitter,
            geometry.scale_jitter,
        )


@dataclass(frozen=True)
class Augmentation:
    """What changes the crops of data sets. Shares are probabilities.

    Attributes:
        brightness: every crop is multiplied by a number from 1 - brightness to 1 + brightness.
        grey: share of samples without colour.
        flip_all, flip_each: share of samples, and of single crops in them, that are mirrored.
        box_only: share of pairs whose reference mask is all ones, as where a tracker is started with a box.
    """

    brightness: float = 0.2
    grey: float = 0.05
    flip_all: float = 0.5
    flip_each: float = 0.5
    box_only: float = 0.0


@dataclass(frozen=True)
class MixedPairs:
    """Pairs from data sets with masks, as Alpha-Refine draws them (Yan et al., 2021).

    The reference is cut around the exact box, the search crop around a jittered one.

    A still image makes a pair with itself, cut and changed in two ways.

    Raises:
        DataError: a set has no masks.
    """

    mixture: Mixture
    sampling: FrameSampling
    augmentation: Augmentation
    factor: float = 2.0
    centre_jitter: float = 0.25
    scale_jitter: float = 0.25

    def __post_init__(self) -> None:
        bare = [dataset.name for dataset in self.mixture.datasets if not dataset.has_masks]
        if bare:
            raise DataError(f"{', '.join(bare)}: the refiner learns from masks; these sets have boxes alone")

    def pair(self, rng: np.random.Generator, size: int) -> RefinerPair:
        (first,), (second,) = self.mixture.draw(rng, self.sampling)
        augmentation = self.augmentation
        grey, flip = rng.random() < augmentation.grey, rng.random() < augmentation.flip_all
        pixels, known, box = self._crop(first, first.box, size)
        reference = _changed(pixels, augmentation, grey, rng)
        guess = jittered_box(second.box, self.centre_jitter, self.scale_jitter, rng)
        pixels, mask, _ = self._crop(second, guess, size)
        search = _changed(pixels, augmentation, grey, rng)
        if rng.random() < augmentation.box_only:
            known = np.ones_like(known)
        mirrored = [flip != (rng.random() < augmentation.flip_each) for _ in range(2)]
        if mirrored[0]:
            reference, known = _mirror(reference), _mirror(known)
            box = np.array([size - box[0] - box[2], *box[1:]], np.float32)
        if mirrored[1]:
            search, mask = _mirror(search), _mirror(mask)
        return RefinerPair(box, reference, known, search, mask)

    def _crop(self, frame: Frame, box: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels, mask and the target's box, cut exactly as the tracker cuts them."""
        assert frame.mask is not None
        crop = refiner_crop(frame.image, box, self.factor, size)
        return crop.pixels, mask_in_window(frame.mask, crop.window, size), crop.box_in_crop


@dataclass(frozen=True)
class MixedSequences:
    """Sequences from data sets, as DiMP draws them, with the cropping of SuperDiMP.

    Search regions are moved, and shrunk by at most `max_scale_change`, into the frame.
    """

    mixture: Mixture
    sampling: FrameSampling
    augmentation: Augmentation
    border_mode: str = "inside_major"
    max_scale_change: float = 1.5

    def sequence(self, rng: np.random.Generator, geometry: SequenceGeometry) -> BaseSequence:
        train, test = self.mixture.draw(rng, self.sampling)
        grey, flip = rng.random() < self.augmentation.grey, rng.random() < self.augmentation.flip_all
        images, boxes = [], []
        for is_test, frames in enumerate((train, test)):
            for frame in frames:
                jitter = geometry.centre_jitter[is_test], geometry.scale_jitter[is_test]
                pixels, box = self._region(frame, geometry, jittered_box(frame.box, *jitter, rng))
                if flip != (rng.random() < self.augmentation.flip_each):
                    pixels, box[0] = pixels[:, ::-1], geometry.size - box[0] - box[2]
                images.append(_changed(pixels, self.augmentation, grey, rng))
                boxes.append(box)
        return BaseSequence(np.stack(images), np.array(boxes, np.float32))

    def _region(
        self, frame: Frame, geometry: SequenceGeometry, around: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        position = around[1::-1] + around[:1:-1] / 2
        side = np.ceil(np.sqrt(around[2:].prod()) * geometry.factor)
        region = sample_patch(
            frame.image, position, side, geometry.size, self.border_mode, self.max_scale_change
        )
        top, left, bottom, right = region.coords.tolist()
        zoom = geometry.size / np.array([right - left, bottom - top])
        box = np.concatenate(((frame.box[:2] - [left, top]) * zoom, frame.box[2:] * zoom))
        return region.patch[0].round().byte().permute(1, 2, 0).numpy(), box


def jittered_box(
    box: np.ndarray, centre_jitter: float, scale_jitter: float, rng: np.random.Generator
) -> np.ndarray:
    """The box moved by up to half of `centre_jitter` target sizes, each side scaled by exp(N(0, jitter)).

    A side stays at least two pixels long.
    """
    extent = np.maximum(box[2:] * np.exp(rng.normal(0, scale_jitter, 2)), 2.0)
    offset = np.sqrt(extent.prod()) * centre_jitter * (rng.random(2) - 0.5)
    return np.concatenate((box[:2] + box[2:] / 2 + offset - extent / 2, extent))


def mask_in_window(mask: np.ndarray, window: tuple[int, int, int, int], size: int) -> np.ndarray:
    """uint8 {0, 1} size x size; what lies beyond the image is not target."""
    left, top, right, bottom = window
    height, width = mask.shape
    region = np.zeros((bottom - top, right - left), np.float32)
    inner = mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    region[max(-top, 0) :, max(-left, 0) :][: inner.shape[0], : inner.shape[1]] = inner
    return (cv2.resize(region, (size, size), interpolation=cv2.INTER_LINEAR) >= 0.5).astype(np.uint8)


def _changed(
    pixels: np.ndarray, augmentation: Augmentation, grey: bool, rng: np.random.Generator
) -> np.ndarray:
    pixels = np.ascontiguousarray(pixels)
    if grey:
        pixels = to_grey(pixels)
    gain = 1.0 + augmentation.brightness * rng.uniform(-1.0, 1.0)
    return cv2.convertScaleAbs(pixels, alpha=gain)


def _mirror(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1])
