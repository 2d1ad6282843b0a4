"""Settings that base trackers share; the defaults are those of SuperDiMP (pytracking, `parameter/dimp/super_dimp.py`).

The settings of each tracker stand in the module of its engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class AugmentationSettings:
    """Transforms of the first frame (DiMP, section 3.4; values of SuperDiMP)."""

    expansion_factor: float = 2.0  # the patch that is transformed is this many times the network's input
    random_shift_factor: float = 1 / 3  # of the input's side; moves flipped, blurred and rotated samples
    relative_shifts: tuple[tuple[float, float], ...] = ((0.6, 0.6), (-0.6, 0.6), (0.6, -0.6), (-0.6, -0.6))
    blur_sigmas: tuple[tuple[float, float], ...] = ((3, 1), (1, 3), (2, 2))  # (rows, columns), pixels
    rotations: tuple[float, ...] = (10, -10, 45, -45)  # degrees
    dropout_samples: int = 2  # copies of the plain sample with feature channels dropped
    dropout_probability: float = 0.2


@dataclass(frozen=True)
class MemorySettings:
    """Sample memory and filter updates (DiMP, section 3.4)."""

    capacity: int = 50
    learning_rate: float = 0.01
    hard_negative_learning_rate: float = 0.02
    initial_samples_minimum_weight: float = 0.25
    update_interval: int = 20  # frames
    initial_iterations: int = 10
    update_iterations: int = 2
    hard_negative_iterations: int = 1


@dataclass(frozen=True)
class LocalizationSettings:
    """Decisions on the score map ('advanced localisation' of ATOM and DiMP).

    softmax: whether the score map becomes a density first, as PrDiMP's.
    window: whether a Hann window weighs the scores, and before which peaks are sought: both, or only the first one, so
        that distractors far away are learned from all the same.
    """

    not_found_threshold: float = 0.25
    distractor_threshold: float = 0.8  # second peak / first peak from which it counts as a distractor
    hard_negative_threshold: float = 0.5
    neighborhood_scale: float = 2.2  # target sizes that are masked out before the second peak is sought
    displacement_scale: float = 0.8
    inside_ratio: float = 0.2  # fraction of the target that must stay within the image
    softmax: bool = False
    window: Literal["none", "first peak", "both peaks"] = "none"


@dataclass(frozen=True)
class BoxRefinementSettings:
    """Ascent on the predicted IoU (ATOM, section 3.2).

    space: "pixels", as ATOM and DiMP climb, or the relative box space of PrDiMP.
    """

    space: Literal["pixels", "relative"] = "relative"
    random_boxes: int = 9
    jitter_position: float = 0.1
    jitter_size: float = 0.5
    iterations: int = 10
    step_length: float = 2.5e-3
    top_k: int = 3
    maximal_aspect_ratio: float = 6.0


@dataclass(frozen=True)
class OverlapSettings:
    """What ATOM and DiMP need besides network and weights."""

    input_size: int = 352  # side of the search region as the network sees it, pixels
    search_area_scale: float = 6.0  # side of the search region / sqrt(target area)
    border_mode: str = "inside_major"
    max_scale_change: float = 1.5
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    localization: LocalizationSettings = field(default_factory=LocalizationSettings)
    box_refinement: BoxRefinementSettings = field(default_factory=BoxRefinementSettings)


IN_PIXELS = BoxRefinementSettings(space="pixels", iterations=5, step_length=1.0)
# Of ATOM and DiMP, and of ATOM and the VOT variants of DiMP.
MANY_AUGMENTATIONS = AugmentationSettings(
    blur_sigmas=((2, 0.2), (0.2, 2), (3, 1), (1, 3), (2, 2)),
    rotations=(5, -5, 10, -10, 20, -20, 30, -30, 45, -45, -60, 60),
    dropout_samples=7,
)
