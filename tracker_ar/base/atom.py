"""The base tracker ATOM: a projection of the features and a filter on them are learned online.

"ATOM: Accurate Tracking by Overlap Maximization" (Danelljan et al. 2019), as pytracking's `atom/default`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tracker_ar.base.augmentation import RandomSource
from tracker_ar.base.localization import SearchGeometry
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.overlap import OverlapTarget, OverlapTracker, Place, Search
from tracker_ar.base.settings import (
    IN_PIXELS,
    MANY_AUGMENTATIONS,
    LocalizationSettings,
    MemorySettings,
    OverlapSettings,
)
from tracker_ar.crops import SearchRegion
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.atom import ATOM
from tracker_ar.models.factorized_filter import (
    FactorizedFilterSettings,
    Samples,
    gaussian_labels,
    learn_jointly,
    normalized,
    project,
    responses,
    update_filter,
)
from tracker_ar.models.steepest_descent import FEATURE_STRIDE
from tracker_ar.ops.fourier import sample, series
from tracker_ar.trace import note, stage


@dataclass(frozen=True)
class ATOMSettings(OverlapSettings):
    """Everything ATOM needs besides its weights. The iterations of `memory` are those of conjugate gradient."""

    filter: FactorizedFilterSettings = field(default_factory=FactorizedFilterSettings)
    label_sigma: float = 1 / 4  # of the target's side


# pytracking, `parameter/atom/default.py`.
ATOM_DEFAULT = ATOMSettings(
    input_size=18 * 16, search_area_scale=5.0, border_mode="replicate", augmentation=MANY_AUGMENTATIONS,
    box_refinement=IN_PIXELS,
    memory=MemorySettings(capacity=250, update_interval=10, update_iterations=5, hard_negative_iterations=5),
)
# pytracking, `parameter/atom/default_vot.py`.
ATOM_VOT = replace(
    ATOM_DEFAULT, input_size=14 * 16, search_area_scale=4.0,
    memory=replace(ATOM_DEFAULT.memory, learning_rate=0.0075, initial_samples_minimum_weight=0.0),
    localization=LocalizationSettings(
        not_found_threshold=-1.0, distractor_threshold=100, hard_negative_threshold=0.3, displacement_scale=0.7,
        window="both peaks",
    ),
)

Answer = tuple[dict[str, Tensor], Tensor, Tensor]


@dataclass(kw_only=True)
class ATOMTarget(OverlapTarget):
    """projection: (1, D, C) of the normalised features. sigma: of the labels, cells."""

    projection: Tensor
    sigma: float


class ATOMTracker(OverlapTracker[ATOMTarget]):
    """The engine; see `tracker_ar.prediction.BaseTracker`. The memory's targets are labels of projected features.

    As published, search regions are cut around the truncated position but reckoned around the rounded one.
    """

    settings: ATOMSettings

    def __init__(self, runner: Runner, settings: ATOMSettings, seed: int = 0) -> None:
        super().__init__(runner, settings, seed)

    def _learn_first_frame(self, frame: Frame, place: Place, random: RandomSource) -> ATOMTarget:
        settings, device, online = self.settings, self.runner.device, self.settings.filter
        first = self._augmented(frame, place, place.position, random)
        features = self._with_dropped_channels(normalized(first.backbone["layer3"]), random)
        cells, channels = features.shape[-1], features.shape[1]
        base_size = place.size / place.scale
        sigma = float((base_size * cells / settings.input_size).prod().sqrt() * settings.label_sigma)
        moves = torch.zeros(len(features), 2, dtype=torch.float32)
        moves[: len(first.shifts)] = torch.as_tensor(first.shifts, dtype=torch.float32) / FEATURE_STRIDE
        center = self._center(place, first.geometry, cells)
        labels = gaussian_labels(center + moves, sigma, online.filter_size, cells).to(device)

        projection = random.normal(1, online.channels, channels) / channels**0.5
        size = 1, online.channels, online.filter_size, online.filter_size
        target_filter = random.normal(*size) / (online.channels * online.filter_size**2)
        samples = Samples(features, labels, torch.full((len(features),), 1 / len(features), dtype=torch.float32))
        note("first frame", {"backbone": first.backbone, "features": features, "labels": labels})
        with stage("model update"):
            learned, projection = learn_jointly(samples, target_filter.to(device), projection.to(device), online)
        return ATOMTarget(
            place=place, base_size=base_size, random=random, filter=learned, projection=projection, sigma=sigma,
            image_size=torch.tensor(frame.size, dtype=torch.float32), refined=place.position,
            memory=SampleMemory(project(projection, features), labels, settings.memory), folded=self._folded(first),
        )

    def _scored(self, images: Sequence[Tensor], targets: Sequence[ATOMTarget]) -> list[Answer]:
        return self.runner.run(
            search, [(image, target.projection, target.filter) for image, target in zip(images, targets)]
        )

    def _learn(self, search: Search[ATOMTarget]) -> None:
        """The filter is also learned anew, from older frames, where this one is not to be learned from."""
        target, iterations = search.target, self._iterations(search)
        with stage("model update"):
            if search.decision.learns:
                cells = search.features.shape[-1]
                center = self._center(target.place, search.geometry, cells)[None]
                self._store(search, gaussian_labels(center, target.sigma, target.filter.shape[-1], cells)[0])
            if iterations:
                weights = target.memory.active_weights.to(self.runner.device)
                samples = Samples(target.memory.features, target.memory.targets, weights)
                target.filter = update_filter(samples, target.filter, self.settings.filter, iterations)

    def _first_scale(self, area: float) -> Tensor:
        # As published, and not always the same float32 as DiMP's.
        return torch.tensor(math.sqrt(area / self.settings.input_size**2), dtype=torch.float32)

    def _center(self, place: Place, geometry: SearchGeometry, cells: int) -> Tensor:
        """Of the target, (y, x) in cells from the middle of the search region."""
        return (place.position - geometry.position) / (geometry.scale * self._input) * cells

    def _search_center(self, target: ATOMTarget) -> Tensor:
        return target.place.position

    def _geometry(self, region: SearchRegion, target: ATOMTarget, scores: Tensor) -> SearchGeometry:
        position = target.place.position.round()
        side = torch.tensor(scores.shape, dtype=torch.float32)
        return SearchGeometry(position, target.place.scale, self._input / side, (side / 2).floor())


def search(network: ATOM, images: Tensor, projections: Tensor, filters: Tensor) -> Answer:
    """Search regions (N, 3, S, S), ImageNet-normalised, projections (N, D, C) and filters (N, D, k, k) of N targets ->
    the backbone's layers, the projected features, and the scores (N, 1, S, S), between the filter's responses in the
    sense of Fourier series. A part of a frame, see `tracker_ar.engine.runner`."""
    with stage("base backbone"):
        backbone = network.extract_backbone(images)
    with stage("classification features"):
        projected = project(projections, normalized(backbone["layer3"]))
    with stage("target scores"):
        raw = responses(filters, projected)
        height, width = raw.shape[1:]
        scores = sample(series(raw) / (height * width), (images.shape[2], images.shape[3]))
    note("search", {"backbone": backbone, "features": projected, "scores": raw})
    return backbone, projected, scores[:, None]
