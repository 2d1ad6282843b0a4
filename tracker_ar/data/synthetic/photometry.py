"""Light, blur, noise and compression of rendered crops (uint8 RGB in, uint8 RGB out)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_NOISE_SIDE = 512


def tone_table(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A random change of light as a lookup table, uint8 (1, 256, 3): gain, offset, gamma and tint.

    Args:
        strength: 0 leaves the image alone; 1 is a strong change (gain and gamma of about 0.6 to 1.6).
    """
    levels = np.arange(256, dtype=np.float64)[:, None] / 255.0
    gamma = np.exp(rng.normal(0.0, 0.25 * strength))
    gain = np.exp(rng.normal(0.0, 0.2 * strength) + rng.normal(0.0, 0.08 * strength, size=3))
    offset = rng.normal(0.0, 0.06 * strength) + rng.normal(0.0, 0.02 * strength, size=3)
    table = np.clip(levels**gamma * gain + offset, 0.0, 1.0) * 255.0
    return np.ascontiguousarray(table.round().astype(np.uint8)[None])


def apply_tone(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look every value up in a `tone_table`."""
    return cv2.LUT(pixels, table)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Luminance in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def motion_kernel(length: int, angle: float) -> np.ndarray:
    """A line of the given length (pixels) and angle (radians), float32, sum 1."""
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2.0
    along = np.linspace(-middle, middle, 4 * length)
    rows = np.rint(middle + along * np.sin(angle)).astype(int)
    columns = np.rint(middle + along * np.cos(angle)).astype(int)
    kernel[rows, columns] = 1.0
    return kernel / kernel.sum()


@dataclass(frozen=True)
class Degradation:
    """What a camera and a codec do to one crop; None: nothing.

    Attributes:
        defocus: sigma of a Gaussian, pixels.
        motion: length (pixels) and angle (radians) of a straight movement.
        noise: top and left of a window of `NOISE`, and its factor.
        quality: of JPEG, 1 to 100.
    """

    defocus: float | None = None
    motion: tuple[int, float] | None = None
    noise: tuple[int, int, float] | None = None
    quality: int | None = None


def draw_degradation(side: int, rng: np.random.Generator) -> Degradation:
    """Blur, noise and compression of a crop of this side, each with some probability."""
    chance = rng.random(4)
    defocus = motion = noise = quality = None
    if chance[0] < 0.12:
        defocus = rng.uniform(0.4, 1.6) * side / 192.0
    elif chance[0] < 0.25:
        motion = max(3, int(rng.uniform(0.015, 0.06) * side)), rng.uniform(0.0, np.pi)
    if chance[1] < 0.3:
        top, left = (int(rng.integers(0, _NOISE_SIDE - side + 1)) for _ in range(2))
        noise = top, left, rng.uniform(2.0, 12.0)
    if chance[2] < 0.3:
        quality = int(rng.integers(25, 90))
    return Degradation(defocus, motion, noise, quality)


def degrade(pixels: np.ndarray, change: Degradation) -> np.ndarray:
    """Blur, then noise, then compress a square crop, RGB uint8 S x S x 3."""
    if change.defocus is not None:
        pixels = cv2.GaussianBlur(pixels, (0, 0), change.defocus)
    if change.motion is not None:
        pixels = cv2.filter2D(pixels, -1, motion_kernel(*change.motion))
    if change.noise is not None:
        top, left, factor = change.noise
        window = NOISE[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        pixels = cv2.add(pixels, (window * factor).astype(np.int16), dtype=cv2.CV_8U)
    if change.quality is not None:
        _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, change.quality])
        pixels = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return pixels


# One fixed field: a fresh one per crop costs several times more than a window of it.
NOISE = np.random.default_rng(7).standard_normal((_NOISE_SIDE, _NOISE_SIDE, 3)).astype(np.float32)
