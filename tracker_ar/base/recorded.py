"""The parts of a frame of SuperDiMP that can be recorded: tensors to tensors, see `tracker_ar.models.graphs`."""

from __future__ import annotations

import torch
from torch import Tensor

from tracker_ar.base.box_refinement import ascend
from tracker_ar.models.iou_net import Folded, ModulatedIoU
from tracker_ar.models.super_dimp import SuperDiMP
from tracker_ar.profiles import BoxRefinementSettings


def search(
    network: SuperDiMP, images: Tensor, target_filter: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Search region (1, 3, S, S), ImageNet-normalised, and filter (1, C, k, k) -> the backbone's layers, the
    classification features, and the scores (1, 1, h, w)."""
    backbone = network.extract_backbone(images)
    features = network.classification_features(backbone)
    return backbone, features, network.classifier.scores(target_filter, features)


class Ascent:
    """The whole ascent on the predicted IoU, from the backbone's layers on."""

    def __init__(self, settings: BoxRefinementSettings) -> None:
        self._settings = settings

    def __call__(self, network: SuperDiMP, backbone: dict[str, Tensor], folded: Folded, boxes: Tensor) -> Tensor:
        """folded: see `ModulatedIoU`; boxes (n, 4) x, y, w, h in pixels of the search region -> (n, 5), refined boxes
        and their predicted IoU: see `ascend`."""
        predict = ModulatedIoU(network.bb_regressor, folded, whole_maps=True)
        refined, iou = ascend(predict.on(network.iou_features(backbone)), boxes, self._settings)
        return torch.cat((refined, iou[:, None]), dim=1)
