"""Training samples of the two networks, cut from scenes: pairs for the refiner, sequences for the base."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tracker_ar.data.photometry import apply_tone, degrade, draw_degradation, to_grey, tone_table
from tracker_ar.data.scene import Scene, window_matrix
from tracker_ar.data.synthetic import SceneSampler

_ATTEMPTS = 12
_LEAST_VISIBLE = 0.35
_SMALLEST_BOX = 8.0
_BOX_ONLY = 0.3


@dataclass(frozen=True)
class RefinerPair:
    """A reference crop with its box, a search crop with its mask.

    Attributes:
        reference, search: RGB uint8 S x S x 3, each twice its box in width and in height.
        box: float32 (4,) x, y, w, h of the target in the reference crop, pixels, as the refiner expects it.
        reference_mask: uint8 {0, 1} S x S, the target in the reference crop; all ones in a share of the
            pairs, as where a tracker is started with a box.
        mask: uint8 {0, 1} S x S, the target in the search crop.
    """

    box: np.ndarray
    reference: np.ndarray
    reference_mask: np.ndarray
    search: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class BaseSequence:
    """Search regions of the base tracker: `images` uint8 (n, S, S, 3), `boxes` float32 (n, 4) x, y, w, h."""

    images: np.ndarray
    boxes: np.ndarray


def refiner_pair(sampler: SceneSampler, rng: np.random.Generator, size: int) -> RefinerPair:
    """A pair whose search crop is cut around an imperfect box, as the base tracker's is."""
    scene, boxes = _visible_scene(sampler, rng, 2)
    mirror = rng.random() < 0.1
    grey = rng.random() < 0.05
    pixels, known = _view(scene, 0, _around(boxes[0], 2.0), size, cv2.BORDER_CONSTANT, rng, grey)
    # The entry counts the crop's middle as (size - 1) / 2.
    corner = (size - 1) / 2 - size / 4
    reference_box = np.array([corner, corner, size / 2, size / 2], np.float32)
    guess = _imperfect(boxes[1], rng)
    search, mask = _view(scene, 1, _around(guess, 2.0), size, cv2.BORDER_CONSTANT, rng, grey)
    if rng.random() < 0.5:
        pixels, known, search, mask = pixels[:, ::-1], known[:, ::-1], search[:, ::-1], mask[:, ::-1]
    if mirror:
        search, mask = search[:, ::-1], mask[:, ::-1]
    if rng.random() < _BOX_ONLY:
        known = np.ones_like(known)
    images = (np.ascontiguousarray(image) for image in (pixels, known, search, mask))
    return RefinerPair(reference_box, *images)


def base_sequence(
    sampler: SceneSampler,
    rng: np.random.Generator,
    frames: tuple[int, int],
    size: int,
    factor: float,
    centre_jitter: tuple[float, float],
    scale_jitter: tuple[float, float],
) -> BaseSequence:
    """Train frames, then test frames, each a jittered search region of `factor` times the target.

    Args:
        frames: numbers of train and of test frames.
        size: side of the crops, pixels.
        centre_jitter, scale_jitter: the settings of DiMP (Bhat et al., 2019) for train and test frames:
            the centre moves by up to half of `centre_jitter` target sizes either way, the scale by
            exp(N(0, scale_jitter)).
    """
    scene, boxes = _visible_scene(sampler, rng, sum(frames))
    grey = rng.random() < 0.05
    mirror = rng.random() < 0.5
    images, inside = [], []
    for frame, box in enumerate(boxes):
        test = int(frame >= frames[0])
        region = _search_region(box, scene.frame_size, factor, centre_jitter[test], scale_jitter[test], rng)
        pixels, _ = _view(scene, frame, region, size, cv2.BORDER_REPLICATE, rng, grey)
        x, y, w, h = _into_window(box, region, size)
        if mirror:
            pixels, x = pixels[:, ::-1], size - x - w
        images.append(pixels)
        inside.append((x, y, w, h))
    return BaseSequence(np.stack(images), np.array(inside, np.float32))


def _visible_scene(
    sampler: SceneSampler, rng: np.random.Generator, frames: int
) -> tuple[Scene, list[np.ndarray]]:
    """Draw scenes until the target can be seen in every frame; the last one drawn must do at the end."""
    for attempt in range(_ATTEMPTS):
        scene = sampler.sample(rng, frames)
        found = [scene.target_box(frame) for frame in range(frames)]
        if all(share > _LEAST_VISIBLE and min(box[2:]) >= _SMALLEST_BOX for box, share in found):
            break
    boxes = []
    for box, _ in found:
        grown = np.maximum(box[2:], _SMALLEST_BOX)
        boxes.append(np.concatenate((box[:2] + (box[2:] - grown) / 2, grown)))
    return scene, boxes


def _view(
    scene: Scene,
    frame: int,
    region: tuple[float, float, float, float],
    size: int,
    border: int,
    rng: np.random.Generator,
    grey: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Render, in two of five views at a lower resolution first, then change the light and degrade."""
    inner = size
    if rng.random() < 0.4:
        inner = int(size * rng.uniform(0.3, 0.9))
    pixels, mask = scene.render(frame, region, (inner, inner), border)
    pixels = apply_tone(pixels, tone_table(rng, 0.6 * rng.random()))
    pixels = degrade(pixels, draw_degradation(inner, rng))
    if inner != size:
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
        soft = cv2.resize(mask * 255, (size, size), interpolation=cv2.INTER_LINEAR)
        mask = (soft > 127).astype(np.uint8)
    return (to_grey(pixels) if grey else pixels), mask


def _around(box: np.ndarray, factor: float) -> tuple[float, float, float, float]:
    x, y, w, h = box
    left, top = x + w / 2 - factor * w / 2, y + h / 2 - factor * h / 2
    return left, top, left + factor * w, top + factor * h


def _imperfect(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A base tracker's box: mostly a little off, sometimes by a lot."""
    wild = rng.random() < 0.3
    shift = rng.normal(0, 0.22 if wild else 0.1, 2) * box[2:]
    common = rng.normal(0, 0.28 if wild else 0.12)
    scale = np.exp(common + rng.normal(0, 0.2 if wild else 0.1, 2))
    extent = np.maximum(box[2:] * scale, _SMALLEST_BOX)
    centre = box[:2] + box[2:] / 2 + shift
    return np.concatenate((centre - extent / 2, extent))


def _search_region(
    box: np.ndarray,
    frame_size: tuple[int, int],
    factor: float,
    centre_jitter: float,
    scale_jitter: float,
    rng: np.random.Generator,
) -> tuple[float, float, float, float]:
    """A square search region that is moved, and shrunk by at most 1.5, into the frame along one axis."""
    extent = box[2:] * np.exp(rng.normal(0, scale_jitter, 2))
    reach = np.sqrt(extent.prod())
    centre = box[:2] + box[2:] / 2 + reach * centre_jitter * (rng.random(2) - 0.5)
    side = np.ceil(reach * factor)
    height, width = frame_size
    side /= np.clip(min(side / width, side / height), 1.0, 1.5)
    corner = centre - side / 2
    for axis, limit in enumerate((width, height)):
        if side <= limit:
            corner[axis] = np.clip(corner[axis], 0, limit - side)
        else:
            corner[axis] = (limit - side) / 2
    return float(corner[0]), float(corner[1]), float(corner[0] + side), float(corner[1] + side)


def _into_window(
    box: np.ndarray, region: tuple[float, float, float, float], size: int
) -> tuple[float, float, float, float]:
    matrix = window_matrix(region, (size, size))
    x, y = matrix[0, 0] * box[0] + matrix[0, 2], matrix[1, 1] * box[1] + matrix[1, 2]
    return x, y, matrix[0, 0] * box[2], matrix[1, 1] * box[3]
