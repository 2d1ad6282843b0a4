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
import torch.nn.functional as F
from torch import Tensor, nn

from tracker_ar.ops.prroi_pool import prroi_pool_boxes

FEATURE_STRIDE = 16
MINIMAL_REGULARIZATION = 1e-3


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

    def __init__(self, channels: int, filter_size: int) -> None:
        super().__init__()
        self.filter_size = filter_size
        self.filter_conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.filter_conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.filter_conv.bias)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """features and boxes of the samples, xywh in pixels of the crop -> (s, C, k, k)."""
        features, boxes = _with_sequences(features, boxes)
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


class Unrolled(NamedTuple):
    """filters: the initial one and one per iteration, (s, C, k, k) each. losses: their scalars."""

    filters: list[Tensor]
    losses: list[Tensor]


class FilterOptimizer(nn.Module):
    """Steepest descent with the Gauss-Newton Hessian and a learned factor on the step length (section 3.2).

    bin_size is in feature cells; initial_* are where training starts.
    """

    def __init__(
        self,
        num_bins: int,
        bin_size: float,
        label_sigma: float,
        mask_factor: float,
        initial_step_length: float,
        initial_regularization: float,
    ) -> None:
        super().__init__()
        self.bin_size = bin_size
        self.log_step_length = nn.Parameter(torch.full((1,), math.log(initial_step_length)))
        self.filter_reg = nn.Parameter(torch.full((1,), float(initial_regularization)))
        distance = torch.arange(num_bins) * bin_size
        label = torch.exp(-0.5 * (distance / label_sigma) ** 2)
        self.label_map_predictor = RadialFunction(label - label.min())
        self.target_mask_predictor = nn.Sequential(
            RadialFunction(mask_factor * torch.tanh(2.0 - distance)), nn.Sigmoid()
        )
        self.spatial_weight_predictor = RadialFunction(torch.ones(num_bins))

    def target_maps(self, boxes: Tensor, filter_size: int, output_size: tuple[int, int]) -> TargetMaps:
        """What the scores should be: boxes (n, s, 4) xywh in pixels, output_size (H, W) in cells."""
        center_x, center_y = ((boxes[..., :2] + boxes[..., 2:] / 2) / FEATURE_STRIDE).unbind(-1)
        # Scores of an odd filter lie on cell centres, those of an even one on cell corners.
        middle = (filter_size % 2) / 2.0
        rows = torch.arange(output_size[0], dtype=boxes.dtype, device=boxes.device)
        columns = torch.arange(output_size[1], dtype=boxes.dtype, device=boxes.device)
        dy = rows[:, None] - (center_y - middle)[..., None, None]
        dx = columns - (center_x - middle)[..., None, None]
        distance = torch.sqrt(dy * dy + dx * dx) / self.bin_size
        return TargetMaps(
            self.label_map_predictor(distance),
            self.target_mask_predictor(distance),
            self.spatial_weight_predictor(distance),
        )

    def forward(
        self,
        target_filter: Tensor,
        features: Tensor,
        boxes: Tensor,
        num_iterations: int,
        sample_weights: Tensor | None = None,
    ) -> Unrolled:
        """See TargetClassifier.unroll."""
        features, boxes = _with_sequences(features, boxes)
        num_samples, num_sequences = boxes.shape[:2]
        filter_size = target_filter.shape[-1]
        correlation = Correlation(features, filter_size)
        label, mask, weight = self.target_maps(boxes, filter_size, correlation.output_size)
        if sample_weights is None:
            weight = weight * math.sqrt(1.0 / num_samples)
        else:
            weight = weight * sample_weights.sqrt().reshape(num_samples, -1, 1, 1)
        regularization = self.filter_reg.square().clamp(min=MINIMAL_REGULARIZATION**2)
        step_length = self.log_step_length.exp()

        scores = correlation.scores(target_filter)
        filters, losses = [target_filter], []
        for _ in range(num_iterations):
            slope = 0.5 * ((1.0 - mask) * scores.detach().sign() + (1.0 + mask))
            residual = weight * (_activate(scores, mask) - label)
            losses.append(_loss(residual, regularization, target_filter))
            gradient = correlation.transposed(weight * slope * residual) + regularization * target_filter
            change = correlation.scores(gradient)
            curvature = (weight * slope * change).square().sum(dim=(0, 2, 3))
            energy = gradient.square().sum(dim=(1, 2, 3))
            step = step_length * energy / (curvature + regularization * energy).clamp(min=1e-8)
            target_filter = target_filter - step[:, None, None, None] * gradient
            # Scores are linear in the filter: following them saves one of three passes over the samples.
            scores = scores - step[:, None, None] * change
            filters.append(target_filter)
        losses.append(_loss(weight * (_activate(scores, mask) - label), regularization, target_filter))
        return Unrolled(filters, losses)


class TargetClassifier(nn.Module):
    """Scores how much every position looks like the centre of the target.

    in_channels: of the backbone features; channels: of the classification features; filter_size: cells.
    features: what makes classification features of backbone features, up to their scale, in place of one convolution.
    """

    def __init__(
        self, in_channels: int, channels: int, filter_size: int, optimizer: FilterOptimizer,
        features: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.filter_initializer = FilterInitializer(channels, filter_size)
        self.filter_optimizer = optimizer
        # One over the root of the filter's length, so that scores do not grow with it.
        norm_scale = math.sqrt(1.0 / (channels * filter_size * filter_size))
        if features is not None:
            self.feature_extractor = nn.Sequential(features, InstanceL2Norm(norm_scale))
            return
        convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.feature_extractor = nn.Sequential(convolution, InstanceL2Norm(norm_scale))

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


def _activate(scores: Tensor, mask: Tensor) -> Tensor:
    """Identity on the target (mask 1), rectifier in the background, where only false alarms count (eq. 2)."""
    return 0.5 * ((1.0 - mask) * scores.abs() + (1.0 + mask) * scores)


def _loss(residual: Tensor, regularization: Tensor, target_filter: Tensor) -> Tensor:
    total = residual.square().sum() + regularization * target_filter.square().sum()
    return (total / len(target_filter)).squeeze()


def _with_sequences(features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (features[:, None], boxes[:, None]) if features.dim() == 4 else (features, boxes)
