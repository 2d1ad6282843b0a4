"""Residual networks ("Deep Residual Learning", He et al. 2016) that hand out the features of every stage."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tracker_ar.ops.convolution import convolve

STAGE_NAMES = ("layer1", "layer2", "layer3", "layer4")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return convolve(self.conv2, self.bn2, convolve(self.conv1, self.bn1, x), shortcut)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions around a shortcut; the 3 x 3 one carries the stride."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        hidden = convolve(self.conv2, self.bn2, convolve(self.conv1, self.bn1, x))
        return convolve(self.conv3, self.bn3, hidden, shortcut)


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """A stem of stride 4 and up to four stages; stages after the first halve the resolution and double the
    width.

    block: key of BLOCKS; depths: blocks per stage; width: channels of the stem.
    num_classes: size of the ImageNet classifier `fc`, which tracking never runs but the authors'
    checkpoints carry; None leaves it out.
    """

    def __init__(self, block: str, depths: Sequence[int], width: int, num_classes: int | None = None) -> None:
        super().__init__()
        make_block = BLOCKS[block]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = {"conv1": width}
        self.stages = STAGE_NAMES[: len(depths)]
        in_channels = width
        for index, (name, depth) in enumerate(zip(self.stages, depths)):
            channels = width * 2**index
            stage = nn.Sequential()
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(make_block(in_channels, channels, stride))
                in_channels = channels * make_block.expansion
            self.add_module(name, stage)
            self.channels[name] = in_channels
        if num_classes is not None:
            self.fc = nn.Linear(in_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of the named layers; nothing beyond the deepest of them is computed.

        images: (N, 3, H, W), ImageNet-normalised. Names: conv1 (stride 2, before max-pooling), layer1 (4),
        layer2 (8), layer3 (16), layer4 (32).
        """
        x = convolve(self.conv1, self.bn1, images)
        features = {"conv1": x}
        wanted = [name in layers for name in self.stages]
        depth = max((index + 1 for index, use in enumerate(wanted) if use), default=0)
        if depth:
            x = self.maxpool(x)
        for name in self.stages[:depth]:
            x = getattr(self, name)(x)
            features[name] = x
        return {name: features[name] for name in layers}
