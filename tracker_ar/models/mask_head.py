"""The mask head: the segmentation network of FRTM, fed with the fused correlation instead of a score map.

"Learning Fast and Robust Target Models for Video Object Segmentation" (Robinson et al. 2020): from the
deepest features to the finest, each level encodes features and scores (TSE), refines (RRB), merges with the
level below under channel attention (CAB) and refines again. Levels carry the authors' names: layer5 is the
last ResNet stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracker_ar.ops.convolution import convolve, convolve_part
from tracker_ar.ops.resizing import convolve_doubled, convolve_enlarged, double


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _conv3x3(in_channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


class TargetScoreEncoder(nn.Module):
    """TSE: compress the backbone features and mix them with the scores."""

    def __init__(self, feature_channels: int, score_channels: int, channels: int, hidden: int) -> None:
        super().__init__()
        compressed = nn.Conv2d(feature_channels, channels, 1)
        self.reduce = nn.Sequential(compressed, nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.transform = nn.Sequential(
            _conv3x3(channels + score_channels, hidden), nn.ReLU(),
            _conv3x3(hidden, hidden), nn.ReLU(),
            _conv3x3(hidden, channels), nn.ReLU(),
        )

    def forward(self, features: Tensor, scores: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the encoding and the compressed features, both (N, channels, h, w)."""
        reduced = self.reduce(features)
        return self.transform[2:](self._mixed(reduced, scores)), reduced

    def _mixed(self, reduced: Tensor, scores: Sequence[Tensor]) -> Tensor:
        """The first convolution and ReLU of `transform`, of compressed features beside the scores at their resolution.
        Where scores must be enlarged, the inputs are convolved one by one."""
        mix, size = cast("nn.Conv2d", self.transform[0]), reduced.shape[-2:]
        if all(score.shape[-2] >= size[0] for score in scores):
            return F.relu(mix(torch.cat((reduced, *(_resize(score, size) for score in scores)), dim=1)))
        total: Tensor | None = None
        start = reduced.shape[1]
        for score in scores:
            channels = slice(start, start := start + score.shape[1])
            if score.shape[-2] < size[0]:
                enlarged = convolve_enlarged(score, mix.weight[:, channels], size)
                total = enlarged if total is None else total + enlarged
            else:
                total = convolve_part(mix, channels, _resize(score, size), total)
        return convolve_part(mix, slice(0, reduced.shape[1]), reduced, total, relu=True)


class ResidualRefinement(nn.Module):
    """RRB: a 1 x 1 convolution with a residual branch of two 3 x 3 ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(channels, channels, 1)
        inner = (_conv3x3(channels, channels), nn.BatchNorm2d(channels), nn.ReLU())
        self.bblock = nn.Sequential(*inner, _conv3x3(channels, channels, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> the same shape."""
        base = self.conv1x1(x)
        return convolve(cast("nn.Conv2d", self.bblock[-1]), None, self.bblock[:-1](base), base)


class ChannelMerge(nn.Module):
    """CAB: gate the finer level by what both levels hold, then add the coarser one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeeze = nn.Conv2d(2 * channels, channels, 1)
        self.convreluconv = nn.Sequential(squeeze, nn.ReLU(), nn.Conv2d(channels, channels, 1))

    def forward(self, deeper: Tensor, shallower: Tensor) -> Tensor:
        """deeper (N, C, any size), shallower (N, C, h, w) -> (N, C, h, w)."""
        summary = [x.mean(dim=(2, 3), keepdim=True) for x in (shallower, deeper)]
        gate = torch.sigmoid(self.convreluconv(torch.cat(summary, dim=1)))
        return shallower * gate + _resize(deeper, shallower.shape[-2:])


class MaskUpsampler(nn.Module):
    """Two bicubic doublings with a convolution after each: from a quarter of the resolution to logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, channels // 2)
        self.conv2 = _conv3x3(channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> logits (N, 1, 4 h, 4 w)."""
        return convolve_doubled(F.relu(self.conv1(double(x))), self.conv2)


class MaskHead(nn.Module):
    """Coarse to fine over the backbone's levels, then up to the size of the search image.

    score_channels: channels of the score maps in all; channels: width of the head; hidden: width inside the
    encoders;
    feature_channels: {level: channels}, deepest level first.
    """

    def __init__(
        self, score_channels: int, channels: int, hidden: int, feature_channels: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.levels = tuple(feature_channels)
        self.TSE = nn.ModuleDict({
            level: TargetScoreEncoder(width, score_channels, channels, hidden)
            for level, width in feature_channels.items()
        })
        self.RRB1 = nn.ModuleDict({level: ResidualRefinement(channels) for level in self.levels})
        self.CAB = nn.ModuleDict({level: ChannelMerge(channels) for level in self.levels})
        self.RRB2 = nn.ModuleDict({level: ResidualRefinement(channels) for level in self.levels})
        self.project = MaskUpsampler(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Undecided at first: logits near zero.
        nn.init.normal_(self.project.conv2.weight, std=0.01)

    def forward(self, scores: Sequence[Tensor], features: Mapping[str, Tensor]) -> Tensor:
        """scores: maps (N, C, any size) of score_channels in all; features {level: (N, C, h, w)} -> logits
        (N, 1, S, S)."""
        return self.project(self.decode(scores, features))

    def decode(self, scores: Sequence[Tensor], features: Mapping[str, Tensor]) -> Tensor:
        """The same up to what the logits are made of: (N, channels, S / 4, S / 4)."""
        coarse: Tensor | None = None
        for level in self.levels:
            encoded, reduced = self.TSE[level](features[level], scores)
            encoded = self.RRB1[level](encoded)
            # Below the deepest level there is nothing: its own mean takes the place of the coarser level.
            deeper = reduced.mean(dim=(2, 3), keepdim=True) if coarse is None else coarse
            coarse = self.RRB2[level](self.CAB[level](deeper, encoded))
        assert coarse is not None
        return coarse
