"""The base trackers DiMP, PrDiMP and SuperDiMP: a target filter learned online finds the target, an IoU network refines
its box.

"Learning Discriminative Model Prediction for Tracking" (Bhat et al. 2019), "Probabilistic Regression for Visual
Tracking" (Danelljan et al. 2020). Which of them it is, is a matter of network and settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tracker_ar.base.augmentation import augment_first_frame
from tracker_ar.base.box_refinement import ascend, best_box, jittered_boxes
from tracker_ar.base.localization import Decision, SearchGeometry, keep_inside, localize
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.settings import BaseSettings, BoxRefinementSettings
from tracker_ar.crops import SearchRegion, normalize, sample_patch
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.dimp import SuperDiMP
from tracker_ar.models.iou_net import Folded, ModulatedIoU
from tracker_ar.prediction import BaseResult
from tracker_ar.trace import is_heard, note, stage


class RandomSource:
    """Everything random that is drawn for one target; two with one seed draw the same."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def augmentation_shifts(self, count: int) -> Tensor:
        """(count, 2) uniform in [0, 1): the (rows, columns) shift of each flipped, blurred or rotated sample."""
        return torch.rand(count, 2, generator=self._generator, dtype=torch.float32)

    def kept_channels(self, samples: int, channels: int, dropout: float) -> Tensor:
        """(samples, channels) bool, true with probability 1 - dropout."""
        return torch.rand(samples, channels, generator=self._generator, dtype=torch.float32) >= dropout

    def box_noise(self, count: int) -> Tensor:
        """(count, 4) uniform in [0, 1) for the random boxes of the box refinement."""
        return torch.rand(count, 4, generator=self._generator, dtype=torch.float32)


@dataclass(frozen=True)
class Place:
    """Where a target is: position (y, x) and size (height, width), float32, image pixels; scale: image pixels per pixel
    of the network's input."""

    position: Tensor
    size: Tensor
    scale: Tensor


@dataclass
class DiMPTarget:
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


@dataclass
class _Search:
    """One target in one frame, between the stages. start: boxes to be refined, None where the target was not found."""

    target: DiMPTarget
    geometry: SearchGeometry
    decision: Decision
    backbone: dict[str, Tensor]
    features: Tensor
    start: Tensor | None


class DiMPTracker:
    """The engine; see `tracker_ar.prediction.BaseTracker`. `seed`: of everything random, the same for every target."""

    def __init__(self, runner: Runner, settings: BaseSettings, seed: int = 0) -> None:
        self.runner = runner
        self.settings = settings
        self._seed = seed
        self._input = torch.full((2,), float(settings.input_size), dtype=torch.float32)
        self._climb = partial(climb, settings.box_refinement)

    @torch.inference_mode()
    def start(self, frame: Frame, box: np.ndarray) -> DiMPTarget:
        """Learn a target. box: (4,) x, y, w, h in pixels, of positive size."""
        x, y, width, height = torch.as_tensor(np.asarray(box), dtype=torch.float32)
        size = torch.stack((height, width))
        position = torch.stack((y + (height - 1) / 2, x + (width - 1) / 2))
        side = math.sqrt(torch.prod(size * self.settings.search_area_scale).item())
        scale = side / self._input.prod().sqrt()
        return self._learn_first_frame(frame, Place(position, size, scale))

    @torch.inference_mode()
    def track(self, frame: Frame, targets: Sequence[DiMPTarget]) -> list[BaseResult]:
        """Find every target in the next frame, of the first frame's size."""
        searches = self._search(frame, targets)
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
            if search.decision.learns:
                with stage("model update"):
                    self._learn(search)
            # Where no sane box was found this returns to the last refined position, as the reference does.
            if search.start is not None and search.target.refined is not None:
                search.target.place = Place(search.target.refined, search.target.place.size, search.target.place.scale)
        return [BaseResult(_box(target.place), float(target.scores.max().clamp(0, 1))) for target in targets]

    def correct(self, target: DiMPTarget, box: np.ndarray) -> None:
        """Continue from `box`, (4,) x, y, w, h.

        The centre is corner + size / 2, half a pixel off the convention of `start`, as in the entry.
        """
        x, y, width, height = (float(v) for v in box)
        size = torch.tensor([height, width], dtype=torch.float32)
        position = torch.tensor([y + height / 2, x + width / 2], dtype=torch.float32)
        target.place = Place(position, size, _scale_of(target, size))

    # ---- the first frame

    def _learn_first_frame(self, frame: Frame, place: Place) -> DiMPTarget:
        settings, network, device = self.settings, self.runner.network, self.runner.device
        random = RandomSource(self._seed)
        center = place.position.round()
        with stage("augmentation"):
            patches, shifts = augment_first_frame(
                frame.pixels, center, place.scale, settings.input_size, settings.augmentation,
                random.augmentation_shifts,
            )
        with stage("base backbone"):
            backbone = network.extract_backbone(normalize(patches).to(device))
        with stage("classification features"):
            features = network.classification_features(backbone)
        features = torch.cat((features, self._with_dropped_channels(features[:1], random)))
        plain_box = self._box_in_search(place, SearchGeometry(center, place.scale, self._input))
        moves = torch.zeros(len(features), 4, dtype=torch.float32)
        moves[: len(shifts), :2] = torch.as_tensor(shifts, dtype=torch.float32).flip(1)
        boxes = (plain_box + moves).to(device)

        classifier = network.classifier
        with stage("initial filter"):
            initial = classifier.initial_filter(features, boxes)
        with stage("model update"):
            learned = classifier.optimize_filter(initial, features, boxes, settings.memory.initial_iterations)
        note("first frame", {"backbone": backbone, "features": features, "boxes": boxes, "initial filter": initial})
        with stage("IoU modulation"):
            first = {name: layer[:1] for name, layer in backbone.items()}
            folded = tuple(part[None] for part in network.target_iou(first, boxes[:1]).folded)
        return DiMPTarget(
            place, place.size / place.scale, torch.tensor(frame.size, dtype=torch.float32), random, learned,
            SampleMemory(features, boxes, settings.memory), folded,
        )

    def _with_dropped_channels(self, features: Tensor, random: RandomSource) -> Tensor:
        """Copies of the plain sample's features, (1, C, h, w), with a fraction of the channels set to zero."""
        settings = self.settings.augmentation
        kept = random.kept_channels(settings.dropout_samples, features.shape[1], settings.dropout_probability)
        gain = kept.to(features) / (1 - settings.dropout_probability)
        return features * gain[:, :, None, None]

    # ---- one frame

    def _search(self, frame: Frame, targets: Sequence[DiMPTarget]) -> list[_Search]:
        with stage("base crop"):
            regions = [self._cut(frame, target) for target in targets]
            images = [normalize(region.patch).to(self.runner.device) for region in regions]
        note("search regions", regions)
        answers = self.runner.run(search, [(image, target.filter) for image, target in zip(images, targets)])
        with stage("localisation"):
            return [self._localised(*each) for each in zip(targets, regions, answers)]

    def _localised(
        self, target: DiMPTarget, region: SearchRegion, answer: tuple[dict[str, Tensor], Tensor, Tensor]
    ) -> _Search:
        backbone, features, scores = answer
        target.frame_number += 1
        target.scores = scores[0, 0].float().cpu()
        geometry = self._geometry(region.coords, features)
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
        return _Search(target, geometry, decision, backbone, features, start)

    def _cut(self, frame: Frame, target: DiMPTarget) -> SearchRegion:
        return sample_patch(
            frame.pixels, self._search_center(target), target.place.scale * self._input, self._input,
            self.settings.border_mode, self.settings.max_scale_change,
        )

    def _search_center(self, target: DiMPTarget) -> Tensor:
        """The centre of the next search region; half a cell aside where the score map has no middle cell."""
        side, kernel = target.memory.features.shape[-1], target.filter.shape[-1]
        return target.place.position + (side + kernel) % 2 * target.place.scale * self._input / (2 * side)

    def _geometry(self, coords: Tensor, features: Tensor) -> SearchGeometry:
        corners = coords.float().reshape(2, 2)
        position = 0.5 * (corners[0] + corners[1] - 1)
        scale = ((corners[1] - corners[0]) / self._input).prod().sqrt()
        cells = torch.tensor(features.shape[-2:], dtype=torch.float32)
        return SearchGeometry(position, scale, self._input / cells)

    def _take_over(self, target: DiMPTarget, box: Tensor, geometry: SearchGeometry) -> None:
        """The box, (4,) x, y, w, h in pixels of the search region, is where the target is."""
        center = (box[:2] + box[2:] / 2).flip(0)
        target.refined = (center - (self._input - 1) / 2) * geometry.scale + geometry.position
        size = box[2:].flip(0) * geometry.scale
        target.place = Place(target.refined, size, _scale_of(target, size))

    def _learn(self, search: _Search) -> None:
        settings, target = self.settings.memory, search.target
        hard = search.decision is Decision.HARD_NEGATIVE
        box = self._box_in_search(target.place, search.geometry).to(self.runner.device)
        rate = settings.hard_negative_learning_rate if hard else settings.learning_rate
        slot = target.memory.add(search.features, box, rate)
        note("learned sample", (box, rate, slot))
        if hard:
            iterations = settings.hard_negative_iterations
        elif (target.frame_number - 1) % settings.update_interval == 0:
            iterations = settings.update_iterations
        else:
            return
        target.filter = self.runner.network.classifier.optimize_filter(
            target.filter, target.memory.features, target.memory.boxes, iterations,
            target.memory.active_weights.to(self.runner.device),
        )

    def _box_in_search(self, place: Place, geometry: SearchGeometry) -> Tensor:
        """The target's box in pixels of the search region, (4,) x, y, w, h."""
        center = (place.position - geometry.position) / geometry.scale + (self._input - 1) / 2
        size = place.size / geometry.scale
        return torch.cat(((center - (size - 1) / 2).flip(0), size.flip(0)))


def _scale_of(target: DiMPTarget, size: Tensor) -> Tensor:
    return torch.sqrt(size.prod() / target.base_size.prod())


def _box(place: Place) -> np.ndarray:
    corner = place.position.flip(0) - (place.size.flip(0) - 1) / 2
    return torch.cat((corner, place.size.flip(0))).double().numpy()


# ---- parts of a frame, tensors to tensors: see `tracker_ar.engine.runner`


def search(network: SuperDiMP, images: Tensor, filters: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Search regions (N, 3, S, S), ImageNet-normalised, and filters (N, C, k, k) of N targets -> the backbone's layers,
    the classification features, and the scores (N, 1, h, w)."""
    with stage("base backbone"):
        backbone = network.extract_backbone(images)
    with stage("classification features"):
        features = network.classification_features(backbone)
    with stage("target scores"):
        scores = network.classifier.scores(filters, features[None]).transpose(0, 1)
    note("search", {"backbone": backbone, "features": features})
    return backbone, features, scores


def climb(
    settings: BoxRefinementSettings, network: SuperDiMP, backbone: dict[str, Tensor], folded: Folded, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """The whole ascent on the predicted IoU, from the backbone's layers on.

    folded: see `ModulatedIoU`, of N targets; boxes (N, n, 4) x, y, w, h in pixels of the search regions -> refined boxes
    (N, n, 4) and their predicted IoU (N, n): see `ascend`.
    """
    with stage("IoU features"):
        features = network.iou_features(backbone)
    results = []
    for target, start in enumerate(boxes):
        # Where nothing may wait for the device, the predictor must not look at the boxes.
        predictor = ModulatedIoU(
            network.bb_regressor, tuple(part[target] for part in folded), whole_maps=boxes.device.type != "cpu"
        )
        predict = predictor.on(tuple(level[target : target + 1] for level in features))
        refined, iou = ascend(predict, start, settings)
        if is_heard():
            note("ascent", (start, predict(start)[0].clone(), refined, predict(refined)[0].clone(), iou.clone()))
        results.append((refined, iou))
    refined, iou = (torch.stack(part) for part in zip(*results))
    return refined, iou
