"""Training of the base tracker: a filter is optimised on train frames and judged on test frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tracker_ar.data.library import ImageLibrary
from tracker_ar.data.samples import BaseSequence, base_sequence
from tracker_ar.data.synthetic import SceneSampler
from tracker_ar.errors import DataError
from tracker_ar.models.super_dimp import SUPER_DIMP_LITE, SuperDiMP, build_super_dimp
from tracker_ar.train.batches import VALIDATION_SEED, initialise, to_batch
from tracker_ar.train.labels import box_proposals, gaussian_labels
from tracker_ar.train.losses import hinge_score_loss, kl_box_loss
from tracker_ar.train.recipes import BaseRecipe, Schedule

_VALIDATION_BATCHES = 10
_HIT_CELLS = 1.5


class BaseTask:
    """The task of `tracker_ar.train.loop.Task` for SuperDiMP.

    Args:
        train, validation: the two splits of the data folder.
        half: compute the backbone's convolutions in bfloat16.
        backbone: safetensors of a mask refiner; its layers up to the third stage are the starting point.

    Raises:
        DataError: the backbone file is missing or does not fit.
    """

    kind = "lite_super_dimp"

    def __init__(
        self,
        recipe: BaseRecipe,
        train: ImageLibrary,
        validation: ImageLibrary,
        seed: int = 0,
        half: bool = False,
        backbone: Path | None = None,
    ) -> None:
        self.name = recipe.name
        self.recipe = recipe
        self.schedule: Schedule = recipe.schedule
        self.seed = seed
        self.half = half
        self.sampler = SceneSampler(train, recipe.scenes)
        self.validation_sampler = SceneSampler(validation, recipe.scenes)
        torch.manual_seed(seed)
        self.network: SuperDiMP = build_super_dimp(SUPER_DIMP_LITE)
        initialise(self.network.feature_extractor)
        if backbone is not None:
            _load_backbone(self.network.feature_extractor, backbone)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The backbone with its own rate, the few numbers of the filter optimiser without decay, the rest."""
        backbone = list(self.network.feature_extractor.parameters())
        numbers = list(self.network.classifier.filter_optimizer.parameters())
        apart = {id(parameter) for parameter in backbone + numbers}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in apart]
        return [
            {"params": backbone, "scale": self.recipe.backbone_rate},
            {"params": numbers, "weight_decay": 0.0},
            {"params": rest},
        ]

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Hinge loss of every iterate of the filter and box loss, weighted as published."""
        seeds = [(self.seed, step, index) for index in range(self.recipe.batch_size)]
        images, boxes = self._batch(self.sampler, seeds)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        scores, labels, box_loss, _ = self._forward(self.network, images, boxes, generator)
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

    def _batch(self, sampler: SceneSampler, seeds: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Images (n * s, 3, S, S), frame by frame, and boxes (n, s, 4)."""
        recipe = self.recipe
        sequences: list[BaseSequence] = [
            base_sequence(
                sampler,
                np.random.default_rng(seed),
                (recipe.train_frames, recipe.test_frames),
                recipe.image_size,
                recipe.search_factor,
                recipe.centre_jitter,
                recipe.scale_jitter,
            )
            for seed in seeds
        ]
        images = np.stack([sequence.images for sequence in sequences], axis=1)
        boxes = np.stack([sequence.boxes for sequence in sequences], axis=1)
        return to_batch(images.reshape(-1, *images.shape[2:])), torch.from_numpy(boxes)

    def _forward(
        self, network: SuperDiMP, images: Tensor, boxes: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Scores of the test frames by every filter, (n, s, H, W) each; their labels; the box loss; and the
        overlap of the highest scored proposal of each test frame, (n * s,)."""
        frames, sequences = boxes.shape[:2]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            backbone = network.extract_backbone(images)
        features = {name: value.float() for name, value in backbone.items()}
        scores = self._test_scores(network, features["layer3"], boxes)
        count = self.recipe.train_frames
        size, stride = self.recipe.image_size, self.recipe.feature_stride
        cells = size // stride
        sigma = self.recipe.sigma_factor / self.recipe.search_factor * cells
        labels = gaussian_labels(boxes[count:].flatten(0, 1), size, cells, sigma)
        labels = labels.unflatten(0, (frames - count, sequences))
        box_loss, overlap = self._box_loss(network, features, boxes, generator)
        return scores, labels, box_loss, overlap

    def _test_scores(self, network: SuperDiMP, layer3: Tensor, boxes: Tensor) -> list[Tensor]:
        count = self.recipe.train_frames
        classifier = network.classifier
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            convolved = classifier.feature_extractor[0](layer3)
        features = classifier.feature_extractor[1](convolved.float()).unflatten(0, boxes.shape[:2])
        first = classifier.initial_filter(features[:count], boxes[:count])
        iterations = network.config.train_iterations
        unrolled = classifier.unroll(first, features[:count], boxes[:count], iterations)
        return [classifier.scores(one, features[count:]) for one in unrolled.filters]

    def _box_loss(
        self, network: SuperDiMP, features: dict[str, Tensor], boxes: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Every test frame is paired with a train frame, so that batch statistics rest on all of them."""
        count = self.recipe.train_frames
        cut = count * boxes.shape[1]
        train = {name: value[:cut] for name, value in features.items()}
        test = {name: value[cut:] for name, value in features.items()}
        test_boxes = boxes[count:].flatten(0, 1)
        proposals, drawn, target = box_proposals(test_boxes, self.recipe.proposals, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            modulation = network.iou_modulation(train, boxes[:count].flatten(0, 1))
            regions = network.iou_features(test)
            # Pairs go round: with unequal numbers of frames some train frames serve twice.
            pairing = torch.arange(len(test_boxes)) % cut
            paired = (modulation[0][pairing].float(), modulation[1][pairing].float())
        scores = network.predict_iou(paired, (regions[0].float(), regions[1].float()), proposals)
        best = proposals[torch.arange(len(scores)), scores.detach().argmax(1)]
        return kl_box_loss(scores, drawn, target), _box_overlap(best, test_boxes)

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """On held-out sequences: share of score peaks on the target, best proposals' overlap, box loss."""
        assert isinstance(network, SuperDiMP)
        hits, overlaps, losses = [], [], []
        for batch in range(_VALIDATION_BATCHES):
            seeds = [(VALIDATION_SEED, batch, index) for index in range(self.recipe.batch_size)]
            images, boxes = self._batch(self.validation_sampler, seeds)
            generator = torch.Generator().manual_seed(VALIDATION_SEED + batch)
            scores, labels, box_loss, overlap = self._forward(network, images, boxes, generator)
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


def _load_backbone(network: nn.Module, path: Path) -> None:
    prefix = "feature_extractor."
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not readable as safetensors ({error})") from error
    wanted = network.state_dict()
    try:
        network.load_state_dict({name: tensors[prefix + name].to(wanted[name].dtype) for name in wanted})
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{path}: its backbone does not fit the base tracker's ({error})") from error
