"""Alpha-Refine as in its papers: one Siamese network, several branches that refine a box.

"Alpha-Refine" (Yan et al.): with corner and mask branch as published at CVPR 2021 (`SEcmnet`), with box, corner and
mask branch as in the first version of July 2020 (`SEbcmnet`, arXiv 2007.02024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracker_ar.models.box_head import BoxHead, boxes_from_deltas
from tracker_ar.models.branch_selector import BranchSelector
from tracker_ar.models.corner_head import CornerHead, conv_norm_relu
from tracker_ar.models.fine_mask_head import LATERALS, FineMaskHead
from tracker_ar.models.neck import CorrelationNeck
from tracker_ar.models.resnet import ResNet

CORRELATION_STAGE = "layer3"
LATERAL_STAGES = ("conv1", "layer1", "layer2")  # strides 2, 4, 8


@dataclass(frozen=True)
class BranchRefinerConfig:
    """Architecture of a refiner with branches.

    block, depths: of the ResNet. pool_box: the reference kernel is pooled from the target's box, or the middle half of
    the reference's map. post_correlation: three 1 x 1 convolutions after the correlation. non_local: a non-local block
    at the end of the neck. pixel_corners: see `CornerHead.enlarge`. box_branch: whether there is one;
    relu_deltas: see `BoxHead`.
    """

    block: str
    depths: tuple[int, ...]
    pool_box: bool
    post_correlation: bool
    non_local: bool
    pixel_corners: bool
    box_branch: bool
    relu_deltas: bool = False
    width: int = 64
    num_classes: int | None = 1000
    pool_size: int = 8
    input_size: int = 256


# Layers and constructor arguments of the authors' networks: ltr/models/SEx_beta/SEcm_r34.py on the master branch; the
# 18-layer one is not in their repository, its keys say that it differs in depth alone.
BRANCH_REFINER_34 = BranchRefinerConfig(
    block="basic", depths=(3, 4, 6, 3), pool_box=False, post_correlation=True, non_local=False,
    pixel_corners=False, box_branch=False,
)
BRANCH_REFINER_18 = BranchRefinerConfig(
    block="basic", depths=(2, 2, 2, 2), pool_box=False, post_correlation=True, non_local=False,
    pixel_corners=False, box_branch=False,
)
# The version of July 2020, never published with weights. Its keys do not tell whether the box branch ends in a
# ReLU; the one copy of its source that can be had does.
BRANCH_REFINER_50 = BranchRefinerConfig(
    block="bottleneck", depths=(3, 4, 6, 3), pool_box=True, post_correlation=False, non_local=True,
    pixel_corners=True, box_branch=True, relu_deltas=True,
)


@dataclass(frozen=True)
class Branches:
    """What the branches say of N search crops, for training.

    deltas: (N, 4) of the box branch, or None. corners: (N, 4) x1, y1, x2, y2 in pixels of the crop. logits: of the
    mask, (N, 1, S, S).
    """

    deltas: Tensor | None
    corners: Tensor
    logits: Tensor


class BranchRefiner(nn.Module):
    """A kernel from the reference crop; a fused map of every search crop; branches that read it.

    selector: chooses the branch, where one is set; its weights are a file of their own, so it is set after loading.
    """

    def __init__(self, config: BranchRefinerConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = ResNet(config.block, config.depths, config.width, config.num_classes)
        self.neck = CorrelationNeck(
            config.pool_size, pool_box=config.pool_box, post_correlation=config.post_correlation,
            non_local=config.non_local,
        )
        channels = config.pool_size**2
        self.bbox_head = BoxHead(channels, config.relu_deltas) if config.box_branch else None
        self.corner_head = CornerHead(channels, config.pixel_corners, config.input_size)
        self.mask_head = FineMaskHead(channels)
        found = tuple(self.feature_extractor.channels[stage] for stage in LATERAL_STAGES)
        self.feat_adjust: nn.ModuleList | None = None
        if found != LATERALS:
            self.feat_adjust = nn.ModuleList(conv_norm_relu(*pair, kernel=1) for pair in zip(found, LATERALS))
        self.register_module("selector", None)
        self.selector: BranchSelector | None

    def learn(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Reference crops (N, 3, S, S), ImageNet-normalised, and boxes (N, 4) xywh in their pixels -> kernels
        (N, C, p, p)."""
        features = self.feature_extractor(images, (CORRELATION_STAGE,))[CORRELATION_STAGE]
        return self.neck.reference_kernel(features, boxes)

    def levels(self, images: Tensor) -> tuple[Tensor, ...]:
        """The backbone's maps of strides 2, 4, 8 and 16 of search crops (N, 3, S, S), ImageNet-normalised."""
        stages = (*LATERAL_STAGES, CORRELATION_STAGE)
        found = self.feature_extractor(images, stages)
        return tuple(found[stage] for stage in stages)

    def boxes(self, fused: Tensor) -> Tensor:
        """Of the box branch: (N, 4) x1, y1, x2, y2 in pixels of the crop. Only where there is that branch."""
        assert self.bbox_head is not None
        boxes = boxes_from_deltas(self.bbox_head(fused), self.config.input_size)
        return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)

    def mask(self, fused: Tensor, laterals: tuple[Tensor, ...]) -> Tensor:
        """Logits (N, 1, S, S) of the neck's output and the maps of strides 2, 4 and 8."""
        if self.feat_adjust is not None:
            laterals = tuple(adjust(lateral) for adjust, lateral in zip(self.feat_adjust, laterals))
        return self.mask_head(fused, laterals)

    def forward(self, reference_images: Tensor, reference_boxes: Tensor, search_images: Tensor) -> Branches:
        """All branches at once, for training: one reference per search image."""
        kernel = self.learn(reference_images, reference_boxes)
        *laterals, features = self.levels(search_images)
        fused = self.neck(kernel, features)
        deltas = None if self.bbox_head is None else self.bbox_head(fused)
        return Branches(deltas, self.corner_head(fused)[0], self.mask(fused, tuple(laterals)))


def build_branch_refiner(config: BranchRefinerConfig = BRANCH_REFINER_34) -> BranchRefiner:
    """A refiner with fresh weights, in training mode, without selector."""
    return BranchRefiner(config)
