"""Training of the mask refiner with its box branch and judge, on pooled features of a pretrained backbone."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracker_ar.data.target_crops import CropSource, Role
from tracker_ar.engine.inference import prepare_for_inference
from tracker_ar.models.alpha_refine import LEVELS, MaskRefiner, Segmentation, box_masks, build_mask_refiner
from tracker_ar.models.efficientnet_lite import EfficientNetLite
from tracker_ar.train.batches import VALIDATION_SEED, normalised
from tracker_ar.train.distribution import Share
from tracker_ar.train.feature_pool import CropFeatures, FeaturePool, PooledTarget
from tracker_ar.train.losses import box_loss, box_overlap, judgement_loss, mask_losses, target_score_loss
from tracker_ar.train.pretrained import load_published, published_weights, scale_to_unit
from tracker_ar.train.recipes import PooledRefinerRecipe, Schedule
from tracker_ar.train.refiner import mask_overlap

_DEEP = ("layer3", "layer4")
_LAST_POOLED = "layer2"
_VALIDATION_TARGETS = 50
_VALIDATION_CROPS = 2
_VALIDATION_BATCH = 16


class Start(IntEnum):
    """What is known of the reference: its mask, its box, or its box while it is itself what is segmented."""

    MASK = 0
    BOX = 1
    SELF = 2


@dataclass(frozen=True)
class PooledBatch:
    """N pairs: features, masks and boxes of both crops; whether the search crop holds the target, bool (N,); and how
    each pair starts, uint8 (N,)."""

    references: CropFeatures
    searches: CropFeatures
    present: Tensor
    starts: Tensor

    def to(self, device: torch.device) -> PooledBatch:
        """The batch on a device."""
        return PooledBatch(*(_moved(getattr(self, field.name), device) for field in fields(self)))


def _moved(value: Tensor | CropFeatures, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    stages = {name: one.to(device) for name, one in value.stages.items()}
    return CropFeatures(stages, value.masks.to(device), value.boxes.to(device))


@dataclass(frozen=True)
class Outcome:
    """What a network finds in a batch, and what is right: masks (N, 1, S, S), corners (N, 4)."""

    found: Segmentation
    masks: Tensor
    corners: Tensor


class PooledRefinerTask:
    """The task of `tracker_ar.train.loop.Task` for a mask refiner with a box branch on a pretrained backbone.

    The backbone is frozen up to a fraction of the training; from then on its last two stages are trained on what the
    pool holds of the stage before them. Batch norm of the backbone keeps its statistics.

    Args:
        train, validation: where crops come from.
        pool: folder for the features.
        backbone: the published weights of EfficientNet-Lite0; None: of the installed package.
    """

    half: torch.dtype | None = None

    def __init__(
        self,
        recipe: PooledRefinerRecipe,
        train: CropSource,
        validation: CropSource,
        pool: Path,
        seed: int = 0,
        backbone: Path | None = None,
        share: Share = Share(),
    ) -> None:
        self.name = recipe.name
        self.kind = recipe.kind
        self.recipe = recipe
        self.schedule: Schedule = recipe.schedule
        self.seed = seed
        self.indices = share.indices(recipe.batch_size)
        torch.manual_seed(seed)
        self.network: MaskRefiner = build_mask_refiner(recipe.network)
        features = self.network.feature_extractor
        assert isinstance(features, EfficientNetLite)
        load_published(features, backbone or published_weights())
        scale_to_unit(features)
        extractor = prepare_for_inference(copy.deepcopy(features), torch.device("cpu"))
        layers = tuple(LEVELS.values())

        def extract(images: Tensor) -> dict[str, Tensor]:
            with torch.inference_mode():
                return extractor(normalised(images), layers)

        size, settings = recipe.network.input_size, recipe.pool
        self.pool = FeaturePool(pool, f"{recipe.name} train", train, extract, settings.targets, size, seed)
        self.validation = FeaturePool(
            pool / "validation", f"{recipe.name} validation", validation, extract, _VALIDATION_TARGETS, size,
            VALIDATION_SEED
        )
        self._thawed = False

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The backbone's last stages with a rate of their own, the target model's few numbers without decay, the
        rest."""
        backbone = self.network.feature_extractor
        backbone.requires_grad_(False)
        deep = [value for stage in _DEEP for value in backbone.get_submodule(stage).parameters()]
        for value in deep:
            value.requires_grad_(True)
        rest = [value for name, value in self.network.named_parameters() if not name.startswith("feature_extractor.")]
        plain = [value for value in rest if value.dim() <= 1]
        return [
            {"params": deep, "scale": self.recipe.backbone_rate},
            {"params": plain, "weight_decay": 0.0},
            {"params": [value for value in rest if value.dim() > 1]},
        ]

    def train_mode(self) -> None:
        """Training mode, except for the backbone's batch norm."""
        self.network.train()
        self.network.feature_extractor.eval()

    def batch(self, step: int, progress: float) -> PooledBatch:
        """This process's pairs of a step, each from its own seed."""
        shards = self.recipe.pool.available(step)
        self.pool.grow(shards)
        self._thawed = progress >= self.recipe.frozen_share
        targets = self.pool.targets[: self.pool.among(shards)]
        weights = np.array([len(target.rows[Role.SEARCH]) for target in targets], np.float64)
        bounds = np.cumsum(weights / weights.sum())
        rows = [
            self._draw(targets, bounds, np.random.default_rng((self.seed, step, index))) for index in self.indices
        ]
        references, searches, present, starts = zip(*rows)
        return PooledBatch(
            self.pool.gather(list(references)), self.pool.gather(list(searches)),
            torch.tensor(present), torch.tensor(starts),
        )

    def _draw(
        self, targets: list[PooledTarget], bounds: np.ndarray, rng: np.random.Generator
    ) -> tuple[tuple[int, int], tuple[int, int], bool, Start]:
        recipe = self.recipe
        target = _one_of(targets, bounds, rng)
        reference = target.shard, int(rng.choice(target.rows[Role.REFERENCE]))
        chance = rng.random()
        if chance < recipe.self_share:
            return reference, reference, True, Start.SELF
        start = Start.BOX if chance < recipe.self_share + recipe.box_share else Start.MASK
        absent = target.rows[Role.ABSENT]
        if rng.random() >= recipe.absent_share:
            return reference, (target.shard, int(rng.choice(target.rows[Role.SEARCH]))), True, start
        if len(absent) and rng.random() < 0.7:
            return reference, (target.shard, int(rng.choice(absent))), False, start
        other = _one_of(targets, bounds, rng)
        present = other is target
        return reference, (other.shard, int(rng.choice(other.rows[Role.SEARCH]))), present, start

    def loss(self, batch: PooledBatch) -> tuple[Tensor, dict[str, float]]:
        """Losses of mask, target model's score, box and judgement; `iou`, `box_iou`: means over crops with the
        target."""
        recipe, present = self.recipe, batch.present
        outcome = self._forward(self.network, batch, self._thawed)
        found, masks = outcome.found, outcome.masks
        assert found.score is not None and found.corners is not None and found.judgement is not None
        # What is not there still teaches, but must not outweigh what is.
        weights = torch.where(present, 1.0, recipe.absent_weight)
        mask = (weights * mask_losses(found.logits, masks)).mean()
        score = target_score_loss(found.score, masks)
        box = box_loss(found.corners[present], outcome.corners[present], recipe.network.input_size)
        overlaps = mask_overlap(found.logits.detach(), masks)
        judgement = judgement_loss(found.judgement, present, overlaps)
        loss = mask + recipe.score_weight * score + recipe.box_weight * box + recipe.judgement_weight * judgement
        boxes = box_overlap(found.corners.detach(), outcome.corners)
        return loss, {
            "iou": float(overlaps[present].mean()), "box_iou": float(boxes[present].mean()),
            "score": float(score.detach()), "judgement": float(judgement.detach()),
        }

    def _forward(self, network: MaskRefiner, batch: PooledBatch, thawed: bool) -> Outcome:
        references, searches = (_stages(network, one, thawed) for one in (batch.references, batch.searches))
        size = batch.references.masks.shape[-1]
        boxes = batch.references.boxes
        inside = box_masks(boxes, (size, size))
        given = (batch.starts == Start.MASK)[:, None, None, None]
        known = torch.where(given, batch.references.masks[:, None].float(), inside)
        from_box = batch.starts == Start.BOX
        if from_box.any():
            first = {name: value[from_box] for name, value in references.items()}
            known[from_box] = _first_masks(network, first, boxes[from_box])
        target = network.learn_features(references, boxes, known)
        own = (batch.starts == Start.SELF)[:, None, None, None].float()
        found = network.segment_features(target, searches, inside * own)
        masks = batch.searches.masks[:, None].float() * batch.present[:, None, None, None]
        corners = torch.cat((batch.searches.boxes[:, :2], batch.searches.boxes[:, :2] + batch.searches.boxes[:, 2:]), 1)
        return Outcome(found, masks, corners)

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """On held-out targets, crops around wrong boxes: mean IoU of masks from a mask and from a box, of boxes found
        and given; around the true boxes of the frame before: of boxes found (`moved`) and given (`stayed`); of the
        first masks; and how well the judge tells crops with the target from those without (area under the ROC
        curve)."""
        assert isinstance(network, MaskRefiner)
        self.validation.grow(1)
        sums: dict[str, list[Tensor]] = {}

        def add(name: str, values: Tensor) -> None:
            sums.setdefault(name, []).append(values)

        device = next(network.parameters()).device
        for start, role, rows in self._validation_rows():
            for first in range(0, len(rows), _VALIDATION_BATCH):
                part = rows[first : first + _VALIDATION_BATCH]
                batch = PooledBatch(
                    self.validation.gather([row for row, _ in part]), self.validation.gather([row for _, row in part]),
                    torch.full((len(part),), role != Role.ABSENT), torch.full((len(part),), int(start)),
                ).to(device)
                self._measure(network, batch, start, role, add)
        measures = {name: float(torch.cat(values).mean()) for name, values in sums.items() if name[0] != "_"}
        measures["auc"] = _roc_area(torch.cat(sums["_present"]), torch.cat(sums["_absent"]))
        return measures

    def _measure(self, network: MaskRefiner, batch: PooledBatch, start: Start, role: Role, add: Any) -> None:
        outcome = self._forward(network, batch, self._thawed)
        found, size = outcome.found, self.recipe.network.input_size
        assert found.corners is not None and found.judgement is not None
        if role == Role.ABSENT:
            add("_absent", found.judgement[:, 0])
            return
        overlaps = mask_overlap(found.logits, outcome.masks)
        boxes = box_overlap(found.corners, outcome.corners)
        given = torch.tensor([0.25, 0.25, 0.75, 0.75], device=boxes.device).expand(len(boxes), 4) * size
        stayed = box_overlap(given, outcome.corners)
        if start == Start.SELF:
            add("first", overlaps)
        elif start == Start.BOX:
            add("iou_from_box", overlaps)
            add("box_iou_from_box", boxes)
        elif role == Role.STAYED:
            add("moved", boxes)
            add("stayed", stayed)
        else:
            add("iou", overlaps)
            add("box_iou", boxes)
            add("given", stayed)
            add("_present", found.judgement[:, 0])
            add("iou_error", (torch.sigmoid(found.judgement[:, 1]) - overlaps).abs())

    def _validation_rows(self) -> list[tuple[Start, Role, list[tuple[tuple[int, int], tuple[int, int]]]]]:
        """Pairs of reference and search crop: of every target its first reference."""
        def pairs(role: Role) -> list[tuple[tuple[int, int], tuple[int, int]]]:
            return [
                ((target.shard, int(target.rows[Role.REFERENCE][0])), (target.shard, int(row)))
                for target in self.validation.targets for row in target.rows[role][:_VALIDATION_CROPS]
            ]

        own = [(reference, reference) for reference in dict.fromkeys(row for row, _ in pairs(Role.SEARCH))]
        return [
            (Start.MASK, Role.SEARCH, pairs(Role.SEARCH)), (Start.BOX, Role.SEARCH, pairs(Role.SEARCH)),
            (Start.SELF, Role.REFERENCE, own), (Start.MASK, Role.STAYED, pairs(Role.STAYED)),
            (Start.MASK, Role.ABSENT, pairs(Role.ABSENT)),
        ]


def _one_of(targets: list[PooledTarget], bounds: np.ndarray, rng: np.random.Generator) -> PooledTarget:
    return targets[min(int(np.searchsorted(bounds, rng.random(), side="right")), len(targets) - 1)]


def _stages(network: MaskRefiner, crops: CropFeatures, thawed: bool) -> dict[str, Tensor]:
    """As pooled, or with the last stages computed anew."""
    if not thawed:
        return crops.stages
    backbone = network.feature_extractor
    assert isinstance(backbone, EfficientNetLite)
    deep = backbone.go_on(crops.stages[_LAST_POOLED], _LAST_POOLED, _DEEP)
    return {**crops.stages, **deep}


@torch.no_grad()
def _first_masks(network: MaskRefiner, stages: dict[str, Tensor], boxes: Tensor) -> Tensor:
    """As tracking computes them: with the statistics that batch norm has learned."""
    training = network.training
    network.eval()
    masks = network.first_masks(stages, boxes)
    if training:
        network.train()
        network.feature_extractor.eval()
    return masks


def _roc_area(positive: Tensor, negative: Tensor) -> float:
    """The fraction of pairs in which the positive has the higher value."""
    return float((positive[:, None] > negative[None]).float().mean())
