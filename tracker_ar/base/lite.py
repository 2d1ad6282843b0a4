"""The base tracker of `lite`: a target filter learned online on an ImageNet backbone finds the target.

How large the target is it does not say: its box has the size that was last fed back. What a frame may teach is
therefore decided at the end of a frame (`settle`), after the refiner's pass.

Boxes and centres are in continuous coordinates: pixel i covers [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from tracker_ar.base.augmentation import RandomSource, augment_first_frame
from tracker_ar.base.judge import JudgeSettings, judge
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.presence import Evidence, PresenceSettings, evidence_of, presence, score_peaks
from tracker_ar.base.searching import SearchSettings, next_search
from tracker_ar.base.settings import AugmentationSettings, MemorySettings
from tracker_ar.crops import SearchRegion, normalize, sample_patch, search_window
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.lite_base import LITE_BASE, LiteBase, LiteBaseConfig
from tracker_ar.prediction import BaseResult, Refinement, State, Verdict
from tracker_ar.trace import note, stage

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
    # Chosen on held-out clips: with the settings of DiMP one of twelve targets is lost that this keeps.
    memory: MemorySettings = MemorySettings(update_interval=8, learning_rate=0.02, hard_negative_learning_rate=0.04)
    presence: PresenceSettings = field(default_factory=PresenceSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)


LITE = LiteBaseSettings()


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
class LiteResult(BaseResult):
    """box: of the last size, where the score map peaks. score: that the target is there, calibrated. evidence: what
    that rests on."""

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
    """The engine; see `tracker_ar.prediction.BaseTracker`. A frame ends with `settle`. `seed`: of everything
    random, the same for every target."""

    def __init__(self, runner: Runner, settings: LiteBaseSettings = LITE, seed: int = 0) -> None:
        self.runner = runner
        self.settings = settings
        self._seed = seed

    @torch.inference_mode()
    def start(self, frame: Frame, box: np.ndarray) -> LiteTarget:
        """Learn a target. box: (4,) x, y, w, h in pixels, of positive size."""
        settings, network, device = self.settings, self.runner.network, self.runner.device
        box = np.asarray(box, np.float64)
        random = RandomSource(self._seed)
        centre = (torch.from_numpy((box[:2] + box[2:] / 2)[::-1].astype(np.float32)) - 0.5).round()
        scale = np.float32(self._side_of(box) / settings.input_size)
        with stage("augmentation"):
            patches, shifts = augment_first_frame(
                frame.pixels, centre, scale, settings.input_size, settings.augmentation, random.augmentation_shifts
            )
        with stage("base backbone"):
            # One by one: what is laid out for single images takes longer for several at once.
            features = torch.cat([features_of(network, normalize(patch[None]).to(device)) for patch in patches])
        dropout = settings.augmentation.dropout_probability
        kept = random.kept_channels(settings.augmentation.dropout_samples, features.shape[1], dropout)
        features = torch.cat((features, features[:1] * (kept.to(features) / (1 - dropout))[:, :, None, None]))
        boxes = torch.zeros(len(features), 4)
        boxes[: len(shifts), :2] = shifts.flip(1).float()
        plain = self._plain_region(frame, centre, scale).box_inside(box)
        boxes = (boxes + torch.from_numpy(plain).float()).to(device)

        classifier = network.classifier
        with stage("initial filter"):
            initial = classifier.initial_filter(features, boxes)
        with stage("model update"):
            learned = classifier.optimize_filter(initial, features, boxes, settings.memory.initial_iterations)
        return LiteTarget(box, frame.size, learned, SampleMemory(features, boxes, settings.memory))

    @torch.inference_mode()
    def track(self, frame: Frame, targets: Sequence[LiteTarget]) -> list[LiteResult]:
        """Find every target in the next frame, of the first frame's size; sizes stay what they were."""
        with stage("base crop"):
            cuts = [self._cut(frame, target) for target in targets]
            images = [normalize(cut.patch).to(self.runner.device) for _, cut in cuts]
        note("search regions", [cut for _, cut in cuts])
        answers = self.runner.run(search, [(image, target.filter) for image, target in zip(images, targets)])
        with stage("localisation"):
            return [self._localised(target, cut[0], *answer) for target, cut, answer in zip(targets, cuts, answers)]

    def correct(self, target: LiteTarget, box: np.ndarray) -> None:
        """Continue from this box, (4,) x, y, w, h; nothing is learned."""
        target.box, target.lost_frames = np.asarray(box, np.float64), 0

    def settle(self, target: LiteTarget, found: BaseResult, refined: Refinement | None) -> Verdict:
        """Go on from what the judge believes of the last frame; without a refiner from the base tracker's own box."""
        assert found.score is not None
        verdict = judge(found.box, found.score, refined, self.settings.judge)
        if verdict.state is State.LOST:
            self.lose(target)
            return replace(verdict, box=target.box)
        self.accept(target, verdict.box, verdict.learns)
        return verdict

    @torch.inference_mode()
    def accept(self, target: LiteTarget, box: np.ndarray, learn: bool) -> None:
        """The target was found in the last frame, at `box`, (4,) x, y, w, h. learn: whether the frame teaches."""
        self.correct(target, box)
        if learn and target.seen is not None:
            with stage("model update"):
                self._learn(target, target.seen)
        target.seen = None

    def lose(self, target: LiteTarget) -> None:
        """The target was not found in the last frame: its box stays, and it is searched for further away."""
        target.lost_frames += 1
        target.seen = None

    def _localised(self, target: LiteTarget, region: Region, features: Tensor, scores: Tensor) -> LiteResult:
        target.frame_number += 1
        target.scores = scores[0, 0].float().cpu()
        cells = target.box[2:] * region.zoom / STRIDE
        last = None if target.lost_frames else (region.box_inside(target.box) / STRIDE)[:2] + cells / 2
        peaks = score_peaks(target.scores.numpy(), cells, last, self.settings.presence)
        target.seen = _Seen(features, region, evidence_of(peaks))
        note("localisation", target)
        centre = region.to_image(np.array(peaks.place) * STRIDE)
        box = self._kept_inside(np.concatenate((centre - target.box[2:] / 2, target.box[2:])), target.image_size)
        return LiteResult(box, presence(target.seen.evidence, self.settings.presence), target.seen.evidence)

    def _learn(self, target: LiteTarget, seen: _Seen) -> None:
        settings = self.settings.memory
        hard = seen.evidence.rival > self.settings.presence.hard_negative
        rate = settings.hard_negative_learning_rate if hard else settings.learning_rate
        box = torch.from_numpy(seen.region.box_inside(target.box)).float().to(self.runner.device)
        target.memory.add(seen.features, box, rate)
        iterations = settings.hard_negative_iterations if hard else 0
        if (target.frame_number - 1) % settings.update_interval == 0:
            iterations = max(iterations, settings.update_iterations)
        if iterations:
            memory = target.memory
            target.filter = self.runner.network.classifier.optimize_filter(
                target.filter, memory.features, memory.targets, iterations, memory.active_weights.to(self.runner.device)
            )

    def _cut(self, frame: Frame, target: LiteTarget) -> tuple[Region, SearchRegion]:
        settings, side = self.settings, self._side_of(target.box)
        centre, growth = next_search(target.box, target.lost_frames, frame.size, side, settings.search)
        cut = sample_patch(
            frame.pixels, (centre - 0.5)[::-1], side * growth, settings.input_size, settings.border_mode,
            settings.max_scale_change,
        )
        top, left, bottom, right = cut.coords.tolist()
        return Region(np.array([left, top, right, bottom], np.float64), settings.input_size), cut

    def _plain_region(self, frame: Frame, centre: Tensor, scale: np.float32) -> Region:
        """The search region of the first frame's plain sample, in the middle of the one that samples are cut from."""
        settings = self.settings
        side = settings.input_size
        expanded = int(side * settings.augmentation.expansion_factor)
        expanded += (expanded - side) % 2
        window = search_window(frame.size, centre, scale * np.float32(expanded), expanded, "replicate", None)
        top, left, bottom, right = window.coords.tolist()
        near, far = np.array([left, top], np.float64), np.array([right, bottom], np.float64)
        margin = (far - near) * (expanded - side) / (2 * expanded)
        return Region(np.concatenate((near + margin, far - margin)), side)

    def _side_of(self, box: np.ndarray) -> float:
        return float(np.sqrt(box[2:].prod()) * self.settings.search_area_scale)

    def _kept_inside(self, box: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """The box moved so that a fraction of it stays within the image."""
        hidden = (1 - self.settings.inside_share) * box[2:]
        limits = np.array(image_size[::-1], np.float64)
        return np.concatenate((np.clip(box[:2], -hidden, limits - box[2:] + hidden), box[2:]))


# ---- parts of a frame, tensors to tensors: see `tracker_ar.engine.runner`


def features_of(network: LiteBase, images: Tensor) -> Tensor:
    """Search regions (N, 3, S, S), ImageNet-normalised -> classification features (N, C, h, w)."""
    return network.classification_features(network.extract_backbone(images))


def search(network: LiteBase, images: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
    """Search regions as in `features_of` and filters (N, C, k, k) of N targets -> classification features and scores
    (N, 1, h, w)."""
    with stage("base backbone"):
        features = features_of(network, images)
    with stage("target scores"):
        scores = network.classifier.scores(filters, features[None]).transpose(0, 1)
    return features, scores
