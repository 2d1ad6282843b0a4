"""Small things both tasks share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

VALIDATION_SEED = 20200501

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255.0
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255.0


def to_batch(images: list[np.ndarray] | np.ndarray) -> Tensor:
    """RGB uint8 H x W x 3 images to one ImageNet-normalised float32 batch (N, 3, H, W), channels last."""
    stacked = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2)
    return (stacked.float() - _MEAN) / _STD


def initialise(backbone: nn.Module) -> None:
    """He initialisation of the convolutions of a backbone that starts from nothing."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
