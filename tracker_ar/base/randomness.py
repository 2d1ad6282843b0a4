"""Everything random that the base tracker draws, from one generator seeded at each initialisation."""

from __future__ import annotations

import torch
from torch import Tensor


class RandomSource:
    """Draws of one tracking run; two runs with one seed draw the same."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def augmentation_shifts(self, count: int) -> Tensor:
        """(count, 2) uniform in [0, 1): the (rows, columns) shift of each flipped, blurred or rotated sample."""
        return torch.rand(count, 2, generator=self._generator)

    def kept_channels(self, samples: int, channels: int, dropout: float) -> Tensor:
        """(samples, channels) bool, true with probability 1 - dropout."""
        return torch.rand(samples, channels, generator=self._generator) >= dropout

    def box_noise(self, count: int) -> Tensor:
        """(count, 4) uniform in [0, 1) for the random boxes of the IoU refinement."""
        return torch.rand(count, 4, generator=self._generator)
