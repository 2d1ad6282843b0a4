"""Settings of the base trackers; the defaults are those of SuperDiMP (pytracking, `parameter/dimp/super_dimp.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tracker_ar.models import dimp as networks
from tracker_ar.models.factorized_filter import FactorizedFilterSettings


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


@dataclass(frozen=True)
class BaseSettings(OverlapSettings):
    """Everything DiMP, PrDiMP or SuperDiMP needs besides its weights."""

    network: networks.DiMPConfig = networks.SUPER_DIMP_50


@dataclass(frozen=True)
class ATOMSettings(OverlapSettings):
    """Everything ATOM needs besides its weights. The iterations of `memory` are those of conjugate gradient."""

    filter: FactorizedFilterSettings = field(default_factory=FactorizedFilterSettings)
    label_sigma: float = 1 / 4  # of the target's side


_PIXELS = BoxRefinementSettings(space="pixels", iterations=5, step_length=1.0)
# Of ATOM and of the VOT variants of DiMP.
_MANY = AugmentationSettings(
    blur_sigmas=((2, 0.2), (0.2, 2), (3, 1), (1, 3), (2, 2)),
    rotations=(5, -5, 10, -10, 20, -20, 30, -30, 45, -45, -60, 60),
    dropout_samples=7,
)

SUPER_DIMP = BaseSettings()

LITE = BaseSettings(
    network=networks.SUPER_DIMP_LITE,
    # Trained at 256 and 5.0: the target is as large in the smaller region, and a frame takes 5 % less.
    input_size=224,
    search_area_scale=4.375,
)

# pytracking, `parameter/dimp/dimp50.py`, `dimp18.py`.
DIMP_50 = BaseSettings(
    network=networks.DIMP_50, input_size=18 * 16, search_area_scale=5.0, border_mode="replicate",
    box_refinement=_PIXELS,
)
DIMP_18 = replace(DIMP_50, network=networks.DIMP_18)
# pytracking, `parameter/dimp/prdimp50.py`, `prdimp18.py`.
PRDIMP_50 = BaseSettings(
    network=networks.PRDIMP_50, localization=LocalizationSettings(not_found_threshold=0.04, softmax=True),
)
PRDIMP_18 = replace(
    PRDIMP_50, network=networks.PRDIMP_18, input_size=18 * 16, search_area_scale=5.0, border_mode="replicate"
)

_DIMP_VOT = LocalizationSettings(
    not_found_threshold=0.0, distractor_threshold=100, hard_negative_threshold=0.45, displacement_scale=0.7,
    window="first peak",
)
# pytracking, `parameter/dimp/dimp50_vot18.py`, `dimp18_vot18.py`.
DIMP_50_VOT18 = replace(
    DIMP_50, input_size=14 * 16, search_area_scale=4.0, augmentation=_MANY, localization=_DIMP_VOT,
    memory=MemorySettings(
        capacity=250, learning_rate=0.0075, initial_samples_minimum_weight=0.0, update_interval=10,
        initial_iterations=25, update_iterations=3, hard_negative_iterations=3,
    ),
)
DIMP_18_VOT18 = replace(DIMP_50_VOT18, network=networks.DIMP_18)
# pytracking, `parameter/dimp/dimp50_vot19.py`.
DIMP_50_VOT19 = replace(
    DIMP_50, input_size=16 * 16, search_area_scale=4.5, localization=_DIMP_VOT,
    augmentation=AugmentationSettings(
        expansion_factor=1.4, relative_shifts=((0.6, 0.6), (-0.6, -0.6)), blur_sigmas=((2, 0.2), (1, 3)),
        rotations=(-5, 10, -30, 60), dropout_samples=3,
    ),
    memory=MemorySettings(
        capacity=100, learning_rate=0.0075, initial_samples_minimum_weight=0.0, update_interval=10,
        initial_iterations=15, update_iterations=2, hard_negative_iterations=2,
    ),
    box_refinement=replace(_PIXELS, iterations=3),
)

# pytracking, `parameter/atom/default.py`.
ATOM = ATOMSettings(
    input_size=18 * 16, search_area_scale=5.0, border_mode="replicate", augmentation=_MANY, box_refinement=_PIXELS,
    memory=MemorySettings(capacity=250, update_interval=10, update_iterations=5, hard_negative_iterations=5),
)
# pytracking, `parameter/atom/default_vot.py`.
ATOM_VOT = replace(
    ATOM, input_size=14 * 16, search_area_scale=4.0,
    memory=replace(ATOM.memory, learning_rate=0.0075, initial_samples_minimum_weight=0.0),
    localization=LocalizationSettings(
        not_found_threshold=-1.0, distractor_threshold=100, hard_negative_threshold=0.3, displacement_scale=0.7,
        window="both peaks",
    ),
)
