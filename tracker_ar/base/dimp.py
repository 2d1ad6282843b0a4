"""The base trackers DiMP, PrDiMP and SuperDiMP: the target filter is learned by steepest descent.

"Learning Discriminative Model Prediction for Tracking" (Bhat et al. 2019), "Probabilistic Regression for Visual
Tracking" (Danelljan et al. 2020). Which of them it is, is a matter of network and settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tracker_ar.base.augmentation import RandomSource
from tracker_ar.base.localization import SearchGeometry
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.overlap import OverlapTarget, OverlapTracker, Place, Search
from tracker_ar.base.settings import (
    IN_PIXELS,
    MANY_AUGMENTATIONS,
    AugmentationSettings,
    LocalizationSettings,
    MemorySettings,
    OverlapSettings,
)
from tracker_ar.crops import SearchRegion
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models import dimp as networks
from tracker_ar.models.density_filter import score_density
from tracker_ar.models.dimp import DiMP
from tracker_ar.trace import note, stage


@dataclass(frozen=True)
class DiMPSettings(OverlapSettings):
    """Everything DiMP, PrDiMP or SuperDiMP needs besides its weights."""

    network: networks.DiMPConfig = networks.SUPER_DIMP_50


SUPER_DIMP = DiMPSettings()

LITE = DiMPSettings(
    network=networks.SUPER_DIMP_LITE,
    # Trained at 256 and 5.0: the target is as large in the smaller region, and a frame takes 5 % less.
    input_size=224,
    search_area_scale=4.375,
)

# pytracking, `parameter/dimp/dimp50.py`, `dimp18.py`.
DIMP_50 = DiMPSettings(
    network=networks.DIMP_50, input_size=18 * 16, search_area_scale=5.0, border_mode="replicate",
    box_refinement=IN_PIXELS,
)
DIMP_18 = replace(DIMP_50, network=networks.DIMP_18)
# pytracking, `parameter/dimp/prdimp50.py`, `prdimp18.py`.
PRDIMP_50 = DiMPSettings(
    network=networks.PRDIMP_50, localization=LocalizationSettings(not_found_threshold=0.04, softmax=True),
)
PRDIMP_18 = replace(
    PRDIMP_50, network=networks.PRDIMP_18, input_size=18 * 16, search_area_scale=5.0, border_mode="replicate"
)

_DIMP_VOT = LocalizationSettings(
    not_found_threshold=0.0, distractor_threshold=100, hard_negative_threshold=0.45, displacement_scale=0.7,
    window="first peak",
)
# pytracking, `parameter/dimp/dimp50_vot18.py`, `dimp18_vot18.py`.
DIMP_50_VOT18 = replace(
    DIMP_50, input_size=14 * 16, search_area_scale=4.0, augmentation=MANY_AUGMENTATIONS, localization=_DIMP_VOT,
    memory=MemorySettings(
        capacity=250, learning_rate=0.0075, initial_samples_minimum_weight=0.0, update_interval=10,
        initial_iterations=25, update_iterations=3, hard_negative_iterations=3,
    ),
)
DIMP_18_VOT18 = replace(DIMP_50_VOT18, network=networks.DIMP_18)
# pytracking, `parameter/dimp/dimp50_vot19.py`.
DIMP_50_VOT19 = replace(
    DIMP_50, input_size=16 * 16, search_area_scale=4.5, localization=_DIMP_VOT,
    augmentation=AugmentationSettings(
        expansion_factor=1.4, relative_shifts=((0.6, 0.6), (-0.6, -0.6)), blur_sigmas=((2, 0.2), (1, 3)),
        rotations=(-5, 10, -30, 60), dropout_samples=3,
    ),
    memory=MemorySettings(
        capacity=100, learning_rate=0.0075, initial_samples_minimum_weight=0.0, update_interval=10,
        initial_iterations=15, update_iterations=2, hard_negative_iterations=2,
    ),
    box_refinement=replace(IN_PIXELS, iterations=3),
)

DiMPTarget = OverlapTarget
Answer = tuple[dict[str, Tensor], Tensor, Tensor]


class DiMPTracker(OverlapTracker[DiMPTarget]):
    """The engine; see `tracker_ar.prediction.BaseTracker`. The memory's targets are boxes."""

    settings: DiMPSettings

    def __init__(self, runner: Runner, settings: DiMPSettings, seed: int = 0) -> None:
        super().__init__(runner, settings, seed)

    def _learn_first_frame(self, frame: Frame, place: Place, random: RandomSource) -> DiMPTarget:
        settings, network = self.settings, self.runner.network
        first = self._augmented(frame, place, place.position.round(), random)
        with stage("classification features"):
            features = network.classification_features(first.backbone)
        features = self._with_dropped_channels(features, random)
        moves = torch.zeros(len(features), 4, dtype=torch.float32)
        moves[: len(first.shifts), :2] = torch.as_tensor(first.shifts, dtype=torch.float32).flip(1)
        boxes = (first.box + moves).to(self.runner.device)

        classifier = network.classifier
        with stage("initial filter"):
            initial = classifier.initial_filter(features, boxes)
        with stage("model update"):
            learned = classifier.optimize_filter(initial, features, boxes, settings.memory.initial_iterations)
        note("first frame", {
            "backbone": first.backbone, "features": features, "boxes": boxes, "initial filter": initial,
        })
        return DiMPTarget(
            place=place, base_size=place.size / place.scale, random=random, filter=learned,
            image_size=torch.tensor(frame.size, dtype=torch.float32),
            memory=SampleMemory(features, boxes, settings.memory), folded=self._folded(first),
        )

    def _scored(self, images: Sequence[Tensor], targets: Sequence[DiMPTarget]) -> list[Answer]:
        answers = self.runner.run(search, [(image, target.filter) for image, target in zip(images, targets)])
        if not self.settings.localization.softmax:
            return answers
        return [(backbone, features, score_density(scores)) for backbone, features, scores in answers]

    def _learn(self, search: Search[DiMPTarget]) -> None:
        if not search.decision.learns:
            return
        with stage("model update"):
            target = search.target
            self._store(search, self._box_in_search(target.place, search.geometry))
            iterations = self._iterations(search)
            if iterations:
                target.filter = self.runner.network.classifier.optimize_filter(
                    target.filter, target.memory.features, target.memory.targets, iterations,
                    target.memory.active_weights.to(self.runner.device),
                )

    def _search_center(self, target: DiMPTarget) -> Tensor:
        """Half a cell aside where the score map has no middle cell."""
        side, kernel = target.memory.features.shape[-1], target.filter.shape[-1]
        return target.place.position + (side + kernel) % 2 * target.place.scale * self._input / (2 * side)

    def _geometry(self, region: SearchRegion, target: DiMPTarget, scores: Tensor) -> SearchGeometry:
        corners = region.coords.float().reshape(2, 2)
        position = 0.5 * (corners[0] + corners[1] - 1)
        scale = ((corners[1] - corners[0]) / self._input).prod().sqrt()
        cells = torch.tensor(target.memory.features.shape[-2:], dtype=torch.float32)
        return SearchGeometry(position, scale, self._input / cells)


def search(network: DiMP, images: Tensor, filters: Tensor) -> Answer:
    """Search regions (N, 3, S, S), ImageNet-normalised, and filters (N, C, k, k) of N targets -> the backbone's layers,
    the classification features, and the scores (N, 1, h, w). A part of a frame, see `tracker_ar.engine.runner`."""
    with stage("base backbone"):
        backbone = network.extract_backbone(images)
    with stage("classification features"):
        features = network.classification_features(backbone)
    with stage("target scores"):
        scores = network.classifier.scores(filters, features[None]).transpose(0, 1)
    note("search", {"backbone": backbone, "features": features, "scores": scores})
    return backbone, features, scores
