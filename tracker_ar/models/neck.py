"""The neck of Alpha-Refine: how the reference target and the search region meet.

"Alpha-Refine: Boosting Tracking Performance by Precise Bounding Box Estimation" (Yan et al. 2021):
pixel-wise correlation keeps where each part of the target responds; a squeeze-and-excitation and, in some versions,
a non-local block then weigh channels and positions.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracker_ar.ops.prroi_pool import prroi_pool_boxes
from tracker_ar.trace import note

MASK_STRIDE = 4


class ChannelAttention(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same, every channel scaled by its gate in (0, 1)."""
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(squeezed))))


class NonLocalBlock(nn.Module):
    """Embedded-Gaussian non-local block, keys and values at half size (Wang et al. 2018, eq. 4 and 6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        norm = nn.BatchNorm2d(channels)
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), norm)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        # Starts as the identity, as the paper advises, and learns how much context to add.
        nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        queries = self.theta(x).flatten(2)
        keys = self.phi(x).flatten(2)
        values = self.g(x).flatten(2)
        attention = torch.softmax(queries.transpose(1, 2) @ keys, dim=-1)
        context = values @ attention.transpose(1, 2)
        return x + self.W(context.unflatten(2, x.shape[2:]))


class CorrelationNeck(nn.Module):
    """Reference kernel, pixel-wise correlation, channel attention, non-local block.

    pool_size: the reference is pool_size x pool_size cells, each of which becomes one correlation channel.
    stride: image pixels per feature cell. pool_box: the cells are pooled from the target's box; without, they are the
    middle half of the reference's map, whatever the box. post_correlation: three 1 x 1 convolutions after the
    correlation. non_local: whether there is that block. embedding: None: features are correlated as they are, which
    suits rectified ones; or (channels of the features, channels to correlate): they are projected first, and directions
    alone count, so that correlations lie within -1 and 1. Without further arguments as in the VOT2020 entry.
    """

    def __init__(
        self, pool_size: int, stride: int = 16, pool_box: bool = True, post_correlation: bool = False,
        non_local: bool = True, embedding: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.pool_size = pool_size
        self.stride = stride
        self.pool_box = pool_box
        self.embed: nn.Sequential | None = None
        if embedding is not None:
            self.embed = nn.Sequential(nn.Conv2d(*embedding, 1, bias=False), nn.BatchNorm2d(embedding[1]))
        cells = pool_size * pool_size
        self.post_corr = _mixing(cells) if post_correlation else nn.Identity()
        self.channel_attention = ChannelAttention(cells)
        self.spatial_attention = NonLocalBlock(cells) if non_local else nn.Identity()
        # Correlations sum hundreds of products of rectified features. Training starts with one small gate
        # for all channels, because gates drawn at random from values this large would be saturated for good.
        nn.init.normal_(self.channel_attention.fc1.weight, std=0.01)
        nn.init.zeros_(self.channel_attention.fc2.weight)
        nn.init.constant_(cast("Tensor", self.channel_attention.fc2.bias), -4.0 if embedding is None else 0.0)

    def embedded(self, features: Tensor) -> Tensor:
        """What is correlated of features (N, C, h, w): those themselves, or directions (N, E, h, w)."""
        return features if self.embed is None else F.normalize(self.embed(features), dim=1)

    def reference_kernel(self, features: Tensor, boxes: Tensor, masks: Tensor | None = None) -> Tensor:
        """Pool one target per image: features (N, C, h, w), boxes (N, 4) xywh in image pixels -> (N, C, p, p).

        masks: (N, 1, S, S), 1 on the target; each cell is then weighted by how much of it the target covers, so that
        what else is in the box does not respond.
        """
        if not self.pool_box:
            top, left = (side // 4 for side in features.shape[2:])
            return features[:, :, top : top + self.pool_size, left : left + self.pool_size]
        corners = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)[:, None]
        size = (self.pool_size, self.pool_size)
        kernel = prroi_pool_boxes(self.embedded(features), corners, size, 1.0 / self.stride)[:, 0]
        if self.embed is not None:
            kernel = F.normalize(kernel, dim=1)
        if masks is None:
            return kernel
        coarse = F.avg_pool2d(masks, MASK_STRIDE)
        return kernel * prroi_pool_boxes(coarse, corners, size, 1.0 / MASK_STRIDE)[:, 0]

    def correlate(self, kernel: Tensor, features: Tensor) -> Tensor:
        """Inner products of target cells and embedded search cells: (N, p * p, h, w), target cells row by row."""
        target_cells = kernel.flatten(2).transpose(1, 2)
        responses = (target_cells @ features.flatten(2)).unflatten(2, features.shape[2:])
        note("correlation", responses)
        return responses

    def forward(self, kernel: Tensor, embedded: Tensor) -> Tensor:
        """kernel (N or 1, C, p, p), embedded search features (N, C, h, w) -> fused (N, p * p, h, w)."""
        correlated = self.post_corr(self.correlate(kernel, embedded))
        return self.spatial_attention(self.channel_attention(correlated))


def _mixing(channels: int) -> nn.Sequential:
    """1 x 1 convolutions over twice as many channels, with batch norms and rectifiers."""
    widths = (channels, 2 * channels, 2 * channels, channels)
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
