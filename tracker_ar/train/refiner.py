"""Training of the mask refiner on pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracker_ar.data.training_samples import PairSource
from tracker_ar.models.alpha_refine import MaskRefiner, Segmentation, build_mask_refiner
from tracker_ar.train.backbone import load_backbone
from tracker_ar.train.batches import (
    VALIDATION_SEED,
    PairBatch,
    initialise,
    low_precision,
    normalised,
)
from tracker_ar.train.distribution import Share
from tracker_ar.train.losses import mask_loss, target_score_loss
from tracker_ar.train.recipes import RefinerRecipe, Schedule
from tracker_ar.train.rendered import PackedPairs, pair_batch

_VALIDATION_PAIRS = 128
_VALIDATION_BATCH = 16


class RefinerTask:
    """The task of `tracker_ar.train.loop.Task` for the mask refiner.

    Args:
        train, validation: where pairs come from.
        half: compute convolutions in this type; None: in single precision.
        backbone: weights that the backbone starts from, as `tracker_ar.train.backbone` reads them.
        share: the part of every batch that this process computes.
    """

    def __init__(
        self,
        recipe: RefinerRecipe,
        train: PairSource,
        validation: PairSource,
        seed: int = 0,
        half: torch.dtype | None = None,
        backbone: Path | None = None,
        share: Share = Share(),
    ) -> None:
        self.name = recipe.name
        self.kind = recipe.kind
        self.recipe = recipe
        self.schedule: Schedule = recipe.schedule
        self.seed = seed
        self.half = half
        self.source = train
        self.validation_source = validation
        self.indices = share.indices(recipe.batch_size)
        torch.manual_seed(seed)
        self.network: MaskRefiner = build_mask_refiner(recipe.network)
        initialise(self.network.feature_extractor)
        if backbone is not None:
            load_backbone(self.network.feature_extractor, backbone)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group."""
        return [{"params": list(self.network.parameters())}]

    def train_mode(self) -> None:
        """Training mode."""
        self.network.train()

    def batch(self, step: int, progress: float) -> PairBatch | PackedPairs:
        """This process's pairs of a step, each from its own seed, at the crop size of this progress."""
        generators = [np.random.default_rng((self.seed, step, index)) for index in self.indices]
        return pair_batch(self.source, generators, self.recipe.size_at(progress))

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        """Mask loss of a batch and the target model's own; `iou` is that of the masks at 0.5."""
        found, masks = self._forward(self.network, batch)
        logits = found.logits.float()
        loss = mask_loss(logits, masks, self.recipe.entropy_weight, self.recipe.jaccard_weight)
        parts = {"iou": float(mask_overlap(logits.detach(), masks).mean())}
        if found.score is not None:
            score = target_score_loss(found.score, masks)
            loss = loss + self.recipe.score_weight * score
            parts["score"] = float(score.detach())
        return loss, parts

    def _forward(self, network: nn.Module, batch: PairBatch) -> tuple[Segmentation, Tensor]:
        references, searches = normalised(batch.references), normalised(batch.searches)
        masks = batch.masks.float()[:, None]
        reference_masks = batch.reference_masks.float()[:, None] if self.recipe.reference_mask else None
        with low_precision(self.half, references):
            return network(references, batch.boxes, searches, reference_masks), masks

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean IoU at the final crop size, at threshold 0.5."""
        size = self.recipe.sizes[-1][1]
        device = next(network.parameters()).device
        overlaps = []
        for start in range(0, _VALIDATION_PAIRS, _VALIDATION_BATCH):
            indices = range(start, start + _VALIDATION_BATCH)
            seeds = [np.random.default_rng((VALIDATION_SEED, index)) for index in indices]
            found, masks = self._forward(network, pair_batch(self.validation_source, seeds, size).to(device))
            overlaps.append(mask_overlap(found.logits, masks))
        return {"iou": float(torch.cat(overlaps).mean())}


def mask_overlap(logits: Tensor, masks: Tensor) -> Tensor:
    """IoU per sample, (N,); two empty masks agree."""
    found = (logits > 0).float()
    overlap = (found * masks).sum((1, 2, 3))
    union = torch.maximum(found, masks).sum((1, 2, 3))
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union))
