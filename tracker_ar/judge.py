"""Which box of a frame is believed, and fed back to the base tracker: the base tracker's, or the refiner's.

The refiner's box is the better one as long as it looks at the target; where it does not, feeding it back ruins the
search. So it must be sure, agree with the place that the score map names, and change the size plausibly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracker_ar.prediction import State, Verdict


@dataclass(frozen=True)
class JudgeSettings:
    """found, lost: scores from which the target counts as found, and under which as lost. sure: score of the refiner from
    which its box is believed. least_overlap: of both boxes. most_growth: of a side within a frame, either way, before
    the change is slowed down. pull: share of the way from the last size to the refiner's."""

    found: float = 0.5
    lost: float = 0.2
    sure: float = 0.6
    least_overlap: float = 0.2
    most_growth: float = 1.25
    pull: float = 0.7


def judge(
    box: np.ndarray, score: float, refined: np.ndarray, refined_score: float, settings: JudgeSettings
) -> Verdict:
    """box, score: of the base tracker, where the size is the last one. refined, refined_score: of the refiner, a box of
    the same form and its confidence, 0 where it saw nothing."""
    if score < settings.lost:
        return Verdict(State.LOST, box, False)
    state = State.FOUND if score >= settings.found else State.UNCERTAIN
    trusted = refined_score >= settings.sure and overlap(box, refined) >= settings.least_overlap
    if not trusted:
        return Verdict(state, box, False)
    return Verdict(state, moved_towards(box, refined, settings), True)


def moved_towards(box: np.ndarray, refined: np.ndarray, settings: JudgeSettings) -> np.ndarray:
    """A box at the refined one's place whose size is between both, and within the growth that is allowed."""
    growth = np.clip(refined[2:] / box[2:], 1 / settings.most_growth, settings.most_growth) ** settings.pull
    size = box[2:] * growth
    return np.concatenate((refined[:2] + refined[2:] / 2 - size / 2, size))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes with positive size, 0 to 1."""
    near = np.maximum(first[:2], second[:2])
    far = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    shared = float(np.maximum(far - near, 0).prod())
    return shared / float(first[2:].prod() + second[2:].prod() - shared)
