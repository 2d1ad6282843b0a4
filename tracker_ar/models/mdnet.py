"""RT-MDNet ("Real-Time MDNet", Jung et al. 2018): convolutions over a whole scene, and layers that tell the target from
what is around it, learned anew for every target.

Keys are those of the authors' model; the published file has the shared part of it, without the last layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracker_ar.ops.roi_align import roi_max_pool

RECEPTIVE_FIELD = 75  # pixels of the scene that one cell of the features sees
FEATURE_SCALE = 1 / 8  # cells per pixel
POOLED_SIDE = 3
FEATURES = 512 * POOLED_SIDE**2
SMALLEST_SCENE = 83  # pixels; gives two cells, between which one can interpolate


class SceneConvolution(nn.Conv2d):
    """A convolution that stays as it is when the network is prepared for tracking: every scene has its own size, so
    there is nothing to lay out for one."""


class ResponseNormalization(nn.Module):
    """Divides every value by a power of itself: local response normalisation over one cell and one channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square() * 1e-4 + 2).pow(0.75)


class Layers(NamedTuple):
    """Weights (out, in) and biases of the three layers that are learned online, float32."""

    fc4: Tensor
    fc4_bias: Tensor
    fc5: Tensor
    fc5_bias: Tensor
    fc6: Tensor
    fc6_bias: Tensor


class MDNet(nn.Module):
    """The network. The last layer, which no published file has, begins with uniform weights, always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(OrderedDict(
            conv1=nn.Sequential(SceneConvolution(3, 96, 7, stride=2), nn.ReLU(), ResponseNormalization(),
                                nn.MaxPool2d(3, stride=2)),
            conv2=nn.Sequential(SceneConvolution(96, 256, 5, stride=2), nn.ReLU(), ResponseNormalization()),
            conv3=nn.Sequential(SceneConvolution(256, 512, 3, dilation=3), nn.ReLU()),
            fc4=nn.Sequential(nn.Linear(FEATURES, 512), nn.ReLU()),
            fc5=nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 512), nn.ReLU()),
        ))
        last = nn.Linear(512, 2)
        generator = torch.Generator().manual_seed(0)
        for parameter in last.parameters():
            nn.init.uniform_(parameter, -(512**-0.5), 512**-0.5, generator=generator)
        self.branches = nn.ModuleList([nn.Sequential(nn.Dropout(0.5), last)])

    def scene_features(self, scenes: Tensor) -> Tensor:
        """(N, 3, H, W) float32 RGB -128..127, sides of at least `SMALLEST_SCENE` -> (N, 512, h, w)."""
        for name in ("conv1", "conv2", "conv3"):
            scenes = self.layers.get_submodule(name)(scenes)
        return scenes

    def initial_layers(self) -> Layers:
        """A copy of the layers that are learned online."""
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        return Layers(*(tensor.detach().clone() for layer in linear for tensor in (layer.weight, layer.bias)))


def pooled_features(features: Tensor, boxes: Tensor, owners: Tensor | None = None) -> Tensor:
    """features: of `MDNet.scene_features`; boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the scene, less the
    receptive field; owners: see `roi_samples`. Returns (N, 4608)."""
    return roi_max_pool(features, boxes, POOLED_SIDE, FEATURE_SCALE, owners).flatten(1)


def scores(layers: Layers, pooled: Tensor) -> Tensor:
    """(N, 4608) -> (N, 2) logits of background and target."""
    hidden = F.linear(pooled, layers.fc4, layers.fc4_bias).relu_()
    hidden = F.linear(hidden, layers.fc5, layers.fc5_bias).relu_()
    return F.linear(hidden, layers.fc6, layers.fc6_bias)


def gradient(layers: Layers, pooled: Tensor, labels: Tensor, dropout: Sequence[Tensor]) -> Layers:
    """Of the mean cross-entropy, by hand: nothing needs to be recorded for it, and it may run in inference mode.

    pooled: (N, 4608); labels: (N,) int64, 1 for the target; dropout: before fc5 and before fc6, (N, 512), 0 or 2.
    """
    h4 = F.linear(pooled, layers.fc4, layers.fc4_bias).relu_()
    d4 = h4 * dropout[0]
    h5 = F.linear(d4, layers.fc5, layers.fc5_bias).relu_()
    d5 = h5 * dropout[1]
    g6 = (F.softmax(F.linear(d5, layers.fc6, layers.fc6_bias), 1) - F.one_hot(labels, 2)) / len(labels)
    g5 = (g6 @ layers.fc6) * dropout[1] * (h5 > 0)
    g4 = (g5 @ layers.fc5) * dropout[0] * (h4 > 0)
    return Layers(g4.T @ pooled, g4.sum(0), g5.T @ d4, g5.sum(0), g6.T @ d5, g6.sum(0))
