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
    which its box is believed. overlaps: of both boxes, where the refiner's begins to be believed, and where it wholly
    is. pull: share of the way from the last size to a box that is wholly believed; most_growth: of a side within a frame,
    either way, before that."""

    found: float = 0.75
    lost: float = 0.3
    sure: float = 0.6
    overlaps: tuple[float, float] = (0.3, 0.7)
    pull: float = 0.7
    most_growth: float = 1.25


def judge(
    box: np.ndarray, score: float, refined: np.ndarray, refined_score: float, settings: JudgeSettings
) -> Verdict:
    """box, score: of the base tracker, where the size is the last one. refined, refined_score: of the refiner, a box of
    the same form and its confidence, 0 where it saw nothing."""
    if score < settings.lost:
        return Verdict(State.LOST, box, False)
    state = State.FOUND if score >= settings.found else State.UNCERTAIN
    least, enough = settings.overlaps
    belief = min(1.0, (overlap(box, refined) - least) / (enough - least))
    if refined_score < settings.sure or belief <= 0:
        return Verdict(state, box, False)
    return Verdict(state, moved_towards(box, refined, belief, settings), True)


def moved_towards(box: np.ndarray, refined: np.ndarray, belief: float, settings: JudgeSettings) -> np.ndarray:
    """The box on its way to the refined one. belief: in it, 0 to 1."""
    growth = np.clip(refined[2:] / box[2:], 1 / settings.most_growth, settings.most_growth) ** (belief * settings.pull)
    size = box[2:] * growth
    near, far = (one[:2] + one[2:] / 2 for one in (box, refined))
    return np.concatenate((near + belief * (far - near) - size / 2, size))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes with positive size, 0 to 1."""
    near = np.maximum(first[:2], second[:2])
    far = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    shared = float(np.maximum(far - near, 0).prod())
    return shared / float(first[2:].prod() + second[2:].prod() - shared)
