"""From the score map of the target filter to a translation and a decision (ATOM and DiMP, 'advanced localisation')."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from tracker_ar.base.settings import LocalizationSettings


class Decision(str, Enum):
    """What the score map says of the target."""

    NORMAL = "normal"
    HARD_NEGATIVE = "hard_negative"  # the target, with a distractor that the filter should learn from
    UNCERTAIN = "uncertain"  # two peaks that cannot be told apart
    NOT_FOUND = "not_found"

    @property
    def learns(self) -> bool:
        """Whether the frame may become a training sample."""
        return self in (Decision.NORMAL, Decision.HARD_NEGATIVE)


@dataclass(frozen=True)
class SearchGeometry:
    """How the score map of one search region lies in the image.

    position: centre of the search region, (y, x) float32, image pixels.
    scale: image pixels per pixel of the network's input, float32 scalar tensor.
    cell: pixels of the network's input per cell of the score map, (2,) float32.
    center: (row, column) of the score map that lies at `position`; None: its middle.
    """

    position: Tensor
    scale: Tensor
    cell: Tensor
    center: Tensor | None = None


def peak(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Highest score of an (h, w) map and its (row, column) as float32. Ties: first column, then first row."""
    column_best, rows = torch.max(scores, dim=0)
    best, column = torch.max(column_best, dim=0)
    return best, torch.stack((rows[column], column)).float()


def localize(
    scores: Tensor,
    search: SearchGeometry,
    previous_position: Tensor,
    target_size: Tensor,
    settings: LocalizationSettings,
) -> tuple[Tensor, Decision]:
    """Decide where the target is.

    scores: (h, w) float32 on the CPU. previous_position, target_size: (y, x) and (height, width) float32 in image
    pixels, as they were before this frame. Returns the translation from the search region's centre, (y, x) float32
    in image pixels, and the decision.
    """
    height, width = scores.shape
    center = search.center
    if center is None:
        center = (torch.tensor([height, width], dtype=torch.float32) - 1) / 2
    step = search.cell * search.scale

    windowed = scores * _window(scores.shape, center) if settings.window != "none" else scores
    if settings.window == "both peaks":
        scores = windowed
    first_score, first_peak = peak(windowed)
    first_offset = first_peak - center
    first_translation = first_offset * step
    if first_score.item() < settings.not_found_threshold:
        return first_translation, Decision.NOT_FOUND

    around = settings.neighborhood_scale * (target_size / search.scale) * (1 / search.cell)
    second_score, second_peak = peak(_without_neighborhood(scores, first_peak, around))
    second_offset = second_peak - center

    if second_score > settings.distractor_threshold * first_score:
        previous_offset = (previous_position - search.position) / step
        limit = settings.displacement_scale * math.sqrt(height * width) / 2
        first_distance = torch.sqrt(torch.sum((first_offset - previous_offset) ** 2))
        second_distance = torch.sqrt(torch.sum((second_offset - previous_offset) ** 2))
        if second_distance > limit and first_distance < limit:
            return first_translation, Decision.HARD_NEGATIVE
        if second_distance < limit and first_distance > limit:
            return second_offset * step, Decision.HARD_NEGATIVE
        return first_translation, Decision.UNCERTAIN

    if (
        second_score > settings.hard_negative_threshold * first_score
        and second_score > settings.not_found_threshold
    ):
        return first_translation, Decision.HARD_NEGATIVE
    return first_translation, Decision.NORMAL


def keep_inside(position: Tensor, target_size: Tensor, image_size: Tensor, inside_ratio: float) -> Tensor:
    """Move a centre (y, x) so that `inside_ratio` of the target stays within the image; all float32, pixels."""
    offset = (inside_ratio - 0.5) * target_size
    return torch.max(torch.min(position, image_size - offset), offset)


def _window(shape: torch.Size, center: Tensor) -> Tensor:
    """A Hann window of the map's shape around its centre, which no cell reaches the zeros of."""
    rows, columns = (
        0.5 + 0.5 * torch.cos(torch.pi * (torch.arange(side, dtype=torch.float32) - middle) / (middle + 1))
        for side, middle in zip(shape, center)
    )
    return rows[:, None] * columns


def _without_neighborhood(scores: Tensor, peak_at: Tensor, around: Tensor) -> Tensor:
    """The map with a window of `around` (height, width) cells at the peak set to zero."""
    first = [max(round(p - s / 2), 0) for p, s in zip(peak_at.tolist(), around.tolist())]
    last = [min(round(p + s / 2 + 1), n) for p, s, n in zip(peak_at.tolist(), around.tolist(), scores.shape)]
    masked = scores.clone()
    masked[first[0] : last[0], first[1] : last[1]] = 0
    return masked
