"""The base tracker ECO with deep features: correlation filters learned online in the Fourier domain, five scales.

"ECO: Efficient Convolution Operators for Tracking" (Danelljan et al. 2017), as pytracking's `eco/default`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tracker_ar.base.augmentation import RandomSource, augmented_inside
from tracker_ar.base.localization import keep_inside, peak
from tracker_ar.base.memory import SampleWeights
from tracker_ar.crops import SearchRegion, normalize, sample_patch
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.conjugate_gradient import Direction
from tracker_ar.models.eco_features import FEATURE_STRIDES, ECOFeatures
from tracker_ar.models.fourier_filter import (
    LayerModel,
    LayerSettings,
    SolverSettings,
    learn_jointly,
    principal_directions,
    update_filter,
)
from tracker_ar.ops.fourier import add, sample, series, shift
from tracker_ar.prediction import BaseResult
from tracker_ar.trace import note, stage

SHALLOW = LayerSettings(
    channels=16, learning_rate=0.025, label_sigma=1 / 16, window_minimum=1e-4, window_edge=10e-3,
    window_sparsity=0.05, score_weight=0.4,
)
DEEP = LayerSettings(
    channels=64, learning_rate=0.0075, label_sigma=1 / 4, window_minimum=10e-4, window_edge=50e-3,
    window_sparsity=0.1, score_weight=1 - 0.4,
)


@dataclass(frozen=True)
class ECOSettings:
    """Everything ECO needs besides its weights; values of pytracking, `parameter/eco/default.py`."""

    layers: tuple[LayerSettings, LayerSettings] = (SHALLOW, DEEP)
    search_area_scale: float = 4.5  # side of the search region / sqrt(target area)
    smallest_input: float = 200.0  # pixels; the search region is scaled to between the two
    largest_input: float = 250.0
    scale_step: float = 1.02  # between two of the scales that are searched
    scale_reach: int = 2  # steps to either side
    smallest_side: float = 10.0  # of the target, pixels of the image
    inside_ratio: float = 0.2  # fraction of the target that must stay within the image
    bicubic: float = -0.75  # parameter of the interpolating spline
    memory_capacity: int = 200
    update_interval: int = 10  # frames
    solver: SolverSettings = field(default_factory=SolverSettings)
    shifts: tuple[tuple[int, int], ...] = ((6, 6), (-6, 6), (6, -6), (-6, -6))  # (y, x), pixels of the input
    rotations: tuple[float, ...] = (5, -5, 10, -10, 20, -20, 30, -30, 45, -45, -60, 60)  # degrees
    blur_sigmas: tuple[tuple[float, float], ...] = ((2, 0.2), (0.2, 2), (3, 1), (1, 3), (2, 2))  # (rows, columns)
    dropout_samples: int = 7  # copies of the plain sample with feature channels dropped
    dropout_probability: float = 0.2


ECO = ECOSettings()


@dataclass
class Layer:
    """What is learned of one target on one layer of features.

    projection: (features, channels) float32. filter: (channels, rows, columns) complex64, samples: (rows * columns,
    capacity, channels) complex64, energy: (channels, rows, columns) float32; see `tracker_ar.models.fourier_filter`.
    """

    model: LayerModel
    projection: Tensor
    filter: Tensor
    samples: Tensor
    weights: SampleWeights
    energy: Tensor
    direction: Direction | None = None


@dataclass
class ECOTarget:
    """All that is known of one target.

    position (y, x) and size (height, width): float32, image pixels; scale: image pixels per pixel of the input;
    base_size: (height, width) at scale 1; image_size: (height, width). input_size: side of the search region as the
    network sees it. scores (input_size, input_size) float32, of the best scale, say how it was found in the last frame;
    the middle stands for the place where it was sought.
    """

    position: Tensor
    size: Tensor
    scale: Tensor
    base_size: Tensor
    image_size: Tensor
    input_size: int
    layers: tuple[Layer, ...]
    frame_number: int = 1
    scores: Tensor | None = None


class ECOTracker:
    """The engine; see `tracker_ar.prediction.BaseTracker`. `seed`: of everything random, the same for every target."""

    def __init__(self, runner: Runner, settings: ECOSettings = ECO, seed: int = 0) -> None:
        self.runner = runner
        self.settings = settings
        self._seed = seed
        steps = torch.arange(-settings.scale_reach, settings.scale_reach + 1, dtype=torch.float32)
        self._factors = settings.scale_step**steps

    @torch.inference_mode()
    def start(self, frame: Frame, box: np.ndarray) -> ECOTarget:
        """Learn a target. box: (4,) x, y, w, h in pixels, of positive size."""
        x, y, width, height = torch.as_tensor(np.asarray(box), dtype=torch.float32)
        size = torch.stack((height, width))
        position = torch.stack((y + (height - 1) / 2, x + (width - 1) / 2))
        settings = self.settings
        area = torch.prod(size * settings.search_area_scale).item()
        scale = math.sqrt(area / min(max(area, settings.smallest_input**2), settings.largest_input**2))
        base_size = size / scale
        side = int(torch.round(torch.sqrt(torch.prod(base_size * settings.search_area_scale))))
        # An odd multiple of the coarsest cell, so that its map has a middle.
        side += FEATURE_STRIDES[-1] - side % (2 * FEATURE_STRIDES[-1])
        target = ECOTarget(
            position, size, torch.tensor(scale, dtype=torch.float32), base_size,
            torch.tensor(frame.size, dtype=torch.float32), side, (),
        )
        target.layers = self._learn_first_frame(frame, target)
        return target

    @torch.inference_mode()
    def track(self, frame: Frame, targets: Sequence[ECOTarget]) -> list[BaseResult]:
        """Find every target in the next frame, of the first frame's size."""
        with stage("base crop"):
            regions = [self._regions(frame, target) for target in targets]
            inputs = [self._inputs(*each) for each in zip(targets, regions)]
        note("search regions", [each[self.settings.scale_reach] for each in regions])
        note("scaled regions", regions)
        answers: dict[int, tuple[Tensor, tuple[Tensor, ...]]] = {}
        for side in {target.input_size for target in targets}:  # only what has the same size can be run together
            alike = [index for index, target in enumerate(targets) if target.input_size == side]
            answers |= zip(alike, self.runner.run(search, [inputs[index] for index in alike]))
        return [self._follow(target, *answers[index]) for index, target in enumerate(targets)]

    def correct(self, target: ECOTarget, box: np.ndarray) -> None:
        """Continue from `box`, (4,) x, y, w, h.

        The centre is corner + size / 2, half a pixel off the convention of `start`, as in the authors' scripts. The
        aspect ratio of the first frame comes back in the next one.
        """
        x, y, width, height = (float(v) for v in box)
        target.position = torch.tensor([y + height / 2, x + width / 2], dtype=torch.float32)
        target.size = torch.tensor([height, width], dtype=torch.float32)
        target.scale = torch.sqrt(target.size.prod() / target.base_size.prod())

    # ---- the first frame

    def _learn_first_frame(self, frame: Frame, target: ECOTarget) -> tuple[Layer, ...]:
        settings, device, side = self.settings, self.runner.device, target.input_size
        with stage("base crop"):
            region = sample_patch(frame.pixels, target.position, target.scale * side, side)
            patches = augmented_inside(region.patch, settings.shifts, settings.rotations, settings.blur_sigmas)
        with stage("base backbone"):
            maps = self.runner.network.extract(normalize(patches).to(device))
        offsets = torch.zeros(len(patches) + settings.dropout_samples, 2, dtype=torch.float32)
        offsets[1 : len(settings.shifts) + 1] = torch.tensor(settings.shifts, dtype=torch.float32) / side
        # The crop lies at the truncated position, but is reckoned with the rounded one.
        offsets += (target.position - target.position.round()) / (target.scale * side)
        random = RandomSource(self._seed)
        with stage("model update"):
            return tuple(
                self._first_layer(layer, features, offsets, target, random)
                for layer, features in zip(settings.layers, maps)
            )

    def _first_layer(
        self, layer: LayerSettings, features: Tensor, offsets: Tensor, target: ECOTarget, random: RandomSource
    ) -> Layer:
        settings, dropout = self.settings, self.settings.dropout_probability
        kept = random.kept_channels(settings.dropout_samples, features.shape[1], dropout).to(features)
        dropped = features[:1] * (kept / (1 - dropout))[:, :, None, None]
        features = torch.cat((features, dropped))
        model = LayerModel(
            features.shape[-1], target.input_size, target.base_size, layer, settings.bicubic, features.device
        )
        guess = principal_directions(features, layer.channels)
        coefficients = shift(series(features * model.window) * model.interpolation, 2 * math.pi * offsets)
        wide = by_frequency(coefficients)
        learned, projection, energy = learn_jointly(model, wide, guess, settings.solver)
        samples = wide.new_zeros(len(wide), settings.memory_capacity, layer.channels)
        samples[:, : len(features)] = wide @ projection.to(wide.dtype)
        note("first frame", {"features": features, "samples": coefficients, "guess": guess})
        weights = SampleWeights(len(features), settings.memory_capacity)
        return Layer(model, projection, learned, samples, weights, energy)

    # ---- one frame

    def _regions(self, frame: Frame, target: ECOTarget) -> list[SearchRegion]:
        """In every scale, the smallest first."""
        side = target.input_size
        extents = target.scale * self._factors * side
        return [sample_patch(frame.pixels, target.position, extent, side) for extent in extents]

    def _inputs(
        self, target: ECOTarget, regions: list[SearchRegion]
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """What `search` takes, for one target."""
        patches = torch.cat([region.patch for region in regions])
        layers = tuple(
            tuple(part[None] for part in (
                layer.projection, layer.model.window, layer.model.interpolation,
                layer.filter * layer.model.settings.score_weight,
            ))
            for layer in target.layers
        )
        return normalize(patches).to(self.runner.device)[None], layers

    def _follow(self, target: ECOTarget, scores: Tensor, samples: tuple[Tensor, ...]) -> BaseResult:
        target.frame_number += 1
        with stage("localisation"):
            maps = scores[0].cpu()
            index, displacement = best_place(maps)
            middle = target.input_size // 2
            target.scores = maps[index].roll((middle, middle), (0, 1))
            factor = self._factors[index]
            scale, moved = target.scale * factor, displacement * target.scale * factor
            start = target.position.round()
            note("best", (index, moved))
            self._move(target, start + moved, scale)
            note("localisation", target)
        with stage("model update"):
            offset = 2 * math.pi * (target.position - start) / (scale * target.input_size)
            for layer, found in zip(target.layers, samples):
                self._learn(target, layer, shift(found[:, index], offset)[0])
        corner = target.position.flip(0) - (target.size.flip(0) - 1) / 2
        box = torch.cat((corner, target.size.flip(0))).double().numpy()
        return BaseResult(box, float(target.scores.max().clamp(0, 1)))

    def _move(self, target: ECOTarget, position: Tensor, scale: Tensor) -> None:
        settings = self.settings
        largest = torch.min(target.image_size / target.base_size)
        target.scale = scale.clamp(torch.max(settings.smallest_side / target.base_size), largest)
        target.size = target.base_size * target.scale
        target.position = keep_inside(position, target.size, target.image_size, settings.inside_ratio)

    def _learn(self, target: ECOTarget, layer: Layer, sample: Tensor) -> None:
        """sample: (channels, rows, columns)."""
        rate = layer.model.settings.learning_rate
        slot = layer.weights.add(rate)
        layer.samples[:, slot] = by_frequency(sample[None])[:, 0]
        note("learned sample", (sample, slot))
        if target.frame_number % self.settings.update_interval != 1:
            return
        layer.energy = (1 - rate) * layer.energy + rate * sample.abs().square()
        solver = self.settings.solver
        kept = (1 - max(each.learning_rate for each in self.settings.layers)) ** solver.kept_after
        layer.filter, layer.direction = update_filter(
            layer.model, layer.filter, layer.samples[:, : layer.weights.count],
            layer.weights.active.to(sample.device), layer.energy, layer.direction, kept, solver,
        )


def best_place(scores: Tensor) -> tuple[int, Tensor]:
    """Of (scales, S, S) float32 the index of the best scale, and the displacement (y, x) float32 of its peak.

    Displacements are periodic: those beyond the middle are negative.
    """
    best, places = zip(*(peak(each) for each in scores))
    index = int(torch.stack(best).argmax())
    side = scores.shape[-1]
    return index, (places[index] + side / 2) % side - side / 2


def by_frequency(coefficients: Tensor) -> Tensor:
    """(n, C, rows, columns) -> (rows * columns, n, C), contiguous."""
    return coefficients.flatten(2).permute(2, 0, 1).contiguous()


# ---- part of a frame, tensors to tensors: see `tracker_ar.engine.runner`


def search(
    network: ECOFeatures, patches: Tensor, layers: Sequence[tuple[Tensor, ...]]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Search regions of N targets in several scales (N, scales, 3, S, S), ImageNet-normalised -> scores
    (N, scales, S, S) and samples, for each layer (N, scales, channels, rows, columns) complex64.

    layers: for each the projection (N, features, channels), window (N, s, s), interpolation (N, rows, columns) and
    weighted filter (N, channels, rows, columns).
    """
    count, scales = patches.shape[:2]
    with stage("base backbone"):
        maps = network.extract(patches.flatten(0, 1))
    samples: list[Tensor] = []
    parts: list[Tensor] = []
    with stage("target scores"):
        for features, (projection, window, interpolation, filters) in zip(maps, layers):
            wide = features.view(count, scales, features.shape[1], -1)
            narrow = (projection.transpose(1, 2)[:, None] @ wide).unflatten(-1, features.shape[-2:])
            found = series(narrow * window[:, None, None]) * interpolation[:, None, None]
            samples.append(found)
            parts.append((found * filters[:, None]).sum(dim=2))
        shallow, deep = parts
        scores = sample(add(shallow, deep), (patches.shape[-2], patches.shape[-1]))
    note("search", {"samples": samples, "layer scores": parts, "scores": scores})
    return scores, tuple(samples)
