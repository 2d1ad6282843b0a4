"""The box branch of the refiner of `lite`, and its judgement of what it found."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STRIDE = 4


class EdgeHead(nn.Module):
    """The edges of the target's box, each by soft-argmax along its axis.

    Alpha-Refine's box branch takes the expectation of two corner heat maps (Yan et al. 2021, section 3.2), of which it
    only uses the marginals along x and y. Here the decoder's features are projected on the axes first, by maximum and
    mean as the extent of a mask is, and convolved along them: the whole other axis is in view, at a fraction of the
    cost.

    channels: of the decoder's features; hidden: along the axes, of both together. margin: how many cells an edge may
    lie outside the crop.
    """

    def __init__(self, channels: int, hidden: int = 96, margin: int = 8) -> None:
        super().__init__()
        self.margin = margin
        self.mix = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        # Two groups: along x and along y.
        layers: list[nn.Module] = []
        width = 4 * channels
        for dilation in (1, 2, 4):
            layers += [nn.Conv1d(width, hidden, 5, padding=2 * dilation, dilation=dilation, groups=2), nn.ReLU()]
            width = hidden
        last = nn.Conv1d(hidden, 4, 5, padding=2, groups=2)
        self.along = nn.Sequential(*layers, last)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.normal_(last.weight, std=0.01)

    def forward(self, decoded: Tensor) -> Tensor:
        """(N, C, S / 4, S / 4) -> corners x1, y1, x2, y2 in pixels of the crop, (N, 4)."""
        mixed = self.mix(decoded)
        profiles = [part for axis in (2, 3) for part in (mixed.amax(axis), mixed.mean(axis))]
        logits = self.along(F.pad(torch.cat(profiles, dim=1), (self.margin, self.margin)))
        cells = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        places = (cells + (0.5 - self.margin)) * _STRIDE
        # Of the groups: left and right, top and bottom.
        edges = torch.softmax(logits.float(), dim=-1) @ places.float()
        return edges[:, [0, 2, 1, 3]]


class Judge(nn.Module):
    """Whether the crop holds the target, and how well the mask covers it.

    What the mask covers is compared with the reference: in the decoder's features, in the target model's score and in
    direction with the mean of the reference's kernel.
    """

    def __init__(self, channels: int, embedded: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * channels + embedded + 4, hidden), nn.ReLU(), nn.Linear(hidden, 2)
        )

    def forward(self, decoded: Tensor, logits: Tensor, score: Tensor, kernel: Tensor, embedded: Tensor) -> Tensor:
        """decoded (N, C, S / 4, S / 4), mask logits (N, 1, S, S), score (N, 1, S / 4, S / 4), kernel (N or 1, E, p, p),
        embedded search features (N, E, S / 16, S / 16) -> logits (N, 2): that the target is there, of the mask's
        IoU."""
        covered = torch.sigmoid(F.avg_pool2d(logits, _STRIDE))
        coarse = F.avg_pool2d(covered, _STRIDE)
        identity = F.normalize(kernel.mean((2, 3)), dim=1)
        seen = F.normalize(_inside(embedded, coarse), dim=1)
        numbers = (
            covered.mean((2, 3)), covered.amax((2, 3)),
            _inside(score, covered).clamp(-2, 2), score.amax((2, 3)).clamp(-2, 2),
        )
        parts = (_inside(decoded, covered), decoded.amax((2, 3)), seen * identity * 8.0, *numbers)
        return self.layers(torch.cat(parts, dim=1))


def _inside(maps: Tensor, covered: Tensor) -> Tensor:
    """Means of maps (N, C, h, w) weighed by (N, 1, h, w): (N, C)."""
    return (maps * covered).sum((2, 3)) / (covered.sum((2, 3)) + 1e-2)
