"""Training samples of the two networks, cut from scenes: pairs for the refiner, sequences for the base."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from tracker_ar.data.synthetic.photometry import (
    Degradation,
    apply_tone,
    degrade,
    draw_degradation,
    to_grey,
    tone_table,
)
from tracker_ar.data.synthetic.render import View
from tracker_ar.data.synthetic.scene import Scene, window_matrix
from tracker_ar.data.synthetic.scenes import SceneSampler

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


@dataclass(frozen=True)
class Shot:
    """One crop before it is made: a view of a scene, and what happens to the picture of it."""

    view: View
    tone: np.ndarray
    degradation: Degradation
    grey: bool
    mirrored: bool = False


@dataclass(frozen=True)
class PairPlan:
    """A pair before its crops are made; `box` is that of `RefinerPair`."""

    reference: Shot
    search: Shot
    box: np.ndarray
    box_only: bool


def plan_pair(sampler: SceneSampler, rng: np.random.Generator, size: int) -> PairPlan:
    """Draw a pair whose search crop is cut around an imperfect box, as the base tracker's is."""
    scene, boxes = visible_scene(sampler, rng, 2)
    mirror = rng.random() < 0.1
    grey = rng.random() < 0.05
    reference = shot_of(scene, 0, around(boxes[0], 2.0), size, cv2.BORDER_CONSTANT, rng, grey)
    # The entry counts the crop's middle as (size - 1) / 2.
    corner = (size - 1) / 2 - size / 4
    reference_box = np.array([corner, corner, size / 2, size / 2], np.float32)
    guess = _imperfect(boxes[1], rng)
    search = shot_of(scene, 1, around(guess, 2.0), size, cv2.BORDER_CONSTANT, rng, grey)
    flip = rng.random() < 0.5
    reference, search = replace(reference, mirrored=flip), replace(search, mirrored=flip != mirror)
    return PairPlan(reference, search, reference_box, rng.random() < _BOX_ONLY)


def refiner_pair(sampler: SceneSampler, rng: np.random.Generator, size: int) -> RefinerPair:
    """Draw a pair and make its crops."""
    plan = plan_pair(sampler, rng, size)
    reference, known = take(plan.reference, size)
    search, mask = take(plan.search, size)
    if plan.box_only:
        known = np.ones_like(known)
    return RefinerPair(plan.box, reference, known, search, mask)


def plan_sequence(
    sampler: SceneSampler,
    rng: np.random.Generator,
    frames: tuple[int, int],
    size: int,
    factor: float,
    centre_jitter: tuple[float, float],
    scale_jitter: tuple[float, float],
) -> tuple[list[Shot], np.ndarray]:
    """Train frames, then test frames, each a jittered search region of `factor` times the target.

    Args:
        frames: numbers of train and of test frames.
        size: side of the crops, pixels.
        centre_jitter, scale_jitter: the settings of DiMP (Bhat et al., 2019) for train and test frames:
            the centre moves by up to half of `centre_jitter` target sizes either way, the scale by
            exp(N(0, scale_jitter)).

    Returns:
        the crops before they are made, and the boxes of `BaseSequence`.
    """
    scene, boxes = visible_scene(sampler, rng, sum(frames))
    grey = rng.random() < 0.05
    mirror = rng.random() < 0.5
    shots, inside = [], []
    for frame, box in enumerate(boxes):
        test = int(frame >= frames[0])
        region = _search_region(box, scene.frame_size, factor, centre_jitter[test], scale_jitter[test], rng)
        shot = shot_of(scene, frame, region, size, cv2.BORDER_REPLICATE, rng, grey)
        shots.append(replace(shot, mirrored=mirror))
        x, y, w, h = into_window(box, region, size)
        if mirror:
            x = size - x - w
        inside.append((x, y, w, h))
    return shots, np.array(inside, np.float32)


def visible_scene(
    sampler: SceneSampler, rng: np.random.Generator, frames: int
) -> tuple[Scene, list[np.ndarray]]:
    """Draw scenes until the target can be seen in every frame; the last one drawn must do at the end."""
    for _ in range(_ATTEMPTS):
        scene = sampler.sample(rng, frames)
        found = [scene.target_box(frame) for frame in range(frames)]
        if all(share > _LEAST_VISIBLE and min(box[2:]) >= _SMALLEST_BOX for box, share in found):
            break
    boxes = []
    for box, _ in found:
        grown = np.maximum(box[2:], _SMALLEST_BOX)
        boxes.append(np.concatenate((box[:2] + (box[2:] - grown) / 2, grown)))
    return scene, boxes


def shot_of(
    scene: Scene,
    frame: int,
    region: tuple[float, float, float, float],
    size: int,
    border: int,
    rng: np.random.Generator,
    grey: bool,
) -> Shot:
    """Two of five views have a lower resolution at first."""
    inner = size
    if rng.random() < 0.4:
        inner = int(size * rng.uniform(0.3, 0.9))
    tone = tone_table(rng, 0.6 * rng.random())
    return Shot(View(scene, frame, region, inner, border), tone, draw_degradation(inner, rng), grey)


def take(shot: Shot, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Render a view, change its light, degrade it, enlarge it to `size`: RGB uint8, and the target's mask."""
    view = shot.view
    pixels, mask = view.scene.render(view.frame, view.region, (view.side, view.side), view.border)
    pixels = degrade(apply_tone(pixels, shot.tone), shot.degradation)
    if view.side != size:
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
        soft = cv2.resize(mask * 255, (size, size), interpolation=cv2.INTER_LINEAR)
        mask = (soft > 127).astype(np.uint8)
    pixels = to_grey(pixels) if shot.grey else pixels
    if shot.mirrored:
        pixels, mask = np.ascontiguousarray(pixels[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    return pixels, mask


def around(box: np.ndarray, factor: float) -> tuple[float, float, float, float]:
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


def into_window(
    box: np.ndarray, region: tuple[float, float, float, float], size: int
) -> tuple[float, float, float, float]:
    matrix = window_matrix(region, (size, size))
    x, y = matrix[0, 0] * box[0] + matrix[0, 2], matrix[1, 1] * box[1] + matrix[1, 2]
    return x, y, matrix[0, 0] * box[2], matrix[1, 1] * box[3]
