"""Crops of one target as the refiner sees them in tracking: exact references, searches around wrong boxes, other
places.

Every crop shows twice a box in each direction, so that this box always takes the middle half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Protocol

import cv2
import numpy as np

from tracker_ar.crops import refiner_crop
from tracker_ar.data.datasets.youtube_vos import YouTubeVOS
from tracker_ar.data.sequence import Frame, Track
from tracker_ar.data.synthetic.photometry import apply_tone, degrade, draw_degradation, to_grey, tone_table
from tracker_ar.data.synthetic.samples import around, into_window, shot_of, take, visible_scene
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.training_samples import mask_in_window
from tracker_ar.errors import DataError

FACTOR = 2.0
_SMALLEST = 8.0
_ATTEMPTS = 40
# Of a crop that counts as one without the target.
_MOST_OF_TARGET = 0.03


class Role(IntEnum):
    """What a crop shows: the target around its own box, around a wrong box, around its box of another frame shortly
    before, or not at all."""

    REFERENCE = 0
    SEARCH = 1
    STAYED = 2
    ABSENT = 3


@dataclass(frozen=True)
class TargetCrops:
    """n crops of one target: pixels uint8 (n, S, S, 3) RGB, masks uint8 {0, 1} (n, S, S), boxes float32 (n, 4) x, y,
    w, h
    of the target in pixels of the crop (it may reach beyond; zeros where the target is absent), roles uint8 (n,)."""

    pixels: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    roles: np.ndarray

    @staticmethod
    def of(crops: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, Role]]) -> TargetCrops:
        """From pixels, mask, box and role of each."""
        pixels, masks, boxes, roles = zip(*crops)
        return TargetCrops(
            np.stack(pixels), np.stack(masks), np.array(boxes, np.float32), np.array(roles, np.uint8)
        )


class CropSource(Protocol):
    """Gives crops of targets."""

    def crops(self, rng: np.random.Generator, size: int) -> TargetCrops:
        """Crops of `size` pixels of one target; they depend on the generator alone."""
        ...


def wrong_box(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A base tracker's box, (4,) x, y, w, h: half of them a little off, half by up to 0.4 of the sides and 0.6 to 1.6
    times the size."""
    if rng.random() < 0.5:
        shift, common = np.clip(rng.normal(0, 0.1, 2), -0.4, 0.4), np.clip(rng.normal(0, 0.12), -0.5, 0.5)
    else:
        shift, common = rng.uniform(-0.4, 0.4, 2), rng.uniform(np.log(0.6), np.log(1.6))
    extent = np.maximum(box[2:] * np.exp(common + rng.normal(0, 0.1, 2)), _SMALLEST)
    return np.concatenate((box[:2] + box[2:] / 2 + shift * np.maximum(box[2:], _SMALLEST) - extent / 2, extent))


@dataclass(frozen=True)
class Light:
    """What happens to all crops of one target in the same way."""

    grey: bool
    dark: float | None
    mirrored: bool

    @staticmethod
    def draw(rng: np.random.Generator) -> Light:
        """One of twelve is grey, one of ten dark, half are mirrored."""
        dark = rng.uniform(0.25, 0.7) if rng.random() < 0.1 else None
        return Light(rng.random() < 0.08, dark, rng.random() < 0.5)

    def change(self, pixels: np.ndarray) -> np.ndarray:
        """Grey and dark as drawn."""
        if self.dark is not None:
            pixels = cv2.convertScaleAbs(pixels, alpha=self.dark)
        return to_grey(pixels) if self.grey else pixels


class VideoCrops:
    """Crops from videos with masks: several references and searches from frames at most `gap` apart.

    Every clip is as likely as any other. augment: change light, blur and resolution.
    stayed: whether searches around the box of the frame before are wanted too, for validation.
    """

    def __init__(self, videos: YouTubeVOS, augment: bool = True, stayed: bool = False) -> None:
        self.videos = videos
        self.augment = augment
        self.stayed = stayed
        self.targets: dict[str, list[int]] = {}
        for index, (video, _, frames) in enumerate(videos.objects):
            if len(frames) >= 6:
                self.targets.setdefault(video, []).append(index)
        self._clips = list(self.targets)

    def crops(self, rng: np.random.Generator, size: int) -> TargetCrops:
        """Up to 3 references, 5 searches, 1 without the target."""
        for _ in range(_ATTEMPTS):
            clip = self._clips[rng.integers(len(self._clips))]
            index = int(rng.choice(self.targets[clip]))
            found = self._of(self.videos.track(index), index, rng, size)
            if found is not None:
                return found
        raise DataError(f"{self.videos.name}: {_ATTEMPTS} targets in a row were too small or hidden")

    def _of(self, track: Track, index: int, rng: np.random.Generator, size: int) -> TargetCrops | None:
        count = len(track.visible)
        gap = int(rng.choice((8, 25, 80)))
        base = int(rng.integers(count))
        near = np.arange(max(0, base - gap), min(count, base + gap + 1))
        chosen = rng.choice(near, 8, replace=len(near) < 8)
        frames = {int(number): track.frame(int(number)) for number in set(chosen.tolist())}
        if any(min(frame.box[2:]) < 5 for frame in frames.values()):
            return None
        light = Light.draw(rng) if self.augment else Light(False, None, False)
        crops = [self._crop(frames[int(n)], frames[int(n)].box, Role.REFERENCE, light, rng, size) for n in chosen[:3]]
        for number in chosen[3:]:
            frame = frames[int(number)]
            crops.append(self._crop(frame, wrong_box(frame.box, rng), Role.SEARCH, light, rng, size))
            if self.stayed and number > 0:
                before = track.frame(int(number) - 1)
                if before.usable:
                    crops.append(self._crop(frame, before.box, Role.STAYED, light, rng, size))
        frame = frames[int(rng.choice(chosen[3:]))]
        elsewhere = self._elsewhere(frame, index, int(chosen[-1]), rng)
        if elsewhere is not None:
            crops.append(self._crop(frame, elsewhere, Role.ABSENT, light, rng, size))
        return TargetCrops.of(crops)

    def _elsewhere(
        self, frame: Frame, index: int, number: int, rng: np.random.Generator
    ) -> np.ndarray | None:
        """A box whose crop does not hold the target: of another target of the video, or anywhere."""
        video, own, _ = self.videos.objects[index]
        others = [other for other in self.targets[video] if self.videos.objects[other][1] != own]
        if others and rng.random() < 0.6:
            track = self.videos.track(int(rng.choice(others)))
            other = track.frame(min(number, len(track.visible) - 1))
            if other.usable and min(other.box[2:]) >= 5 and _is_absent(frame.mask, other.box):
                return other.box
        assert frame.mask is not None
        return place_without(frame.mask, frame.box, rng)

    def _crop(
        self, frame: Frame, box: np.ndarray, role: Role, light: Light, rng: np.random.Generator, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Role]:
        assert frame.mask is not None
        crop = refiner_crop(frame.image, box, FACTOR, size)
        mask = mask_in_window(frame.mask, crop.window, size)
        pixels = light.change(self._changed(crop.pixels, rng))
        left, top, right, bottom = crop.window
        zoom = size / np.array([right - left, bottom - top])
        inside = np.concatenate(((frame.box[:2] - [left, top]) * zoom, frame.box[2:] * zoom))
        if light.mirrored:
            pixels, mask = np.ascontiguousarray(pixels[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
            inside[0] = size - inside[0] - inside[2]
        return (pixels, *_without(mask, inside, role), role)

    def _changed(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.augment:
            return pixels
        size = len(pixels)
        inner = int(size * rng.uniform(0.25, 0.9)) if rng.random() < 0.3 else size
        if inner != size:
            pixels = cv2.resize(pixels, (inner, inner), interpolation=cv2.INTER_AREA)
        pixels = degrade(apply_tone(pixels, tone_table(rng, 0.5 * rng.random())), draw_degradation(inner, rng))
        return pixels if inner == size else cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class SceneCrops:
    """Crops from scenes: one reference, two searches, one without the target where there is room."""

    sampler: SceneSampler

    def crops(self, rng: np.random.Generator, size: int) -> TargetCrops:
        """Of one scene of three frames."""
        scene, boxes = visible_scene(self.sampler, rng, 3)
        light = Light.draw(rng)
        places = [(0, boxes[0], Role.REFERENCE)]
        places += [(frame, wrong_box(boxes[frame], rng), Role.SEARCH) for frame in (1, 2)]
        height, width = scene.frame_size
        mask = scene.target_mask(1, (0.0, 0.0, float(width), float(height)), (height, width))
        elsewhere = place_without(mask, boxes[1], rng)
        if elsewhere is not None:
            places.append((1, elsewhere, Role.ABSENT))
        crops = []
        for frame, box, role in places:
            region = around(box, FACTOR)
            shot = shot_of(scene, frame, region, size, cv2.BORDER_CONSTANT, rng, light.grey)
            pixels, seen = take(replace(shot, mirrored=light.mirrored), size)
            if light.dark is not None:
                pixels = cv2.convertScaleAbs(pixels, alpha=light.dark)
            inside = np.array(into_window(boxes[frame], region, size))
            if light.mirrored:
                inside[0] = size - inside[0] - inside[2]
            crops.append((pixels, *_without(seen, inside, role), role))
        return TargetCrops.of(crops)


@dataclass(frozen=True)
class MixedCrops:
    """Sources with weights."""

    sources: tuple[CropSource, ...]
    weights: tuple[float, ...]

    def crops(self, rng: np.random.Generator, size: int) -> TargetCrops:
        """Of one of the sources."""
        chances = np.array(self.weights) / sum(self.weights)
        return self.sources[rng.choice(len(self.sources), p=chances)].crops(rng, size)


class Deferred:
    """A source that is made when it is first asked: a pool that is complete needs none of it."""

    def __init__(self, make: Callable[[], CropSource]) -> None:
        self._make = make
        self._source: CropSource | None = None

    def crops(self, rng: np.random.Generator, size: int) -> TargetCrops:
        """Of the source."""
        if self._source is None:
            self._source = self._make()
        return self._source.crops(rng, size)


def place_without(mask: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A box, (4,) x, y, w, h, about as large as the target's, whose crop hardly shows it, or None where there is no
    room.

    mask: uint8 {0, 1} H x W. Half of the boxes lie near the target.
    """
    height, width = mask.shape
    for attempt in range(_ATTEMPTS):
        extent = np.maximum(box[2:] * np.exp(rng.normal(0, 0.3) + rng.normal(0, 0.15, 2)), _SMALLEST)
        if attempt > _ATTEMPTS // 2:
            extent = np.maximum(extent * 0.5, _SMALLEST)
        if rng.random() < 0.5:
            centre = rng.uniform(0, 1, 2) * [width, height]
        else:
            angle = rng.uniform(0, 2 * np.pi)
            far = rng.uniform(1.2, 2.5)
            centre = box[:2] + box[2:] / 2 + far * (box[2:] + extent) / 2 * [np.cos(angle), np.sin(angle)]
        found = np.concatenate((centre - extent / 2, extent))
        if (centre > 0).all() and (centre < [width, height]).all() and _is_absent(mask, found):
            return found
    return None


def _is_absent(mask: np.ndarray | None, box: np.ndarray) -> bool:
    """Whether the crop around a box shows at most a small part of the target, and little of it against its size."""
    assert mask is not None
    left, top, right, bottom = np.round(around(box, FACTOR)).astype(int)
    seen = int(mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].sum())
    return seen <= _MOST_OF_TARGET * min(int(mask.sum()), (right - left) * (bottom - top) / 4)


def _without(mask: np.ndarray, box: np.ndarray, role: Role) -> tuple[np.ndarray, np.ndarray]:
    if role == Role.ABSENT:
        return np.zeros_like(mask), np.zeros(4)
    return mask, box
