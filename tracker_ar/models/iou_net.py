"""The box regressor: predicts the overlap of candidate boxes with a target that it has seen once.

"ATOM: Accurate Tracking by Overlap Maximization" (Danelljan et al. 2019), section 3.1 and figure 3. The
reference image gives two modulation vectors; they gate the pooled features of candidate boxes channel by
channel. Numbers in layer names are ResNet blocks in the paper's count: 3 is stride 8, 4 is stride 16; r is
the reference branch, t the test branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracker_ar.models.resnet import ResNet
from tracker_ar.ops.box_pooling import BoxPooling, Level
from tracker_ar.ops.prroi_pool import prroi_pool_boxes

BACKBONE_LAYERS = ("layer2", "layer3")
STRIDE_3, STRIDE_4 = 8, 16
POOL_3R, POOL_4R, POOL_3T, POOL_4T = (3, 3), (1, 1), (5, 5), (3, 3)
# Weights at strides 8 and 16 as `BoxPooling` needs them, (columns, out, rows * C), and the bias of all units.
Folded = tuple[Tensor, Tensor, Tensor]
Pair = tuple[Tensor, Tensor]


def _convolution(in_channels: int, out_channels: int, kernel_size: int, padding: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class PooledLinear(nn.Module):
    """A fully connected layer on pooled features, with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, cells: tuple[int, int]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * cells[0] * cells[1], out_channels)
        self.bn = nn.BatchNorm1d(out_channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, C, rows, columns) -> (R, out_channels)."""
        return F.relu(self.bn(self.linear(pooled.flatten(1))))


class IoUNet(nn.Module):
    """Modulation vectors from the reference, features from the test image, IoU from both and the boxes.

    in_channels: backbone channels at strides 8 and 16; reference_channels: width of the reference branch at
    stride 8;
    hidden: width of the other first layers; channels: of the features at strides 8 and 16, which are
    modulated;
    predictor_channels: of the two fully connected layers.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        reference_channels: int,
        hidden: int,
        channels: tuple[int, int],
        predictor_channels: tuple[int, int],
    ) -> None:
        super().__init__()
        in_3, in_4 = in_channels
        self.conv3_1r = _convolution(in_3, reference_channels, 3, 1)
        self.conv3_1t = _convolution(in_3, hidden, 3, 1)
        self.conv3_2t = _convolution(hidden, channels[0], 3, 1)
        self.fc3_1r = _convolution(reference_channels, hidden, 3, 0)
        self.conv4_1r = _convolution(in_4, hidden, 3, 1)
        self.conv4_1t = _convolution(in_4, hidden, 3, 1)
        self.conv4_2t = _convolution(hidden, channels[1], 3, 1)
        self.fc34_3r = _convolution(2 * hidden, channels[0], 1, 0)
        self.fc34_4r = _convolution(2 * hidden, channels[1], 1, 0)
        self.fc3_rt = PooledLinear(channels[0], predictor_channels[0], POOL_3T)
        self.fc4_rt = PooledLinear(channels[1], predictor_channels[1], POOL_4T)
        self.iou_predictor = nn.Linear(sum(predictor_channels), 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(cast("Tensor", module.bias))

    def modulation(self, layer2: Tensor, layer3: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Backbone features (N, C, h, w) and one box (N, 4) xywh each -> two vectors (N, channels, 1, 1)."""
        corners = _corners(boxes)[:, None]
        pooled_3 = prroi_pool_boxes(self.conv3_1r(layer2), corners, POOL_3R, 1.0 / STRIDE_3)[:, 0]
        pooled_4 = prroi_pool_boxes(self.conv4_1r(layer3), corners, POOL_4R, 1.0 / STRIDE_4)[:, 0]
        target = torch.cat((self.fc3_1r(pooled_3), pooled_4), dim=1)
        return self.fc34_3r(target), self.fc34_4r(target)

    def features(self, layer2: Tensor, layer3: Tensor) -> tuple[Tensor, Tensor]:
        """Backbone features of test images -> features at strides 8 and 16, (N, channels, h, w)."""
        return self.conv3_2t(self.conv3_1t(layer2)), self.conv4_2t(self.conv4_1t(layer3))

    def forward(
        self, modulation: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], boxes: Tensor
    ) -> Tensor:
        """IoU of boxes (N, K, 4), xywh in pixels of the crop -> (N, K). Differentiable in the boxes."""
        corners = _corners(boxes)
        pooled_3 = prroi_pool_boxes(features[0], corners, POOL_3T, 1.0 / STRIDE_3)
        pooled_4 = prroi_pool_boxes(features[1], corners, POOL_4T, 1.0 / STRIDE_4)
        # Channel-wise gains commute with pooling, and bins are far fewer than cells.
        hidden_3 = self.fc3_rt((pooled_3 * modulation[0][:, None]).flatten(0, 1))
        hidden_4 = self.fc4_rt((pooled_4 * modulation[1][:, None]).flatten(0, 1))
        return self.iou_predictor(torch.cat((hidden_3, hidden_4), dim=1)).reshape(boxes.shape[:2])

    def modulated(self, modulation: tuple[Tensor, Tensor]) -> ModulatedIoU:
        """The predictor for one target, (1, channels, 1, 1) each, with everything fixed folded into its weights."""
        return ModulatedIoU(self, fold_modulation(self, modulation))


class OverlapNetwork(nn.Module):
    """What every network with an IoU-Net on its backbone offers: ATOM's, DiMP's and PrDiMP's. Images are
    ImageNet-normalised search regions."""

    feature_extractor: ResNet
    bb_regressor: IoUNet

    def extract_backbone(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> {'layer2': (N, C, H / 8, W / 8), 'layer3': (N, 2 C, H / 16, W / 16)}."""
        return self.feature_extractor(images, BACKBONE_LAYERS)

    def iou_modulation(self, backbone: Mapping[str, Tensor], boxes: Tensor) -> Pair:
        """Modulation vectors of targets: boxes (N, 4) xywh in pixels of the crops -> two (N, C, 1, 1)."""
        return self.bb_regressor.modulation(backbone["layer2"], backbone["layer3"], boxes)

    def target_iou(self, backbone: Mapping[str, Tensor], box: Tensor) -> ModulatedIoU:
        """The IoU predictor of one target in one image, box (1, 4) xywh in pixels of the crop; for tracking."""
        return self.bb_regressor.modulated(self.iou_modulation(backbone, box))

    def iou_features(self, backbone: Mapping[str, Tensor]) -> Pair:
        """Features of test images for `predict_iou`, at strides 8 and 16."""
        return self.bb_regressor.features(backbone["layer2"], backbone["layer3"])

    def predict_iou(self, modulation: Pair, features: Pair, boxes: Tensor) -> Tensor:
        """boxes (N, K, 4) xywh in pixels of the crops -> IoU (N, K), differentiable in the boxes."""
        return self.bb_regressor(modulation, features, boxes)


class ModulatedIoU:
    """Predicts the IoU of boxes in test images with one target, and its gradient for the boxes, without autograd.

    The same numbers as `IoUNet.forward` in evaluation mode: modulation and batch normalisation are linear and become
    part of the fully connected layers. One at a time: what is computed lies in buffers that the next call overwrites.
    """

    def __init__(self, network: IoUNet, folded: Folded, whole_maps: bool = False) -> None:
        """whole_maps: never look at the boxes, so that nothing waits for a GPU."""
        self.folded = folded
        *self._weights, self._hidden_bias = folded
        self._output = network.iou_predictor.weight[0]
        self._bias = network.iou_predictor.bias
        self._pooling = BoxPooling((
            Level(POOL_3T[0], 1.0 / STRIDE_3), Level(POOL_4T[0], 1.0 / STRIDE_4)
        ), whole_maps)
        self._buffers: _Buffers | None = None

    def on(self, features: tuple[Tensor, Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """For one image's `IoUNet.features`, (1, C, h, w) each: a function of boxes (K, 4), x, y, w, h in pixels of
        the crop, to the predicted IoU (K,) and its gradient (K, 4). Boxes without area are pooled to zeros."""
        self._pooling.load([level[0] for level in features])
        return self._predict

    def _predict(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        if self._buffers is None or self._buffers.count != len(boxes):
            self._buffers = _Buffers(boxes, [weight.shape[1] for weight in self._weights])
        b = self._buffers
        torch.clamp(boxes[:, 2:], min=0.0, out=b.sizes)
        torch.mul(b.widths, b.heights, out=b.per_area).reciprocal_().nan_to_num_(posinf=0.0)
        for integrals, weight, pooled in zip(self._pooling.integrate(boxes), self._weights, b.pooled_of_levels):
            torch.sum(torch.bmm(integrals, weight.mT), dim=0, out=pooled)
        b.pooled.mul_(b.per_area)
        torch.add(b.pooled, self._hidden_bias, out=b.hidden).relu_()
        iou = torch.addmv(self._bias, b.hidden, self._output)
        torch.sign(b.hidden, out=b.of_pooled).mul_(self._output).mul_(b.per_area)
        gradient = self._pooling.gradient([
            torch.bmm(of_pooled.expand(len(weight), -1, -1), weight)
            for of_pooled, weight in zip(b.of_pooled_of_levels, self._weights)
        ])
        # Pooling divides by the area: d (1 / w h) / d w = -(1 / w h) * h / (w h).
        torch.sum(b.pooled.mul_(b.of_pooled), dim=1, keepdim=True, out=b.of_area)
        gradient[:, 2:].addcmul_(b.of_area, b.sizes.flip(1), value=-1.0)
        return iou, gradient


class _Buffers:
    """Where `ModulatedIoU` computes, for one number of boxes; hidden: units of each level."""

    def __init__(self, boxes: Tensor, hidden: Sequence[int]) -> None:
        self.count = len(boxes)
        self.sizes = torch.empty_like(boxes[:, 2:])
        self.widths, self.heights = self.sizes.split(1, dim=1)
        self.per_area, self.of_area = (boxes.new_empty(self.count, 1) for _ in range(2))
        self.pooled, self.hidden, self.of_pooled = (boxes.new_empty(self.count, sum(hidden)) for _ in range(3))
        self.pooled_of_levels = self.pooled.split(list(hidden), dim=1)
        self.of_pooled_of_levels = self.of_pooled.split(list(hidden), dim=1)


def fold_modulation(network: IoUNet, modulation: tuple[Tensor, Tensor]) -> Folded:
    """What the fully connected layers become for one target."""
    weight_3, bias_3 = _folded(network.fc3_rt, modulation[0], POOL_3T, STRIDE_3)
    weight_4, bias_4 = _folded(network.fc4_rt, modulation[1], POOL_4T, STRIDE_4)
    return weight_3, weight_4, torch.cat((bias_3, bias_4))


def _folded(layer: PooledLinear, modulation: Tensor, cells: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
    """Weight (columns, out, rows * C) for `BoxPooling.integrate`, per square pixel of the box, and bias (out,)."""
    mean, variance = layer.bn.running_mean, layer.bn.running_var
    assert mean is not None and variance is not None
    gain = layer.bn.weight / torch.sqrt(variance + layer.bn.eps)
    weight = (layer.linear.weight * gain[:, None]).unflatten(1, (-1, *cells)) * modulation[0]
    bias = (layer.linear.bias - mean) * gain + layer.bn.bias
    per_bin = cells[0] * cells[1] * stride**2
    return (weight * per_bin).permute(3, 0, 2, 1).flatten(2).contiguous(), bias


def _corners(boxes: Tensor) -> Tensor:
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), dim=-1)
