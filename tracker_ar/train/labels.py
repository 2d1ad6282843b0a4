"""What the base tracker is taught: Gaussian score maps and box proposals with their densities."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_labels(boxes: Tensor, image_size: int, feature_size: int, sigma: float) -> Tensor:
    """Score maps with a peak of 1 at the target's centre.

    Args:
        boxes: (N, 4) x, y, w, h in pixels of the search region.
        image_size, feature_size: sides of the search region in pixels and in feature cells.
        sigma: in feature cells.

    Returns:
        (N, feature_size + 1, feature_size + 1): a filter of even size puts cell j at j / feature_size of the
        image.
    """
    centres = (boxes[:, :2] + boxes[:, 2:] / 2) * (feature_size / image_size)
    cells = torch.arange(feature_size + 1, dtype=boxes.dtype, device=boxes.device)
    columns = torch.exp(-0.5 * ((cells - centres[:, :1]) / sigma) ** 2)
    rows = torch.exp(-0.5 * ((cells - centres[:, 1:]) / sigma) ** 2)
    return rows[:, :, None] * columns[:, None, :]


def box_proposals(
    boxes: Tensor,
    count: int,
    generator: torch.Generator,
    target_sigma: float = 0.05,
    sigmas: tuple[float, ...] = (0.05, 0.5),
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes around the annotation, drawn from a mixture of Gaussians as in PrDiMP (Danelljan et al., 2020).

    The space is (cx / w, cy / h, log w, log h) with the annotation's w and h in the first two.

    Args:
        boxes: (N, 4) x, y, w, h.

    Returns:
        proposals (N, count, 4) x, y, w, h; their density under the mixture and under the annotation's own
        Gaussian of `target_sigma`, both (N, count).
    """
    shape = (len(boxes), count)
    choice = torch.randint(len(sigmas), shape, generator=generator)
    spread = torch.tensor(sigmas, dtype=boxes.dtype)[choice][..., None]
    delta = torch.randn(*shape, 4, generator=generator, dtype=boxes.dtype) * spread
    square = delta.square().sum(-1)
    mixture = torch.stack([_density(square, sigma) for sigma in sigmas]).mean(0)
    extent = boxes[:, None, 2:]
    centre = boxes[:, None, :2] + extent / 2 + delta[..., :2] * extent
    size = extent * delta[..., 2:].exp()
    return torch.cat((centre - size / 2, size), -1), mixture, _density(square, target_sigma)


def _density(square: Tensor, sigma: float) -> Tensor:
    """Of a four-dimensional isotropic Gaussian at a squared distance."""
    return torch.exp(-0.5 * square / sigma**2) / (2 * math.pi * sigma**2) ** 2
