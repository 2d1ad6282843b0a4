"""Light, blur, noise and compression of rendered crops (uint8 RGB in, uint8 RGB out)."""

from __future__ import annotations

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


def degrade(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera and a codec do: defocus or motion blur, noise, JPEG; each with some probability."""
    chance = rng.random(4)
    side = pixels.shape[0]
    if chance[0] < 0.12:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.6) * side / 192.0)
    elif chance[0] < 0.25:
        length = max(3, int(rng.uniform(0.015, 0.06) * side))
        pixels = cv2.filter2D(pixels, -1, motion_kernel(length, rng.uniform(0.0, np.pi)))
    if chance[1] < 0.3:
        pixels = cv2.add(pixels, _noise(pixels.shape, rng), dtype=cv2.CV_8U)
    if chance[2] < 0.3:
        quality = int(rng.integers(25, 90))
        _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        pixels = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return pixels


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random window of one fixed noise field, scaled: a fresh field per crop costs several times more."""
    height, width = shape[:2]
    top, left = rng.integers(0, _NOISE_SIDE - height + 1), rng.integers(0, _NOISE_SIDE - width + 1)
    window = _NOISE[top : top + height, left : left + width]
    return (window * rng.uniform(2.0, 12.0)).astype(np.int16)


_NOISE = np.random.default_rng(7).standard_normal((_NOISE_SIDE, _NOISE_SIDE, 3)).astype(np.float32)
