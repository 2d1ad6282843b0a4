"""Small things both tasks share."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
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


def double_size(images: Tensor) -> Tensor:
    """Twice the size, bicubic, (N, C, H, W): the same linear map as `F.interpolate`, as two matrix products.

    On a CPU this is three to six times faster forward and backward, and runs in half precision.
    """
    rows, columns = (_doubling(side).to(images.dtype) for side in images.shape[-2:])
    return rows @ (images @ columns.T)


@lru_cache(maxsize=16)
def _doubling(side: int) -> Tensor:
    identity = torch.eye(side)[None, None]
    return F.interpolate(identity, size=(2 * side, side), mode="bicubic", align_corners=False)[0, 0]
