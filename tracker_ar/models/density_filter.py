"""PrDiMP's optimizer of the target filter: Newton steps on the distance between two densities.

"Probabilistic Regression for Visual Tracking" (Danelljan et al. 2020), section 5.2: the softmax of the scores is the
density of where the target is, and the loss is its Kullback-Leibler divergence from the density of the label, up to a
constant

    loss(s) = log sum exp s - sum p s
"""

from __future__ import annotations

import torch
from torch import Tensor

from tracker_ar.models.steepest_descent import Objective, Slope, SteepestDescent, cells_from_center


class DensityFilterOptimizer(SteepestDescent):
    """sigma: of the label's density, in feature cells; the others as in SteepestDescent."""

    def __init__(
        self,
        sigma: float,
        initial_step_length: float,
        initial_regularization: float,
        minimal_regularization: float,
        step_damping: float,
    ) -> None:
        super().__init__(initial_step_length, initial_regularization, minimal_regularization, step_damping)
        self.sigma = sigma

    def label_density(self, boxes: Tensor, filter_size: int, output_size: tuple[int, int]) -> Tensor:
        """Where the target is: boxes (n, s, 4) x, y, w, h in pixels, output_size (H, W) in cells -> (n, s, H, W), each
        map summing to one."""
        down, right = cells_from_center(boxes, filter_size, output_size)
        column, row = (torch.exp(distance.square() / (-2 * self.sigma**2)) for distance in (down, right))
        density = column * row / (2 * torch.pi * self.sigma**2)
        return density / (density.sum(dim=(2, 3), keepdim=True) + 1e-8)

    def objective(
        self, boxes: Tensor, filter_size: int, output_size: tuple[int, int], sample_weights: Tensor | None
    ) -> Objective:
        """See SteepestDescent."""
        label = self.label_density(boxes, filter_size, output_size)
        if sample_weights is None:
            sample_weights = boxes.new_full((len(boxes),), 1.0 / len(boxes))
        weight = sample_weights.reshape(len(boxes), -1, 1, 1)

        def divergence(scores: Tensor) -> Slope:
            density = score_density(scores)
            loss = torch.logsumexp(scores, dim=(2, 3)) - (label * scores).sum(dim=(2, 3))

            def curvature(change: Tensor) -> Tensor:
                # The variance of the change under the density.
                weighed = density * change
                centred = weighed - density * weighed.sum(dim=(2, 3), keepdim=True)
                variance = (change * centred).sum(dim=(2, 3)).clamp(min=0)
                return (weight[..., 0, 0] * variance).sum(dim=0)

            return Slope((weight[..., 0, 0] * loss).sum(), weight * (density - label), curvature)

        return divergence


def score_density(scores: Tensor) -> Tensor:
    """The softmax over a whole score map: (..., H, W) -> the same shape, summing to one."""
    return scores.flatten(-2).softmax(dim=-1).view_as(scores)
