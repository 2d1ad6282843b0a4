"""DiMP, PrDiMP and SuperDiMP: a target classifier and an IoU network on one backbone.

"Learning Discriminative Model Prediction for Tracking" (Bhat et al. 2019), "Probabilistic Regression for Visual
Tracking" (Danelljan et al. 2020). The values of the published networks are the constructor arguments in their
checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from tracker_ar.models.density_filter import DensityFilterOptimizer
from tracker_ar.models.iou_net import BACKBONE_LAYERS, IoUNet, OverlapNetwork
from tracker_ar.models.resnet import ResNet
from tracker_ar.models.steepest_descent import SteepestDescent
from tracker_ar.models.target_filter import FilterOptimizer, TargetClassifier


@dataclass(frozen=True)
class DiMPConfig:
    """Architecture of the base tracker's network.

    label_sigma and bin_size are in feature cells (stride 16); train_iterations is how many steps of the
    filter optimizer are unrolled in training.

    classification_block: a residual block before the classification convolution.
    optimizer: of the target filter: DiMP's on squared errors, or PrDiMP's on densities, which learns no function of the
    distance (num_distance_bins, bin_size, mask_factor) and whose filters start from zero in training.
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
    classification_block: bool = False
    optimizer: Literal["squares", "density"] = "squares"
    filter_size: int = 4
    num_distance_bins: int = 100
    bin_size: float = 0.1
    mask_factor: float = 3.0
    initial_step_length: float = 0.9
    initial_regularization: float = 0.1
    minimal_regularization: float = 1e-3
    step_damping: float = 0.0
    train_iterations: int = 5


# label_sigma: a quarter of the target, which is 1 / 6 of the 22 cells of the search region.
SUPER_DIMP_50 = DiMPConfig(
    block="bottleneck", depths=(3, 4, 6, 3), width=64, num_classes=1000,
    classification_channels=512, label_sigma=0.25 / 6 * 22,
    iou_reference_channels=128, iou_hidden_channels=256, iou_channels=(256, 256),
    iou_predictor_channels=(256, 256),
)
# Trained with search regions of 18 cells and 5 times the target.
DIMP_50 = replace(SUPER_DIMP_50, label_sigma=0.25 / 5 * 18)
DIMP_18 = replace(
    DIMP_50, block="basic", depths=(2, 2, 2, 2), classification_channels=256, classification_block=True
)
# step_damping is alpha_eps there. None of it is in the state dict.
PRDIMP_50 = replace(
    DIMP_50, optimizer="density", initial_step_length=1.0, initial_regularization=0.05, minimal_regularization=0.05,
    step_damping=0.05,
)
PRDIMP_18 = replace(
    PRDIMP_50, block="basic", depths=(2, 2, 2, 2), classification_channels=256, classification_block=True
)
# Ours: the same network scaled to about 0.8 GMAC at 256 x 256, where the target is 1 / 5 of 16 cells.
SUPER_DIMP_LITE = DiMPConfig(
    block="basic", depths=(2, 2, 2), width=32, num_classes=None,
    classification_channels=128, label_sigma=0.25 / 5 * 16,
    iou_reference_channels=64, iou_hidden_channels=128, iou_channels=(64, 128),
    iou_predictor_channels=(128, 128),
)


class DiMP(OverlapNetwork):
    """Backbone, target classifier and box regressor. Images are ImageNet-normalised search regions."""

    def __init__(self, config: DiMPConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = ResNet(config.block, config.depths, config.width, config.num_classes)
        in_3, in_4 = (self.feature_extractor.channels[name] for name in BACKBONE_LAYERS)
        self.classifier = TargetClassifier(
            in_4, config.classification_channels, config.filter_size, _filter_optimizer(config),
            config.classification_block, zero_filter=config.optimizer == "density",
        )
        self.bb_regressor = IoUNet(
            (in_3, in_4),
            config.iou_reference_channels,
            config.iou_hidden_channels,
            config.iou_channels,
            config.iou_predictor_channels,
        )

    def classification_features(self, backbone: Mapping[str, Tensor]) -> Tensor:
        """What the target filter sees: (N, classification_channels, H / 16, W / 16)."""
        return self.classifier.feature_extractor(backbone["layer3"])


def build_dimp(config: DiMPConfig = SUPER_DIMP_50) -> DiMP:
    """A base-tracker network with fresh weights, in training mode."""
    return DiMP(config)


def _filter_optimizer(config: DiMPConfig) -> SteepestDescent:
    start = config.initial_step_length, config.initial_regularization, config.minimal_regularization
    if config.optimizer == "density":
        return DensityFilterOptimizer(config.label_sigma, *start, config.step_damping)
    return FilterOptimizer(config.num_distance_bins, config.bin_size, config.label_sigma, config.mask_factor, *start)
