"""The branch selector of Alpha-Refine's base version: which of box, corner and mask branch to believe.

"Alpha-Refine" (Yan et al. 2020, arXiv 2007.02024). A network of its own, trained after the refiner.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tracker_ar.models.corner_head import conv_norm_relu

BRANCHES = ("box", "corner", "mask")  # in the order of the selector's scores


class BranchSelector(nn.Module):
    """channels, cells: of the neck's output and along its side."""

    def __init__(self, channels: int = 64, cells: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_norm_relu(channels, 32), conv_norm_relu(32, 16)
        self.fc1 = nn.Sequential(nn.Linear(16 * (cells // 2) ** 2, 512), nn.BatchNorm1d(512), nn.ReLU())
        self.fc2 = nn.Linear(512, len(BRANCHES))

    def forward(self, fused: Tensor) -> Tensor:
        """The neck's output (N, C, h, w) -> scores (N, 3); the largest wins."""
        return self.fc2(self.fc1(F.max_pool2d(self.conv2(self.conv1(fused)), 2).flatten(1)))


def build_branch_selector() -> BranchSelector:
    """A selector with fresh weights, in training mode."""
    return BranchSelector()
