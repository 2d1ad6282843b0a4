"""What is trained, with which settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tracker_ar.data.mixture import FrameSampling
from tracker_ar.data.synthetic.scenes import SceneSettings
from tracker_ar.data.training_samples import Augmentation, SequenceGeometry
from tracker_ar.models.alpha_refine import MASK_REFINER_50, MASK_REFINER_LITE, MaskRefinerConfig
from tracker_ar.models.dimp import SUPER_DIMP_50, SUPER_DIMP_LITE, DiMPConfig
from tracker_ar.models.lite_base import LITE_BASE, LiteBaseConfig
from tracker_ar.train.feature_pool import PoolSettings


@dataclass(frozen=True)
class Schedule:
    """Optimisation: AdamW (Adam where weights do not decay), linear warm-up, clipping, averaged weights.

    Attributes:
        decay_every, decay_factor: after every such share of the training (0 to 1) the rate is multiplied by
            the factor; without a share it falls along a cosine to zero.
        clip_norm: largest norm of the gradient.
        average_decay: of the moving average of the weights; 0 keeps the last weights.
        samples: how many are seen if the command does not say how long to train.
    """

    learning_rate: float
    weight_decay: float
    warmup_steps: int = 300
    clip_norm: float = 5.0
    average_decay: float = 0.999
    decay_every: float | None = None
    decay_factor: float = 1.0
    samples: int | None = None

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of a step; `progress` is the share of the training before it, 0 to 1."""
        warmup = min(1.0, (step + 1) / self.warmup_steps)
        if self.decay_every is None:
            return self.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * progress))
        # Shares of whole numbers of steps are not exact: 0.3 / 0.1 must count as 3.
        passed = math.floor(progress / self.decay_every + 1e-9)
        return self.learning_rate * warmup * self.decay_factor**passed


@dataclass(frozen=True)
class DataMix:
    """Published data sets, by their names in `tracker_ar.data.datasets.catalogue`, with weights.

    Attributes:
        sets, validation: (name, weight).
        max_gap: farthest distance between frames of one sample.
        shortest: videos with fewer frames are passed over.
    """

    sets: tuple[tuple[str, float], ...]
    validation: tuple[tuple[str, float], ...]
    max_gap: int
    shortest: int
    augmentation: Augmentation


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
    network: MaskRefinerConfig = MASK_REFINER_LITE
    # The `kind` of the weights, as `tracker_ar.weights.store` knows it.
    kind: str = "lite_mask_refiner"
    # None: scenes made from a folder of annotated images.
    data: DataMix | None = None
    # Whether the reference is weighed by its mask, as in tracking.
    reference_mask: bool = True
    entropy_weight: float = 1.0
    jaccard_weight: float = 1.0

    def size_at(self, progress: float) -> int:
        """Crop side at this share (0 to 1) of the training."""
        return [size for start, size in self.sizes if progress >= start][-1]


@dataclass(frozen=True)
class PooledRefinerRecipe:
    """A refiner with box branch and judge on a pretrained backbone.

    Attributes:
        frozen_share: of the training, up to which the backbone is frozen; then its last stages are trained too.
        backbone_rate: scales the learning rate there.
        box_share, self_share: of pairs whose reference is known by its box, and of those in which the reference is
            itself to be segmented.
        absent_share, absent_weight: of search crops without the target, and the weight of their masks' loss.
        video_share: of targets that come from videos; the rest from scenes.
    """

    name: str
    schedule: Schedule
    batch_size: int
    network: MaskRefinerConfig = MASK_REFINER_LITE
    kind: str = "lite_mask_refiner"
    pool: PoolSettings = field(default_factory=PoolSettings)
    scenes: SceneSettings = field(default_factory=SceneSettings)
    video_share: float = 0.3
    frozen_share: float = 0.7
    backbone_rate: float = 0.3
    box_share: float = 0.35
    self_share: float = 0.2
    absent_share: float = 0.2
    absent_weight: float = 0.3
    score_weight: float = 0.2
    box_weight: float = 1.0
    judgement_weight: float = 0.5


@dataclass(frozen=True)
class BaseRecipe:
    """The meta-learning of DiMP with the box loss of PrDiMP; the values are those of SuperDiMP.

    Attributes:
        backbone_rate: scales the learning rate of the backbone.
        rates: learning rates by the beginning of a parameter's name; where there are any, the parameters that
            none of them names are not trained.
        frozen: stages of the backbone whose batch norm keeps its statistics.
        kind: of the weights, as `tracker_ar.weights.store` knows it.
        data: None for scenes made from a folder of annotated images.
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
    network: DiMPConfig = SUPER_DIMP_LITE
    kind: str = "lite_super_dimp"
    data: DataMix | None = None
    rates: tuple[tuple[str, float], ...] = ()
    frozen: tuple[str, ...] = ()

    @property
    def geometry(self) -> SequenceGeometry:
        """The search regions of this recipe."""
        return SequenceGeometry(
            (self.train_frames, self.test_frames),
            self.image_size,
            self.search_factor,
            self.centre_jitter,
            self.scale_jitter,
        )


@dataclass(frozen=True)
class ClassifierRecipe:
    """The meta-learning of DiMP on features of a frozen backbone, which are computed once.

    Attributes:
        train_frames, test_frames: of one sample; drawn from the frames of a cached sequence.
        cached_frames: of one cached sequence, with the jitters of train and of test frames.
        scene_count, clip_count: cached sequences of each folder of images and of the clips; weights say how often one
            of them is drawn.
        validation_share: of held-out sequences, against those of training.
        stranger_weight: of frames that do not show the target.
    """

    name: str
    schedule: Schedule
    batch_size: int
    train_frames: int = 3
    test_frames: int = 4
    cached_frames: tuple[int, int] = (3, 4)
    image_size: int = 224
    search_factor: float = 4.375
    centre_jitter: tuple[float, float] = (3.0, 3.8)
    scale_jitter: tuple[float, float] = (0.25, 0.4)
    max_gap: int = 60
    scene_count: int = 1100
    scene_weight: float = 0.3
    clip_count: int = 500
    clip_weight: float = 0.4
    validation_share: float = 0.04
    hinge_threshold: float = 0.05
    final_weight: float = 100.0
    initial_weight: float = 100.0
    between_weight: float = 400.0
    stranger_weight: float = 0.3
    scenes: SceneSettings = field(default_factory=SceneSettings)
    network: LiteBaseConfig = LITE_BASE
    kind: str = "lite_base"

    @property
    def frames(self) -> int:
        """Of one sample."""
        return self.train_frames + self.test_frames

    @property
    def geometry(self) -> SequenceGeometry:
        """The search regions of this recipe."""
        return SequenceGeometry(
            self.cached_frames, self.image_size, self.search_factor, self.centre_jitter, self.scale_jitter
        )

    @property
    def sampling(self) -> FrameSampling:
        """Which frames of a clip make a cached sequence."""
        return FrameSampling(*self.cached_frames, max_gap=self.max_gap, shortest=15)


RECIPES: dict[str, RefinerRecipe | PooledRefinerRecipe | BaseRecipe | ClassifierRecipe] = {
    "lite-refiner": PooledRefinerRecipe(
        name="lite-refiner",
        schedule=Schedule(learning_rate=1e-3, weight_decay=0.02, average_decay=0.998),
        batch_size=8,
        scenes=SceneSettings(real_share=0.45, region_share=0.2),
    ),
    "lite-base": BaseRecipe(
        name="lite-base",
        schedule=Schedule(learning_rate=6e-4, weight_decay=0.01),
        batch_size=4,
        backbone_rate=0.5,
        scenes=SceneSettings(real_share=0.4, region_share=0.1, copy_share=0.45, clutter=1.0),
    ),
    # The base tracker of lite: an ImageNet backbone as it is, and a classifier on top of it.
    "lite-classifier": ClassifierRecipe(
        name="lite-classifier",
        schedule=Schedule(learning_rate=1e-3, weight_decay=0.02, warmup_steps=100, average_decay=0.998),
        batch_size=12,
        scenes=SceneSettings(
            real_share=0.45, region_share=0.1, copy_share=0.5, clutter=1.0, occluder_share=0.3, part_share=0.3
        ),
    ),
    # SuperDiMP as published. Source of all values that name no other: visionml/pytracking,
    # ltr/train_settings/dimp/super_dimp.py. Starts from a ResNet-50 trained on ImageNet (--backbone).
    "vot2020-base": BaseRecipe(
        name="vot2020-base",
        kind="super_dimp",
        network=SUPER_DIMP_50,
        # Adam; rates fall to a fifth every 15 of 50 epochs of 40,000 samples. No clipping, no averaging.
        schedule=Schedule(
            learning_rate=1e-3, weight_decay=0.0, warmup_steps=1, clip_norm=math.inf, average_decay=0.0,
            decay_every=15 / 50, decay_factor=0.2, samples=50 * 40_000,
        ),
        batch_size=20,
        image_size=352,
        search_factor=6.0,
        centre_jitter=(3.0, 5.5),
        scale_jitter=(0.25, 0.5),
        proposals=128,
        box_weight=0.01,
        rates=(
            ("classifier.filter_initializer.", 5e-5),
            ("classifier.filter_optimizer.", 5e-4),
            ("classifier.feature_extractor.", 5e-5),
            ("bb_regressor.", 1e-3),
            ("feature_extractor.layer3.", 2e-5),
        ),
        frozen=("conv1", "bn1", "layer1", "layer2"),
        data=DataMix(
            # TrackingNet's parts 0 to 3; GOT-10k without the videos that the VOT committee rules out.
            sets=(("lasot", 1.0), ("got10k", 1.0), ("trackingnet", 1.0), ("coco", 1.0)),
            # Published: 1,249 training videos of GOT-10k, held out ("votval"); here its validation split.
            validation=(("got10k-val", 1.0),),
            max_gap=200,
            shortest=20,  # ltr/data/sampler.py
            augmentation=Augmentation(brightness=0.2, grey=0.05, flip_all=0.5, flip_each=0.5),
        ),
    ),
    # The mask refiner of the entry, ARcm_coco_seg_only_mask_384, whose own settings were not published.
    # Network, crops and weights of the sets: a public variant that names the entry's as its origin (it adds
    # GOT-10k with masks and trains for 80 epochs). The rest: the authors' settings of the paper,
    # SEx_beta/SEcm_r34.py and ar_legacy/SE_other/SEm_r34.py of MasterBin-IIAU/AlphaRefine, train_settings.
    # Starts from a ResNet-50 trained on ImageNet.
    "vot2020-refiner": RefinerRecipe(
        name="vot2020-refiner",
        kind="mask_refiner_384",
        network=MASK_REFINER_50,
        # Adam at 1e-3, halved every 8 of 40 epochs of 4,000 batches; the entry's checkpoint is of epoch 40.
        schedule=Schedule(
            learning_rate=1e-3, weight_decay=0.0, warmup_steps=1, clip_norm=math.inf, average_decay=0.0,
            decay_every=8 / 40, decay_factor=0.5, samples=40 * 4_000 * 32,
        ),
        # Per GPU in the authors' settings; on how many GPUs is not said.
        batch_size=32,
        sizes=((0.0, 384),),
        reference_mask=False,
        # The mask branch's cross entropy counts 1000 (ltr/actors/ar_actors/SEm.py). It is the only loss, and
        # Adam does not feel its scale.
        entropy_weight=1000.0,
        jaccard_weight=0.0,
        data=DataMix(
            # Video masks, still objects and saliency masks in equal parts, as in the variant. Which images
            # the authors' saliency collection holds is not said.
            sets=(
                ("youtube-vos", 1.0), ("coco", 1.0),
                ("msra10k", 0.25), ("duts", 0.25), ("ecssd", 0.25), ("hku-is", 0.25),
            ),
            validation=(("coco-val", 1.0),),
            max_gap=50,
            shortest=2,  # of videos with masks, ltr/data/ardata/SEsampler.py
            # Neither colour removal nor mirroring in the variant.
            augmentation=Augmentation(brightness=0.2, grey=0.0, flip_all=0.0, flip_each=0.0),
        ),
    ),
}
