"""The base tracker's network of the profile `lite`: an ImageNet backbone and the target classifier of DiMP.

It finds the target; how large the target is it leaves to the refiner. "Learning Discriminative Model Prediction for
Tracking" (Bhat et al. 2019) for the classifier, EfficientNet-Lite0 for the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracker_ar.models.efficientnet_lite import EfficientNetLite
from tracker_ar.models.target_filter import FilterOptimizer, TargetClassifier

BACKBONE_LAYERS = ("layer2", "layer3")


@dataclass(frozen=True)
class LiteBaseConfig:
    """Architecture of the base tracker's network of `lite`.

    channels: of the classification features; hidden: of what bends them, 0 for features that are linear in the
    backbone's. label_sigma and bin_size are in feature cells (stride 16); train_iterations is how many steps of the
    filter optimiser are unrolled in training.
    """

    channels: int
    hidden: int
    label_sigma: float
    filter_size: int = 4
    num_distance_bins: int = 100
    bin_size: float = 0.1
    mask_factor: float = 3.0
    initial_step_length: float = 0.9
    initial_regularization: float = 0.1
    minimal_regularization: float = 1e-3
    train_iterations: int = 5


# The target is 1 / 4.375 of the 14 cells of the search region.
LITE_BASE = LiteBaseConfig(channels=160, hidden=320, label_sigma=0.25 / 4.375 * 14)


class Embedding(nn.Module):
    """Classification features of the backbone's maps at strides 8 and 16, up to their scale: a linear part, and one
    with a receptive field of 3 x 3 cells (1 x 1, depthwise 3 x 3, 1 x 1)."""

    def __init__(self, in_channels: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.linear = nn.Conv2d(in_channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="linear")
        self.bent: nn.Module | None = None
        if hidden:
            self.bent = nn.Sequential(
                nn.Conv2d(in_channels, hidden, 1, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, channels, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w), as from `stacked` -> (N, channels, h, w)."""
        x = self.norm(x)
        linear = self.linear(x)
        return linear if self.bent is None else linear + self.bent(x)


def stacked(backbone: Mapping[str, Tensor]) -> Tensor:
    """Both of the backbone's maps as one at stride 16, (N, C, h, w): four cells of the finer one over each other."""
    return torch.cat((F.pixel_unshuffle(backbone["layer2"], 2), backbone["layer3"]), dim=1)


class LiteBase(nn.Module):
    """Backbone and target classifier. Images are ImageNet-normalised search regions, sides multiples of 16."""

    def __init__(self, config: LiteBaseConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = EfficientNetLite(depth=3)
        channels = self.feature_extractor.channels
        self.stacked_channels = 4 * channels["layer2"] + channels["layer3"]
        optimizer = FilterOptimizer(
            config.num_distance_bins,
            config.bin_size,
            config.label_sigma,
            config.mask_factor,
            config.initial_step_length,
            config.initial_regularization,
            config.minimal_regularization,
        )
        embedding = Embedding(self.stacked_channels, config.hidden, config.channels)
        self.classifier = TargetClassifier(self.stacked_channels, config.channels, config.filter_size, optimizer)
        # Its own is one convolution.
        self.classifier.feature_extractor = nn.Sequential(embedding, self.classifier.feature_extractor[-1])

    def extract_backbone(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 16, W / 16), see `stacked`."""
        return stacked(self.feature_extractor(images, BACKBONE_LAYERS))

    def classification_features(self, backbone: Tensor) -> Tensor:
        """What the target filter sees: (N, channels, H / 16, W / 16)."""
        return self.classifier.feature_extractor(backbone)


def build_lite_base(config: LiteBaseConfig = LITE_BASE) -> LiteBase:
    """A base-tracker network with fresh weights, in training mode."""
    return LiteBase(config)
