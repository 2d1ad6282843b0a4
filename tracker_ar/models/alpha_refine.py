"""Alpha-Refine with its mask branch alone, as in the VOT2020 entry.

A Siamese network: the reference image gives a kernel once, every search image is correlated with it and
segmented.
"Alpha-Refine" (Yan et al. 2021); configuration of the entry: `ARnet_seg_mask_resnet50`, pool size 12, 384 x
384 input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracker_ar.models.edge_head import EdgeHead, Judge
from tracker_ar.models.efficientnet_lite import EfficientNetLite
from tracker_ar.models.mask_head import MaskHead
from tracker_ar.models.neck import CorrelationNeck
from tracker_ar.models.resnet import ResNet
from tracker_ar.models.target_model import STAGES, STRIDE, Evidence, TargetModel
from tracker_ar.trace import stage

# The authors count the stem as their layer1, so their levels are one ahead of ResNet's stages.
LEVELS = {"layer5": "layer4", "layer4": "layer3", "layer3": "layer2", "layer2": "layer1"}
CORRELATION_STAGE = "layer3"


@dataclass(frozen=True)
class MaskRefinerConfig:
    """Architecture of a mask refiner.

    block: of a residual network, as in `tracker_ar.models.resnet`, or "efficientnet_lite0", which `depths` and `width`
    do not concern. input_size: side in pixels of the square crops it is made for. target_model: channels of the first
    three stages that enter a target model learned online, or None to go without one, as the entry does.
    embedding: channels that are correlated, None: those of the stage. boxes: whether there is a box branch and a judge;
    then the network also finds the first mask itself where only a box is given. Both ask for a target model.
    """

    block: str
    depths: tuple[int, ...]
    width: int
    num_classes: int | None
    input_size: int
    pool_size: int
    head_channels: int
    transform_channels: int
    target_model: tuple[int, int, int] | None = None
    embedding: int | None = None
    boxes: bool = False


# Authors' constructor arguments and checkpoint shapes; transform_channels is pool_size ** 2 + head_channels.
MASK_REFINER_50 = MaskRefinerConfig(
    block="bottleneck", depths=(3, 4, 6, 3), width=64, num_classes=1000,
    input_size=384, pool_size=12, head_channels=64, transform_channels=208,
)
# Ours: mask and box on a small pretrained backbone, with a target model.
MASK_REFINER_LITE = MaskRefinerConfig(
    block="efficientnet_lite0", depths=(), width=0, num_classes=None,
    input_size=192, pool_size=6, head_channels=24, transform_channels=24,
    target_model=(16, 32, 48), embedding=64, boxes=True,
)


@dataclass(frozen=True)
class Target:
    """What the refiner knows of N targets.

    kernel: (N, C, p, p), the cells of the reference; never updated. first, recent: what the target model has seen in
    the reference and in later frames, where there were any; weights: (N, D), what it learned from both. They are None
    in a network without target model.
    """

    kernel: Tensor
    first: Evidence | None = None
    weights: Tensor | None = None
    recent: Evidence | None = None


@dataclass(frozen=True)
class Segmentation:
    """logits: (N, 1, S, S). stages: the backbone's features of the search crops. score: (N, 1, S / 4, S / 4) of the
    target model, or None.

    Of a network with a box branch also corners: (N, 4), x1, y1, x2, y2 of the target's box in pixels of the crop, and
    judgement: (N, 2) logits, that the target is there and of the mask's IoU with it.
    """

    logits: Tensor
    stages: Mapping[str, Tensor]
    score: Tensor | None = None
    corners: Tensor | None = None
    judgement: Tensor | None = None


class MaskRefiner(nn.Module):
    """A kernel from the reference box, masks of search images, whose sides must be multiples of 32."""

    def __init__(self, config: MaskRefinerConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = _backbone(config)
        channels = {level: self.feature_extractor.channels[stage] for level, stage in LEVELS.items()}
        correlated = self.feature_extractor.channels[CORRELATION_STAGE]
        embedding = None if config.embedding is None else (correlated, config.embedding)
        self.neck = CorrelationNeck(config.pool_size, embedding=embedding)
        score_channels = config.pool_size**2
        self.target_model: TargetModel | None = None
        if config.target_model is not None:
            embedded = dict(zip(STAGES, config.target_model))
            self.target_model = TargetModel(self.feature_extractor.channels, embedded)
            score_channels += 1
        self.box_head: EdgeHead | None = None
        self.judge: Judge | None = None
        if config.boxes:
            assert self.target_model is not None
            score_channels += 1
            self.box_head = EdgeHead(config.head_channels)
            self.judge = Judge(config.head_channels, config.embedding or correlated)
        self.refiner = MaskHead(score_channels, config.head_channels, config.transform_channels, channels)

    def learn(self, images: Tensor, boxes: Tensor, masks: Tensor | None = None) -> Target:
        """Learn targets from one reference crop each.

        images: (N, 3, S, S) ImageNet-normalised; boxes: (N, 4) xywh in pixels of the crop; masks: (N, 1, S, S) float,
        1 on the target, or None where only the box is known, as in the entry. A network with a box branch then segments
        the reference itself first.
        """
        with stage("refiner backbone"):
            stages = self.feature_extractor(images, self._reference_stages(masks is None))
        if masks is None and self.box_head is not None:
            masks = self.first_masks(stages, boxes)
        return self.learn_features(stages, boxes, masks)

    def _reference_stages(self, box_alone: bool) -> tuple[str, ...]:
        if self.box_head is not None and box_alone:
            return tuple(LEVELS.values())
        return STAGES if self.target_model is not None else (CORRELATION_STAGE,)

    def first_masks(self, stages: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
        """Probabilities of the target in reference crops of which only the box is known: (N, 1, S, S), 0 outside it.

        stages: all features of the crops.
        """
        inside = box_masks(boxes, _crop_size(stages))
        target = self.learn_features(stages, boxes, None)
        return torch.sigmoid(self.segment_features(target, stages, inside).logits) * inside

    def learn_features(self, stages: Mapping[str, Tensor], boxes: Tensor, masks: Tensor | None) -> Target:
        """`learn` from features; without masks all that is in the boxes counts as target."""
        with stage("reference kernel"):
            kernel = self.neck.reference_kernel(stages[CORRELATION_STAGE], boxes, masks)
        if self.target_model is None:
            return Target(kernel)
        inside = box_masks(boxes, _crop_size(stages))
        evidence = self.target_model.evidence(stages, inside if masks is None else inside * masks)
        return Target(kernel, evidence, self.target_model.solve(evidence))

    def segment(self, target: Target, images: Tensor) -> Segmentation:
        """Segment search crops (N, 3, S, S) of N targets, or all of one target."""
        with stage("refiner backbone"):
            stages = self.feature_extractor(images, tuple(LEVELS.values()))
        return self.segment_features(target, stages)

    def segment_features(
        self, target: Target, stages: Mapping[str, Tensor], inside: Tensor | None = None
    ) -> Segmentation:
        """`segment` from features.

        inside: (N, 1, S, S), 1 where the target lies for certain inside of a box, for networks with a box branch; None
        or zeros where nothing is known.
        """
        with stage("correlation"):
            embedded = self.neck.embedded(stages[CORRELATION_STAGE])
            scores = [self.neck(target.kernel, embedded)]
        score = None
        if self.target_model is not None:
            assert target.weights is not None
            with stage("target model"):
                score = self.target_model.score(target.weights, stages)
            scores.append(score.to(scores[0].dtype))
        if self.box_head is not None:
            known = torch.zeros_like(scores[1]) if inside is None else F.avg_pool2d(inside, STRIDE)
            scores[1:] = [torch.cat((scores[1], known), dim=1)]
        with stage("mask head"):
            decoded = self.refiner.decode(scores, {level: stages[name] for level, name in LEVELS.items()})
            logits = self.refiner.project(decoded)
        if self.box_head is None or self.judge is None:
            return Segmentation(logits, stages, score)
        assert score is not None
        with stage("corner head"):
            judgement = self.judge(decoded, logits, score, target.kernel, embedded)
            return Segmentation(logits, stages, score, self.box_head(decoded), judgement)

    def update(
        self, target: Target, stages: Mapping[str, Tensor], masks: Tensor, rate: float, first_share: float
    ) -> Target:
        """Let the target model learn from a segmented frame.

        masks: (N, 1, S, S) float, 0 to 1; rate: the weight of this frame against earlier ones, without the reference;
        first_share: the weight of the reference against all others. Both 0 to 1.
        """
        assert self.target_model is not None and target.first is not None
        recent = self.target_model.evidence(stages, masks)
        if target.recent is not None:
            recent = target.recent.mixed(recent, rate)
        weights = self.target_model.solve(target.first.mixed(recent, 1.0 - first_share))
        return Target(target.kernel, target.first, weights, recent)

    def forward(
        self,
        reference_images: Tensor,
        reference_boxes: Tensor,
        search_images: Tensor,
        reference_masks: Tensor | None = None,
    ) -> Segmentation:
        """Both branches at once, for training: one reference per search image."""
        return self.segment(self.learn(reference_images, reference_boxes, reference_masks), search_images)


def _backbone(config: MaskRefinerConfig) -> ResNet | EfficientNetLite:
    if config.block == "efficientnet_lite0":
        return EfficientNetLite()
    return ResNet(config.block, config.depths, config.width, config.num_classes)


def _crop_size(stages: Mapping[str, Tensor]) -> tuple[int, int]:
    height, width = stages[STAGES[0]].shape[-2:]
    return STRIDE * height, STRIDE * width


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 4) xywh in pixels -> (N, 1, H, W) float32, how much of every pixel its box covers."""
    covered = []
    for axis, length in ((1, size[0]), (0, size[1])):
        start = boxes[:, axis, None]
        pixels = torch.arange(length, dtype=boxes.dtype, device=boxes.device)
        end = start + boxes[:, axis + 2, None]
        covered.append((end.minimum(pixels + 1) - start.maximum(pixels)).clamp(0, 1))
    return (covered[0][:, :, None] * covered[1][:, None, :])[:, None]


def build_mask_refiner(config: MaskRefinerConfig = MASK_REFINER_50) -> MaskRefiner:
    """A mask refiner with fresh weights, in training mode."""
    return MaskRefiner(config)
