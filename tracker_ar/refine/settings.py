"""Settings of the refiners."""

from __future__ import annotations

from dataclasses import dataclass

from tracker_ar.models.alpha_refine import MASK_REFINER_50, MASK_REFINER_LITE, MaskRefinerConfig
from tracker_ar.models.branch_refiner import (
    BRANCH_REFINER_18,
    BRANCH_REFINER_34,
    BRANCH_REFINER_50,
    BranchRefinerConfig,
)

SELECTED = "selected"


@dataclass(frozen=True)
class RefinerSettings:
    """Everything the mask refiner needs besides its weights; the defaults are those of the challenge entry
    (Alpha-Refine, branch vot2020)."""

    network: MaskRefinerConfig = MASK_REFINER_50
    input_size: int = 384
    search_factor: float = 2.0  # side of the refiner's crop / sqrt(target area)
    threshold: float = 0.65  # mask probability above which a pixel is target
    use_initial_mask: bool = False  # weigh the reference by the first mask; the entry takes only its box
    minimum_part: float = 0.0  # connected parts under this share of the largest one's area are dropped; 0: none
    second_pass: float = 0.0  # overlap of mask and box under which the crop is taken again around the mask; 0: never
    second_pass_interval: int = 1  # frames from one second pass to the next; in between its correction holds
    learning_rate: float = 0.0  # weight of a learned frame against earlier ones; 0: only the first frame counts
    learning_interval: int = 5  # frames
    learning_score: float = 0.9  # mean probability of the mask from which a frame is learned
    first_frame_share: float = 0.7  # weight of the first frame against all later ones


VOT2020 = RefinerSettings()

# On held-out training pairs the mean overlap hardly depends on threshold and minimum part (within 0.015).
LITE = RefinerSettings(
    network=MASK_REFINER_LITE,
    input_size=192,
    threshold=0.5,
    use_initial_mask=True,
    minimum_part=0.5,
    second_pass=0.75,
    second_pass_interval=8,
    learning_rate=0.3,
)


@dataclass(frozen=True)
class BoxRefinerSettings:
    """Everything a refiner with branches needs besides its weights; values of the authors' trackers, pytracking/
    refine_modules and pytracking/tracker on the master branch."""

    network: BranchRefinerConfig = BRANCH_REFINER_34
    branch: str = "corner"  # which gives the box: box, corner, mask, or SELECTED
    masks: bool = True  # also report masks, as in VOT2020; the benchmarks score boxes and leave them out
    search_factor: float = 2.0  # side of the refiner's crop / side of the target, along both axes
    threshold: float = 0.65  # mask probability above which a pixel is target, in the VOT2020 scripts


AR_34 = BoxRefinerSettings()  # CVPR 2021: "all" branches, of which the corner branch gives the box
AR_18 = BoxRefinerSettings(network=BRANCH_REFINER_18)
AR_BASE = BoxRefinerSettings(network=BRANCH_REFINER_50, branch=SELECTED)  # arXiv 2007.02024, July 2020
