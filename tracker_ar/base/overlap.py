"""What ATOM and DiMP have in common: a filter learned online finds the target, an IoU network refines its box.

"ATOM: Accurate Tracking by Overlap Maximization" (Danelljan et al. 2019). The engines of both are subclasses, which
know how the filter is learned.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from tracker_ar.base.augmentation import RandomSource, augment_first_frame
from tracker_ar.base.box_refinement import ascend, best_box, jittered_boxes
from tracker_ar.base.localization import Decision, SearchGeometry, keep_inside, localize
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.settings import BoxRefinementSettings, OverlapSettings
from tracker_ar.crops import SearchRegion, normalize, sample_patch
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.iou_net import Folded, ModulatedIoU, OverlapNetwork
from tracker_ar.prediction import BaseResult
from tracker_ar.trace import is_heard, note, stage


@dataclass(frozen=True)
class Place:
    """Where a target is: position (y, x) and size (height, width), float32, image pixels; scale: image pixels per pixel
    of the network's input."""

    position: Tensor
    size: Tensor
    scale: Tensor


@dataclass(kw_only=True)
class OverlapTarget:
    """All that is known of one target.

    base_size: (height, width) in pixels of the network's input at scale 1; image_size: (height, width). filter:
    (1, C, k, k). folded: the IoU predictor for this target, with a leading dimension of targets. refined: the position
    after the last box refinement, (y, x). scores (h, w) float32 and decision say how it was found in the last frame.
    """

    place: Place
    base_size: Tensor
    image_size: Tensor
    random: RandomSource
    filter: Tensor
    memory: SampleMemory
    folded: Folded
    frame_number: int = 1
    refined: Tensor | None = None
    scores: Tensor | None = None
    decision: Decision | None = None

    @property
    def score(self) -> float | None:
        """The highest score, 0 to 1."""
        return None if self.scores is None else float(self.scores.max().clamp(0, 1))


Target = TypeVar("Target", bound=OverlapTarget)


@dataclass
class Search(Generic[Target]):
    """One target in one frame, between the stages.

    features: (1, C, h, w), what the filter learns from. start: boxes to be refined, None where the target was not
    found.
    """

    target: Target
    geometry: SearchGeometry
    decision: Decision
    backbone: dict[str, Tensor]
    features: Tensor
    start: Tensor | None


@dataclass(frozen=True)
class FirstFrame:
    """The augmented samples of the first frame.

    backbone: the layers of the (n, 3, S, S) patches. shifts: (n, 2), see `augment_first_frame`. geometry: of the
    patches before they were shifted. box: the target's, (4,) x, y, w, h in pixels of the plain patch.
    """

    backbone: dict[str, Tensor]
    shifts: Tensor
    geometry: SearchGeometry
    box: Tensor


class OverlapTracker(ABC, Generic[Target]):
    """An engine; see `tracker_ar.prediction.BaseTracker`. `seed`: of everything random, the same for every target."""

    def __init__(self, runner: Runner, settings: OverlapSettings, seed: int = 0) -> None:
        self.runner = runner
        self.settings = settings
        self._seed = seed
        self._input = torch.full((2,), float(settings.input_size), dtype=torch.float32)
        self._climb = partial(climb, settings.box_refinement)

    @torch.inference_mode()
    def start(self, frame: Frame, box: np.ndarray) -> Target:
        """Learn a target. box: (4,) x, y, w, h in pixels, of positive size."""
        x, y, width, height = torch.as_tensor(np.asarray(box), dtype=torch.float32)
        size = torch.stack((height, width))
        position = torch.stack((y + (height - 1) / 2, x + (width - 1) / 2))
        scale = self._first_scale(torch.prod(size * self.settings.search_area_scale).item())
        return self._learn_first_frame(frame, Place(position, size, scale), RandomSource(self._seed))

    @torch.inference_mode()
    def track(self, frame: Frame, targets: Sequence[Target]) -> list[BaseResult]:
        """Find every target in the next frame, of the first frame's size."""
        with stage("base crop"):
            regions = [self._cut(frame, target) for target in targets]
            images = [normalize(region.patch).to(self.runner.device) for region in regions]
        note("search regions", regions)
        answers = self._scored(images, targets)
        with stage("localisation"):
            searches = [self._localized(*each) for each in zip(targets, regions, answers)]
        found = [search for search in searches if search.start is not None]
        with stage("box refinement"):
            climbed = self.runner.run(
                self._climb, [(search.backbone, search.target.folded, search.start) for search in found]
            )
        for search, (boxes, iou) in zip(found, climbed):
            box = best_box(boxes[0].cpu(), iou[0].cpu(), self.settings.box_refinement)
            if box is not None:
                self._take_over(search.target, box, search.geometry)
        for search in searches:
            self._learn(search)
            # Where no sane box was found this returns to the last refined position, as the reference does.
            if search.start is not None and search.target.refined is not None:
                search.target.place = Place(search.target.refined, search.target.place.size, search.target.place.scale)
        return [BaseResult(_box(target.place), target.score) for target in targets]

    def correct(self, target: Target, box: np.ndarray) -> None:
        """Continue from `box`, (4,) x, y, w, h.

        The centre is corner + size / 2, half a pixel off the convention of `start`, as in the entry.
        """
        x, y, width, height = (float(v) for v in box)
        size = torch.tensor([height, width], dtype=torch.float32)
        position = torch.tensor([y + height / 2, x + width / 2], dtype=torch.float32)
        target.place = Place(position, size, _scale_of(target, size))

    # ---- what each of them knows

    @abstractmethod
    def _learn_first_frame(self, frame: Frame, place: Place, random: RandomSource) -> Target:
        """The target, learned from the first frame."""

    @abstractmethod
    def _scored(
        self, images: Sequence[Tensor], targets: Sequence[Target]
    ) -> list[tuple[dict[str, Tensor], Tensor, Tensor]]:
        """Of each target's search region (1, 3, S, S), ImageNet-normalised: the backbone's layers, the features to
        learn from, and the scores (1, 1, h, w)."""

    @abstractmethod
    def _learn(self, search: Search[Target]) -> None:
        """Learn from a frame, if it is one to learn from."""

    @abstractmethod
    def _search_center(self, target: Target) -> Tensor:
        """The centre (y, x) of the next search region."""

    @abstractmethod
    def _geometry(self, region: SearchRegion, target: Target, scores: Tensor) -> SearchGeometry:
        """How the scores, (h, w), of a search region lie in the image."""

    # ---- the first frame

    def _first_scale(self, area: float) -> Tensor:
        """Image pixels per pixel of the network's input, for a search region of this area in the image."""
        return math.sqrt(area) / self._input.prod().sqrt()

    def _augmented(self, frame: Frame, place: Place, center: Tensor, random: RandomSource) -> FirstFrame:
        """Samples cut around `center`, (y, x), truncated; reckoned as if it had been the position, rounded."""
        with stage("augmentation"):
            patches, shifts = augment_first_frame(
                frame.pixels, center, place.scale, self.settings.input_size, self.settings.augmentation,
                random.augmentation_shifts,
            )
        with stage("base backbone"):
            backbone = self.runner.network.extract_backbone(normalize(patches).to(self.runner.device))
        geometry = SearchGeometry(place.position.round(), place.scale, self._input)
        return FirstFrame(backbone, shifts, geometry, self._box_in_search(place, geometry))

    def _with_dropped_channels(self, features: Tensor, random: RandomSource) -> Tensor:
        """Samples (n, C, h, w), and copies of the first one with a fraction of the channels set to zero."""
        settings = self.settings.augmentation
        kept = random.kept_channels(settings.dropout_samples, features.shape[1], settings.dropout_probability)
        gain = kept.to(features) / (1 - settings.dropout_probability)
        return torch.cat((features, features[:1] * gain[:, :, None, None]))

    def _folded(self, first: FirstFrame) -> Folded:
        """The IoU predictor from the plain sample."""
        network: OverlapNetwork = self.runner.network
        with stage("IoU modulation"):
            plain = {name: layer[:1] for name, layer in first.backbone.items()}
            box = first.box[None].to(self.runner.device)
            folded = network.target_iou(plain, box).folded
        return folded[0][None], folded[1][None], folded[2][None]

    # ---- one frame

    def _localized(
        self, target: Target, region: SearchRegion, answer: tuple[dict[str, Tensor], Tensor, Tensor]
    ) -> Search[Target]:
        backbone, features, scores = answer
        target.frame_number += 1
        target.scores = scores[0, 0].float().cpu()
        geometry = self._geometry(region, target, target.scores)
        settings, place = self.settings.localization, target.place
        translation, decision = localize(target.scores, geometry, place.position, place.size, settings)
        target.decision = decision
        note("localisation", target)
        start = None
        if decision is not Decision.NOT_FOUND:
            position = keep_inside(
                geometry.position + translation, place.size, target.image_size, settings.inside_ratio
            )
            target.place = Place(position, place.size, place.scale)
            noise = target.random.box_noise(self.settings.box_refinement.random_boxes)
            box = self._box_in_search(target.place, geometry)
            start = jittered_boxes(box, noise, self.settings.box_refinement).to(self.runner.device)[None]
        return Search(target, geometry, decision, backbone, features, start)

    def _cut(self, frame: Frame, target: Target) -> SearchRegion:
        return sample_patch(
            frame.pixels, self._search_center(target), target.place.scale * self._input, self._input,
            self.settings.border_mode, self.settings.max_scale_change,
        )

    def _take_over(self, target: Target, box: Tensor, geometry: SearchGeometry) -> None:
        """The box, (4,) x, y, w, h in pixels of the search region, is where the target is."""
        center = (box[:2] + box[2:] / 2).flip(0)
        target.refined = (center - (self._input - 1) / 2) * geometry.scale + geometry.position
        size = box[2:].flip(0) * geometry.scale
        target.place = Place(target.refined, size, _scale_of(target, size))

    def _box_in_search(self, place: Place, geometry: SearchGeometry) -> Tensor:
        """The target's box in pixels of the search region, (4,) x, y, w, h."""
        center = (place.position - geometry.position) / geometry.scale + (self._input - 1) / 2
        size = place.size / geometry.scale
        return torch.cat(((center - (size - 1) / 2).flip(0), size.flip(0)))

    def _store(self, search: Search[Target], where: Tensor) -> None:
        """Remember a sample; where: what says where the target is in it."""
        settings, hard = self.settings.memory, search.decision is Decision.HARD_NEGATIVE
        rate = settings.hard_negative_learning_rate if hard else settings.learning_rate
        slot = search.target.memory.add(search.features, where.to(self.runner.device), rate)
        note("learned sample", (where, rate, slot))

    def _iterations(self, search: Search[Target]) -> int:
        """Of the filter's optimisation after this frame, 0 for none."""
        settings = self.settings.memory
        if search.decision is Decision.HARD_NEGATIVE:
            return settings.hard_negative_iterations
        due = (search.target.frame_number - 1) % settings.update_interval == 0
        return settings.update_iterations if due else 0


def _scale_of(target: OverlapTarget, size: Tensor) -> Tensor:
    return torch.sqrt(size.prod() / target.base_size.prod())


def _box(place: Place) -> np.ndarray:
    corner = place.position.flip(0) - (place.size.flip(0) - 1) / 2
    return torch.cat((corner, place.size.flip(0))).double().numpy()


def climb(
    settings: BoxRefinementSettings, network: OverlapNetwork, backbone: dict[str, Tensor], folded: Folded, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """The whole ascent on the predicted IoU, from the backbone's layers on; a part of a frame, see
    `tracker_ar.engine.runner`.

    folded: see `ModulatedIoU`, of N targets; boxes (N, n, 4) x, y, w, h in pixels of the search regions -> refined
    boxes (N, n, 4) and their predicted IoU (N, n): see `ascend`.
    """
    with stage("IoU features"):
        features = network.iou_features(backbone)
    results = []
    for target, start in enumerate(boxes):
        # Where nothing may wait for the device, the predictor must not look at the boxes.
        own = folded[0][target], folded[1][target], folded[2][target]
        predictor = ModulatedIoU(network.bb_regressor, own, whole_maps=boxes.device.type != "cpu")
        predict = predictor.on((features[0][target : target + 1], features[1][target : target + 1]))
        refined, iou = ascend(predict, start, settings)
        if is_heard():
            note("ascent", (start, predict(start)[0].clone(), refined, predict(refined)[0].clone(), iou.clone()))
        results.append((refined, iou))
    refined, iou = (torch.stack(part) for part in zip(*results))
    return refined, iou
