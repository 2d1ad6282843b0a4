"""Alpha-Refine with its mask branch alone, as in the VOT2020 entry.

A Siamese network: the reference image gives a kernel once, every search image is correlated with it and
segmented.
"Alpha-Refine" (Yan et al. 2021); configuration of the entry: `ARnet_seg_mask_resnet50`, pool size 12, 384 x
384 input.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tracker_ar.models.mask_head import MaskHead
from tracker_ar.models.neck import CorrelationNeck
from tracker_ar.models.resnet import ResNet

# The authors count the stem as their layer1, so their levels are one ahead of ResNet's stages.
LEVELS = {"layer5": "layer4", "layer4": "layer3", "layer3": "layer2", "layer2": "layer1"}
CORRELATION_STAGE = "layer3"


@dataclass(frozen=True)
class MaskRefinerConfig:
    """Architecture of a mask refiner. input_size: side in pixels of the square crops it is made for."""

    block: str
    depths: tuple[int, ...]
    width: int
    num_classes: int | None
    input_size: int
    pool_size: int
    head_channels: int
    transform_channels: int


# Authors' constructor arguments and checkpoint shapes; transform_channels is pool_size ** 2 + head_channels.
MASK_REFINER_50 = MaskRefinerConfig(
    block="bottleneck", depths=(3, 4, 6, 3), width=64, num_classes=1000,
    input_size=384, pool_size=12, head_channels=64, transform_channels=208,
)
# Ours: the same network scaled to about 1.2 GMAC.
MASK_REFINER_LITE = MaskRefinerConfig(
    block="basic", depths=(2, 2, 2, 2), width=32, num_classes=None,
    input_size=256, pool_size=8, head_channels=32, transform_channels=32,
)


class MaskRefiner(nn.Module):
    """A kernel from the reference box, masks of search images, whose sides must be multiples of 32."""

    def __init__(self, config: MaskRefinerConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = ResNet(config.block, config.depths, config.width, config.num_classes)
        self.neck = CorrelationNeck(config.pool_size)
        channels = {level: self.feature_extractor.channels[stage] for level, stage in LEVELS.items()}
        score_channels = config.pool_size**2
        self.refiner = MaskHead(score_channels, config.head_channels, config.transform_channels, channels)

    def reference_kernel(self, images: Tensor, boxes: Tensor, masks: Tensor | None = None) -> Tensor:
        """The target's kernel.

        images: (N, 3, S, S) ImageNet-normalised reference crops; boxes: (N, 4) xywh in pixels of the crop;
        masks: (N, 1, S, S) float, 1 on the target, or None where only the box is known, as in the entry.
        Returns (N, C, p, p) with p = config.pool_size.
        """
        features = self.feature_extractor(images, (CORRELATION_STAGE,))[CORRELATION_STAGE]
        return self.neck.reference_kernel(features, boxes, masks)

    def search(self, kernel: Tensor, images: Tensor) -> Tensor:
        """Segment search crops: kernel (N or 1, C, p, p), images (N, 3, S, S) -> mask logits (N, 1, S, S)."""
        stages = self.feature_extractor(images, tuple(LEVELS.values()))
        fused = self.neck(kernel, stages[CORRELATION_STAGE])
        return self.refiner(fused, {level: stages[stage] for level, stage in LEVELS.items()})

    def forward(
        self,
        reference_images: Tensor,
        reference_boxes: Tensor,
        search_images: Tensor,
        reference_masks: Tensor | None = None,
    ) -> Tensor:
        """Both branches at once, for training: one reference per search image -> mask logits (N, 1, S, S)."""
        kernel = self.reference_kernel(reference_images, reference_boxes, reference_masks)
        return self.search(kernel, search_images)


def build_mask_refiner(config: MaskRefinerConfig = MASK_REFINER_50) -> MaskRefiner:
    """A mask refiner with fresh weights, in training mode."""
    return MaskRefiner(config)
