"""From the score map of the target filter to a place and the probability that the target is there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PresenceSettings:
    """weights: of 1, peak and rival in the logarithm of the odds that the peak is the target. neighborhood: target
    sizes that are masked out before the second peak is sought. hard_negative: rival from which the filter learns at
    once. stay: how much less a peak counts that is far from the last place, 0 to 1; reach: standard deviation of being
    near, in target sizes."""

    weights: tuple[float, float, float] = (-2.2, 11.0, 0.0)
    neighborhood: float = 2.0
    hard_negative: float = 0.5
    stay: float = 0.4
    reach: float = 0.75


@dataclass(frozen=True)
class Peaks:
    """place: (x, y) of the highest peak in cells, between the cells. first, second: the two highest scores."""

    place: tuple[float, float]
    first: float
    second: float


@dataclass(frozen=True)
class Evidence:
    """peak: the highest score. rival: the second peak as a fraction of it, 0 to 1."""

    peak: float
    rival: float


def score_peaks(
    scores: np.ndarray, target_size: np.ndarray, last: np.ndarray | None, settings: PresenceSettings
) -> Peaks:
    """The target's peak in a map (h, w), and the highest one beside it.

    target_size: (width, height) in cells. last: (x, y) in cells, where the target was, None where that says nothing.
    """
    rows, columns = np.ogrid[: scores.shape[0], : scores.shape[1]]
    weighed = scores
    if last is not None:
        distance = ((rows - last[1]) ** 2 + (columns - last[0]) ** 2) / target_size.prod()
        weighed = scores * (1 - settings.stay + settings.stay * np.exp(-0.5 * distance / settings.reach**2))
    row, column = divmod(int(weighed.argmax()), scores.shape[1])
    around = np.maximum(settings.neighborhood * target_size / 2, 1.0)
    near = (np.abs(rows - row) <= around[1]) & (np.abs(columns - column) <= around[0])
    others = scores[~near]
    second = float(others.max()) if others.size else 0.0
    place = column + _vertex(scores[row], column), row + _vertex(scores[:, column], row)
    return Peaks(place, float(scores[row, column]), max(second, 0.0))


def evidence_of(peaks: Peaks) -> Evidence:
    """What the peaks say."""
    return Evidence(peaks.first, min(1.0, peaks.second / max(peaks.first, 1e-6)))


def presence(evidence: Evidence, settings: PresenceSettings) -> float:
    """The probability that the highest peak is the target, 0 to 1."""
    constant, peak, rival = settings.weights
    return 1 / (1 + math.exp(-(constant + peak * evidence.peak + rival * evidence.rival)))


def _vertex(line: np.ndarray, index: int) -> float:
    """Where the parabola through a maximum and its neighbours has its vertex, relative to the maximum, in cells; 0
    where it is none."""
    if not 0 < index < len(line) - 1:
        return 0.0
    before, middle, after = (float(line[index + step]) for step in (-1, 0, 1))
    bend = before - 2 * middle + after
    return 0.5 * (before - after) / bend if middle >= max(before, after) and bend < -1e-9 else 0.0
