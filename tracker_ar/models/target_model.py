"""A discriminative target model of the mask refiner, learned online in closed form.

"Learning Fast and Robust Target Models for Video Object Segmentation" (Robinson et al. 2020) learns a small linear
model on backbone features by Gauss-Newton steps: its score says which places look like the target's inside, and the
mask head makes a mask of it. With a squared error and a linear model the optimum has a closed form, ridge regression,
which is differentiable, so that the features can be trained for it ("Meta-learning with Differentiable Closed-Form
Solvers", Bertinetto et al. 2019). The sums that it needs add up over frames: the memory never grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 4
STAGES = ("layer1", "layer2", "layer3")  # strides 4, 8, 16


@dataclass(frozen=True)
class Evidence:
    """What ridge regression needs of the frames seen: gram (N, D, D) and moment (N, D), weighted means over cells."""

    gram: Tensor
    moment: Tensor

    def mixed(self, other: Evidence, share: float) -> Evidence:
        """With `share` (0 to 1) of the other one."""
        return Evidence(torch.lerp(self.gram, other.gram, share), torch.lerp(self.moment, other.moment, share))


class TargetModel(nn.Module):
    """Scores every cell of stride 4: about 1 inside the target, -1 outside, 0 undecided.

    in_channels: of the backbone's stages; channels: how many of each stage enter the regression. While tracking a frame
    costs the same for any number of them: only learning takes longer.
    """

    def __init__(self, in_channels: Mapping[str, int], channels: Mapping[str, int]) -> None:
        super().__init__()
        self.embed = nn.ModuleDict({
            stage: nn.Conv2d(in_channels[stage], channels[stage], 1, bias=False) for stage in STAGES
        })
        self.log_regularization = nn.Parameter(torch.full((1,), math.log(0.01)))
        for convolution in self.embed.values():
            assert isinstance(convolution, nn.Conv2d)
            nn.init.normal_(convolution.weight, std=1.0 / math.sqrt(convolution.in_channels))

    def evidence(self, stages: Mapping[str, Tensor], masks: Tensor) -> Evidence:
        """One frame. stages {name: (N, C, h, w)} of S x S crops; masks (N, 1, S, S), 0 to 1: how much of it is target.

        Target and background count the same, however large they are. In training mode every second cell each way
        serves.
        """
        finest = stages[STAGES[0]].shape[-2:]
        maps = [_enlarged(_precise(self.embed[stage](stages[stage])), finest) for stage in STAGES]
        step = 2 if self.training else 1
        cells = torch.cat((*maps, torch.ones_like(maps[0][:, :1])), dim=1)[..., ::step, ::step].flatten(2)
        coverage = F.avg_pool2d(_precise(masks), STRIDE)[..., ::step, ::step].flatten(2)
        shares = [part / part.sum(dim=2, keepdim=True).clamp(min=1e-3) for part in (coverage, 1.0 - coverage)]
        target, background = (0.5 * share for share in shares)
        with torch.autocast(cells.device.type, enabled=False):
            gram = (cells * (target + background)) @ cells.transpose(1, 2)
        return Evidence(gram, (cells * (target - background)).sum(dim=2))

    def solve(self, evidence: Evidence) -> Tensor:
        """The regression's weights (N, D): a value per embedded channel and a constant at the end."""
        size = evidence.gram.shape[-1]
        ridge = self.log_regularization.exp() * torch.eye(size, device=evidence.gram.device, dtype=evidence.gram.dtype)
        return torch.linalg.solve(evidence.gram + ridge, evidence.moment[..., None])[..., 0]

    def score(self, weights: Tensor, stages: Mapping[str, Tensor]) -> Tensor:
        """weights (N or 1, D), stages of N search crops -> (N, 1, S / 4, S / 4).

        Everything is linear: each stage is first reduced to one map and then enlarged.
        """
        finest = stages[STAGES[0]].shape[-2:]
        parts = weights.split([*(self.embed[stage].out_channels for stage in STAGES), 1], dim=1)
        total = parts[-1][:, :, None, None]
        for stage, part in zip(STAGES, parts):
            features = _precise(stages[stage])
            with torch.autocast(features.device.type, enabled=False):
                combined = part @ cast("nn.Conv2d", self.embed[stage]).weight.flatten(1)
                scored = (combined[:, None] @ features.flatten(2)).unflatten(2, features.shape[-2:])
            total = total + _enlarged(scored, finest)
        return total


def _precise(maps: Tensor) -> Tensor:
    """At least single precision: sums over thousands of cells do not survive half precision."""
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


def _enlarged(maps: Tensor, size: torch.Size) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
