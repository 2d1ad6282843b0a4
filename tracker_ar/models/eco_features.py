"""The features of ECO (Danelljan et al. 2017) as pytracking computes them: a shallow and a deep layer.

The published file `resnet18_vggmconv1.pth` is a ResNet-18 with the first layer of VGG-M beside it; keys as there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracker_ar.models.resnet import ResNet
from tracker_ar.ops.convolution import convolve

FEATURE_CHANNELS = (96, 256)
FEATURE_STRIDES = (4, 16)  # pixels per cell


class ECOFeatures(ResNet):
    """ResNet-18 and the first convolution of VGG-M ("Return of the Devil in the Details", Chatfield et al. 2014)."""

    def __init__(self) -> None:
        super().__init__("basic", (2, 2, 2, 2), width=64, num_classes=1000)
        self.vggmconv1 = nn.Conv2d(3, FEATURE_CHANNELS[0], 7, stride=2, padding=3)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S), ImageNet-normalised -> (N, 96, S / 4, S / 4) and (N, 256, S / 16, S / 16).

        S is divisible by 16. Each sample has a root mean square of 1.
        """
        if images.device.type != "cpu":
            return self._extract(images)
        # One by one maps stay in the cache, and convolutions are prepared for single images.
        shallow, deep = zip(*(self._extract(image) for image in images.split(1)))
        return torch.cat(shallow), torch.cat(deep)

    def _extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shallow = F.avg_pool2d(self.first_layer(images), 2)
        deep = self(images, ("layer3",))["layer3"]
        return with_unit_power(shallow), with_unit_power(deep)

    def first_layer(self, images: Tensor) -> Tensor:
        """VGG-M's, with its local response normalisation: (N, 96, S / 2, S / 2)."""
        return normalized_by_neighbours(convolve(self.vggmconv1, None, images))


def normalized_by_neighbours(maps: Tensor) -> Tensor:
    """maps / (2 + 0.0005 m)^0.75, where m is the mean square of a channel and two to either side, (N, C, h, w).

    As torch's `local_response_norm`, which takes five times as long.
    """
    last = maps.permute(0, 2, 3, 1)
    squares = last.square()
    total = squares.clone()
    for apart in (1, 2):
        total[..., apart:] += squares[..., :-apart]
        total[..., :-apart] += squares[..., apart:]
    total.mul_(0.0005 / 5).add_(2.0)
    return (last * total.mul_(total.sqrt()).rsqrt_()).permute(0, 3, 1, 2)


def with_unit_power(maps: Tensor) -> Tensor:
    """Samples (N, C, h, w), each divided by its root mean square."""
    power = maps.square().mean(dim=(1, 2, 3), keepdim=True)
    return maps / torch.sqrt(power + 1e-10)
