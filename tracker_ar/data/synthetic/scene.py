"""A short synthetic video: layers that move in front of each other, rendered only where a crop looks.

Coordinates are continuous: pixel i covers [i, i + 1). A layer's matrix takes its own coordinates to those of
the video frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from tracker_ar.data.synthetic.photometry import apply_tone

_HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
_HALF_BACK = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
_BOX_SIDE = 128
# Below this scale plain bilinear sampling would alias, so the source is shrunk by area first.
_SHRINK_BELOW = 0.6


@dataclass(frozen=True)
class Layer:
    """One thing in the video.

    Attributes:
        pixels: per frame, RGB uint8 h x w x 3; None for a target that is already in the background image.
        alpha: per frame, uint8 h x w; None for the background.
        matrices: float64 (frames, 3, 3), layer to frame coordinates.
        tones: per frame, a table of `tone_table` or None.
        is_target: whether this layer's visible part is the label.
        bends: per frame, float32 (2, g, g): a coarse grid of displacements along x and y, in pixels, spread
            over the layer by bicubic interpolation; at p the layer shows its pixel p + displacement(p).
    """

    pixels: list[np.ndarray] | None
    alpha: list[np.ndarray] | None
    matrices: np.ndarray
    tones: list[np.ndarray | None] = field(default_factory=list)
    is_target: bool = False
    bends: list[np.ndarray] | None = None
    _bent: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    def pixels_at(self, frame: int) -> np.ndarray | None:
        """The pixels of a frame, bent."""
        if self.bends is not None:
            return self._bend(frame)[0]
        return None if self.pixels is None else self.pixels[frame]

    def alpha_at(self, frame: int) -> np.ndarray:
        """The alpha of a frame, bent."""
        assert self.alpha is not None
        return self.alpha[frame] if self.bends is None else self._bend(frame)[1]

    def _bend(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        if frame not in self._bent:
            assert self.bends is not None and self.pixels is not None and self.alpha is not None
            self._bent[frame] = bend(self.pixels[frame], self.alpha[frame], self.bends[frame])
        return self._bent[frame]


@dataclass(frozen=True)
class Scene:
    """Layers from back to front in a video of `frame_size` (height, width)."""

    frame_size: tuple[int, int]
    layers: list[Layer]

    @property
    def num_frames(self) -> int:
        return len(self.layers[0].matrices)

    def render(
        self, frame: int, region: tuple[float, float, float, float], size: tuple[int, int], border: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw a window of one frame.

        Args:
            region: x0, y0, x1, y1 of the window in frame coordinates; may reach beyond the frame.
            size: (height, width) of the result; the window is stretched to it.
            border: OpenCV border mode for what lies beyond the frame (replicate or constant zero).

        Returns:
            RGB uint8 h x w x 3, and the target's visible mask, uint8 {0, 1} h x w, zero beyond the frame.
        """
        to_window = window_matrix(region, size)
        canvas: np.ndarray | None = None
        label = np.zeros(size, np.uint8)
        for layer in self.layers:
            matrix = to_window @ layer.matrices[frame]
            tone = layer.tones[frame] if layer.tones else None
            if layer.alpha is None:
                pixels = layer.pixels_at(frame)
                assert pixels is not None
                canvas = warp(pixels, matrix, size, cv2.BORDER_REFLECT_101)
                canvas = canvas if tone is None else apply_tone(canvas, tone)
                continue
            assert canvas is not None
            _draw(layer, frame, matrix, tone, canvas, label)
        assert canvas is not None
        return _beyond_frame(canvas, label, to_window, self.frame_size, border)

    def target_mask(
        self, frame: int, region: tuple[float, float, float, float], size: tuple[int, int]
    ) -> np.ndarray:
        """Only the mask of `render`."""
        to_window = window_matrix(region, size)
        label = np.zeros(size, np.uint8)
        for layer in self.layers:
            if layer.alpha is not None:
                _draw(layer, frame, to_window @ layer.matrices[frame], None, None, label)
        left, top, right, bottom = frame_in_window(to_window, self.frame_size, size)
        label[:top], label[bottom:], label[:, :left], label[:, right:] = 0, 0, 0, 0
        return label

    def target_box(self, frame: int) -> tuple[np.ndarray, float]:
        """The visible target's box (x, y, w, h) in frame pixels, float64, and its visible share, 0 to 1.

        The box is measured on a rendering of the target's rectangle with 128 pixels along each side, so it is
        exact to 1/128 of the target or half a pixel of the layers. An invisible
        target has a box of zeros and a share of 0.
        """
        layer = next(layer for layer in self.layers if layer.is_target)
        alpha = layer.alpha_at(frame)
        x0, y0, x1, y1 = layer_bounds(alpha.shape, layer.matrices[frame])
        size = (_BOX_SIDE, _BOX_SIDE)
        region = (x0, y0, x1, y1)
        mask = self.target_mask(frame, region, size)
        whole = warp(alpha, window_matrix(region, size) @ layer.matrices[frame], size) > 127
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if rows.size == 0:
            return np.zeros(4), 0.0
        step = np.array([x1 - x0, y1 - y0]) / _BOX_SIDE
        corner = np.array([x0, y0]) + step * [columns[0], rows[0]]
        extent = step * [columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        return np.concatenate((corner, extent)), float(mask.sum() / max(1, whole.sum()))


def window_matrix(region: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Frame coordinates to those of a window of `size` (height, width) that shows `region`, 3 x 3."""
    x0, y0, x1, y1 = region
    scale_x, scale_y = size[1] / (x1 - x0), size[0] / (y1 - y0)
    return np.array([[scale_x, 0, -x0 * scale_x], [0, scale_y, -y0 * scale_y], [0, 0, 1.0]])


def warp(
    source: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """Draw `source` through a 3 x 3 matrix (source to result coordinates) onto `size` (height, width)."""
    shrunk = shrunk_size(source.shape, matrix)
    if shrunk != source.shape[:2]:
        height, width = shrunk
        matrix = matrix @ np.diag([source.shape[1] / width, source.shape[0] / height, 1.0])
        source = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
    centred = _HALF_BACK @ matrix @ _HALF
    target = (size[1], size[0])
    if abs(centred[2, 0]) + abs(centred[2, 1]) < 1e-9:
        return cv2.warpAffine(source, centred[:2], target, flags=cv2.INTER_LINEAR, borderMode=border)
    return cv2.warpPerspective(source, centred, target, flags=cv2.INTER_LINEAR, borderMode=border)


def shrunk_size(shape: tuple[int, ...], matrix: np.ndarray) -> tuple[int, int]:
    """(height, width) that a layer is averaged to before it is drawn through a matrix, so as not to alias."""
    # The scale of the more strongly shrunk axis decides about aliasing; mild perspective does not matter.
    scales = np.hypot(matrix[0, :2], matrix[1, :2])
    shrink = [min(1.0, 1.2 * s) if s < _SHRINK_BELOW else 1.0 for s in scales]
    if min(shrink) == 1.0:
        return shape[0], shape[1]
    return max(2, round(shape[0] * shrink[1])), max(2, round(shape[1] * shrink[0]))


def bend(pixels: np.ndarray, alpha: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Displace pixels and alpha (uint8 h x w) by a coarse grid, as in `Layer.bends`."""
    height, width = alpha.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    along_x = columns + cv2.resize(shift[0], (width, height), interpolation=cv2.INTER_CUBIC)
    along_y = rows + cv2.resize(shift[1], (width, height), interpolation=cv2.INTER_CUBIC)
    bent = cv2.remap(pixels, along_x, along_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return bent, cv2.remap(alpha, along_x, along_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def layer_bounds(shape: tuple[int, ...], matrix: np.ndarray) -> tuple[float, float, float, float]:
    height, width = shape[:2]
    corners = matrix @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1.0]])
    points = corners[:2] / np.maximum(corners[2], 1e-6)
    (x0, y0), (x1, y1) = points.min(1), points.max(1)
    return float(x0), float(y0), float(x1), float(y1)


def _draw(
    layer: Layer,
    frame: int,
    matrix: np.ndarray,
    tone: np.ndarray | None,
    canvas: np.ndarray | None,
    label: np.ndarray,
) -> None:
    """Put one layer over the canvas (where there is one) and its mask into, or out of, the label."""
    alpha = layer.alpha_at(frame)
    x0, y0, x1, y1 = layer_bounds(alpha.shape, matrix)
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    right, bottom = min(label.shape[1], int(np.ceil(x1))), min(label.shape[0], int(np.ceil(y1)))
    if right <= left or bottom <= top:
        return
    size = (bottom - top, right - left)
    matrix = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]]) @ matrix
    drawn = warp(alpha, matrix, size)
    part = label[top:bottom, left:right]
    if layer.is_target:
        part[drawn > 127] = 1
    else:
        part[drawn > 127] = 0
    pixels = None if canvas is None else layer.pixels_at(frame)
    if pixels is None or canvas is None:
        return
    pixels = warp(pixels, matrix, size, cv2.BORDER_REPLICATE)
    if tone is not None:
        pixels = apply_tone(pixels, tone)
    under = canvas[top:bottom, left:right]
    weight = cv2.merge((drawn, drawn, drawn)).astype(np.uint16)
    under[:] = (under * (255 - weight) + pixels * weight + 127) // 255


def frame_in_window(
    to_window: np.ndarray, frame_size: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    left, top = to_window[0, 2], to_window[1, 2]
    right = left + to_window[0, 0] * frame_size[1]
    bottom = top + to_window[1, 1] * frame_size[0]
    limits = (size[1] - 1, size[0] - 1)
    return (
        int(np.clip(round(left), 0, limits[0])),
        int(np.clip(round(top), 0, limits[1])),
        int(np.clip(round(right), 1, size[1])),
        int(np.clip(round(bottom), 1, size[0])),
    )


def _beyond_frame(
    canvas: np.ndarray, label: np.ndarray, to_window: np.ndarray, frame_size: tuple[int, int], border: int
) -> tuple[np.ndarray, np.ndarray]:
    height, width = label.shape
    left, top, right, bottom = frame_in_window(to_window, frame_size, (height, width))
    if left > 0 or top > 0 or right < width or bottom < height:
        sides = (top, height - bottom, left, width - right)
        canvas = cv2.copyMakeBorder(canvas[top:bottom, left:right], *sides, border)
        label = cv2.copyMakeBorder(label[top:bottom, left:right], *sides, cv2.BORDER_CONSTANT)
    return canvas, label
