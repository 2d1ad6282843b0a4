"""The base tracker of `lite`: a target filter learned online on an ImageNet backbone finds the target.

How large the target is it does not say: its box has the size that was last fed back. What a frame may teach is therefore
decided when its box is fed back (`correct`), after the refiner has looked.

Boxes and centres are in continuous coordinates: pixel i covers [i, i + 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tracker_ar.base.augmentation import augment_first_frame
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.presence import Evidence, PresenceSettings, evidence_of, presence, score_peaks
from tracker_ar.base.randomness import RandomSource
from tracker_ar.base.searching import SearchSettings, next_search
from tracker_ar.crops import normalize, sample_patch, search_window
from tracker_ar.models.inference import prepare_for_inference
from tracker_ar.models.lite_base import LITE_BASE, LiteBase, LiteBaseConfig
from tracker_ar.profiles import AugmentationSettings, MemorySettings

STRIDE = 16


@dataclass(frozen=True)
class LiteBaseSettings:
    """Everything the base tracker of `lite` needs besides its weights."""

    network: LiteBaseConfig = LITE_BASE
    input_size: int = 224  # side of the search region as the network sees it, pixels
    search_area_scale: float = 4.375  # side of the search region / sqrt(target area)
    border_mode: str = "inside_major"
    max_scale_change: float = 1.5
    inside_share: float = 0.2  # of the target that must stay within the image
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    presence: PresenceSettings = field(default_factory=PresenceSettings)
    search: SearchSettings = field(default_factory=SearchSettings)


@dataclass(frozen=True)
class Region:
    """A search region: x0, y0, x1, y1 in the image, and its side in pixels as the network sees it."""

    corners: np.ndarray
    side: int

    @property
    def zoom(self) -> np.ndarray:
        """(2,) pixels of the network's input per image pixel."""
        return self.side / (self.corners[2:] - self.corners[:2])

    def to_image(self, point: np.ndarray) -> np.ndarray:
        """(2,) x, y of the network's input in the image."""
        return self.corners[:2] + point / self.zoom

    def box_inside(self, box: np.ndarray) -> np.ndarray:
        """(4,) x, y, w, h of the image in the network's input."""
        return np.concatenate(((box[:2] - self.corners[:2]) * self.zoom, box[2:] * self.zoom))


@dataclass(frozen=True)
class LiteResult:
    """What the base tracker says of a frame.

    box: (4,) float64 x, y, w, h in image pixels: of the last size, where the score map peaks. score: that the target is
    there, 0 to 1, calibrated. evidence: what that rests on.
    """

    box: np.ndarray
    score: float
    evidence: Evidence


@dataclass
class _Seen:
    """Of the last frame: what can be learned from it."""

    features: Tensor
    region: Region
    evidence: Evidence


@dataclass
class LiteTarget:
    """All that is known of one target.

    box: (4,) float64 x, y, w, h. image_size: (height, width). lost_frames: since the target was last found; scores
    (h, w) float32 of the last frame.
    """

    box: np.ndarray
    image_size: tuple[int, int]
    filter: Tensor
    memory: SampleMemory
    frame_number: int = 1
    lost_frames: int = 0
    seen: _Seen | None = None
    scores: Tensor | None = None


class LiteTracker:
    """The engine; all that is known of a target is in what `start` returns."""

    def __init__(
        self, network: LiteBase, settings: LiteBaseSettings, device: torch.device, seed: int = 0, fast: bool = True
    ) -> None:
        self.network = prepare_for_inference(network, device, fast)
        self.device = device
        self.settings = settings
        self._seed = seed

    @torch.inference_mode()
    def start(self, image: np.ndarray, box: np.ndarray) -> LiteTarget:
        """Learn a target. image: (H, W, 3) uint8 RGB; box: (4,) x, y, w, h in pixels, of positive size."""
        settings = self.settings
        box = np.asarray(box, np.float64)
        random = RandomSource(self._seed)
        centre = torch.from_numpy((box[:2] + box[2:] / 2)[::-1].astype(np.float32)) - 0.5
        side = settings.input_size
        scale = np.float32(self._side_of(box) / side)
        patches, shifts = augment_first_frame(
            image, centre, scale, side, settings.augmentation, random.augmentation_shifts
        )
        features = torch.cat([self._features(patch[None]) for patch in patches])
        kept = random.kept_channels(
            settings.augmentation.dropout_samples, features.shape[1], settings.augmentation.dropout_probability
        )
        gain = kept.to(features) / (1 - settings.augmentation.dropout_probability)
        features = torch.cat((features, features[:1] * gain[:, :, None, None]))
        boxes = torch.zeros(len(features), 4)
        boxes[: len(shifts), :2] = shifts.flip(1).float()
        boxes += torch.from_numpy(self._plain_region(image, centre, scale).box_inside(box)).float()

        classifier = self.network.classifier
        boxes = boxes.to(self.device)
        target_filter = classifier.initial_filter(features, boxes)
        target_filter = classifier.optimize_filter(target_filter, features, boxes, settings.memory.initial_iterations)
        memory = SampleMemory(features, boxes, settings.memory)
        return LiteTarget(box, image.shape[:2], target_filter, memory)

    @torch.inference_mode()
    def track(self, image: np.ndarray, target: LiteTarget) -> LiteResult:
        """Find the target in the next frame, of the first frame's size; its size stays what it was."""
        target.frame_number += 1
        centre, growth = next_search(target.box, target.lost_frames, target.image_size, self._side_of(target.box),
                                     self.settings.search)
        region, patch = self._cut(image, centre, self._side_of(target.box) * growth)
        features = self._features(patch)
        target.scores = self.network.classifier.scores(target.filter, features[None])[0, 0].float().cpu()
        size_in_cells = target.box[2:] * region.zoom / STRIDE
        peaks = score_peaks(target.scores.numpy(), size_in_cells, self.settings.presence)
        evidence = evidence_of(peaks)
        centre = region.to_image(np.array(peaks.place) * STRIDE)
        box = self._kept_inside(np.concatenate((centre - target.box[2:] / 2, target.box[2:])), target.image_size)
        target.seen = _Seen(features, region, evidence)
        return LiteResult(box, presence(evidence, self.settings.presence), evidence)

    @torch.inference_mode()
    def correct(self, target: LiteTarget, box: np.ndarray, learn: bool) -> None:
        """The target was found in the last frame, at `box`, (4,) x, y, w, h. learn: whether the frame teaches."""
        target.box, target.lost_frames = np.asarray(box, np.float64), 0
        if learn and target.seen is not None:
            self._learn(target, target.seen)
        target.seen = None

    def lose(self, target: LiteTarget) -> None:
        """The target was not found in the last frame: its box stays, and it is searched for further away."""
        target.lost_frames += 1
        target.seen = None

    def _learn(self, target: LiteTarget, seen: _Seen) -> None:
        settings = self.settings.memory
        hard = seen.evidence.rival > self.settings.presence.hard_negative
        rate = settings.hard_negative_learning_rate if hard else settings.learning_rate
        box = torch.from_numpy(seen.region.box_inside(target.box)).float().to(self.device)
        target.memory.add(seen.features, box, rate)
        iterations = settings.hard_negative_iterations if hard else 0
        if (target.frame_number - 1) % settings.update_interval == 0:
            iterations = max(iterations, settings.update_iterations)
        if iterations:
            memory = target.memory
            target.filter = self.network.classifier.optimize_filter(
                target.filter, memory.features, memory.boxes, iterations, memory.active_weights.to(self.device)
            )

    def _features(self, patch: Tensor) -> Tensor:
        """(1, 3, S, S) RGB 0..255 -> (1, C, h, w)."""
        images = normalize(patch).to(self.device, memory_format=torch.channels_last)
        return self.network.classification_features(self.network.extract_backbone(images))

    def _cut(self, image: np.ndarray, centre: np.ndarray, side: float) -> tuple[Region, Tensor]:
        settings = self.settings
        position = (centre - 0.5)[::-1]
        cut = sample_patch(image, position, side, settings.input_size, settings.border_mode, settings.max_scale_change)
        top, left, bottom, right = cut.coords.tolist()
        return Region(np.array([left, top, right, bottom], np.float64), settings.input_size), cut.patch

    def _plain_region(self, image: np.ndarray, centre: Tensor, scale: np.float32) -> Region:
        """The search region of the first frame's plain sample, in the middle of the one that samples are cut from."""
        settings = self.settings
        side = settings.input_size
        expanded = int(side * settings.augmentation.expansion_factor)
        expanded += (expanded - side) % 2
        window = search_window(image.shape[:2], centre.round(), scale * np.float32(expanded), expanded, "replicate", None)
        top, left, bottom, right = window.coords.tolist()
        near, far = np.array([left, top], np.float64), np.array([right, bottom], np.float64)
        margin = (far - near) * (expanded - side) / (2 * expanded)
        return Region(np.concatenate((near + margin, far - margin)), side)

    def _side_of(self, box: np.ndarray) -> float:
        return float(np.sqrt(box[2:].prod()) * self.settings.search_area_scale)

    def _kept_inside(self, box: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """The box moved so that a share of it stays within the image."""
        hidden = (1 - self.settings.inside_share) * box[2:]
        limits = np.array(image_size[::-1], np.float64)
        return np.concatenate((np.clip(box[:2], -hidden, limits - box[2:] + hidden), box[2:]))
