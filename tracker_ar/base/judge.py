"""Which box of a frame is believed, and fed back to the base tracker: the base tracker's, or the refiner's.

The refiner's box is the better one as long as its crop shows the target; where it does not, feeding it back ruins the
search. It is believed by how well its box agrees with its mask and how well it expects the mask to cover the target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tracker_ar.geometry import box_from_mask
from tracker_ar.prediction import Refinement, State, Verdict

_CERTAIN = 0.99


@dataclass(frozen=True)
class JudgeSettings:
    """found, lost: scores from which the target counts as found, and under which as lost.

    base_weight, refiner_weight, caution: of the base tracker's score and the refiner's in the logarithm of the odds,
    and what is taken off it: both are fooled by the same distractors. agreement: overlap of the refiner's box with the
    box around its mask, quality: expected overlap of the mask, from which on the refiner's box begins to be believed,
    and where it wholly is. pull: fraction of the way from the last size to one that is wholly believed; most_growth: of
    a side per frame, either way, before that.
    """

    found: float = 0.9
    lost: float = 0.15
    base_weight: float = 0.6
    refiner_weight: float = 0.7
    caution: float = 1.5
    agreement: tuple[float, float] = (0.6, 0.85)
    quality: tuple[float, float] = (0.4, 0.65)
    pull: float = 0.7
    most_growth: float = 1.3


def judge(box: np.ndarray, score: float, refined: Refinement | None, settings: JudgeSettings) -> Verdict:
    """What is believed of a frame. box, score: of the base tracker, (4,) x, y, w, h with the last size."""
    if refined is not None:
        presence = refined.score if refined.presence is None else refined.presence
        odds = settings.base_weight * logit(score) + settings.refiner_weight * logit(presence) - settings.caution
        score = expit(odds)
    state = State.LOST if score < settings.lost else State.FOUND if score >= settings.found else State.UNCERTAIN
    if refined is None or state is State.LOST:
        return Verdict(state, box, score, state is not State.LOST)
    belief = belief_in(refined, settings)
    return Verdict(state, moved_towards(box, refined.box, belief, settings), score, belief >= 0.5)


def belief_in(refined: Refinement, settings: JudgeSettings) -> float:
    """How far a refiner's box is believed, 0 to 1."""
    quality = refined.score if refined.quality is None else refined.quality
    belief = _ramp(quality, settings.quality)
    if refined.mask is not None:
        agreement = overlap(refined.box, box_from_mask(refined.mask)) if refined.mask.any() else 0.0
        belief = min(belief, _ramp(agreement, settings.agreement))
    return belief


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
    common = float(np.maximum(far - near, 0).prod())
    return common / float(first[2:].prod() + second[2:].prod() - common)


def logit(probability: float) -> float:
    """The logarithm of the odds; nothing counts as more certain than 0.99."""
    probability = min(max(probability, 1 - _CERTAIN), _CERTAIN)
    return math.log(probability / (1 - probability))


def expit(log_odds: float) -> float:
    """The probability of these odds."""
    return 1 / (1 + math.exp(-log_odds))


def _ramp(value: float, limits: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (value - limits[0]) / (limits[1] - limits[0])))
