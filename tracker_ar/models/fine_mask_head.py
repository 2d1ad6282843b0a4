"""The mask branch of Alpha-Refine as in its papers: the refinement module of SiamMask (Wang et al. 2019).

From the neck's map to the size of the crop in three steps, each of which adds a finer level of the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

# Channels of the backbone's levels of stride 2, 4 and 8 as the head expects them: those of ResNet-50.
LATERALS = (64, 256, 512)


def _pair(first: int, middle: int, last: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with ReLUs."""
    return nn.Sequential(
        nn.Conv2d(first, middle, 3, padding=1), nn.ReLU(), nn.Conv2d(middle, last, 3, padding=1), nn.ReLU()
    )


class FineMaskHead(nn.Module):
    """channels: of the neck's output. Names as in the checkpoints: `v` for the backbone's levels, `h` for the map that
    is enlarged, `post` for their sum; 2 is the coarsest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.v0, self.v1, self.v2 = _pair(LATERALS[0], 16, 4), _pair(LATERALS[1], 64, 16), _pair(LATERALS[2], 128, 32)
        self.h2, self.h1, self.h0 = _pair(channels, 32, 32), _pair(16, 16, 16), _pair(4, 4, 4)
        self.post0 = nn.Conv2d(32, 16, 3, padding=1)
        self.post1 = nn.Conv2d(16, 4, 3, padding=1)
        self.post2 = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, fused: Tensor, laterals: Sequence[Tensor]) -> Tensor:
        """The neck's output (N, C, S / 16, S / 16) and the levels of stride 2, 4, 8, (N, c, S / stride, S / stride)
        with `LATERALS` channels -> logits (N, 1, S, S)."""
        steps = zip((self.h2, self.h1, self.h0), (self.v2, self.v1, self.v0), (self.post0, self.post1, self.post2))
        x = fused
        for (coarse, fine, merge), lateral in zip(steps, reversed(laterals)):
            x = merge(_doubled(coarse(x)) + fine(lateral))
        return _doubled(x)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
