"""Learning to tell the target from its surroundings: stochastic gradient descent on the hardest of many negatives
("Learning Multi-Domain Convolutional Neural Networks for Visual Tracking", Nam and Han 2016, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor

from tracker_ar.models.mdnet import Layers, gradient, scores


@dataclass(frozen=True)
class TrainingSettings:
    """Values of AlphaRefine's RT-MDNet, `external/RT_MDNet/options.py`."""

    positives: int = 32  # of each iteration
    negatives: int = 96  # the hardest ...
    negatives_seen: int = 1024  # ... of these
    momentum: float = 0.9
    weight_decay: float = 5e-4
    largest_gradient: float = 10.0  # norm over all layers
    last_layer_factor: float = 10.0  # of the learning rate
    dropout: float = 0.5


class Descent:
    """Gradient descent with momentum, which stays from call to call, on layers that change in place."""

    def __init__(self, layers: Layers, rate: float, settings: TrainingSettings) -> None:
        self.settings = settings
        self._layers = layers
        self._rates = [rate] * 4 + [rate * settings.last_layer_factor] * 2
        self._velocity: list[Tensor] | None = None

    def train(
        self, positives: Tensor, negatives: Tensor, iterations: int, order: RandomState, dropout: RandomState
    ) -> None:
        """positives, negatives: (N, F) float32 features; without any of one kind nothing is learned. order, dropout:
        generators of what is taken and of what is dropped."""
        settings = self.settings
        if not (len(positives) and len(negatives)):
            return
        taken_positives, taken_negatives = _orders(
            order, [len(positives), len(negatives)],
            [settings.positives * iterations, settings.negatives_seen * iterations])
        for iteration in range(iterations):
            near = positives[_part(taken_positives, iteration, settings.positives, positives.device)]
            seen = negatives[_part(taken_negatives, iteration, settings.negatives_seen, negatives.device)]
            hardest = scores(self._layers, seen)[:, 1].topk(settings.negatives).indices
            self._step(near, seen[hardest], dropout)

    def _step(self, positives: Tensor, negatives: Tensor, dropout: RandomState) -> None:
        settings = self.settings
        labels = torch.cat((positives.new_ones(len(positives)), positives.new_zeros(len(negatives)))).long()
        # In the order of the authors' calls: both layers for the positives, then for the negatives.
        kept = [dropout.random_sample((len(part), len(bias))) >= settings.dropout
                for part in (positives, negatives) for bias in (self._layers.fc4_bias, self._layers.fc5_bias)]
        gain = np.float32(1 / (1 - settings.dropout))
        masks = [torch.from_numpy(np.concatenate(kept[layer::2]) * gain).to(positives.device) for layer in (0, 1)]
        gradients = gradient(self._layers, torch.cat((positives, negatives)), labels, masks)
        norm = torch.stack([part.norm() for part in gradients]).norm()
        shrink = (settings.largest_gradient / (norm + 1e-6)).clamp(max=1)
        moves = [part.mul_(shrink).add_(layer, alpha=settings.weight_decay)
                 for part, layer in zip(gradients, self._layers)]
        if self._velocity is None:
            self._velocity = moves
        else:
            for velocity, move in zip(self._velocity, moves):
                velocity.mul_(settings.momentum).add_(move)
        for layer, velocity, rate in zip(self._layers, self._velocity, self._rates):
            layer.sub_(velocity, alpha=rate)


def _orders(random: RandomState, counts: list[int], wanted: list[int]) -> list[np.ndarray]:
    """For each count as many indices as wanted, permutation after permutation; first one of each, then the others."""
    drawn = [[random.permutation(count)] for count in counts]
    for permutations, count, needed in zip(drawn, counts, wanted):
        while len(permutations) * count < needed:
            permutations.append(random.permutation(count))
    return [np.concatenate(permutations) for permutations in drawn]


def _part(order: np.ndarray, iteration: int, count: int, device: torch.device) -> Tensor:
    return torch.from_numpy(order[iteration * count:(iteration + 1) * count]).to(device)
