"""Training of the mask refiner on pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracker_ar.data.library import ImageLibrary
from tracker_ar.data.samples import RefinerPair, refiner_pair
from tracker_ar.data.synthetic import SceneSampler
from tracker_ar.models.mask_refiner import MASK_REFINER_LITE, MaskRefiner, Segmentation, build_mask_refiner
from tracker_ar.train.batches import VALIDATION_SEED, initialise, to_batch
from tracker_ar.train.losses import mask_loss, target_score_loss
from tracker_ar.train.recipes import RefinerRecipe, Schedule

_VALIDATION_PAIRS = 128
_VALIDATION_BATCH = 16


class RefinerTask:
    """The task of `tracker_ar.train.loop.Task` for the mask refiner.

    Args:
        train, validation: the two splits of the data folder.
        half: compute convolutions in bfloat16.
    """

    kind = "lite_mask_refiner"

    def __init__(
        self,
        recipe: RefinerRecipe,
        train: ImageLibrary,
        validation: ImageLibrary,
        seed: int = 0,
        half: bool = False,
    ) -> None:
        self.name = recipe.name
        self.recipe = recipe
        self.schedule: Schedule = recipe.schedule
        self.seed = seed
        self.half = half
        self.sampler = SceneSampler(train, recipe.scenes)
        self.validation_sampler = SceneSampler(validation, recipe.scenes)
        torch.manual_seed(seed)
        self.network: MaskRefiner = build_mask_refiner(MASK_REFINER_LITE)
        initialise(self.network.feature_extractor)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group."""
        return [{"params": list(self.network.parameters())}]

    def pairs(self, step: int, size: int) -> list[RefinerPair]:
        """The pairs of a step, each from its own seed."""
        return [
            refiner_pair(self.sampler, np.random.default_rng((self.seed, step, index)), size)
            for index in range(self.recipe.batch_size)
        ]

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Mask loss of the batch of this step and the target model's own; `iou` is that of the masks at 0.5."""
        pairs = self.pairs(step, self.recipe.size_at(progress))
        found, masks = self._forward(self.network, pairs)
        logits = found.logits.float()
        loss = mask_loss(logits, masks)
        parts = {"iou": float(mask_overlap(logits.detach(), masks).mean())}
        if found.score is not None:
            score = target_score_loss(found.score, masks)
            loss = loss + self.recipe.score_weight * score
            parts["score"] = float(score.detach())
        return loss, parts

    def _forward(self, network: nn.Module, pairs: list[RefinerPair]) -> tuple[Segmentation, Tensor]:
        references = to_batch([pair.reference for pair in pairs])
        searches = to_batch([pair.search for pair in pairs])
        boxes = torch.from_numpy(np.stack([pair.box for pair in pairs]))
        masks = torch.from_numpy(np.stack([pair.mask for pair in pairs])).float()[:, None]
        reference_masks = torch.from_numpy(np.stack([pair.reference_mask for pair in pairs])).float()[:, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            found = network(references, boxes, searches, reference_masks)
        return found, masks

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean IoU at the final crop size, at threshold 0.5."""
        size = self.recipe.sizes[-1][1]
        overlaps = []
        for start in range(0, _VALIDATION_PAIRS, _VALIDATION_BATCH):
            indices = range(start, start + _VALIDATION_BATCH)
            seeds = [np.random.default_rng((VALIDATION_SEED, index)) for index in indices]
            pairs = [refiner_pair(self.validation_sampler, seed, size) for seed in seeds]
            found, masks = self._forward(network, pairs)
            overlaps.append(mask_overlap(found.logits, masks))
        return {"iou": float(torch.cat(overlaps).mean())}


def mask_overlap(logits: Tensor, masks: Tensor) -> Tensor:
    """IoU per sample, (N,); two empty masks agree."""
    found = (logits > 0).float()
    overlap = (found * masks).sum((1, 2, 3))
    union = torch.maximum(found, masks).sum((1, 2, 3))
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union))
