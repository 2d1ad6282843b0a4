"""Typed settings, one frozen profile per published configuration, and ours.

`vot2020` is the entry that won the VOT2020 real-time challenge: the base tracker with the published SuperDiMP
settings (pytracking, `parameter/dimp/super_dimp.py`) and the mask refiner at 384 x 384 with threshold 0.65
(Alpha-Refine, branch vot2020). `lite` is the same system scaled down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tracker_ar.base.lite import LiteBaseSettings
from tracker_ar.base.settings import BaseSettings
from tracker_ar.judge import JudgeSettings
from tracker_ar.models.alpha_refine import MASK_REFINER_LITE
from tracker_ar.refine.settings import RefinerSettings


@dataclass(frozen=True)
class Profile:
    """One complete tracker: `name` is what `build_tracker` takes and what the TraX hello says. judge: of base trackers
    that are `FedBack`."""

    name: str
    base: BaseSettings | LiteBaseSettings
    refiner: RefinerSettings
    minimum_side: float = 10.0  # pixels; boxes are clipped to the image with at least this width and height
    confident_score: float = 0.5  # of the base tracker, from which the refiner's target model may learn
    judge: JudgeSettings = field(default_factory=JudgeSettings)


VOT2020 = Profile("vot2020", BaseSettings(), RefinerSettings())

LITE = Profile(
    "lite",
    LiteBaseSettings(),
    # On held-out training pairs the mean overlap hardly depends on threshold and minimum part (within 0.015).
    RefinerSettings(
        network=MASK_REFINER_LITE,
        input_size=256,
        threshold=0.5,
        use_initial_mask=True,
        minimum_part=0.5,
        second_pass=0.75,
        second_pass_interval=8,
        learning_rate=0.3,
    ),
)

PROFILES = {profile.name: profile for profile in (VOT2020, LITE)}
