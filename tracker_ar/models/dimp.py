"""SuperDiMP: the DiMP target classifier and the PrDiMP-trained IoU network on one backbone.

"Learning Discriminative Model Prediction for Tracking" (Bhat et al. 2019), "Probabilistic Regression for
Visual Tracking" (Danelljan et al. 2020); values of SUPER_DIMP_50 are the constructor arguments in the
published checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tracker_ar.models.iou_net import IoUNet, ModulatedIoU
from tracker_ar.models.resnet import ResNet
from tracker_ar.models.target_filter import FilterOptimizer, TargetClassifier

BACKBONE_LAYERS = ("layer2", "layer3")
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SuperDiMPConfig:
    """Architecture of the base tracker's network.

    label_sigma and bin_size are in feature cells (stride 16); train_iterations is how many steps of the
    filter optimiser are unrolled in training.
    """

    block: str
    depths: tuple[int, ...]
    width: int
    num_classes: int | None
    classification_channels: int
    label_sigma: float
    iou_reference_channels: int
    iou_hidden_channels: int
    iou_channels: tuple[int, int]
    iou_predictor_channels: tuple[int, int]
    filter_size: int = 4
    num_distance_bins: int = 100
    bin_size: float = 0.1
    mask_factor: float = 3.0
    initial_step_length: float = 0.9
    initial_regularization: float = 0.1
    train_iterations: int = 5


# label_sigma: a quarter of the target, which is 1 / 6 of the 22 cells of the search region.
SUPER_DIMP_50 = SuperDiMPConfig(
    block="bottleneck", depths=(3, 4, 6, 3), width=64, num_classes=1000,
    classification_channels=512, label_sigma=0.25 / 6 * 22,
    iou_reference_channels=128, iou_hidden_channels=256, iou_channels=(256, 256),
    iou_predictor_channels=(256, 256),
)
# Ours: the same network scaled to about 0.8 GMAC at 256 x 256, where the target is 1 / 5 of 16 cells.
SUPER_DIMP_LITE = SuperDiMPConfig(
    block="basic", depths=(2, 2, 2), width=32, num_classes=None,
    classification_channels=128, label_sigma=0.25 / 5 * 16,
    iou_reference_channels=64, iou_hidden_channels=128, iou_channels=(64, 128),
    iou_predictor_channels=(128, 128),
)


class SuperDiMP(nn.Module):
    """Backbone, target classifier and box regressor. Images are ImageNet-normalised search regions."""

    def __init__(self, config: SuperDiMPConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = ResNet(config.block, config.depths, config.width, config.num_classes)
        in_3, in_4 = (self.feature_extractor.channels[name] for name in BACKBONE_LAYERS)
        optimizer = FilterOptimizer(
            config.num_distance_bins,
            config.bin_size,
            config.label_sigma,
            config.mask_factor,
            config.initial_step_length,
            config.initial_regularization,
        )
        channels = config.classification_channels
        self.classifier = TargetClassifier(in_4, channels, config.filter_size, optimizer)
        self.bb_regressor = IoUNet(
            (in_3, in_4),
            config.iou_reference_channels,
            config.iou_hidden_channels,
            config.iou_channels,
            config.iou_predictor_channels,
        )

    def extract_backbone(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> {'layer2': (N, C, H / 8, W / 8), 'layer3': (N, 2 C, H / 16, W / 16)}."""
        return self.feature_extractor(images, BACKBONE_LAYERS)

    def classification_features(self, backbone: Mapping[str, Tensor]) -> Tensor:
        """What the target filter sees: (N, classification_channels, H / 16, W / 16)."""
        return self.classifier.feature_extractor(backbone["layer3"])

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


def build_super_dimp(config: SuperDiMPConfig = SUPER_DIMP_50) -> SuperDiMP:
    """A base-tracker network with fresh weights, in training mode."""
    return SuperDiMP(config)
