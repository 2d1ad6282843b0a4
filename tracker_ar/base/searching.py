"""Where to search next for a target that is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SearchSettings:
    """patience: frames after a loss in which the target is expected where it was. growth: of the search region from
    then on. scan_after: frames after which every second search is somewhere else in the image."""

    patience: int = 2
    growth: float = 1.5
    scan_after: int = 8
    scan_step: float = 0.6  # of the search region's side, from one place to the next


def next_search(
    box: np.ndarray, lost_frames: int, image_size: tuple[int, int], side: float, settings: SearchSettings
) -> tuple[np.ndarray, float]:
    """Centre (x, y) of the next search region and its growth against the usual one.

    box: (4,) x, y, w, h, where the target was last found. image_size: (height, width). side: of the usual region, image
    pixels.
    """
    centre = box[:2] + box[2:] / 2
    if lost_frames < settings.patience:
        return centre, 1.0
    if lost_frames < settings.scan_after or lost_frames % 2 == 0:
        return centre, settings.growth
    places = scan_places(centre, image_size, settings.scan_step * side)
    return places[(lost_frames - settings.scan_after) // 2 % len(places)], 1.0


def scan_places(centre: np.ndarray, image_size: tuple[int, int], step: float) -> np.ndarray:
    """Centres (n, 2) x, y of regions that cover an image, those nearest to `centre` first."""
    axes = []
    for length in image_size[::-1]:
        count = max(1, int(np.ceil(length / step)))
        axes.append((np.arange(count) + 0.5) * length / count)
    places = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    return places[np.argsort(((places - centre) ** 2).sum(1), kind="stable")]
