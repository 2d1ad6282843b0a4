"""What is trained, with which settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from tracker_ar.data.synthetic import SceneSettings


@dataclass(frozen=True)
class Schedule:
    """Optimisation: AdamW, linear warm-up, cosine decay to zero, clipping, an average of the weights."""

    learning_rate: float
    weight_decay: float
    warmup_steps: int = 300
    clip_norm: float = 5.0
    average_decay: float = 0.999


@dataclass(frozen=True)
class RefinerRecipe:
    """`sizes` are (from this share of the training on, crop side in pixels); `score_weight` weighs the target model's
    own loss."""

    name: str
    schedule: Schedule
    batch_size: int
    sizes: tuple[tuple[float, int], ...]
    score_weight: float = 0.2
    scenes: SceneSettings = field(default_factory=SceneSettings)

    def size_at(self, progress: float) -> int:
        """Crop side at this share (0 to 1) of the training."""
        return [size for start, size in self.sizes if progress >= start][-1]


@dataclass(frozen=True)
class BaseRecipe:
    """The meta-learning of DiMP with the box loss of PrDiMP; the values are those of SuperDiMP.

    `backbone_rate` scales the learning rate of the backbone.
    """

    name: str
    schedule: Schedule
    batch_size: int
    train_frames: int = 3
    test_frames: int = 3
    image_size: int = 256
    search_factor: float = 5.0
    feature_stride: int = 16
    sigma_factor: float = 0.25
    centre_jitter: tuple[float, float] = (3.0, 4.5)
    scale_jitter: tuple[float, float] = (0.25, 0.5)
    proposals: int = 64
    hinge_threshold: float = 0.05
    final_weight: float = 100.0
    initial_weight: float = 100.0
    between_weight: float = 400.0
    box_weight: float = 0.03
    backbone_rate: float = 1.0
    scenes: SceneSettings = field(default_factory=SceneSettings)


RECIPES: dict[str, RefinerRecipe | BaseRecipe] = {
    "lite-refiner": RefinerRecipe(
        name="lite-refiner",
        schedule=Schedule(learning_rate=1.2e-3, weight_decay=0.02),
        batch_size=16,
        sizes=((0.0, 128), (0.4, 192), (0.75, 256)),
    ),
    "lite-base": BaseRecipe(
        name="lite-base",
        schedule=Schedule(learning_rate=6e-4, weight_decay=0.01),
        batch_size=4,
        backbone_rate=0.5,
        scenes=SceneSettings(real_share=0.4, region_share=0.1, copy_share=0.45, clutter=1.0),
    ),
}
