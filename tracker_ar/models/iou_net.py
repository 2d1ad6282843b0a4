"""The box regressor: predicts the overlap of candidate boxes with a target that it has seen once.

"ATOM: Accurate Tracking by Overlap Maximization" (Danelljan et al. 2019), section 3.1 and figure 3. The
reference image gives two modulation vectors; they gate the pooled features of candidate boxes channel by
channel. Numbers in layer names are ResNet blocks in the paper's count: 3 is stride 8, 4 is stride 16; r is
the reference branch, t the test branch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracker_ar.ops.box_pooling import BoxPooling, Level
from tracker_ar.ops.prroi_pool import prroi_pool_boxes

STRIDE_3, STRIDE_4 = 8, 16
POOL_3R, POOL_4R, POOL_3T, POOL_4T = (3, 3), (1, 1), (5, 5), (3, 3)


def _convolution(in_channels: int, out_channels: int, kernel_size: int, padding: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class PooledLinear(nn.Module):
    """A fully connected layer on pooled features, with batch normalisation and rectifier."""

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
                nn.init.zeros_(module.bias)

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
        return ModulatedIoU(self, modulation)


class ModulatedIoU:
    """Predicts the IoU of boxes in test images with one target, and its gradient for the boxes, without autograd.

    The same numbers as `IoUNet.forward` in evaluation mode: modulation and batch normalisation are linear and become
    part of the fully connected layers.
    """

    def __init__(self, network: IoUNet, modulation: tuple[Tensor, Tensor]) -> None:
        layers = (
            _folded(network.fc3_rt, modulation[0], POOL_3T, STRIDE_3),
            _folded(network.fc4_rt, modulation[1], POOL_4T, STRIDE_4),
        )
        self._weights = [weight for weight, _ in layers]
        self._hidden_bias = torch.cat([bias for _, bias in layers])
        self._output = network.iou_predictor.weight[0]
        self._bias = network.iou_predictor.bias

    def on(self, features: tuple[Tensor, Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """For one image's `IoUNet.features`, (1, C, h, w) each: a function of boxes (K, 4), x, y, w, h in pixels of
        the crop, to the predicted IoU (K,) and its gradient (K, 4). Boxes without area are pooled to zeros."""
        pooling = BoxPooling((
            Level(features[0][0], POOL_3T[0], 1.0 / STRIDE_3), Level(features[1][0], POOL_4T[0], 1.0 / STRIDE_4)
        ))

        def predict(boxes: Tensor) -> tuple[Tensor, Tensor]:
            sizes = boxes[:, 2:].clamp(min=0.0)
            area = sizes.prod(dim=1, keepdim=True)
            per_area = torch.where(area > 0, 1.0 / area, 0.0)
            integrals = pooling.integrate(boxes)
            pooled = torch.cat([values @ weight.T for values, weight in zip(integrals, self._weights)], dim=1)
            pooled *= per_area
            hidden = torch.relu(pooled + self._hidden_bias)
            iou = torch.addmv(self._bias, hidden, self._output)
            of_pooled = (hidden > 0) * self._output * per_area
            split = of_pooled.split([len(weight) for weight in self._weights], dim=1)
            gradient = pooling.gradient([values @ weight for values, weight in zip(split, self._weights)])
            # Pooling divides by the area: d (1 / w h) / d w = -(1 / w h) * h / (w h).
            gradient[:, 2:] -= (of_pooled * pooled).sum(dim=1, keepdim=True) * sizes.flip(1)
            return iou, gradient

        return predict


def _folded(layer: PooledLinear, modulation: Tensor, cells: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
    """Weight (out, columns * rows * C) for `BoxPooling.integrate`, per square pixel of the box, and bias (out,)."""
    gain = layer.bn.weight / torch.sqrt(layer.bn.running_var + layer.bn.eps)
    weight = (layer.linear.weight * gain[:, None]).unflatten(1, (-1, *cells)) * modulation[0]
    bias = (layer.linear.bias - layer.bn.running_mean) * gain + layer.bn.bias
    per_bin = cells[0] * cells[1] * stride**2
    return (weight * per_bin).permute(0, 3, 2, 1).flatten(1).contiguous(), bias


def _corners(boxes: Tensor) -> Tensor:
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), dim=-1)
