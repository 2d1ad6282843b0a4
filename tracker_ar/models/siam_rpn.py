"""SiamRPN++ with ResNet-50 ("SiamRPN++: Evolution of Siamese Visual Tracking with Very Deep Networks", Li et al. 2019).

Keys are those of PySOT's `siamrpn_r50_l234_dwxcorr`. Images are 0..255, not normalised, in the order of channels that
the weights were trained on: blue, green, red.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracker_ar.models.resnet import Bottleneck
from tracker_ar.ops.convolution import convolve

ANCHORS_PER_CELL = 5
WIDTH = 256  # channels of the neck and the heads
TEMPLATE_CELLS = 7  # of the template's feature map only the middle is compared
# Blocks, channels, stride, dilation of the four stages (section 3.2: strides of the last two are traded for dilation).
STAGES = ((3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 1, 2), (3, 512, 1, 4))

Kernels = tuple[Tensor, ...]  # per level one for the classes and one for the boxes, (N, 256, 5, 5)


class AtrousBottleneck(Bottleneck):
    """A bottleneck whose 3 x 3 convolution is dilated, and unpadded where it has a stride.

    The first block of a stage is dilated half as far, and its shortcut is a 3 x 3 convolution of the same kind, in the
    first stage 1 x 1.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__(in_channels, channels, stride)
        first = self.downsample is not None
        reach = max(dilation // 2, 1) if first else dilation
        padding = 0 if stride > 1 else reach
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding, reach, bias=False)
        if first and (stride > 1 or dilation > 1):
            out_channels = channels * self.expansion
            shortcut = nn.Conv2d(in_channels, out_channels, 3, stride, padding, reach, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))


class AtrousResNet(nn.Module):
    """ResNet-50 whose last three stages all have stride 8, with an unpadded stem."""

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = 64
        self.channels: list[int] = []
        for index, (depth, channels, stride, dilation) in enumerate(STAGES, start=1):
            stage = nn.Sequential()
            for position in range(depth):
                stage.append(AtrousBottleneck(in_channels, channels, 1 if position else stride, dilation))
                in_channels = channels * AtrousBottleneck.expansion
            self.add_module(f"layer{index}", stage)
            self.channels.append(in_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, S, S) -> the features of stages 2, 3, 4, (N, 512 | 1024 | 2048, s, s); s is 31 for 255, 15 for 127."""
        x = self.layer1(self.maxpool(convolve(self.conv1, self.bn1, images)))
        features = []
        for stage in (self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


class Adjustment(nn.Module):
    """Reduces the channels of one level."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(nn.Conv2d(in_channels, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, s, s) -> (N, 256, s, s)."""
        return self.downsample(x)


class Neck(nn.Module):
    """An adjustment for every level."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        for level, in_channels in enumerate(channels, start=2):
            self.add_module(f"downsample{level}", Adjustment(in_channels))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Every level with 256 channels."""
        return [adjust(level) for adjust, level in zip(self.children(), features, strict=True)]


class CorrelationHead(nn.Module):
    """Depth-wise correlation of template and search region (section 3.3), and what it says of every anchor."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv_kernel = _unit(3)
        self.conv_search = _unit(3)
        self.head = nn.Sequential(*_unit(1), nn.Conv2d(WIDTH, out_channels, 1))

    def forward(self, kernel: Tensor, search: Tensor) -> Tensor:
        """kernel: (N, 256, 5, 5), from `conv_kernel`; search: (N, 256, 31, 31). Returns (N, out_channels, 25, 25)."""
        return self.head(depthwise_correlation(self.conv_search(search), kernel))


class RegionProposal(nn.Module):
    """The two heads of one level."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = CorrelationHead(2 * ANCHORS_PER_CELL)
        self.loc = CorrelationHead(4 * ANCHORS_PER_CELL)


class RegionProposals(nn.Module):
    """The heads of all levels, mixed by learned weights (section 3.2, layer-wise aggregation)."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        for level in range(2, 2 + levels):
            self.add_module(f"rpn{level}", RegionProposal())
        self.cls_weight = nn.Parameter(torch.ones(levels, dtype=torch.float32))
        self.loc_weight = nn.Parameter(torch.ones(levels, dtype=torch.float32))

    def kernels(self, template: Sequence[Tensor]) -> Kernels:
        """template: per level (N, 256, 7, 7)."""
        levels = zip(self._levels(), template, strict=True)
        return tuple(head.conv_kernel(level) for rpn, level in levels for head in (rpn.cls, rpn.loc))

    def forward(self, kernels: Kernels, search: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """search: per level (N, 256, 31, 31). Returns (N, 10, 25, 25) and (N, 20, 25, 25)."""
        levels = list(zip(self._levels(), search, strict=True))
        of_class = [rpn.cls(kernel, level) for kernel, (rpn, level) in zip(kernels[::2], levels, strict=True)]
        of_box = [rpn.loc(kernel, level) for kernel, (rpn, level) in zip(kernels[1::2], levels, strict=True)]
        return _mixed(of_class, self.cls_weight), _mixed(of_box, self.loc_weight)

    def _levels(self) -> Iterable[RegionProposal]:
        return cast("Iterable[RegionProposal]", self.children())


class SiamRPN(nn.Module):
    """The network: what a template becomes, and what it finds in a search region."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = AtrousResNet()
        self.neck = Neck(self.backbone.channels[1:])
        self.rpn_head = RegionProposals(len(self.backbone.channels) - 1)

    def template(self, crop: Tensor) -> Kernels:
        """crop: (N, 3, 127, 127) float32 BGR 0..255."""
        features = self.neck(self.backbone(crop))
        margin = (features[0].shape[3] - TEMPLATE_CELLS) // 2
        middle = slice(margin, margin + TEMPLATE_CELLS)
        return self.rpn_head.kernels([level[:, :, middle, middle] for level in features])

    def search(self, kernels: Kernels, crop: Tensor) -> tuple[Tensor, Tensor]:
        """crop: (N, 3, 255, 255) float32 BGR 0..255.

        Returns class logits, (N, 10, 25, 25), of the background for five anchors, then of the target, and box offsets,
        (N, 20, 25, 25), five each of x, y, width and height.
        """
        return self.rpn_head(kernels, self.neck(self.backbone(crop)))


def depthwise_correlation(search: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of (N, C, H, W) with its own kernel of (N, C, h, w): (N, C, H - h + 1, W - w + 1)."""
    groups = kernel.shape[0] * kernel.shape[1]
    maps = search.reshape(1, groups, *search.shape[2:])
    result = F.conv2d(maps, kernel.reshape(groups, 1, *kernel.shape[2:]), groups=groups)
    return result.view(*kernel.shape[:2], *result.shape[2:])


def _mixed(levels: Sequence[Tensor], weights: Tensor) -> Tensor:
    return (torch.stack(tuple(levels)) * F.softmax(weights, 0).view(-1, 1, 1, 1, 1)).sum(0)


def _unit(kernel_size: int) -> nn.Sequential:
    convolution = nn.Conv2d(WIDTH, WIDTH, kernel_size, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True))
