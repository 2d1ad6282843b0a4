"""Things to draw: objects and regions cut from images, and procedural shapes with real or made textures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tracker_ar.data.synthetic.library import ImageLibrary

MAX_SIDE = 320
_MARGIN = 3


@dataclass(frozen=True)
class Sprite:
    """`pixels` RGB uint8 h x w x 3; `alpha` uint8 h x w, 0 transparent to 255 opaque, soft at the edge."""

    pixels: np.ndarray
    alpha: np.ndarray

    @property
    def side(self) -> float:
        """Square root of the opaque area, pixels: the size that scales refer to."""
        return float(np.sqrt(max(1, np.count_nonzero(self.alpha > 127))))

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle of the sprite's rectangle."""
        return self.pixels.shape[1] / 2.0, self.pixels.shape[0] / 2.0


def draw_sprite(library: ImageLibrary, rng: np.random.Generator) -> Sprite:
    """A random sprite: mostly an annotated object, else a region of a partition or a procedural shape."""
    chance = rng.random()
    if chance < 0.65:
        return cut_object(library, rng)
    if chance < 0.8 and library.regions:
        return _cut_region(library, rng)
    return make_shape(library, rng)


def cut_object(library: ImageLibrary, rng: np.random.Generator) -> Sprite:
    """An annotated object with its own pixels."""
    cutout = library.draw_object(rng)
    return _cut(library.images[cutout.image].pixels, library.mask_of(cutout), cutout.box, rng)


def _cut_region(library: ImageLibrary, rng: np.random.Generator) -> Sprite:
    cutout = library.draw_region(rng)
    assert cutout is not None
    mask = library.mask_of(cutout, of_regions=True)
    return _cut(library.images[cutout.image].pixels, mask, cutout.box, rng)


def make_shape(library: ImageLibrary, rng: np.random.Generator) -> Sprite:
    """A procedural shape of one to three parts; each part is filled from an image or with a made texture."""
    side = int(rng.integers(64, 160))
    pixels = _texture(library, side, rng)
    mask = _blob(side, rng)
    for _ in range(rng.integers(0, 3)):
        part = _blob(side, rng)
        part = cv2.warpAffine(part, _inner_affine(side, rng), (side, side), flags=cv2.INTER_NEAREST)
        pixels = np.where(part[..., None] > 0, _texture(library, side, rng), pixels)
        mask |= part
    return _cut(pixels, mask, (0, 0, side, side), rng)


def _cut(
    pixels: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int], rng: np.random.Generator
) -> Sprite:
    x0, y0, x1, y1 = box
    height, width = mask.shape
    rows = slice(max(0, y0 - _MARGIN), min(height, y1 + _MARGIN))
    columns = slice(max(0, x0 - _MARGIN), min(width, x1 + _MARGIN))
    # A border of transparent pixels keeps the outline closed where the object touches its image's edge.
    crop = cv2.copyMakeBorder(pixels[rows, columns], _MARGIN, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_REPLICATE)
    alpha = cv2.copyMakeBorder(mask[rows, columns] * 255, _MARGIN, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_CONSTANT)
    shrink = MAX_SIDE / max(crop.shape[:2])
    if shrink < 1.0:
        size = (max(8, round(crop.shape[1] * shrink)), max(8, round(crop.shape[0] * shrink)))
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        crop, alpha = crop[:, ::-1], alpha[:, ::-1]
    alpha = cv2.GaussianBlur(np.ascontiguousarray(alpha), (0, 0), rng.uniform(0.6, 1.4))
    # Half a pixel inward: annotated outlines run along the edge and would carry the old background.
    alpha = np.clip(alpha.astype(np.float32) * 1.15 - 38.0 * rng.uniform(0.0, 1.0), 0, 255).astype(np.uint8)
    return Sprite(np.ascontiguousarray(crop), alpha)


def _blob(side: int, rng: np.random.Generator) -> np.ndarray:
    """A closed shape that fills most of a side x side square: round or angular, around its middle."""
    corners = int(rng.integers(3, 12))
    angles: np.ndarray = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii: np.ndarray = rng.uniform(0.45, 1.0, corners)
    if rng.random() < 0.6:
        fine = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        orders = np.arange(1, 6)
        waves = rng.normal(0, 0.25, 5) / orders
        radii = np.clip(
            0.75 + (waves * np.cos(fine[:, None] * orders + rng.uniform(0, 6.3, 5))).sum(1), 0.2, 1.0
        )
        angles = fine
    stretch = rng.uniform(0.4, 1.0), rng.uniform(0.4, 1.0)
    longest = max(stretch)
    outline = np.stack((np.cos(angles) * stretch[0], np.sin(angles) * stretch[1]), 1)
    points = outline / longest * radii[:, None]
    points = (points * (side / 2 - 3) + side / 2).astype(np.int32)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [points], 1)
    return mask


def _inner_affine(side: int, rng: np.random.Generator) -> np.ndarray:
    scale = rng.uniform(0.25, 0.6)
    matrix = np.asarray(cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), scale), np.float64)
    matrix[:, 2] += rng.uniform(-0.22, 0.22, 2) * side
    return matrix


def _texture(library: ImageLibrary, side: int, rng: np.random.Generator) -> np.ndarray:
    """Side x side RGB uint8: a window of an image, stripes, cells or a smooth gradient."""
    kind = rng.random()
    if kind < 0.6:
        pixels = library.draw_image(rng).pixels
        window = min(*pixels.shape[:2], int(side * rng.uniform(0.5, 2.0)))
        top = rng.integers(0, pixels.shape[0] - window + 1)
        left = rng.integers(0, pixels.shape[1] - window + 1)
        return cv2.resize(pixels[top : top + window, left : left + window], (side, side))
    first, second = rng.integers(0, 256, (2, 3)).astype(np.float32)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if kind < 0.75:
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(2, 10)
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * frequency * (rows * np.sin(angle) + columns * np.cos(angle)))
    else:
        coarse = rng.random((int(rng.integers(2, 9)),) * 2).astype(np.float32)
        wave = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    mixed = first + (second - first) * np.clip(wave, 0, 1)[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8)
