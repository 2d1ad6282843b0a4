"""The images of the recorded reference outputs: integers from a Philox stream, equal on every machine.

The sequence has 44 frames: a high-contrast ellipse crosses a pale background and leaves at the right from
frame 38. A second, equal ellipse passes in frames 8 to 11; in frames 14 and 15 the target is hidden.
"""

from __future__ import annotations

from functools import cache

import numpy as np

H, W = 240, 320
TARGET_H, TARGET_W = 64, 48
BLOCK = 16
DISTRACTOR_FRAMES = range(8, 12)
HIDDEN_FRAMES = (14, 15)


def blocks(seed: int, height: int, width: int, block: int) -> np.ndarray:
    """uint8 (height, width, 3): squares of `block` pixels in random colours."""
    rows, columns = -(-height // block), -(-width // block)
    stream = np.random.Generator(np.random.Philox(key=seed))
    colours = stream.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return np.kron(colours, np.ones((block, block, 1), np.uint8))[:height, :width].copy()


def corner(t: int) -> tuple[int, int]:
    """(x, y) of the target's top left corner in frame t: always to the right, down and up every 20 frames."""
    phase = t % 20
    return 110 + 4 * t, 60 + 3 * min(phase, 20 - phase)


def frame(t: int) -> np.ndarray:
    """uint8 (240, 320, 3) RGB."""
    image, texture = _background().copy(), blocks(1001, TARGET_H, TARGET_W, BLOCK)
    corners = [(20 + 6 * (t - DISTRACTOR_FRAMES[0]), 160)] if t in DISTRACTOR_FRAMES else []
    corners += [] if t in HIDDEN_FRAMES else [corner(t)]
    for x, y in corners:
        rows, columns = _visible(x, y)
        image[rows, columns] = texture[rows - y, columns - x]
    return image


def mask(t: int) -> np.ndarray:
    """uint8 {0, 1} (240, 320): where the target is in frame t, also while it is hidden."""
    marked = np.zeros((H, W), np.uint8)
    marked[_visible(*corner(t))] = 1
    return marked


def _visible(x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the image that an ellipse with its box's corner at (x, y) covers."""
    # Twice the distances from the middle, scaled to a common radius, so that whole numbers suffice.
    down = (2 * np.arange(TARGET_H) + 1 - TARGET_H) * TARGET_W
    across = (2 * np.arange(TARGET_W) + 1 - TARGET_W) * TARGET_H
    rows, columns = np.nonzero(np.add.outer(down**2, across**2) <= (TARGET_H * TARGET_W) ** 2)
    rows, columns = rows + y, columns + x
    seen = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
    return rows[seen], columns[seen]


@cache
def _background() -> np.ndarray:
    return (blocks(1000, H, W, BLOCK) // 16 + 100).astype(np.uint8)
