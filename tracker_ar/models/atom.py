"""ATOM's network: a backbone and an IoU-Net. Its target classifier is no part of it: it is learned in every sequence.

"ATOM: Accurate Tracking by Overlap Maximization" (Danelljan et al. 2019).
"""

from __future__ import annotations

from tracker_ar.models.iou_net import BACKBONE_LAYERS, IoUNet, OverlapNetwork
from tracker_ar.models.resnet import ResNet


class ATOM(OverlapNetwork):
    """ResNet-18 and IoU-Net; constructor `atom_resnet18` of the published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = ResNet("basic", (2, 2, 2, 2), 64, 1000)
        in_3, in_4 = (self.feature_extractor.channels[name] for name in BACKBONE_LAYERS)
        self.bb_regressor = IoUNet((in_3, in_4), 128, 256, (256, 256), (256, 256))


def build_atom() -> ATOM:
    """ATOM's network with fresh weights, in training mode."""
    return ATOM()
