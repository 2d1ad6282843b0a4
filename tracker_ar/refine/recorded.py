"""The part of the refiner's frame that can be recorded: tensors to tensors, see `tracker_ar.models.graphs`."""

from __future__ import annotations

import torch
from torch import Tensor

from tracker_ar.models.mask_refiner import MaskRefiner, Target
from tracker_ar.models.target_model import STAGES


def segment(
    network: MaskRefiner, images: Tensor, kernel: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor | None, Tensor | None]:
    """Search crops (N, 3, S, S), ImageNet-normalised, and what is known of their targets, see `Target` -> the
    probabilities and logits, (N, 1, S, S), what the target model, where there is one, may learn from, and, where there is
    a box branch, corners and judgement, see `Segmentation`."""
    found = network.segment(Target(kernel, weights=weights), images)
    stages = {} if network.target_model is None else {name: found.stages[name] for name in STAGES}
    return torch.sigmoid(found.logits), found.logits, stages, found.corners, found.judgement
