"""The memory of training samples from which the target filter is updated (DiMP, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from tracker_ar.base.settings import MemorySettings


class SampleWeights:
    """The weights of at most `capacity` samples, and which of them makes room for the next.

    values: (capacity,) float32, summing to one, 0 where nothing is stored yet. The first `protected` samples are never
    replaced and together keep at least `floor`; of the others the lightest is.
    """

    def __init__(self, count: int, capacity: int, protected: int = 0, floor: float = 0.0) -> None:
        self._protected, self._floor = protected, floor
        self._previous_slot: int | None = None
        self.count = count
        self.values = torch.zeros(capacity, dtype=torch.float32)
        self.values[:count] = torch.ones(1, dtype=torch.float32) / count

    @property
    def active(self) -> Tensor:
        """(count,) float32: a view of those of the samples stored."""
        return self.values[: self.count]

    def add(self, learning_rate: float) -> int:
        """Make room for one sample with the given learning rate; returns its slot."""
        weights, protected = self.values, self._protected
        if self.count < len(weights):
            slot = self.count
            self.count += 1
        else:
            slot = int(torch.argmin(weights[protected:])) + protected
        if self._previous_slot is None:
            weights /= 1 - learning_rate
            weights[slot] = learning_rate
        else:
            weights[slot] = weights[self._previous_slot] / (1 - learning_rate)
        weights /= weights.sum()
        if weights[:protected].sum() < self._floor:
            weights /= self._floor + weights[protected:].sum()
            weights[:protected] = self._floor / protected
        self._previous_slot = slot
        return slot


class SampleMemory:
    """Features, what says where the target is in them, and weights of at most `capacity` samples; see `SampleWeights`.

    Where the samples of the first frame must keep `initial_samples_minimum_weight` together, none of them is replaced.
    """

    def __init__(self, features: Tensor, targets: Tensor, settings: MemorySettings) -> None:
        """`features` (n, C, h, w) float32 and `targets` (n, ...) float32 of the first frame's samples: boxes (n, 4) as
        x, y, w, h, or score maps (n, h, w)."""
        count, capacity, floor = len(features), settings.capacity, settings.initial_samples_minimum_weight
        self._weights = SampleWeights(count, capacity, count if floor > 0 else 0, floor)
        self._features = features.new_zeros(capacity, *features.shape[1:])
        self._targets = targets.new_zeros(capacity, *targets.shape[1:])
        self._features[:count] = features
        self._targets[:count] = targets

    @property
    def count(self) -> int:
        """How many samples are stored."""
        return self._weights.count

    @property
    def weights(self) -> Tensor:
        """(capacity,) float32."""
        return self._weights.values

    @property
    def features(self) -> Tensor:
        """(count, C, h, w): a view of the stored features."""
        return self._features[: self.count]

    @property
    def targets(self) -> Tensor:
        """(count, ...): a view of what was stored with the features."""
        return self._targets[: self.count]

    @property
    def active_weights(self) -> Tensor:
        """(count,) float32, summing to one."""
        return self._weights.active

    def add(self, features: Tensor, target: Tensor, learning_rate: float) -> int:
        """Store one sample, (1, C, h, w) and what goes with it, with the given learning rate; returns its slot."""
        slot = self._weights.add(learning_rate)
        self._features[slot] = features[0]
        self._targets[slot] = target
        return slot
