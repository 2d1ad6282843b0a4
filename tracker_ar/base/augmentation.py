"""Augmented samples of the first frame, from which the target filter is learned (DiMP, Bhat et al., 2019).

All samples are cut from one region that is larger than the search region, so that shifted and rotated samples
show the scene around the target and not repeated border pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tracker_ar.base.settings import AugmentationSettings
from tracker_ar.crops import sample_patch, to_tensor


class RandomSource:
    """Everything random that is drawn for one target; two with one seed draw the same."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def augmentation_shifts(self, count: int) -> Tensor:
        """(count, 2) uniform in [0, 1): the (rows, columns) shift of each flipped, blurred or rotated sample."""
        return torch.rand(count, 2, generator=self._generator, dtype=torch.float32)

    def kept_channels(self, samples: int, channels: int, dropout: float) -> Tensor:
        """(samples, channels) bool, true with probability 1 - dropout."""
        return torch.rand(samples, channels, generator=self._generator, dtype=torch.float32) >= dropout

    def box_noise(self, count: int) -> Tensor:
        """(count, 4) uniform in [0, 1) for the random boxes of the box refinement."""
        return torch.rand(count, 4, generator=self._generator, dtype=torch.float32)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, where learning starts from them."""
        return torch.randn(*shape, generator=self._generator, dtype=torch.float32)


Transform = Callable[[torch.Tensor], torch.Tensor]


def augment_first_frame(
    image: np.ndarray,
    position: torch.Tensor,
    scale: torch.Tensor | float | np.floating,
    sample_size: int,
    settings: AugmentationSettings,
    draw: Callable[[int], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain sample and its augmentations, (N, 3, S, S) float32 0..255, and their shifts, (N, 2) int64.

    The order is: plain, the relative shifts, one mirrored left-right, the blurs, the rotations.

    image: uint8 H x W x 3. position: (2,) float32, the target's centre (y, x); it is truncated to whole pixels.
    scale: image pixels per sample pixel. sample_size: S.
    draw: called once with the number of random shifts n; returns (n, 2) float32 uniform in [0, 1), (y, x) for
        the mirrored, each blurred and each rotated sample in this order.
    A shift of (dy, dx) means that what was in the middle is now dy pixels lower and dx pixels farther right.
    Border pixels are repeated outside the image.
    """
    expanded_size = int(sample_size * settings.expansion_factor)
    # Both sides are even or both odd, so that the sample lies exactly in the middle.
    expanded_size += (expanded_size - sample_size) % 2
    extent = float(np.float32(scale) * np.float32(expanded_size))
    region = sample_patch(image, position, extent, expanded_size).patch

    moving = _moving_transforms(settings)
    fixed = torch.tensor([(0.0, 0.0), *settings.relative_shifts]) * sample_size / 2
    drawn = (draw(len(moving)) - 0.5) * sample_size * settings.random_shift_factor
    shifts = torch.cat([fixed, drawn]).long()
    transforms = [_unchanged] * len(fixed) + moving
    patches = [
        _shifted_centre(transform(region), sample_size, shift)
        for transform, shift in zip(transforms, shifts.tolist(), strict=True)
    ]
    return torch.cat(patches), shifts


def augmented_inside(
    patch: torch.Tensor, shifts: Sequence[tuple[int, int]], rotations: Sequence[float],
    blur_sigmas: Sequence[tuple[float, float]],
) -> torch.Tensor:
    """A sample (1, 3, S, S) and its augmentations without anything of the scene around it, (N, 3, S, S).

    The order is: plain, shifted by (y, x) pixels, mirrored left-right, rotated by degrees, blurred.
    """
    return torch.cat([
        patch, *(_shifted_centre(patch, patch.shape[-1], list(shift)) for shift in shifts), _flip(patch),
        *(_rotate(patch, degrees) for degrees in rotations), *(_blur(patch, sigmas) for sigmas in blur_sigmas),
    ])


def _moving_transforms(settings: AugmentationSettings) -> list[Transform]:
    """Those whose samples are also shifted at random."""
    blurs = [partial(_blur, sigmas=sigmas) for sigmas in settings.blur_sigmas]
    rotations = [partial(_rotate, degrees=degrees) for degrees in settings.rotations]
    return [_flip, *blurs, *rotations]


def _shifted_centre(region: torch.Tensor, size: int, shift: list[int]) -> torch.Tensor:
    """The central (1, C, size, size) of a region whose content is moved by (y, x), border pixels repeated."""
    rows, columns = (
        (torch.arange(size) + (side - size) // 2 - moved).clamp(0, side - 1)
        for side, moved in zip(region.shape[2:], shift)
    )
    return region[:, :, rows][:, :, :, columns]


def _unchanged(region: torch.Tensor) -> torch.Tensor:
    return region


def _flip(region: torch.Tensor) -> torch.Tensor:
    return region.flip(3)


def _blur(region: torch.Tensor, sigmas: tuple[float, float]) -> torch.Tensor:
    """Gaussian blur, cut off at two standard deviations; outside the region counts as black."""
    channels = region.transpose(0, 1)
    rows, columns = (_gaussian(sigma) for sigma in sigmas)
    channels = F.conv2d(channels, rows.view(1, 1, -1, 1), padding=(len(rows) // 2, 0))
    channels = F.conv2d(channels, columns.view(1, 1, 1, -1), padding=(0, len(columns) // 2))
    return channels.transpose(0, 1)


def _gaussian(sigma: float) -> torch.Tensor:
    reach = math.ceil(2 * sigma)
    weights = torch.exp(torch.arange(-reach, reach + 1, dtype=torch.float32).square() / (-2 * sigma**2))
    return weights / weights.sum()


def _rotate(region: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotation about the centre, bilinear, border pixels repeated."""
    pixels = region[0].permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return to_tensor(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))
