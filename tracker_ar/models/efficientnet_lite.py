"""EfficientNet-Lite0 that hands out the features of every stage, as `tracker_ar.models.resnet.ResNet` does.

The family of "EfficientNet" (Tan and Le 2019) for processors without much memory bandwidth: inverted bottlenecks
("MobileNetV2", Sandler et al. 2018) without squeeze-and-excitation, with ReLU6.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tracker_ar.ops.convolution import PackedConvolution

# Of the networks that the published weights were trained with.
_NORM_EPS, _NORM_MOMENTUM = 1e-3, 0.01
STEM_CHANNELS = 32
EXPANSION = 6
# Per stage its groups of blocks: kernel, stride of the first block, channels, number of blocks. The first group of all
# does not expand.
STAGES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "layer1": ((3, 1, 16, 1), (3, 2, 24, 2)),
    "layer2": ((5, 2, 40, 2),),
    "layer3": ((3, 2, 80, 3), (5, 1, 112, 3)),
    "layer4": ((5, 2, 192, 4), (3, 1, 320, 1)),
}


def _unit(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, _norm(channels), nn.ReLU6(inplace=True))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_NORM_EPS, momentum=_NORM_MOMENTUM)


class InvertedBottleneck(nn.Module):
    """1 x 1 to more channels, depthwise k x k with the stride, 1 x 1 to few; a shortcut where shapes allow it."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = _unit(in_channels, hidden, 1) if expansion > 1 else None
        self.depthwise = _unit(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), _norm(channels))
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H / stride, W / stride)."""
        hidden = self.depthwise(x if self.expand is None else self.expand(x))
        last = self.project[0]
        if self.has_shortcut and isinstance(last, PackedConvolution):
            return last(hidden, x)
        result = self.project(hidden)
        return result.add_(x) if self.has_shortcut else result


class EfficientNetLite(nn.Module):
    """A stem of stride 2 and up to four stages; every stage halves the resolution. depth: how many stages there are.

    The published networks pad what has an even size by one more at the right and bottom than at the left and top, and
    their features fall apart where that is changed. Padding as torch does it, the same on all sides, leaves out the
    last row and column and so pads more at the left and top: the mirror image. The network therefore works on images
    turned upside down, with all kernels turned by half a turn. (Left and right do not matter to it: it was trained
    with mirrored images.) Sides must be multiples of the largest stride.
    """

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.conv1 = _unit(3, STEM_CHANNELS, 3, stride=2)
        self.channels = {"conv1": STEM_CHANNELS}
        self.stages = tuple(STAGES)[:depth]
        in_channels = STEM_CHANNELS
        for name in self.stages:
            stage = nn.Sequential()
            for kernel, first_stride, channels, blocks in STAGES[name]:
                for position in range(blocks):
                    stride = first_stride if position == 0 else 1
                    expansion = 1 if in_channels == STEM_CHANNELS else EXPANSION
                    stage.append(InvertedBottleneck(in_channels, channels, kernel, stride, expansion))
                    in_channels = channels
            self.add_module(name, stage)
            self.channels[name] = in_channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of the named layers; nothing beyond the deepest of them is computed.

        images: (N, 3, H, W), ImageNet-normalised. Names: conv1 (stride 2), layer1 (4), layer2 (8), layer3 (16),
        layer4 (32).
        """
        return self._run(self.conv1(images.flip(2)), "conv1", layers)

    def go_on(self, features: Tensor, name: str, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of the named deeper layers from those of the layer `name`."""
        return self._run(features.flip(2), name, layers)

    def _run(self, x: Tensor, name: str, layers: Sequence[str]) -> dict[str, Tensor]:
        features = {name: x}
        first = 0 if name == "conv1" else self.stages.index(name) + 1
        depth = max((index + 1 for index, stage in enumerate(self.stages) if stage in layers), default=0)
        for stage in self.stages[first:depth]:
            x = getattr(self, stage)(x)
            features[stage] = x
        return {wanted: features[wanted].flip(2) for wanted in layers}
