"""Typed settings, one frozen profile per published configuration, and ours.

`vot2020` is the entry that won the VOT2020 real-time challenge: the base tracker with the published SuperDiMP
settings (pytracking, `parameter/dimp/super_dimp.py`) and the mask refiner at 384 x 384 with threshold 0.65
(Alpha-Refine, branch vot2020). `lite` is the same system scaled down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tracker_ar.models.mask_refiner import MASK_REFINER_50, MASK_REFINER_LITE, MaskRefinerConfig
from tracker_ar.models.super_dimp import SUPER_DIMP_50, SUPER_DIMP_LITE, SuperDiMPConfig


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
    """Decisions on the score map ('advanced localisation' of ATOM and DiMP)."""

    not_found_threshold: float = 0.25
    distractor_threshold: float = 0.8  # second peak / first peak from which it counts as a distractor
    hard_negative_threshold: float = 0.5
    neighborhood_scale: float = 2.2  # target sizes that are masked out before the second peak is sought
    displacement_scale: float = 0.8
    inside_ratio: float = 0.2  # share of the target that must stay within the image


@dataclass(frozen=True)
class BoxRefinementSettings:
    """Ascent on the predicted IoU (ATOM, section 3.2, in the relative box space of PrDiMP)."""

    random_boxes: int = 9
    jitter_position: float = 0.1
    jitter_size: float = 0.5
    iterations: int = 10
    step_length: float = 2.5e-3
    top_k: int = 3
    maximal_aspect_ratio: float = 6.0


@dataclass(frozen=True)
class BaseSettings:
    """Everything the base tracker needs besides its weights."""

    network: SuperDiMPConfig = SUPER_DIMP_50
    input_size: int = 352  # side of the search region as the network sees it, pixels
    search_area_scale: float = 6.0  # side of the search region / sqrt(target area)
    border_mode: str = "inside_major"
    max_scale_change: float = 1.5
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    localization: LocalizationSettings = field(default_factory=LocalizationSettings)
    box_refinement: BoxRefinementSettings = field(default_factory=BoxRefinementSettings)


@dataclass(frozen=True)
class RefinerSettings:
    """Everything the mask refiner needs besides its weights."""

    network: MaskRefinerConfig = MASK_REFINER_50
    input_size: int = 384
    search_factor: float = 2.0  # side of the refiner's crop / sqrt(target area)
    threshold: float = 0.65  # mask probability above which a pixel is target
    use_initial_mask: bool = False  # weigh the reference by the first mask; the entry takes only its box
    minimum_part: float = 0.0  # connected parts under this share of the largest one's area are dropped; 0: none
    second_look: float = 0.0  # overlap of mask and box under which the crop is taken again around the mask; 0: never
    second_look_interval: int = 1  # frames from one second look to the next; in between its correction holds
    learning_rate: float = 0.0  # weight of a learned frame against earlier ones; 0: only the first frame counts
    learning_interval: int = 5  # frames
    learning_score: float = 0.9  # mean probability of the mask from which a frame is learned
    first_frame_share: float = 0.7  # weight of the first frame against all later ones


@dataclass(frozen=True)
class Profile:
    """One complete tracker: `name` is what `build_tracker` takes and what the TraX hello says."""

    name: str
    base: BaseSettings
    refiner: RefinerSettings
    minimum_side: float = 10.0  # pixels; boxes are clipped to the image with at least this width and height
    confident_score: float = 0.5  # of the base tracker, from which the refiner's target model may learn


VOT2020 = Profile("vot2020", BaseSettings(), RefinerSettings())

LITE = Profile(
    "lite",
    # Trained at 256 and 5.0: the target is as large in the smaller region, and a frame takes 5 % less.
    BaseSettings(network=SUPER_DIMP_LITE, input_size=224, search_area_scale=4.375),
    # On held-out training pairs the mean overlap hardly depends on threshold and minimum part (within 0.015).
    RefinerSettings(
        network=MASK_REFINER_LITE,
        input_size=224,  # trained at 192: on held-out clips the larger crops gain 0.016 J
        threshold=0.5,
        use_initial_mask=True,
        minimum_part=0.5,
        second_look=0.75,
        second_look_interval=8,
        learning_rate=0.3,
    ),
)

PROFILES = {profile.name: profile for profile in (VOT2020, LITE)}
