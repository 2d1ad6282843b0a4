"""What both tasks share: batches as tensors, normalisation, precision, initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tracker_ar.data.synthetic.samples import BaseSequence, RefinerPair

VALIDATION_SEED = 20200501

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

_Batch = TypeVar("_Batch", bound="TensorBatch")


@dataclass(frozen=True)
class TensorBatch:
    """A batch whose fields are all tensors."""

    def to(self: _Batch, device: torch.device) -> _Batch:
        """The batch on a device."""
        return type(self)(*(value.to(device, non_blocking=True) for value in self._values()))

    def pin_memory(self: _Batch) -> _Batch:
        """The batch in page-locked memory."""
        return type(self)(*(value.pin_memory() for value in self._values()))

    def _values(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class PairBatch(TensorBatch):
    """N pairs of the refiner: crops uint8 (N, S, S, 3), boxes float32 (N, 4), masks uint8 (N, S, S)."""

    references: Tensor
    boxes: Tensor
    reference_masks: Tensor
    searches: Tensor
    masks: Tensor


@dataclass(frozen=True)
class SequenceBatch(TensorBatch):
    """n sequences of s frames each, train frames first, for the base tracker.

    Attributes:
        images: uint8 (s * n, S, S, 3), frame by frame.
        boxes: float32 (s, n, 4).
        proposals: float32 (t * n, B, 4), B boxes for each of t test frames.
        drawn, target: float32 (t * n, B), densities of `tracker_ar.train.labels.box_proposals`.
    """

    images: Tensor
    boxes: Tensor
    proposals: Tensor
    drawn: Tensor
    target: Tensor


def collate_pairs(pairs: Sequence[RefinerPair]) -> PairBatch:
    """Stack pairs of one size."""
    return PairBatch(
        references=_stacked([pair.reference for pair in pairs]),
        boxes=_stacked([pair.box for pair in pairs]),
        reference_masks=_stacked([pair.reference_mask for pair in pairs]),
        searches=_stacked([pair.search for pair in pairs]),
        masks=_stacked([pair.mask for pair in pairs]),
    )


def collate_sequences(sequences: Sequence[BaseSequence]) -> tuple[Tensor, Tensor]:
    """`images` and `boxes` of a `SequenceBatch`."""
    images = np.stack([sequence.images for sequence in sequences], axis=1)
    boxes = np.stack([sequence.boxes for sequence in sequences], axis=1)
    return torch.from_numpy(images.reshape(-1, *images.shape[2:])), torch.from_numpy(boxes)


def normalised(images: Tensor) -> Tensor:
    """RGB uint8 (N, H, W, 3) to ImageNet-normalised float32 (N, 3, H, W), channels last."""
    mean = torch.tensor(_MEAN, device=images.device).view(1, 3, 1, 1) * 255.0
    std = torch.tensor(_STD, device=images.device).view(1, 3, 1, 1) * 255.0
    return (images.permute(0, 3, 1, 2).float() - mean) / std


def low_precision(dtype: torch.dtype | None, like: Tensor) -> torch.autocast:
    """A context in which convolutions on the device of `like` compute in `dtype`; None changes nothing."""
    return torch.autocast(like.device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def initialise(backbone: nn.Module) -> None:
    """He initialisation of a backbone's convolutions; its classifier serves nothing and is not trained."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            module.requires_grad_(False)


def _stacked(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
