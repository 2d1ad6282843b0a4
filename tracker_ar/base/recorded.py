"""The parts of a frame of SuperDiMP that can be recorded: tensors to tensors, see `tracker_ar.engine.cuda_graphs`."""

from __future__ import annotations

import torch
from torch import Tensor

from tracker_ar.base.box_refinement import ascend
from tracker_ar.models.iou_net import Folded, ModulatedIoU
from tracker_ar.models.dimp import SuperDiMP
from tracker_ar.base.settings import BoxRefinementSettings


def search(
    network: SuperDiMP, images: Tensor, filters: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Search regions (N, 3, S, S), ImageNet-normalised, and filters (N, C, k, k) of N targets -> the backbone's layers,
    the classification features, and the scores (N, 1, h, w)."""
    backbone = network.extract_backbone(images)
    features = network.classification_features(backbone)
    return backbone, features, network.classifier.scores(filters, features[None]).transpose(0, 1)


class Ascent:
    """The whole ascent on the predicted IoU, from the backbone's layers on."""

    def __init__(self, settings: BoxRefinementSettings) -> None:
        self._settings = settings

    def __call__(self, network: SuperDiMP, backbone: dict[str, Tensor], folded: Folded, boxes: Tensor) -> Tensor:
        """folded: see `ModulatedIoU`, of N targets; boxes (N, n, 4) x, y, w, h in pixels of the search regions ->
        (N, n, 5), refined boxes and their predicted IoU: see `ascend`."""
        features = network.iou_features(backbone)
        results = []
        for target, start in enumerate(boxes):
            predict = ModulatedIoU(network.bb_regressor, tuple(part[target] for part in folded), whole_maps=True)
            own = tuple(level[target : target + 1] for level in features)
            refined, iou = ascend(predict.on(own), start, self._settings)
            results.append(torch.cat((refined, iou[:, None]), dim=1))
        return torch.stack(results)
