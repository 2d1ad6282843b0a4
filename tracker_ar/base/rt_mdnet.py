"""The base tracker RT-MDNet: random candidates around the last place are scored by layers learned online.

"Real-Time MDNet" (Jung et al. 2018), as AlphaRefine runs it: RoI alignment is the plain one throughout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor

from tracker_ar.base.box_regression import BoxRegression, fit_box_regression
from tracker_ar.base.candidates import Range, Spread, draw, draw_overlapping
from tracker_ar.base.hard_negatives import Descent, TrainingSettings
from tracker_ar.base.scenes import Scene, SceneSettings, object_sides, scene_around, scene_of
from tracker_ar.crops import to_tensor
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.geometry import checked_box
from tracker_ar.models.mdnet import FEATURES, Layers, scores
from tracker_ar.prediction import BaseResult
from tracker_ar.trace import note, stage


@dataclass(frozen=True)
class SampleSettings:
    """How many positives and negatives are drawn, with what overlap with the target."""

    positives: int
    negatives: int
    negative_overlap: Range
    negative_spread: Spread
    positive_overlap: Range = (0.7, 1)
    positive_spread: Spread = Spread("gaussian", 0.1, 1.2)


@dataclass(frozen=True)
class RegressionSettings:
    """Box regression (`options.py`, `modules/bbreg.py`)."""

    boxes: int = 1000
    spread: Spread = Spread("uniform", 0.3, 1.5, 1.1)
    overlap: Range = (0.6, 1)
    area: Range = (1, 2)  # relative to the target's
    regularization: float = 1000.0


@dataclass(frozen=True)
class FirstFrameSettings:
    """What is learned from the first frame, beside the box regression (`options.py`, `RT_MDNet.py`)."""

    samples: SampleSettings = SampleSettings(500, 5000, (0, 0.5), Spread("uniform", 1, 2, 1.1))
    # The scene is seen plain, moved and zoomed: (right, down) in pixels, zoom.
    scenes: tuple[tuple[float, float, float], ...] = (
        (0, 0, 1), (-4, 0, 1), (0, -4, 1), (0, 0, 1.1**-1), (0, 0, 1.1), (0, 0, 1.1**-2), (0, 0, 1.1**2))
    crops: int = 100  # jittered, of the target's near surroundings
    crop_scale: float = 1.8  # sides of the target
    crop_shift: tuple[float, float] = (2, 4)  # deviation and most, pixels
    crop_zoom: tuple[float, float] = (1.1, 2)  # base and largest exponent
    crop_samples: SampleSettings = SampleSettings(5, 12, (0, 0.5), Spread("uniform", 0.3, 2, 1.1))
    crop_regression_boxes: int = 2
    rate: float = 1e-4
    iterations: int = 50


@dataclass(frozen=True)
class UpdateSettings:
    """What is learned from later frames (`options.py`, `RT_MDNet.py`)."""

    samples: SampleSettings = SampleSettings(50, 200, (0, 0.3), Spread("uniform", 1.5, 1.2))
    long_memory: int = 100  # frames whose positives are kept
    short_memory: int = 20  # frames whose negatives are kept; after a failure only their positives count, too
    interval: int = 10  # frames
    rate: float = 3e-4
    iterations: int = 15


@dataclass(frozen=True)
class RTMDNetSettings:
    """Everything besides the weights (`external/RT_MDNet/options.py` of AlphaRefine)."""

    candidates: int = 256
    spread: Spread = Spread("gaussian", 0.6, 1.05, inside=True)
    spread_after_failure: Spread = Spread("gaussian", 1.4, 1.05, inside=True)
    best: int = 5  # candidates whose mean is the target
    success_threshold: float = 0.0
    scene: SceneSettings = field(default_factory=SceneSettings)
    first_frame: FirstFrameSettings = field(default_factory=FirstFrameSettings)
    regression: RegressionSettings = field(default_factory=RegressionSettings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)


RT_MDNET = RTMDNetSettings()


@dataclass
class RTMDNetTarget:
    """All that is known of one target.

    box: (4,) x, y, w, h, image pixels, around which candidates are drawn: the mean of the best, not the regressed one.
    layers, descent: learned online. positives, negatives: features of the last frames, (N, 4608) each. boxes, dropout:
    generators of boxes and of what is dropped in training. lost: whether the last frame was a failure.
    """

    box: np.ndarray
    layers: Layers
    descent: Descent
    regression: BoxRegression
    positives: deque[Tensor]
    negatives: deque[Tensor]
    boxes: RandomState
    dropout: RandomState
    frames: int = 0
    lost: bool = False


class RTMDNetTracker:
    """The engine; see `tracker_ar.prediction.BaseTracker`. seed: of everything random, the same for every target."""

    def __init__(self, runner: Runner, settings: RTMDNetSettings = RT_MDNET, seed: int = 0) -> None:
        """runner: of an `MDNet`."""
        self.runner = runner
        self.settings = settings
        self._seed = seed

    @torch.inference_mode()
    def start(self, frame: Frame, box: np.ndarray) -> RTMDNetTarget:
        """Learn a target. box: (4,) x, y, w, h in pixels, of positive size."""
        settings, box = self.settings, checked_box(box)
        boxes, dropout = RandomState(self._seed), RandomState(self._seed + 1)
        with stage("augmentation"):
            positives, negatives, regressed, examples = self._first_samples(frame, box, boxes)
        with stage("model update"):
            layers = self.runner.network.initial_layers()
            first = Descent(layers, settings.first_frame.rate, settings.training)
            first.train(positives, negatives, settings.first_frame.iterations, boxes, dropout)
            note("first frame", (positives, negatives, layers))
            chosen = _some(len(examples), settings.regression.boxes, boxes)
            regression = fit_box_regression(
                regressed[chosen], examples[chosen], box, settings.regression.regularization,
                settings.regression.overlap, settings.regression.area)
        update = settings.update
        positives = positives[_some(len(positives), update.samples.positives, boxes)]
        negatives = negatives[_some(len(negatives), update.samples.negatives, boxes)]
        return RTMDNetTarget(
            box, layers, Descent(layers, update.rate, settings.training), regression,
            deque([positives], update.long_memory), deque([negatives], update.short_memory), boxes, dropout)

    @torch.inference_mode()
    def track(self, frame: Frame, targets: Sequence[RTMDNetTarget]) -> list[BaseResult]:
        """Find every target in the next frame."""
        pixels = self._pixels(frame)
        return [self._track(frame, pixels, target) for target in targets]

    def correct(self, target: RTMDNetTarget, box: np.ndarray) -> None:
        """Continue from this box, (4,) x, y, w, h, instead of from the one last returned."""
        target.box = checked_box(box)

    def _track(self, frame: Frame, pixels: Tensor, target: RTMDNetTarget) -> BaseResult:
        settings = self.settings
        target.frames += 1
        spread = settings.spread_after_failure if target.lost else settings.spread
        candidates = draw(target.boxes, spread, target.box, frame.size, settings.candidates)
        scene = scene_around(self.runner.network, pixels, candidates, target.box, settings.scene)
        with stage("target scores"):
            features = scene.pooled(candidates)
            logits = scores(target.layers, features)
        note("candidates", (candidates, features, logits))
        with stage("localisation"):
            score, best = logits[:, 1].topk(settings.best)
            confidence = logits[best].softmax(1)[:, 1].mean().item()
            chosen = candidates[best.cpu().numpy()]
            target.box = box = chosen.mean(axis=0)
            target.lost = not score.mean().item() > settings.success_threshold
        if not target.lost:
            with stage("box refinement"):
                box = target.regression.improved(features[best], chosen, frame.size).mean(axis=0)
        with stage("model update"):
            self._learn(frame, pixels, target)
        return BaseResult(box.astype(np.float64), confidence)

    def _learn(self, frame: Frame, pixels: Tensor, target: RTMDNetTarget) -> None:
        """Remember the frame, unless the target is lost; train in some frames, and in all in which it is lost."""
        settings = self.settings.update
        if not target.lost:
            positives, negatives = _draw_samples(target.boxes, settings.samples, target.box, frame.size)
            note("samples", (positives, negatives))
            positives = _or_itself(positives, target.box)
            scene = self._scene(pixels, positives, negatives, target.box)
            target.positives.append(scene.pooled(positives))
            target.negatives.append(scene.pooled(negatives))
            if target.frames % settings.interval:
                return
        recent = list(target.positives)[-settings.short_memory if target.lost else 0:]
        near, far = torch.cat(recent), torch.cat(list(target.negatives))
        note("update", (len(near), len(far)))
        target.descent.train(near, far, settings.iterations, target.boxes, target.dropout)

    def _first_samples(
        self, frame: Frame, box: np.ndarray, random: RandomState
    ) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
        """Features of positives, negatives and of boxes for the regression, and those boxes, (N, 4)."""
        settings, pixels = self.settings.first_frame, self._pixels(frame)
        positives, negatives = _draw_samples(random, settings.samples, box, frame.size)
        order = random.permutation(len(negatives))
        examples = _draw_examples(random, self.settings.regression, box, frame.size, self.settings.regression.boxes)
        note("first samples", (positives, negatives, examples))
        positives, negatives, examples = _or_itself(positives, box), negatives[order], _or_itself(examples, box)
        scenes = [self._scene(pixels, positives, negatives, box, (right, down), zoom)
                  for right, down, zoom in settings.scenes]
        limits = settings.samples.positives, settings.samples.negatives, self.settings.regression.boxes
        kept = []
        # Chosen before they are pooled, which spares six of seven; the draws are the authors', who do it after.
        for boxes, limit in zip((positives, negatives, examples), limits):
            kept.append(_from_scenes(scenes, boxes, _some(len(boxes) * len(scenes), limit, random)))
        for _ in range(settings.crops):
            scene, drawn = self._jittered_crop(frame, pixels, box, random)
            for (features, of_features), some in zip(kept, drawn):
                features.append(scene.pooled(some))
                of_features.append(some)
        joined = [torch.cat(features) for features, _ in kept]
        return joined[0], joined[1], joined[2], np.concatenate(kept[2][1])

    def _jittered_crop(
        self, frame: Frame, pixels: Tensor, box: np.ndarray, random: RandomState
    ) -> tuple[Scene, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The target's near surroundings, moved and zoomed; positives, negatives and boxes for the regression."""
        settings, scene = self.settings.first_frame, self.settings.scene
        most, largest = settings.crop_shift[1], settings.crop_zoom[1]
        shift = np.clip(settings.crop_shift[0] * random.randn(2), -most, most)
        zoom = settings.crop_zoom[0] ** np.clip(random.randn(1), -largest, largest)
        sides = object_sides(box, scene)
        extent = sides * settings.crop_scale
        # Zoomed about its corner, not its middle.
        window = np.concatenate((box[:2] + box[2:] / 2 - extent / 2 + shift, extent * zoom))
        size = np.full(2, scene.object_size * settings.crop_scale)
        positives, negatives = _draw_samples(random, settings.crop_samples, box, frame.size)
        examples = _draw_examples(random, self.settings.regression, box, frame.size, settings.crop_regression_boxes)
        cut = scene_of(self.runner.network, pixels, window, size, scene.object_size / zoom / sides, scene)
        return cut, (positives, negatives, examples)

    def _scene(
        self, pixels: Tensor, positives: np.ndarray, negatives: np.ndarray, box: np.ndarray,
        shift: tuple[float, float] = (0, 0), zoom: float = 1.0,
    ) -> Scene:
        """Around the negatives; around the positives where there are none."""
        boxes = negatives if len(negatives) else positives
        return scene_around(self.runner.network, pixels, boxes, box, self.settings.scene, shift, zoom)

    def _pixels(self, frame: Frame) -> Tensor:
        return to_tensor(frame.pixels).to(self.runner.device)


def _draw_samples(
    random: RandomState, settings: SampleSettings, box: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives, (N, 4) float32; perhaps none."""
    positives = draw_overlapping(random, settings.positive_spread, box, image_size, settings.positives,
                                 settings.positive_overlap)
    negatives = draw_overlapping(random, settings.negative_spread, box, image_size, settings.negatives,
                                 settings.negative_overlap)
    return positives, negatives


def _draw_examples(
    random: RandomState, settings: RegressionSettings, box: np.ndarray, image_size: tuple[int, int], count: int
) -> np.ndarray:
    """Boxes for the regression, (N, 4) float32; perhaps none."""
    return draw_overlapping(random, settings.spread, box, image_size, count, settings.overlap, settings.area)


def _or_itself(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The target itself where no box is like it: one of a few pixels, or one that reaches far beyond the image."""
    return boxes if len(boxes) else box[None].astype(np.float32)


def _some(count: int, limit: int, random: RandomState) -> np.ndarray:
    """Indices of at most `limit` of `count`; drawn only where not all are taken, as the authors do."""
    return random.permutation(count)[:limit] if count > limit else np.arange(count)


def _from_scenes(scenes: list[Scene], boxes: np.ndarray, chosen: np.ndarray) -> tuple[list[Tensor], list[np.ndarray]]:
    """Features and boxes of some of all boxes in all scenes, counted scene by scene; in lists, to be added to."""
    features = scenes[0].features.new_empty(len(chosen), FEATURES)
    which, number = np.divmod(chosen, max(len(boxes), 1))
    for index, scene in enumerate(scenes):
        here = np.flatnonzero(which == index)
        features[torch.from_numpy(here).to(features.device)] = scene.pooled(boxes[number[here]])
    return [features], [boxes[number]]
