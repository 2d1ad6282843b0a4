"""The base tracker SiamRPN++: a template of the first frame is compared with the search region of every later one.

"SiamRPN++: Evolution of Siamese Visual Tracking with Very Deep Networks" (Li et al. 2019); decision as in "High
Performance Visual Tracking with Siamese Region Proposal Network" (Li et al. 2018, section 4.3). Nothing is learned
online and nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from tracker_ar.crops import MAX_REGION_PIXELS, to_tensor
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.geometry import checked_box
from tracker_ar.models.siam_rpn import Kernels, SiamRPN
from tracker_ar.prediction import BaseResult
from tracker_ar.trace import note, stage


@dataclass(frozen=True)
class SiamRPNSettings:
    """Values of PySOT, `experiments/siamrpn_r50_l234_dwxcorr/config.yaml`, else defaults of `pysot/core/config.py`."""

    template_size: int = 127  # pixels
    search_size: int = 255  # pixels
    stride: int = 8  # pixels of the search region per cell of the score map
    score_size: int = 25  # cells
    anchor_scale: int = 8
    anchor_ratios: tuple[float, ...] = (0.33, 0.5, 1, 2, 3)  # height / width
    context: float = 0.5  # of (width + height), added to each side
    penalty: float = 0.05  # on a change of aspect ratio and size
    window_influence: float = 0.42
    size_rate: float = 0.38  # at which the size follows, times penalty and score
    smallest_side: float = 10.0  # pixels
    # The weights were trained on BGR. AlphaRefine's scripts for LaSOT and others give BGR, those for VOT2020
    # (`arena/VOT2020/trackers/siamrpn_ar.py`) RGB by mistake: False reproduces them.
    blue_first: bool = True


SIAM_RPN = SiamRPNSettings()


@dataclass
class SiamRPNTarget:
    """All that is known of one target.

    centre (x, y) and size (width, height): float64, image pixels. colour: (3,) float64, mean of the first frame in the
    order of channels that the network sees. kernels: of the template.
    """

    centre: np.ndarray
    size: np.ndarray
    colour: np.ndarray
    kernels: Kernels


@dataclass(frozen=True)
class Choice:
    """The anchor chosen in one frame.

    anchor: its number, by shape, row, column. score: probability of the target. penalised: float64, of all anchors,
    what was maximised. centre, size: float64, image pixels, where the target is now.
    """

    anchor: int
    score: float
    penalised: np.ndarray
    centre: np.ndarray
    size: np.ndarray


class SiamRPNTracker:
    """The engine; see `tracker_ar.prediction.BaseTracker`."""

    def __init__(self, runner: Runner, settings: SiamRPNSettings = SIAM_RPN, seed: int = 0) -> None:
        """runner: of a `SiamRPN`. seed: as of every base tracker; nothing here is random."""
        self.runner = runner
        self.settings = settings
        self._anchors = anchors(settings)
        self._window = window(settings)
        self._lay_out()

    @torch.inference_mode()
    def start(self, frame: Frame, box: np.ndarray) -> SiamRPNTarget:
        """Remember a template. box: (4,) x, y, w, h in pixels, of positive size."""
        box = checked_box(box)
        colour = frame.pixels.mean(axis=(0, 1))
        colour = colour[::-1] if self.settings.blue_first else colour
        centre, size = box[:2] + (box[2:] - 1) / 2, box[2:]
        side = template_side(size, self.settings.context)
        crop = self._crop(frame, centre, side, self.settings.template_size, colour)
        (kernels,) = self.runner.run(template_part, [(crop,)])
        return SiamRPNTarget(centre, size, colour, kernels)

    @torch.inference_mode()
    def track(self, frame: Frame, targets: Sequence[SiamRPNTarget]) -> list[BaseResult]:
        """Find every target in the next frame."""
        with stage("base crop"):
            crops = [self._search_crop(frame, target) for target in targets]
        outputs = self.runner.run(
            search_part, [(target.kernels, crop) for target, crop in zip(targets, crops, strict=True)]
        )
        return [self._locate(frame, target, *output) for target, output in zip(targets, outputs)]

    def correct(self, target: SiamRPNTarget, box: np.ndarray) -> None:
        """Continue from this box, (4,) x, y, w, h, which is half a pixel off the centre that `start` takes: as the
        authors feed a refined box back."""
        box = checked_box(box)
        target.centre, target.size = box[:2] + box[2:] / 2, box[2:]

    def _search_crop(self, frame: Frame, target: SiamRPNTarget) -> Tensor:
        settings = self.settings
        side = template_side(target.size, settings.context) * (settings.search_size / settings.template_size)
        return self._crop(frame, target.centre, side, settings.search_size, target.colour)

    def _crop(self, frame: Frame, centre: np.ndarray, side: float, size: int, colour: np.ndarray) -> Tensor:
        order = slice(None, None, -1) if self.settings.blue_first else slice(None)
        crop = square_crop(frame.pixels, centre, max(round(side), 1), size, colour[order])[:, :, order]
        note("base crop", crop)
        return to_tensor(np.ascontiguousarray(crop)).to(self.runner.device)

    def _locate(self, frame: Frame, target: SiamRPNTarget, classes: Tensor, offsets: Tensor) -> BaseResult:
        with stage("localisation"):
            scores = target_scores(classes[0].float().cpu()).numpy()
            boxes = offset_boxes(offsets[0].float().cpu().reshape(4, -1).numpy(), self._anchors)
            zoom = self.settings.template_size / template_side(target.size, self.settings.context)
            choice = choose(scores, boxes, self._window, target, zoom, frame.size, self.settings)
        note("anchor", choice)
        cells = self.settings.score_size
        note("scores", scores.reshape(-1, cells, cells).max(axis=0))
        target.centre, target.size = choice.centre, choice.size
        return BaseResult(np.concatenate((choice.centre - choice.size / 2, choice.size)), choice.score)

    @torch.inference_mode()
    def _lay_out(self) -> None:
        """Run a search region through once: prepared convolutions fit the size that they see first, and what is seen in
        every frame is the search region, not the template."""
        self.runner.network.backbone(self._blank(self.settings.search_size))

    def _blank(self, size: int) -> Tensor:
        return torch.zeros(1, 3, size, size, dtype=torch.float32, device=self.runner.device)


def template_part(network: SiamRPN, crop: Tensor) -> Kernels:
    """A part for `Runner.run`: (N, 3, 127, 127) -> kernels."""
    return network.template(crop)


def search_part(network: SiamRPN, kernels: Kernels, crop: Tensor) -> tuple[Tensor, Tensor]:
    """A part for `Runner.run`: (N, 3, 255, 255) -> (N, 10, 25, 25) class logits, (N, 20, 25, 25) box offsets."""
    with stage("base backbone"):
        features = network.neck(network.backbone(crop))
    with stage("target scores"):
        return network.rpn_head(kernels, features)


def template_side(size: np.ndarray, context: float) -> float:
    """Side of the square around a target of (width, height) that the template shows, pixels."""
    return math.sqrt(np.prod(size + context * size.sum()))


def square_crop(image: np.ndarray, centre: np.ndarray, side: float, size: int, colour: np.ndarray) -> np.ndarray:
    """`side` x `side` pixels around `centre` (x, y), resized to (size, size, 3) uint8.

    image: (H, W, 3) uint8. Outside the image there is `colour`, (3,) 0..255, truncated to whole levels. Regions of over
    64 million pixels are sampled where they lie, which moves levels by one.
    """
    fill = np.trunc(colour).tolist()
    left, top = (math.floor(value - (side + 1) / 2 + 0.5) for value in centre.tolist())
    if side * side > MAX_REGION_PIXELS:
        steps = (np.arange(size, dtype=np.float64) + 0.5) * (side / size) - 0.5
        maps = np.broadcast_arrays((left + steps)[None], (top + steps)[:, None])
        columns, rows = (np.clip(places, -2, 2**15).astype(np.float32) for places in maps)
        return cv2.remap(
            image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
        ).astype(np.uint8)
    height, width = image.shape[:2]
    right, bottom = left + side, top + side
    seen = image[min(max(top, 0), height):max(bottom, 0), min(max(left, 0), width):max(right, 0)]
    above, before = min(max(-top, 0), side), min(max(-left, 0), side)
    below, after = side - above - seen.shape[0], side - before - seen.shape[1]
    if seen.size == 0:
        region: np.ndarray = np.full((side, side, 3), fill, dtype=np.uint8)
    elif above or below or before or after:
        region = cv2.copyMakeBorder(seen, above, below, before, after, cv2.BORDER_CONSTANT, value=fill)
    else:
        region = seen
    return np.asarray(region if side == size else cv2.resize(region, (size, size)))


def anchors(settings: SiamRPNSettings) -> np.ndarray:
    """(4, shapes * cells * cells) float32 x, y, w, h: centres in pixels of the search region, from its middle."""
    cells = settings.score_size
    steps = (np.arange(cells) - cells // 2) * settings.stride
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    shapes = []
    for ratio in settings.anchor_ratios:
        width = int(math.sqrt(settings.stride**2 / ratio))
        shapes.append((width * settings.anchor_scale, int(width * ratio) * settings.anchor_scale))
    sizes = np.repeat(np.array(shapes).T, cells * cells, axis=1)
    centres = np.tile((columns.ravel(), rows.ravel()), len(shapes))
    return np.concatenate((centres, sizes)).astype(np.float32)


def window(settings: SiamRPNSettings) -> np.ndarray:
    """(shapes * cells * cells,) float64, 0 to 1: how near the middle of the search region every anchor is (Hann)."""
    profile = np.hanning(settings.score_size)
    return np.tile(np.outer(profile, profile).ravel(), len(settings.anchor_ratios))


def target_scores(classes: Tensor) -> Tensor:
    """(2 * shapes, cells, cells) logits, of the background first -> (A,) probability of the target."""
    return torch.softmax(classes.reshape(2, -1), 0)[1]


def offset_boxes(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(4, A) float32 boxes x, y, w, h as `anchors`, moved and scaled by what the network says of them, (4, A)."""
    # The limit, e^20, keeps boxes of an untrained network finite.
    sizes = np.exp(offsets[2:].clip(-20, 20)) * anchors[2:]
    return np.concatenate((offsets[:2] * anchors[2:] + anchors[:2], sizes))


def choose(
    scores: np.ndarray, boxes: np.ndarray, nearness: np.ndarray, target: SiamRPNTarget, zoom: float,
    image_size: tuple[int, int], settings: SiamRPNSettings,
) -> Choice:
    """The best anchor by score, likeness to the last size and distance (Li et al. 2018, equations 12 and 13).

    scores: (A,) 0..1; boxes: (4, A), see `offset_boxes`; nearness: (A,), see `window`; zoom: pixels of the search
    region per image pixel; image_size: (height, width).
    """
    widths, heights = boxes[2:].astype(np.float64)
    last = target.size * zoom
    scale = _change(_padded_side(widths, heights) / _padded_side(*last))
    aspect = _change((last[0] / last[1]) / (widths / heights))
    penalty = np.exp((1 - aspect * scale) * settings.penalty)
    penalised = penalty * scores * (1 - settings.window_influence) + nearness * settings.window_influence
    best = int(penalised.argmax())
    rate = penalty[best] * scores[best] * settings.size_rate
    found = boxes[:, best].astype(np.float64) / zoom
    limits = np.array(image_size[::-1], dtype=np.float64)
    size = np.maximum(np.minimum(target.size * (1 - rate) + found[2:] * rate, limits), settings.smallest_side)
    centre = np.clip(target.centre + found[:2], 0, limits)
    return Choice(best, float(scores[best]), penalised, centre, size)


def _change(ratio: np.ndarray) -> np.ndarray:
    return np.maximum(ratio, 1 / ratio)


def _padded_side(width: np.ndarray, height: np.ndarray) -> np.ndarray:
    padding = (width + height) / 2
    return np.sqrt((width + padding) * (height + padding))
