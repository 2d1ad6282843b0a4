"""Steepest descent on what a target filter's scores should be: the loop that DiMP and PrDiMP share.

"Learning Discriminative Model Prediction for Tracking" (Bhat et al. 2019), section 3.2, algorithm 1; "Probabilistic
Regression for Visual Tracking" (Danelljan et al. 2020), section 5 and the supplement. The filter minimises

    L(f) = sum over samples of loss(x * f) + || regularization * f ||^2

where the loss of a sample's score map is the optimizer's own. Every step goes along the gradient, as far as a quadratic
model of L says, times a learned factor.

Tensors of several images: (n, C, h, w) with boxes (n, 4) for one sequence, as in tracking, or (n, s, C, h, w) with
boxes (n, s, 4) for s sequences at once, as in training. Filters are always (s, C, k, k).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURE_STRIDE = 16


class Unrolled(NamedTuple):
    """filters: the initial one and one per iteration, (s, C, k, k) each. losses: their scalars."""

    filters: list[Tensor]
    losses: list[Tensor]


class Slope(NamedTuple):
    """A loss of score maps (n, s, H, W) at one place. Half of its gradient and of its curvature are meant.

    loss: scalar, summed over everything. gradient: (n, s, H, W). curvature: of the scores along a change of them,
    (n, s, H, W) -> (s,).
    """

    loss: Tensor
    gradient: Tensor
    curvature: Callable[[Tensor], Tensor]


Objective = Callable[[Tensor], Slope]


class SteepestDescent(nn.Module):
    """Learns a filter from samples; the loss of the scores is a subclass's.

    initial_*: where training starts. minimal_regularization: below which the learned one never counts. step_damping:
    added to the regularization in the curvature, so that steps become shorter.
    """

    def __init__(
        self,
        initial_step_length: float,
        initial_regularization: float,
        minimal_regularization: float,
        step_damping: float = 0.0,
    ) -> None:
        super().__init__()
        self.log_step_length = nn.Parameter(torch.full((1,), math.log(initial_step_length)))
        self.filter_reg = nn.Parameter(torch.full((1,), float(initial_regularization)))
        self._minimal_regularization = minimal_regularization
        self._step_damping = step_damping

    @abstractmethod
    def objective(
        self, boxes: Tensor, filter_size: int, output_size: tuple[int, int], sample_weights: Tensor | None
    ) -> Objective:
        """The loss of the scores. boxes (n, s, 4) x, y, w, h in pixels; output_size (H, W) in cells; sample_weights
        (n,) or (n, s), None for 1 / n each."""

    def forward(
        self,
        target_filter: Tensor,
        features: Tensor,
        boxes: Tensor,
        num_iterations: int,
        sample_weights: Tensor | None = None,
    ) -> Unrolled:
        """See TargetClassifier.unroll."""
        features, boxes = with_sequences(features, boxes)
        filter_size = target_filter.shape[-1]
        correlation = Correlation(features, filter_size)
        objective = self.objective(boxes, filter_size, correlation.output_size, sample_weights)
        regularization = self.filter_reg.square().clamp(min=self._minimal_regularization**2)
        step_length = self.log_step_length.exp()

        scores = correlation.scores(target_filter)
        filters, losses = [target_filter], []
        for _ in range(num_iterations):
            slope = objective(scores)
            losses.append(_total(slope.loss, regularization, target_filter))
            gradient = correlation.transposed(slope.gradient) + regularization * target_filter
            change = correlation.scores(gradient)
            energy = gradient.square().sum(dim=(1, 2, 3))
            curvature = slope.curvature(change) + (regularization + self._step_damping) * energy
            step = step_length * energy / curvature.clamp(min=1e-8)
            target_filter = target_filter - step[:, None, None, None] * gradient
            # Scores are linear in the filter: following them saves one of three passes over the samples.
            scores = scores - step[:, None, None] * change
            filters.append(target_filter)
        losses.append(_total(objective(scores).loss, regularization, target_filter))
        return Unrolled(filters, losses)


class Correlation:
    """Correlation of sample features with one filter per sequence, and its transpose, as matrix products.

    features: (n, s, C, h, w). Zero padding by half the filter: even filters give one row and column more.
    Each filter tap is one row of a (k * k, C) matrix; `fold` moves the taps' responses to their places and
    adds them up. That is faster than a convolution with a single output channel, and batches over sequences
    and differentiates without grouped kernels.
    """

    def __init__(self, features: Tensor, filter_size: int) -> None:
        self._features = features.flatten(3)
        height, width = features.shape[-2:]
        grow = (filter_size + 1) % 2
        self.output_size = (height + grow, width + grow)
        self._input_size = (height, width)
        self._filter_size = filter_size
        self._padding = (filter_size - 1) // 2

    def scores(self, target_filter: Tensor) -> Tensor:
        """(s, C, k, k) -> (n, s, H, W)."""
        taps = target_filter.flip(2, 3).flatten(2).transpose(1, 2)
        responses = (taps @ self._features).flatten(0, 1)
        summed = F.fold(responses, self.output_size, self._filter_size, padding=self._padding)
        return summed.reshape(-1, len(target_filter), *self.output_size)

    def transposed(self, maps: Tensor) -> Tensor:
        """(n, s, H, W) -> (s, C, k, k): the gradient of (maps * scores(f)).sum() for f."""
        columns = F.unfold(maps.flatten(0, 1)[:, None], self._filter_size, padding=self._padding)
        columns = columns.unflatten(0, maps.shape[:2])
        taps = (columns @ self._features.transpose(2, 3)).sum(dim=0)
        return taps.transpose(1, 2).unflatten(2, (self._filter_size, self._filter_size)).flip(2, 3)


def cells_from_center(boxes: Tensor, filter_size: int, output_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Distance of every score from the target's centre, in cells: down (n, s, H, 1) and right (n, s, 1, W).

    boxes (n, s, 4) x, y, w, h in pixels; output_size (H, W).
    """
    center_x, center_y = ((boxes[..., :2] + boxes[..., 2:] / 2) / FEATURE_STRIDE).unbind(-1)
    # Scores of an odd filter lie on cell centres, those of an even one on cell corners.
    middle = (filter_size % 2) / 2.0
    rows = torch.arange(output_size[0], dtype=boxes.dtype, device=boxes.device)
    columns = torch.arange(output_size[1], dtype=boxes.dtype, device=boxes.device)
    return rows[:, None] - (center_y - middle)[..., None, None], columns - (center_x - middle)[..., None, None]


def _total(loss: Tensor, regularization: Tensor, target_filter: Tensor) -> Tensor:
    total = loss + regularization * target_filter.square().sum()
    return (total / len(target_filter)).squeeze()


def with_sequences(features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence as a batch of one."""
    return (features[:, None], boxes[:, None]) if features.dim() == 4 else (features, boxes)
