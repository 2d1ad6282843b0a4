"""Training of the base tracker: a filter is optimised on train frames and judged on test frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracker_ar.data.training_samples import SequenceSource
from tracker_ar.models.dimp import DiMP, build_dimp
from tracker_ar.train.backbone import load_backbone
from tracker_ar.train.batches import (
    VALIDATION_SEED,
    SequenceBatch,
    initialise,
    low_precision,
    normalised,
)
from tracker_ar.train.distribution import Share
from tracker_ar.train.labels import box_proposals, gaussian_labels
from tracker_ar.train.losses import hinge_score_loss, kl_box_loss
from tracker_ar.train.recipes import BaseRecipe, Schedule
from tracker_ar.train.rendered import PackedSequences, sequence_batch

_VALIDATION_BATCHES = 10
_HIT_CELLS = 1.5


class BaseTask:
    """The task of `tracker_ar.train.loop.Task` for SuperDiMP.

    Args:
        train, validation: where sequences come from.
        half: compute the backbone's convolutions in this type; None: in single precision.
        backbone: weights that the backbone starts from, as `tracker_ar.train.backbone` reads them.
        share: the part of every batch that this process computes.

    Raises:
        DataError: the backbone file is missing or does not fit.
    """

    def __init__(
        self,
        recipe: BaseRecipe,
        train: SequenceSource,
        validation: SequenceSource,
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
        self.share = share
        self.indices = share.indices(recipe.batch_size)
        torch.manual_seed(seed)
        self.network: DiMP = build_dimp(recipe.network)
        initialise(self.network.feature_extractor)
        if backbone is not None:
            load_backbone(self.network.feature_extractor, backbone)
        if recipe.rates:
            for name, parameter in self.network.named_parameters():
                parameter.requires_grad_(any(name.startswith(beginning) for beginning, _ in recipe.rates))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The recipe's rates, where it has any.

        Else the backbone with its own rate, the few numbers of the filter optimiser without decay, the rest.
        """
        if self.recipe.rates:
            return [self._named_group(beginning, rate) for beginning, rate in self.recipe.rates]
        backbone = list(self.network.feature_extractor.parameters())
        numbers = list(self.network.classifier.filter_optimizer.parameters())
        apart = {id(parameter) for parameter in backbone + numbers}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in apart]
        return [
            {"params": backbone, "scale": self.recipe.backbone_rate},
            {"params": numbers, "weight_decay": 0.0},
            {"params": rest},
        ]

    def _named_group(self, beginning: str, rate: float) -> dict[str, Any]:
        named = [value for name, value in self.network.named_parameters() if name.startswith(beginning)]
        return {"params": named, "scale": rate / self.schedule.learning_rate}

    def train_mode(self) -> None:
        """Training mode, except for the batch norm of frozen stages."""
        self.network.train()
        for stage in self.recipe.frozen:
            self.network.feature_extractor.get_submodule(stage).eval()

    def batch(self, step: int, progress: float) -> SequenceBatch | PackedSequences:
        """This process's sequences of a step."""
        seeds = [(self.seed, step, index) for index in self.indices]
        # Every process draws other proposals.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step + 7_919 * self.share.rank)
        return self._batch(self.source, seeds, generator)

    def loss(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Hinge loss of every iterate of the filter and box loss, weighted as published."""
        scores, labels, box_loss, _ = self._forward(self.network, batch)
        losses = [hinge_score_loss(score, labels, self.recipe.hinge_threshold) for score in scores]
        between = torch.stack(losses[1:-1]).mean()
        classification = (
            self.recipe.final_weight * losses[-1]
            + self.recipe.initial_weight * losses[0]
            + self.recipe.between_weight * between
        )
        parts = {
            "clf": float(losses[-1].detach()),
            "clf_init": float(losses[0].detach()),
            "box": float(box_loss.detach()),
            "hit": float(_peak_hits(scores[-1].detach(), labels).mean()),
        }
        return classification + self.recipe.box_weight * box_loss, parts

    def _batch(
        self, source: SequenceSource, seeds: Sequence[tuple[int, ...]], generator: torch.Generator
    ) -> SequenceBatch | PackedSequences:
        def propose(boxes: Tensor) -> tuple[Tensor, ...]:
            test_boxes = boxes[self.recipe.train_frames :].flatten(0, 1)
            return box_proposals(test_boxes, self.recipe.proposals, generator)

        generators = [np.random.default_rng(seed) for seed in seeds]
        return sequence_batch(source, generators, self.recipe.geometry, propose)

    def _forward(
        self, network: DiMP, batch: SequenceBatch
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Scores of the test frames by every filter, (n, s, H, W) each; their labels; the box loss; and the
        overlap of the highest scored proposal of each test frame, (n * s,)."""
        images, boxes = normalised(batch.images), batch.boxes
        frames, sequences = boxes.shape[:2]
        with low_precision(self.half, images):
            backbone = network.extract_backbone(images)
        features = {name: value.float() for name, value in backbone.items()}
        scores = self._test_scores(network, features["layer3"], boxes)
        count = self.recipe.train_frames
        size, stride = self.recipe.image_size, self.recipe.feature_stride
        cells = size // stride
        sigma = self.recipe.sigma_factor / self.recipe.search_factor * cells
        labels = gaussian_labels(boxes[count:].flatten(0, 1), size, cells, sigma)
        labels = labels.unflatten(0, (frames - count, sequences))
        box_loss, overlap = self._box_loss(network, features, batch)
        return scores, labels, box_loss, overlap

    def _test_scores(self, network: DiMP, layer3: Tensor, boxes: Tensor) -> list[Tensor]:
        count = self.recipe.train_frames
        classifier = network.classifier
        with low_precision(self.half, layer3):
            convolved = classifier.feature_extractor[:-1](layer3)
        features = classifier.feature_extractor[-1](convolved.float()).unflatten(0, boxes.shape[:2])
        first = classifier.initial_filter(features[:count], boxes[:count])
        iterations = network.config.train_iterations
        unrolled = classifier.unroll(first, features[:count], boxes[:count], iterations)
        return [classifier.scores(one, features[count:]) for one in unrolled.filters]

    def _box_loss(
        self, network: DiMP, features: dict[str, Tensor], batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Every test frame is paired with a train frame, so that batch statistics rest on all of them."""
        boxes, proposals = batch.boxes, batch.proposals
        count = self.recipe.train_frames
        cut = count * boxes.shape[1]
        train = {name: value[:cut] for name, value in features.items()}
        test = {name: value[cut:] for name, value in features.items()}
        test_boxes = boxes[count:].flatten(0, 1)
        with low_precision(self.half, boxes):
            modulation = network.iou_modulation(train, boxes[:count].flatten(0, 1))
            regions = network.iou_features(test)
            # Pairs go round: with unequal numbers of frames some train frames serve twice.
            pairing = torch.arange(len(test_boxes)) % cut
            paired = (modulation[0][pairing].float(), modulation[1][pairing].float())
        scores = network.predict_iou(paired, (regions[0].float(), regions[1].float()), proposals)
        best = proposals[torch.arange(len(scores)), scores.detach().argmax(1)]
        return kl_box_loss(scores, batch.drawn, batch.target), _box_overlap(best, test_boxes)

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """On held-out sequences: share of score peaks on the target, best proposals' overlap, box loss."""
        assert isinstance(network, DiMP)
        device = next(network.parameters()).device
        hits, overlaps, losses = [], [], []
        for batch in range(_VALIDATION_BATCHES):
            seeds = [(VALIDATION_SEED, batch, index) for index in range(self.recipe.batch_size)]
            generator = torch.Generator().manual_seed(VALIDATION_SEED + batch)
            sequences = self._batch(self.validation_source, seeds, generator).to(device)
            scores, labels, box_loss, overlap = self._forward(network, sequences)
            hits.append(_peak_hits(scores[-1], labels))
            overlaps.append(overlap)
            losses.append(box_loss)
        return {
            "hit": float(torch.cat(hits).mean()),
            "box_iou": float(torch.cat(overlaps).mean()),
            "box": float(torch.stack(losses).mean()),
        }


def _peak_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether the highest score lies within 1.5 cells of the target's centre, (n * s,) of 0 and 1."""
    width = scores.shape[-1]
    found, wanted = scores.flatten(0, 1).flatten(1).argmax(1), labels.flatten(0, 1).flatten(1).argmax(1)
    rows = found // width - wanted // width
    columns = found % width - wanted % width
    return (rows.square() + columns.square() <= _HIT_CELLS**2).float()


def _box_overlap(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes (N, 4) x, y, w, h, pair by pair."""
    corner = torch.maximum(first[:, :2], second[:, :2])
    opposite = torch.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = (opposite - corner).clamp(min=0).prod(1)
    return shared / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared)
