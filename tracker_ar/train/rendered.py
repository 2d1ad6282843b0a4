"""Batches whose crops are made where the network is: scenes are drawn by workers, rendered on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracker_ar.data.synthetic.samples import plan_pair
from tracker_ar.data.synthetic.torch_renderer import PackedShots, pack_shots, take_shots
from tracker_ar.data.training_samples import PairSource, SequenceGeometry, SequenceSource, SyntheticSource
from tracker_ar.train.batches import PairBatch, SequenceBatch, collate_pairs, collate_sequences


class RenderedSource(SyntheticSource):
    """Scenes whose crops are rendered in batches by torch."""


@dataclass(frozen=True)
class PackedPairs:
    """N pairs of scenes: shots of all references, then of all searches; `box_only` bool (N,)."""

    shots: PackedShots
    boxes: Tensor
    box_only: Tensor

    def to(self, device: torch.device) -> PairBatch:
        """Render on a device."""
        images, masks = take_shots(self.shots.to(device))
        count = len(self.boxes)
        known = masks[:count] | self.box_only.to(device)[:, None, None]
        return PairBatch(images[:count], self.boxes.to(device), known, images[count:], masks[count:])


@dataclass(frozen=True)
class PackedSequences:
    """A `SequenceBatch` whose images are still shots, frame by frame; `targets` are its other fields."""

    shots: PackedShots
    targets: tuple[Tensor, ...]

    def to(self, device: torch.device) -> SequenceBatch:
        """Render on a device."""
        images, _ = take_shots(self.shots.to(device))
        return SequenceBatch(images, *(value.to(device) for value in self.targets))


def pair_batch(
    source: PairSource, generators: Sequence[np.random.Generator], size: int
) -> PairBatch | PackedPairs:
    """One pair from each generator."""
    if not isinstance(source, RenderedSource):
        return collate_pairs([source.pair(generator, size) for generator in generators])
    plans = [plan_pair(source.sampler, generator, size) for generator in generators]
    shots = [plan.reference for plan in plans] + [plan.search for plan in plans]
    boxes = torch.from_numpy(np.stack([plan.box for plan in plans]))
    return PackedPairs(pack_shots(shots, size), boxes, torch.tensor([plan.box_only for plan in plans]))


def sequence_batch(
    source: SequenceSource,
    generators: Sequence[np.random.Generator],
    geometry: SequenceGeometry,
    propose: Callable[[Tensor], tuple[Tensor, ...]],
) -> SequenceBatch | PackedSequences:
    """One sequence from each generator.

    Args:
        propose: from boxes (s, n, 4) to `proposals`, `drawn` and `target` of a `SequenceBatch`.
    """
    if not isinstance(source, RenderedSource):
        sequences = [source.sequence(generator, geometry) for generator in generators]
        images, boxes = collate_sequences(sequences)
        return SequenceBatch(images, boxes, *propose(boxes))
    plans = [source.plan(generator, geometry) for generator in generators]
    # Frame by frame: all sequences' first frames come first.
    shots = [one for frame in zip(*(shots for shots, _ in plans)) for one in frame]
    boxes = torch.from_numpy(np.stack([boxes for _, boxes in plans], axis=1))
    return PackedSequences(pack_shots(shots, geometry.size), (boxes, *propose(boxes)))
