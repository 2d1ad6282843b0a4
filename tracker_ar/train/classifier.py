"""Training of the target classifier of `lite` on cached features: the backbone is frozen, as trained on ImageNet."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracker_ar.data.clips import by_collection, open_clips
from tracker_ar.data.mixture import Mixture
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.training_samples import Augmentation, MixedSequences, SequenceSource, SyntheticSource
from tracker_ar.engine.inference import prepare_for_inference
from tracker_ar.models.lite_base import LiteBase, build_lite_base
from tracker_ar.train.batches import VALIDATION_SEED, TensorBatch
from tracker_ar.train.feature_cache import CachedSequences, Variation, cached_sequences
from tracker_ar.train.labels import gaussian_labels
from tracker_ar.train.losses import hinge_score_loss
from tracker_ar.train.pretrained import load_published, published_weights
from tracker_ar.train.recipes import ClassifierRecipe, Schedule

_HIT_CELLS = 1.5
_VALIDATION_BATCH = 20


@dataclass(frozen=True)
class FeatureBatch(TensorBatch):
    """n sequences of f frames, train frames first, then test frames: features float16 (f, n, C, h, w), boxes float32
    (f, n, 4) x, y, w, h in pixels of the search regions."""

    features: Tensor
    boxes: Tensor


class ClassifierTask:
    """The task of `tracker_ar.train.loop.Task` for the target classifier of `LiteBase`.

    Args:
        data: a folder of annotated images, in the layout of `tracker_ar.data.synthetic.library`.
        places: "youtube-vos", a folder of clips in that layout; "images", a second folder of annotated images. Both may
            be missing.
        cache: where features are kept from one training to the next.

    Raises:
        DataError: a folder is missing or not in its layout.
        InputError: the package with the backbone's weights is not installed.
    """

    def __init__(
        self, recipe: ClassifierRecipe, data: Path, places: Mapping[str, Path], cache: Path, seed: int = 0
    ) -> None:
        self.name = recipe.name
        self.kind = recipe.kind
        self.recipe = recipe
        self.schedule: Schedule = recipe.schedule
        self.seed = seed
        self.half: torch.dtype | None = None
        torch.manual_seed(seed)
        self.network: LiteBase = build_lite_base(recipe.network)
        load_published(self.network.feature_extractor, published_weights())
        self.network.feature_extractor.eval().requires_grad_(False)
        self._fast: LiteBase | None = None
        self.parts = {
            split: [
                (weight, self._cached(cache / f"{split}_{name}", *source))
                for name, weight, *source in self._sources(data, places, split)
                if source[1] > 0
            ]
            for split in ("train", "validation")
        }

    def _sources(self, data: Path, places: Mapping[str, Path], split: str) -> list[tuple]:
        """Name, weight, source, number of sequences and variation of every part of the data."""
        recipe = self.recipe
        fraction = 1.0 if split == "train" else recipe.validation_share
        parts: list[tuple] = []
        source: SequenceSource
        for name, folder in (("images", data), ("more_images", places.get("images"))):
            if folder is not None:
                source = SyntheticSource(SceneSampler(ImageLibrary(folder, split), recipe.scenes))
                parts.append((name, recipe.scene_weight, source, round(fraction * recipe.scene_count), Variation()))
        clips = places.get("youtube-vos")
        if clips is not None:
            collections = by_collection(open_clips(clips, split))
            weights = [np.sqrt(len(one)) for one in collections]
            augmentation = Augmentation(brightness=0.2, grey=0.0)
            source = MixedSequences(Mixture(collections, weights), recipe.sampling, augmentation)
            variation = Variation(degraded=0.4)
            parts.append(("clips", recipe.clip_weight, source, round(fraction * recipe.clip_count), variation))
        return parts

    def _cached(self, path: Path, source: SequenceSource, count: int, variation: Variation) -> CachedSequences:
        seed = zlib.crc32(path.name.encode())
        return cached_sequences(path, source, count, self.recipe.geometry, variation, self._extract, seed)

    @torch.inference_mode()
    def _extract(self, images: Tensor) -> Tensor:
        if self._fast is None:
            self._fast = prepare_for_inference(copy.deepcopy(self.network), torch.device("cpu"))
        return self._fast.extract_backbone(images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The few numbers of the filter optimiser without decay; the rest of the classifier."""
        numbers = list(self.network.classifier.filter_optimizer.parameters())
        apart = {id(parameter) for parameter in numbers}
        rest = [parameter for parameter in self.network.classifier.parameters() if id(parameter) not in apart]
        return [{"params": numbers, "weight_decay": 0.0}, {"params": rest}]

    def train_mode(self) -> None:
        """Training mode of the classifier alone."""
        self.network.classifier.train()

    def batch(self, step: int, progress: float) -> FeatureBatch:
        """The sequences of a step; frames of a sequence serve now to learn the filter and now to judge it."""
        parts = self.parts["train"]
        weights = np.array([weight for weight, _ in parts])
        chosen = []
        for index in range(self.recipe.batch_size):
            rng = np.random.default_rng((self.seed, step, index))
            sequences = parts[rng.choice(len(parts), p=weights / weights.sum())][1]
            frames = rng.permutation(sequences.boxes.shape[1])[: self.recipe.frames]
            number = int(rng.integers(len(sequences)))
            chosen.append((sequences.features[number][frames], sequences.boxes[number][frames]))
        return _collated(chosen)

    def loss(self, batch: FeatureBatch) -> tuple[Tensor, dict[str, float]]:
        """Hinge loss of every iterate of the filter, weighted as published for DiMP, on frames that show the target and
        on frames of other sequences, which do not."""
        recipe = self.recipe
        scores, strangers, labels = self._forward(self.network, batch)
        losses = [
            hinge_score_loss(score, labels, recipe.hinge_threshold)
            + recipe.stranger_weight * hinge_score_loss(strange, torch.zeros_like(strange))
            for score, strange in zip(scores, strangers)
        ]
        between = torch.stack(losses[1:-1]).mean()
        loss = recipe.final_weight * losses[-1] + recipe.initial_weight * losses[0] + recipe.between_weight * between
        parts = {
            "clf": float(losses[-1].detach()),
            "clf_init": float(losses[0].detach()),
            "hit": float(peak_hits(scores[-1].detach(), labels).mean()),
        }
        return loss, parts

    def _forward(self, network: LiteBase, batch: FeatureBatch) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """For every iterate of the filter its scores of the test frames, (t, n, H, W), and of one test frame of another
        sequence, (1, n, H, W); and the labels of the test frames."""
        recipe, boxes = self.recipe, batch.boxes
        classifier, count = network.classifier, recipe.train_frames
        flat = network.classification_features(batch.features.flatten(0, 1).float())
        features = flat.unflatten(0, boxes.shape[:2])
        first = classifier.initial_filter(features[:count], boxes[:count])
        unrolled = classifier.unroll(first, features[:count], boxes[:count], network.config.train_iterations)
        others = features[count : count + 1].roll(1, dims=1)
        scores = [classifier.scores(one, features[count:]) for one in unrolled.filters]
        strangers = [classifier.scores(one, others) for one in unrolled.filters]
        labels = gaussian_labels(
            boxes[count:].flatten(0, 1), recipe.image_size, features.shape[-1], network.config.label_sigma
        )
        return scores, strangers, labels.unflatten(0, boxes[count:].shape[:2])

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """On held-out sequences: loss and fraction of score peaks on the target for every part of the data; and how
        well the height of the peak tells frames with the target from frames without (area under the ROC curve)."""
        assert isinstance(network, LiteBase)
        measures = {}
        for part, (_, sequences) in enumerate(self.parts["validation"]):
            hits, losses, present, absent = [], [], [], []
            for start in range(0, len(sequences) - _VALIDATION_BATCH + 1, _VALIDATION_BATCH):
                rng = np.random.default_rng((VALIDATION_SEED, start))
                chosen = []
                for number in range(start, start + _VALIDATION_BATCH):
                    frames = rng.permutation(sequences.boxes.shape[1])[: self.recipe.frames]
                    chosen.append((sequences.features[number][frames], sequences.boxes[number][frames]))
                scores, strangers, labels = self._forward(network, _collated(chosen))
                hits.append(peak_hits(scores[-1], labels))
                losses.append(hinge_score_loss(scores[-1], labels, self.recipe.hinge_threshold))
                present.append(scores[-1].amax((2, 3)).flatten())
                absent.append(strangers[-1].amax((2, 3)).flatten())
            measures[f"hit{part}"] = float(torch.cat(hits).mean())
            measures[f"clf{part}"] = float(torch.stack(losses).mean())
            measures[f"roc{part}"] = _roc_area(torch.cat(present), torch.cat(absent))
        return measures


def peak_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether the highest score lies within 1.5 cells of the target's centre, (t * n,) of 0 and 1."""
    width = scores.shape[-1]
    found, wanted = (maps.flatten(0, 1).flatten(1).argmax(1) for maps in (scores, labels))
    rows, columns = found // width - wanted // width, found % width - wanted % width
    return (rows.square() + columns.square() <= _HIT_CELLS**2).float()


def _roc_area(positive: Tensor, negative: Tensor) -> float:
    higher = positive[:, None] > negative
    return float(higher.float().mean())


def _collated(sequences: list[tuple[np.ndarray, np.ndarray]]) -> FeatureBatch:
    features = np.stack([one for one, _ in sequences], axis=1)
    boxes = np.stack([one for _, one in sequences], axis=1)
    return FeatureBatch(torch.from_numpy(features), torch.from_numpy(boxes))
