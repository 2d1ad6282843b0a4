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
        shallow = F.avg_pool2d(self.first_layer(images), 2)
        deep = self(images, ("layer3",))["layer3"]
        return with_unit_power(shallow), with_unit_power(deep)

    def first_layer(self, images: Tensor) -> Tensor:
        """VGG-M's, with its local response normalisation over five channels: (N, 96, S / 2, S / 2)."""
        maps = convolve(self.vggmconv1, None, images)
        return F.local_response_norm(maps, 5, alpha=0.0005, beta=0.75, k=2.0)


def with_unit_power(maps: Tensor) -> Tensor:
    """Samples (N, C, h, w), each divided by its root mean square."""
    power = maps.square().mean(dim=(1, 2, 3), keepdim=True)
    return maps / torch.sqrt(power + 1e-10)
