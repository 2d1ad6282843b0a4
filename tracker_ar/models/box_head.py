"""The box branch of Alpha-Refine's base version: how to move and scale the box that was given.

"Alpha-Refine" (Yan et al. 2020, arXiv 2007.02024).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tracker_ar.models.corner_head import conv_norm_relu


class BoxHead(nn.Module):
    """Two 1 x 1 convolutions, the mean over the map, one linear layer.

    relu: a ReLU after the linear layer. The published keys are the same with and without; with it, a box can
    only grow and move to the lower right.
    """

    def __init__(self, channels: int, relu: bool) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(channels, channels, kernel=1)
        self.conv2 = conv_norm_relu(channels, channels, kernel=1)
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU() if relu else nn.Identity())

    def forward(self, fused: Tensor) -> Tensor:
        """The neck's output (N, C, h, w) -> (N, 4): shift of the centre relative to the target's size, and logarithms
        of the growth, x before y."""
        return self.fc(self.conv2(self.conv1(fused)).mean(dim=(2, 3)))


def boxes_from_deltas(deltas: Tensor, size: float = 256.0) -> Tensor:
    """What `BoxHead` says, (N, 4), as boxes (N, 4) x, y, w, h in pixels of a crop of this side.

    The target that was given lies in the middle of the crop and takes half of it.
    """
    target = size / 2
    extent = target * torch.exp(deltas[:, 2:])
    centre = size / 2 + target * deltas[:, :2]
    return torch.cat((centre - extent / 2, extent), dim=1)
