"""The strengthened Alpha-Refine module with its mask branch: image and box in, mask out.

Usable with any base tracker: `initialize` once with the target's box, then `refine` each frame with the box that the
base tracker gives. The reference is never updated (Alpha-Refine, section 3.1); a network with a target model may learn
from confident frames (FRTM, Robinson et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from tracker_ar.crops import (
    RefinerCrop, Window, as_rgb_image, normalize, normalized_pixels, paste_back, refiner_crop, to_tensor
)
from tracker_ar.device_crops import on_device, paste, refiner_patch
from tracker_ar.errors import InputError
from tracker_ar.geometry import Region, box_from_mask, box_iou, clip_box, region_box
from tracker_ar.models.graphs import Call, Steps, alone, graphs_for
from tracker_ar.models.inference import move, prepare_for_inference
from tracker_ar.models.mask_refiner import MaskRefiner, Segmentation, Target
from tracker_ar.models.precision import in_float32
from tracker_ar.profiles import RefinerSettings
from tracker_ar.refine.recorded import segment

# Of the second look: the least mean probability of the first mask, and what it must keep of it.
SURE, KEPT_BY_SECOND_LOOK = 0.7, 0.8


@dataclass(frozen=True)
class Refinement:
    """mask: (H, W) uint8 {0, 1}, C-contiguous. box: (4,) float64 x, y, w, h around the mask, or the box that was
    given where the mask is empty. score: mean probability of the mask's pixels, 0 where it is empty.
    probabilities: (H, W) float32.

    Of a network with a box branch also corner_box: (4,) float64 x, y, w, h, the target's box whether or not there is a
    mask; presence: the probability that the target is in the crop; quality: the expected IoU of the mask. Both 0 to 1.
    """

    mask: np.ndarray
    box: np.ndarray
    score: float
    probabilities: np.ndarray
    corner_box: np.ndarray | None = None
    presence: float | None = None
    quality: float | None = None


@dataclass(frozen=True)
class Correction:
    """From one box to another, relative to the size of the first: shift of the centre and growth, (2,) each."""

    shift: np.ndarray
    growth: np.ndarray

    @staticmethod
    def between(box: np.ndarray, wanted: np.ndarray) -> Correction:
        """What takes `box` to `wanted`, (4,) x, y, w, h each."""
        centres = wanted[:2] + wanted[2:] / 2 - (box[:2] + box[2:] / 2)
        return Correction(centres / box[2:], wanted[2:] / box[2:])

    def of(self, box: np.ndarray) -> np.ndarray:
        """The box, (4,) x, y, w, h, corrected."""
        size = box[2:] * self.growth
        return np.concatenate((box[:2] + box[2:] / 2 + self.shift * box[2:] - size / 2, size))


class Refiner:
    """Mask refiner for one target. fast: see `prepare_for_inference` and `graphs_for`."""

    def __init__(
        self, network: MaskRefiner, settings: RefinerSettings, device: torch.device, fast: bool = True
    ) -> None:
        self._network = prepare_for_inference(network, device, fast)
        self.graphs = graphs_for(self._network, device, fast)
        self._settings = settings
        self._target: Target | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._network.device

    def move_to(self, device: torch.device) -> None:
        """Move the network; what was learned of a target stays behind, so that `initialize` must follow."""
        self.graphs.drop()
        move(self._network, device)

    @in_float32
    @torch.inference_mode()
    def initialize(self, image: np.ndarray, region: Region) -> None:
        """Remember the target.

        image: (H, W, 3) uint8 RGB. region: a mask (H, W), non-zero on the target, or a box x, y, w, h in pixels. Of a
        mask only the box counts unless the settings say otherwise. Raises InputError for a region that cannot be used.
        """
        image = as_rgb_image(image)
        box = region_box(region, image.shape[:2])
        crop = self._crop(image, box)
        boxes = torch.as_tensor(crop.box_in_crop, dtype=torch.float32)[None].to(self.device)
        masks = None
        if self._settings.use_initial_mask and np.ndim(region) == 2:
            shown = np.repeat((np.asarray(region) != 0).astype(np.uint8)[:, :, None] * 255, 3, axis=2)
            masks = to_tensor(self._crop(shown, box).pixels)[:, :1].to(self.device) / 255
        self._target = self._network.learn(self._input(crop), boxes, masks)
        self._frames = 0
        self._since_second_look = self._settings.second_look_interval
        self._correction: Correction | None = None
        if self.graphs.active:
            alone(self.rehearse(image, box))

    @torch.inference_mode()
    def rehearse(self, image: np.ndarray, box: np.ndarray) -> Steps[None]:
        """Record now what the next frames replay: a first replay would cost the first frame a second."""
        yield from self._segment(image, box)

    @in_float32
    def refine(self, image: np.ndarray, box: np.ndarray, learn: bool = True) -> Refinement:
        """The target's mask in `image`, (H, W, 3) uint8 RGB, near `box`, (4,) x, y, w, h in pixels.

        learn: whether the target model, where there is one, may learn from this frame. Raises InputError for a call
        before `initialize` and for an image or box that cannot be used.
        """
        return alone(self.steps(image, box, learn))

    @torch.inference_mode()
    def steps(self, image: np.ndarray, box: np.ndarray, learn: bool = True) -> Steps[Refinement]:
        """`refine`, to be run together with the steps of other targets."""
        if self._target is None:
            raise InputError("refine() was called before initialize(): give the first frame and its region first.")
        image = as_rgb_image(image)
        refinement, found = yield from self._look(image, np.asarray(box, dtype=np.float64))
        if learn and refinement.score > 0:
            self._learn(found, refinement.score)
        return refinement

    def _look(self, image: np.ndarray, box: np.ndarray) -> Steps[tuple[Refinement, Segmentation]]:
        self._since_second_look += 1
        may_repeat = self._settings.second_look > 0 and self._since_second_look >= self._settings.second_look_interval
        if self._correction is not None and not may_repeat:
            return (yield from self._segment(image, clip_box(self._correction.of(box), image.shape[:2])))
        self._correction = None
        first, found = yield from self._segment(image, box)
        if not may_repeat:
            return first, found
        return (yield from self._second_look(image, box, first, found))

    def _segment(self, image: np.ndarray, box: np.ndarray) -> Steps[tuple[Refinement, Segmentation]]:
        if self.graphs.active:
            return (yield from self._segment_on_device(image, box))
        crop = self._crop(image, box)
        found = self._network.segment(self._target, self._input(crop))
        inside = torch.sigmoid(found.logits)[0, 0].float().cpu().numpy()
        probabilities = paste_back(inside, crop, image.shape[:2])
        return self._described(probabilities, crop.window, box, found), found

    def _described(
        self, probabilities: np.ndarray, window: Window, box: np.ndarray, found: Segmentation
    ) -> Refinement:
        """What these probabilities, (H, W), zero outside the window, say of the target; only the window is looked at."""
        more = self._box_and_judgement(found, window)
        left, top = max(window[0], 0), max(window[1], 0)
        seen = probabilities[top : max(window[3], top), left : max(window[2], left)]
        inside = (seen > self._settings.threshold).view(np.uint8)
        mask = np.zeros(probabilities.shape, np.uint8)
        if not inside.any():
            return Refinement(mask, np.asarray(box, dtype=np.float64), 0.0, probabilities, *more)
        if self._settings.minimum_part > 0:
            drop_small_parts(inside, self._settings.minimum_part)
        mask[top : top + seen.shape[0], left : left + seen.shape[1]] = inside
        around = box_from_mask(inside) + [left, top, 0, 0]
        return Refinement(mask, around, float(cv2.mean(seen, inside)[0]), probabilities, *more)

    @staticmethod
    def _box_and_judgement(
        found: Segmentation, window: Window
    ) -> tuple[np.ndarray | None, float | None, float | None]:
        """`corner_box`, `presence` and `quality` of a `Refinement`."""
        if found.corners is None or found.judgement is None:
            return None, None, None
        left, top, right, bottom = window
        size = found.logits.shape[-1]
        zoom = np.array([right - left, bottom - top]) / size
        corners = found.corners[0].double().cpu().numpy()
        first, last = corners[:2] * zoom + [left, top], corners[2:] * zoom + [left, top]
        presence, quality = torch.sigmoid(found.judgement[0].float()).tolist()
        return np.concatenate((first, np.maximum(last - first, 1.0))), presence, quality

    def _segment_on_device(self, image: np.ndarray, box: np.ndarray) -> Steps[tuple[Refinement, Segmentation]]:
        """The same where graphs are replayed; the probabilities of the image's pixels are all that is waited for."""
        settings, target = self._settings, self._target
        patch, window = refiner_patch(
            on_device(image, self.device), box, settings.search_factor, settings.input_size
        )
        inputs = normalize(patch), target.kernel, target.weights
        probabilities, logits, stages, corners, judgement = yield Call(self.graphs, segment, inputs)
        pasted = paste(probabilities[0, 0], window, image.shape[:2]).cpu().numpy()
        found = Segmentation(logits, stages, None, corners, judgement)
        return self._described(pasted, window, box, found), found

    def _second_look(
        self, image: np.ndarray, box: np.ndarray, first: Refinement, found: Segmentation
    ) -> Steps[tuple[Refinement, Segmentation]]:
        """Where the mask disagrees with the box, the crop was badly placed: segment again around the mask. The second
        result counts if it is as sure as the first and keeps most of it; the crops of the next frames are then placed as
        this one, as seen from the box, until another second look is due."""
        around = clip_box(first.box, image.shape[:2])
        if first.score < SURE or box_iou(first.box, box) >= self._settings.second_look:
            return first, found
        self._since_second_look = 0
        second, found_again = yield from self._segment(image, around)
        kept = np.count_nonzero(second.mask & first.mask) / np.count_nonzero(first.mask)
        if second.score < first.score or kept < KEPT_BY_SECOND_LOOK:
            return first, found
        self._correction = Correction.between(box, around)
        return second, found_again

    def _learn(self, found: Segmentation, score: float) -> None:
        settings = self._settings
        self._frames += 1
        if settings.learning_rate == 0 or score < settings.learning_score:
            return
        if self._frames % settings.learning_interval == 0:
            masks = torch.sigmoid(found.logits)
            self._target = self._network.update(
                self._target, found.stages, masks, settings.learning_rate, settings.first_frame_share
            )

    def _crop(self, image: np.ndarray, box: np.ndarray) -> RefinerCrop:
        return refiner_crop(image, box, self._settings.search_factor, self._settings.input_size)

    def _input(self, crop: RefinerCrop) -> torch.Tensor:
        return normalized_pixels(crop.pixels).to(self.device)


def drop_small_parts(mask: np.ndarray, minimum: float) -> None:
    """Clear, in place, the connected parts of a non-empty mask (H, W) uint8 {0, 1} that are smaller than `minimum`
    (0 to 1) times the area of the largest one. Pixels that touch at a corner are connected."""
    x, y, width, height = box_from_mask(mask).astype(int)
    inside = mask[y : y + height, x : x + width]
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(inside), connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    kept = areas >= minimum * areas[1:].max()
    inside &= kept[parts].astype(np.uint8)
