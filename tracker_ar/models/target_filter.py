"""The target classifier of DiMP: features, an initial filter, and steepest descent that adapts it to the
target.

"Learning Discriminative Model Prediction for Tracking" (Bhat et al. 2019). The filter minimises (eq. 1 and 2)

    L(f) = sum over samples of || weight * (activation(x * f) - label) ||^2 + || regularization * f ||^2

where label, mask (inside the activation) and weight are learned functions of the distance to the target's
centre.

Tensors of several images: (n, C, h, w) with boxes (n, 4) for one sequence, as in tracking, or (n, s, C, h,
w) with boxes (n, s, 4) for s sequences at once, as in training. Filters are always (s, C, k, k).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tracker_ar.models.resnet import BasicBlock
from tracker_ar.models.steepest_descent import (
    FEATURE_STRIDE,
    Correlation,
    Objective,
    Slope,
    SteepestDescent,
    Unrolled,
    cells_from_center,
    with_sequences,
)
from tracker_ar.ops.prroi_pool import prroi_pool_boxes


class InstanceL2Norm(nn.Module):
    """Scale every sample to root mean square `scale` over channels and positions."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        energy = x.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-5
        return x * (self.scale * (x[0].numel() / energy).sqrt())


class FilterInitializer(nn.Module):
    """Initial filter: convolve, pool the target to the filter's size, average over samples (section 3.3)."""

    def __init__(self, channels: int, filter_size: int, zero: bool = False) -> None:
        """zero: whether training starts from filters of nothing, as PrDiMP's does."""
        super().__init__()
        self.filter_size = filter_size
        self.filter_conv = nn.Conv2d(channels, channels, 3, padding=1)
        weight, bias = self.filter_conv.parameters()
        if zero:
            nn.init.zeros_(weight)
        else:
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(bias)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """features and boxes of the samples, xywh in pixels of the crop -> (s, C, k, k)."""
        features, boxes = with_sequences(features, boxes)
        mapped = self.filter_conv(features.flatten(0, 1))
        flat = boxes.reshape(-1, 1, 4)
        corners = torch.cat((flat[..., :2], flat[..., :2] + flat[..., 2:]), dim=-1)
        pooled = prroi_pool_boxes(mapped, corners, (self.filter_size, self.filter_size), 1.0 / FEATURE_STRIDE)
        return pooled[:, 0].unflatten(0, boxes.shape[:2]).mean(dim=0)


class RadialFunction(nn.Module):
    """A learned function of distance: linear between bins, constant beyond the last one (section 3.4)."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        # Shape of a 1 x 1 convolution over one channel per bin, which is how the published checkpoints
        # store it.
        self.weight = nn.Parameter(values.reshape(1, -1, 1, 1))

    def forward(self, distance: Tensor) -> Tensor:
        """Distances in bins, any shape -> values of the same shape."""
        values = self.weight.flatten()
        last = values.numel() - 1
        distance = distance.clamp(max=last)
        lower = distance.long().clamp(max=last - 1)
        return torch.lerp(values[lower], values[lower + 1], distance - lower)


class TargetMaps(NamedTuple):
    """label, mask in (0, 1) and weight of every score, each (n, s, H, W)."""

    label: Tensor
    mask: Tensor
    weight: Tensor


class FilterOptimizer(SteepestDescent):
    """DiMP's optimizer: squared errors with the Gauss-Newton Hessian (section 3.2). bin_size is in feature cells."""

    def __init__(
        self,
        num_bins: int,
        bin_size: float,
        label_sigma: float,
        mask_factor: float,
        initial_step_length: float,
        initial_regularization: float,
        minimal_regularization: float,
    ) -> None:
        super().__init__(initial_step_length, initial_regularization, minimal_regularization)
        self.bin_size = bin_size
        distance = torch.arange(num_bins) * bin_size
        label = torch.exp(-0.5 * (distance / label_sigma) ** 2)
        self.label_map_predictor = RadialFunction(label - label.min())
        self.target_mask_predictor = nn.Sequential(
            RadialFunction(mask_factor * torch.tanh(2.0 - distance)), nn.Sigmoid()
        )
        self.spatial_weight_predictor = RadialFunction(torch.ones(num_bins))

    def target_maps(self, boxes: Tensor, filter_size: int, output_size: tuple[int, int]) -> TargetMaps:
        """What the scores should be: boxes (n, s, 4) xywh in pixels, output_size (H, W) in cells."""
        dy, dx = cells_from_center(boxes, filter_size, output_size)
        distance = torch.sqrt(dy * dy + dx * dx) / self.bin_size
        return TargetMaps(
            self.label_map_predictor(distance),
            self.target_mask_predictor(distance),
            self.spatial_weight_predictor(distance),
        )

    def objective(
        self, boxes: Tensor, filter_size: int, output_size: tuple[int, int], sample_weights: Tensor | None
    ) -> Objective:
        """See SteepestDescent."""
        label, mask, weight = self.target_maps(boxes, filter_size, output_size)
        if sample_weights is None:
            weight = weight * math.sqrt(1.0 / len(boxes))
        else:
            weight = weight * sample_weights.sqrt().reshape(len(boxes), -1, 1, 1)

        def squared_error(scores: Tensor) -> Slope:
            residual = weight * (_activate(scores, mask) - label)
            slope = weight * (0.5 * ((1.0 - mask) * scores.detach().sign() + (1.0 + mask)))
            return Slope(
                residual.square().sum(), slope * residual, lambda change: (slope * change).square().sum(dim=(0, 2, 3))
            )

        return squared_error


class TargetClassifier(nn.Module):
    """Scores how much every position looks like the centre of the target.

    in_channels: of the backbone features; channels: of the classification features; filter_size: cells; block: a
    residual block before their convolution; zero_filter: see FilterInitializer.
    """

    def __init__(
        self, in_channels: int, channels: int, filter_size: int, optimizer: SteepestDescent, block: bool = False,
        zero_filter: bool = False,
    ) -> None:
        super().__init__()
        self.filter_initializer = FilterInitializer(channels, filter_size, zero_filter)
        self.filter_optimizer = optimizer
        convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        # One over the root of the filter's length, so that scores do not grow with it.
        norm_scale = math.sqrt(1.0 / (channels * filter_size * filter_size))
        layers = [BasicBlock(in_channels, in_channels, stride=1)] if block else []
        self.feature_extractor = nn.Sequential(*layers, convolution, InstanceL2Norm(norm_scale))

    def initial_filter(self, features: Tensor, boxes: Tensor) -> Tensor:
        """First guess from classification features and boxes (xywh, pixels of the crop) -> (s, C, k, k)."""
        return self.filter_initializer(features, boxes)

    def unroll(
        self,
        target_filter: Tensor,
        features: Tensor,
        boxes: Tensor,
        num_iterations: int,
        sample_weights: Tensor | None = None,
    ) -> Unrolled:
        """Optimise the filter and keep every iterate: the DiMP loss scores test frames with each of them
        (section 3.6).

        target_filter (s, C, k, k); features, boxes: training samples; sample_weights: (n,) or (n, s), by
        default 1 / n each. Returns num_iterations + 1 filters and as many losses (the mean over sequences
        of L, scalars).
        Differentiable in everything but the boxes.
        """
        return self.filter_optimizer(target_filter, features, boxes, num_iterations, sample_weights)

    def optimize_filter(
        self,
        target_filter: Tensor,
        features: Tensor,
        boxes: Tensor,
        num_iterations: int,
        sample_weights: Tensor | None = None,
    ) -> Tensor:
        """The filter (s, C, k, k) after the last iteration of `unroll`."""
        return self.unroll(target_filter, features, boxes, num_iterations, sample_weights).filters[-1]

    def scores(self, target_filter: Tensor, features: Tensor) -> Tensor:
        """features (n, C, h, w) or (n, s, C, h, w) -> (n, s, h + 1, w + 1), for odd filters (n, s, h, w)."""
        if features.dim() == 4:
            features = features[:, None]
        return Correlation(features, target_filter.shape[-1]).scores(target_filter)


def _activate(scores: Tensor, mask: Tensor) -> Tensor:
    """Identity on the target (mask 1), ReLU in the background, where only false alarms count (eq. 2)."""
    return 0.5 * ((1.0 - mask) * scores.abs() + (1.0 + mask) * scores)
