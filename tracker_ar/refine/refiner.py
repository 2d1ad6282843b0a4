"""The strengthened Alpha-Refine module with its mask branch: image and boxes in, masks out.

The reference is never updated (Alpha-Refine, section 3.1); a network with a target model may learn from confident
frames (FRTM, Robinson et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tracker_ar.crops import RefinerCrop, Window, normalized_pixels, paste_back, refiner_crop, to_tensor
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.geometry import Region, clip_box, region_box
from tracker_ar.models.alpha_refine import (
    MASK_REFINER_50,
    MASK_REFINER_LITE,
    MaskRefiner,
    MaskRefinerConfig,
    Target,
)
from tracker_ar.models.target_model import STAGES
from tracker_ar.prediction import Refinement
from tracker_ar.refine.masks import described
from tracker_ar.refine.second_pass import Correction, is_better, is_due
from tracker_ar.trace import note, stage


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


@dataclass
class MaskTarget:
    """All that is known of one target.

    learned: what the network knows of it. frames: how many might have been learned. since_second_pass: frames since the
    last second pass; correction: from the box that is given to where the crop belongs, until the next one is due.
    """

    learned: Target
    since_second_pass: int
    frames: int = 0
    correction: Correction | None = None


@dataclass(frozen=True)
class _Segmented:
    """One target in one crop. mask: described by its own box. probabilities (1, 1, S, S) and stages: what may be
    learned from. refinement: what is reported, with the box of the box branch where there is one."""

    crop: RefinerCrop
    mask: Refinement
    probabilities: Tensor
    stages: Mapping[str, Tensor]
    refinement: Refinement


class SegmentingRefiner:
    """The engine; see `tracker_ar.prediction.Refiner`."""

    def __init__(self, runner: Runner, settings: RefinerSettings) -> None:
        self.runner = runner
        self.settings = settings

    @torch.inference_mode()
    def start(self, frame: Frame, region: Region) -> MaskTarget:
        """Remember a target. region: a mask (H, W), non-zero on the target, or a box x, y, w, h in pixels.

        Of a mask only the box counts unless the settings say otherwise. Raises InputError for a region that cannot be
        used.
        """
        box = region_box(region, frame.size)
        crop = self._crop(frame.pixels, box)
        note("reference crop", crop)
        device = self.runner.device
        boxes = torch.as_tensor(crop.box_in_crop, dtype=torch.float32)[None].to(device)
        masks = None
        if self.settings.use_initial_mask and np.ndim(region) == 2:
            shown = np.repeat((np.asarray(region) != 0).astype(np.uint8)[:, :, None] * 255, 3, axis=2)
            masks = to_tensor(self._crop(shown, box).pixels)[:, :1].to(device) / 255
        learned = self.runner.network.learn(normalized_pixels(crop.pixels).to(device), boxes, masks)
        return MaskTarget(learned, since_second_pass=self.settings.second_pass_interval)

    @torch.inference_mode()
    def refine(
        self, frame: Frame, targets: Sequence[MaskTarget], boxes: Sequence[np.ndarray], learn: Sequence[bool]
    ) -> list[Refinement]:
        """The mask of every target near its box, (4,) x, y, w, h in pixels. learn: whether its target model, where
        there is one, may learn from this frame. Raises InputError for a box that cannot be used."""
        given = [np.asarray(box, dtype=np.float64) for box in boxes]
        places = [self._place(target, box, frame.size) for target, box in zip(targets, given)]
        results = self._segment(frame, targets, places)
        self._pass_again(frame, targets, given, results)
        for target, result, may_learn in zip(targets, results, learn):
            note("refined", (result.crop, result.refinement))
            if may_learn and result.mask.score > 0:
                self._learn(target, result)
        return [result.refinement for result in results]

    @torch.inference_mode()
    def look(self, frame: Frame, target: MaskTarget, box: np.ndarray) -> Refinement:
        """The mask of one target near a box, without remembering anything of it."""
        return self._segment(frame, [target], [np.asarray(box, dtype=np.float64)])[0].refinement

    # ---- where the crop is placed

    def _may_repeat(self, target: MaskTarget) -> bool:
        return self.settings.second_pass > 0 and target.since_second_pass >= self.settings.second_pass_interval

    def _place(self, target: MaskTarget, box: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        target.since_second_pass += 1
        if self._may_repeat(target):
            target.correction = None
        if target.correction is None:
            return box
        return clip_box(target.correction.of(box), image_size)

    def _pass_again(
        self, frame: Frame, targets: Sequence[MaskTarget], boxes: Sequence[np.ndarray], results: list[_Segmented]
    ) -> None:
        """Where the mask disagrees with the box, the crop was badly placed: segment again around the mask.

        A better second result takes the place of the first in `results`; the crops of the next frames are then placed
        as this one, as seen from the box, until another second pass is due.
        """
        due = [
            index for index, (target, box) in enumerate(zip(targets, boxes))
            if self._may_repeat(target) and is_due(results[index].mask, box, self.settings.second_pass)
        ]
        places = [clip_box(results[index].mask.box, frame.size) for index in due]
        again = self._segment(frame, [targets[index] for index in due], places)
        for index, place, second in zip(due, places, again):
            targets[index].since_second_pass = 0
            if is_better(second.mask, results[index].mask):
                results[index] = second
                targets[index].correction = Correction.between(boxes[index], place)

    # ---- one pass

    def _segment(
        self, frame: Frame, targets: Sequence[MaskTarget], boxes: Sequence[np.ndarray]
    ) -> list[_Segmented]:
        with stage("refiner crop"):
            crops = [self._crop(frame.pixels, box) for box in boxes]
            images = [normalized_pixels(crop.pixels).to(self.runner.device) for crop in crops]
        inputs = [(image, target.learned.kernel, target.learned.weights) for image, target in zip(images, targets)]
        results = []
        for crop, box, found in zip(crops, boxes, self.runner.run(segment, inputs)):
            probabilities, stages, corners, judgement = found
            with stage("paste back"):
                pasted = paste_back(probabilities[0, 0].float().cpu().numpy(), crop, frame.size)
                mask = described(pasted, crop.window, box, self.settings.threshold, self.settings.minimum_part)
            refinement = mask
            if corners is not None:
                refinement = _with_corners(mask, crop.window, corners, judgement, self.settings.input_size)
            results.append(_Segmented(crop, mask, probabilities, stages, refinement))
        return results

    def _learn(self, target: MaskTarget, result: _Segmented) -> None:
        settings = self.settings
        target.frames += 1
        if settings.learning_rate == 0 or result.mask.score < settings.learning_score:
            return
        if target.frames % settings.learning_interval == 0:
            with stage("target model update"):
                target.learned = self.runner.network.update(
                    target.learned, result.stages, result.probabilities, settings.learning_rate,
                    settings.first_frame_share,
                )

    def _crop(self, image: np.ndarray, box: np.ndarray) -> RefinerCrop:
        return refiner_crop(image, box, self.settings.search_factor, self.settings.input_size)


def _with_corners(mask: Refinement, window: Window, corners: Tensor, judgement: Tensor, size: int) -> Refinement:
    """The mask with the box of the box branch, and how the network judges itself: see `Segmentation`."""
    left, top, right, bottom = window
    zoom = np.array([right - left, bottom - top]) / size
    edges = corners[0].double().cpu().numpy()
    first, last = edges[:2] * zoom + [left, top], edges[2:] * zoom + [left, top]
    presence, quality = torch.sigmoid(judgement[0].float()).tolist()
    box = np.concatenate((first, np.maximum(last - first, 1.0)))
    return replace(mask, box=box, presence=presence, quality=quality)


def segment(
    network: MaskRefiner, images: Tensor, kernel: Tensor, weights: Tensor | None
) -> tuple[Tensor, dict[str, Tensor], Tensor | None, Tensor | None]:
    """A part of a frame, see `tracker_ar.engine.runner`: search crops (N, 3, S, S), ImageNet-normalised, and what is
    known of their targets, see `Target` -> probabilities (N, 1, S, S), and what the target model, where there is one,
    may learn from; and where there is a box branch its corners and judgement, see `Segmentation`."""
    found = network.segment(Target(kernel, weights=weights), images)
    stages = {} if network.target_model is None else {name: found.stages[name] for name in STAGES}
    return torch.sigmoid(found.logits), stages, found.corners, found.judgement
