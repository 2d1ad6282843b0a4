"""The memory of training samples from which the target filter is updated (DiMP, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from tracker_ar.base.settings import MemorySettings


class SampleMemory:
    """Classification features, target boxes and weights of at most `capacity` samples.

    The samples of the first frame are never replaced and together keep at least
    `initial_samples_minimum_weight`; of the later ones the lightest makes room.
    """

    def __init__(self, features: Tensor, boxes: Tensor, settings: MemorySettings) -> None:
        """`features` (n, C, h, w) float32 and `boxes` (n, 4) float32 x, y, w, h of the first frame's samples."""
        self._settings = settings
        self._initial = len(features)
        self._previous_slot: int | None = None
        self.count = len(features)
        self._features = features.new_zeros(settings.capacity, *features.shape[1:])
        self._boxes = boxes.new_zeros(settings.capacity, 4)
        self.weights = torch.zeros(settings.capacity)
        self._features[: self.count] = features
        self._boxes[: self.count] = boxes
        self.weights[: self.count] = torch.ones(1) / self.count

    @property
    def features(self) -> Tensor:
        """(count, C, h, w): a view of the stored features."""
        return self._features[: self.count]

    @property
    def boxes(self) -> Tensor:
        """(count, 4): a view of the stored boxes, x, y, w, h in pixels of the search region."""
        return self._boxes[: self.count]

    @property
    def active_weights(self) -> Tensor:
        """(count,) float32, summing to one."""
        return self.weights[: self.count]

    def add(self, features: Tensor, box: Tensor, learning_rate: float) -> int:
        """Store one sample, (1, C, h, w) and (4,), with the given learning rate; returns its slot."""
        slot = self._advance_weights(learning_rate)
        self._features[slot] = features[0]
        self._boxes[slot] = box
        self.count = min(self.count + 1, self._settings.capacity)
        return slot

    def _advance_weights(self, learning_rate: float) -> int:
        weights, initial = self.weights, self._initial
        if self.count < self._settings.capacity:
            slot = self.count
        else:
            slot = int(torch.argmin(weights[initial:])) + initial
        if self._previous_slot is None:
            weights /= 1 - learning_rate
            weights[slot] = learning_rate
        else:
            weights[slot] = weights[self._previous_slot] / (1 - learning_rate)
        weights /= weights.sum()
        floor = self._settings.initial_samples_minimum_weight
        if weights[:initial].sum() < floor:
            weights /= floor + weights[initial:].sum()
            weights[:initial] = floor / initial
        self._previous_slot = slot
        return slot
