"""From the score map of the target filter to a place and the probability that the target is there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PresenceSettings:
    """weights: of 1, peak and rival in the logarithm of the odds that the peak is the target. neighborhood: target sizes
    that are masked out before the second peak is sought. hard_negative: rival from which the filter learns at once."""

    weights: tuple[float, float, float] = (-2.0, 8.0, -2.0)
    neighborhood: float = 2.0
    hard_negative: float = 0.5


@dataclass(frozen=True)
class Peaks:
    """place: (x, y) of the highest peak in cells, between the cells. first, second: the two highest scores."""

    place: tuple[float, float]
    first: float
    second: float


@dataclass(frozen=True)
class Evidence:
    """peak: the highest score. rival: the second peak's share of it, 0 to 1."""

    peak: float
    rival: float


def score_peaks(scores: np.ndarray, target_size: np.ndarray, settings: PresenceSettings) -> Peaks:
    """The highest peaks of a map (h, w). target_size: (width, height) in cells."""
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    reach = np.maximum(settings.neighborhood * target_size / 2, 1.0)
    rows, columns = np.ogrid[: scores.shape[0], : scores.shape[1]]
    near = (np.abs(rows - row) <= reach[1]) & (np.abs(columns - column) <= reach[0])
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
    """Where the parabola through a maximum and its neighbours has its vertex, relative to the maximum, in cells."""
    if not 0 < index < len(line) - 1:
        return 0.0
    before, middle, after = (float(line[index + step]) for step in (-1, 0, 1))
    bend = before - 2 * middle + after
    return 0.5 * (before - after) / bend if bend < -1e-9 else 0.0
