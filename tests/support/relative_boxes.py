"""PrDiMP's relative form of boxes, in which the reference climbs; our ascent has it multiplied out."""

from __future__ import annotations

import torch
from torch import Tensor


def to_relative(boxes: Tensor, reference_size: Tensor) -> Tensor:
    """(..., 4) x, y, w, h to (centre x / w0, centre y / h0, log w, log h); reference_size (..., 2) is (w0, h0)."""
    centers = boxes[..., :2] + 0.5 * boxes[..., 2:]
    return torch.cat((centers / reference_size, torch.log(boxes[..., 2:])), dim=-1)


def from_relative(relative: Tensor, reference_size: Tensor) -> Tensor:
    """The inverse of `to_relative`."""
    sizes = torch.exp(relative[..., 2:])
    return torch.cat((relative[..., :2] * reference_size - 0.5 * sizes, sizes), dim=-1)


def relative_gradient(gradient: Tensor, boxes: Tensor, reference_size: Tensor) -> Tensor:
    """A gradient for boxes (n, 4) x, y, w, h as the gradient for their relative form (chain rule)."""
    of_corner, of_size = gradient[:, :2], gradient[:, 2:]
    return torch.cat((of_corner * reference_size, (of_size - 0.5 * of_corner) * boxes[:, 2:]), dim=1)
