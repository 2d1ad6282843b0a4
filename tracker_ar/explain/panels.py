"""The picture of each stage, RGB uint8."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np

from tracker_ar.crops import RefinerCrop
from tracker_ar.explain.observe import Ascent, Explanation, Reference
from tracker_ar.models.steepest_descent import FEATURE_STRIDE
from tracker_ar.video.overlay import paint

SIDE = 512  # pixels of the panels that show a crop
_BASE, _REFINER, _FOUND, _WHITE = (255, 210, 40), (40, 200, 255), (255, 72, 40), (255, 255, 255)
_BEYOND = (96, 99, 104)
_CORNERS = np.array([[(235, 60, 60), (255, 215, 60)], [(60, 90, 240), (50, 225, 160)]], np.uint8)
_DIM = 0.45


def frame(explanation: Explanation) -> np.ndarray:
    """The frame with what the base tracker (yellow) and the refiner (blue) see of it, and the box (red).

    Where they see beyond the frame, the picture is larger than the frame.
    """
    height, width = explanation.image.shape[:2]
    top, left, bottom, right = explanation.region.coords.tolist()
    x, y, w, h = explanation.prediction.box
    corners = np.array([(left, top, right, bottom), explanation.crop.window, (x, y, x + w, y + h)])
    line = max(round(min(height, width) / 160), 1)
    beyond = np.maximum(np.array([-corners[:, 0].min(), -corners[:, 1].min(),
                                  corners[:, 2].max() - width, corners[:, 3].max() - height]), 0)
    before_x, before_y, after_x, after_y = (np.minimum(beyond, 2 * max(height, width)) + 2 * line).astype(int)
    picture = cv2.copyMakeBorder(explanation.image, before_y, after_y, before_x, after_x, cv2.BORDER_CONSTANT,
                                 value=_BEYOND)
    corners = np.rint(corners).astype(int) + np.array([before_x, before_y] * 2)
    for (x1, y1, x2, y2), colour in zip(corners.tolist(), (_BASE, _REFINER, _FOUND)):
        cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), colour, line)
    return picture


def search_region(explanation: Explanation) -> np.ndarray:
    """The search region, as the base tracker's network takes it."""
    return cv2.resize(_patch(explanation), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def score_map(explanation: Explanation) -> np.ndarray:
    """The scores of the target filter over the search region, a cross at the highest."""
    patch, scores = _patch(explanation), explanation.scores
    rows, columns = scores.shape
    # Scores lie a stride apart, the middle one at the middle of the region.
    size = (columns * FEATURE_STRIDE, rows * FEATURE_STRIDE)
    whole = cv2.resize(scores, size, interpolation=cv2.INTER_CUBIC)
    # At least one cell more than the patch on all sides, then the patch's size out of the middle.
    whole = np.pad(whole, FEATURE_STRIDE)
    top, left = ((have - want) // 2 for have, want in zip(whole.shape, patch.shape))
    shown = whole[top : top + patch.shape[0], left : left + patch.shape[1]]
    picture = _tinted(patch, shown / max(float(scores.max()), 1e-6))
    picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    peak = [(place - (count - 1) / 2) * FEATURE_STRIDE * SIDE / side + SIDE / 2
            for place, count, side in ((column, columns, patch.shape[1]), (row, rows, patch.shape[0]))]
    cv2.drawMarker(picture, tuple(round(value) for value in peak), _WHITE, cv2.MARKER_CROSS, 22, 2)
    return picture


def boxes(explanation: Explanation, after: bool) -> np.ndarray:
    """The boxes before or after the ascent, which there must be, brighter with a higher score."""
    ascent = explanation.ascent
    assert ascent is not None
    shown, scores = (ascent.end, ascent.end_scores) if after else (ascent.start, ascent.start_scores)
    low, high = score_range(ascent)
    zoom, corner = _window_around(np.concatenate((ascent.start, ascent.end)), _patch(explanation).shape[0])
    picture = _zoomed(_patch(explanation), corner, zoom)
    picture = (picture * 0.7).astype(np.uint8)
    for index in np.argsort(scores):
        colour = heat((scores[index] - low) / max(high - low, 1e-6))
        x1, y1 = (shown[index, :2] - corner) * zoom
        x2, y2 = (shown[index, :2] + shown[index, 2:] - corner) * zoom
        cv2.rectangle(picture, (round(x1), round(y1)), (round(x2), round(y2)), (0, 0, 0), 4, cv2.LINE_AA)
        cv2.rectangle(picture, (round(x1), round(y1)), (round(x2), round(y2)), colour, 2, cv2.LINE_AA)
    return picture


def score_range(ascent: Ascent) -> tuple[float, float]:
    """The lowest and highest score before and after the ascent, the ends of the colours."""
    values = np.concatenate((ascent.start_scores, ascent.end_scores))
    return float(values.min()), float(values.max())


def target_cells(reference: Reference, cells: int) -> np.ndarray:
    """The refiner's view of the first frame, the `cells` x `cells` cells of the target each in its colour."""
    x, y, w, h = reference.crop.box_in_crop
    colours = cv2.resize(_cell_colours(cells), (max(round(w), 1), max(round(h), 1)),
                         interpolation=cv2.INTER_NEAREST)
    picture = (reference.crop.pixels * _DIM).astype(np.uint8)
    left, top = round(x), round(y)
    part = reference.crop.pixels[top : top + colours.shape[0], left : left + colours.shape[1]]
    colours = colours[: part.shape[0], : part.shape[1]]
    picture[top : top + part.shape[0], left : left + part.shape[1]] = (0.45 * part + 0.55 * colours)
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def correlation(explanation: Explanation) -> np.ndarray:
    """Where the target's cells respond: colour of the one that responds most, brighter the more it does."""
    channels = np.maximum(explanation.correlation, 0)
    strongest = channels.max(axis=(1, 2), keepdims=True)
    # Cells of the target differ much in strength; each counts by its own best response.
    relative = np.where(strongest > 0.05 * strongest.max(), channels / np.maximum(strongest, 1e-9), 0)
    colours = _cell_colours(round(len(channels) ** 0.5)).reshape(-1, 3)[relative.argmax(axis=0)]
    response = _normalised(channels.max(axis=0))
    size = explanation.crop.pixels.shape[1::-1]
    colours = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
    amount = 0.8 * cv2.resize(response, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    picture = (1 - amount) * explanation.crop.pixels * _DIM + amount * colours
    return cv2.resize(picture.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def mask_probability(explanation: Explanation) -> np.ndarray:
    """The probability of the mask over the refiner's view, a white line where it crosses the threshold."""
    probabilities = explanation.refinement.probabilities
    assert probabilities is not None
    inside = _in_crop(probabilities, explanation.crop)
    picture = cv2.resize(_tinted(explanation.crop.pixels, inside), (SIDE, SIDE))
    above = (cv2.resize(inside, (SIDE, SIDE)) > explanation.threshold).astype(np.uint8)
    outline, _ = cv2.findContours(above, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(picture, outline, -1, _WHITE, 2, cv2.LINE_AA)


def result(explanation: Explanation) -> np.ndarray:
    """The frame with the mask, as `alpharefine track` paints it."""
    return paint(explanation.image, [explanation.prediction])


def heat(fraction: float) -> tuple[int, int, int]:
    """The colour of a number 0..1, dark to bright."""
    red, green, blue, _ = matplotlib.colormaps["plasma"](float(np.clip(fraction, 0, 1)))
    return round(255 * red), round(255 * green), round(255 * blue)


def _patch(explanation: Explanation) -> np.ndarray:
    pixels = explanation.region.patch[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(np.rint(pixels).clip(0, 255).astype(np.uint8))


def _tinted(image: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """The image, darkened, under a map 0..1 of its size in colours from clear to bright."""
    amount = np.clip(amount, 0, 1)
    colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * amount)[..., :3] * 255
    opacity = (0.75 * np.sqrt(amount))[..., None]
    return ((1 - opacity) * image * _DIM + opacity * colours).astype(np.uint8)


def _cell_colours(cells: int) -> np.ndarray:
    """(cells, cells, 3) uint8: red, yellow, blue and green in the corners, and what lies between them."""
    fraction = np.linspace(0, 1, cells)
    rows = np.stack((1 - fraction, fraction), axis=1)
    return np.rint(np.einsum("ya,xb,abc->yxc", rows, rows, _CORNERS.astype(float))).astype(np.uint8)


def _normalised(values: np.ndarray) -> np.ndarray:
    low, high = float(np.percentile(values, 30)), float(values.max())
    return ((values - low) / max(high - low, 1e-9)).clip(0, 1).astype(np.float32)


def _in_crop(full: np.ndarray, crop: RefinerCrop) -> np.ndarray:
    """A map of the image's size, (H, W) float32, as the crop shows it; zero outside the image."""
    left, top, right, bottom = crop.window
    part = np.zeros((bottom - top, right - left), np.float32)
    visible = full[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    part[max(-top, 0) :, max(-left, 0) :][: visible.shape[0], : visible.shape[1]] = visible
    return cv2.resize(part, crop.pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _window_around(found: np.ndarray, side: int) -> tuple[float, np.ndarray]:
    """Zoom to SIDE pixels and the corner (x, y) of a square that holds all boxes with a margin."""
    low, high = found[:, :2].min(axis=0), (found[:, :2] + found[:, 2:]).max(axis=0)
    extent = min(max(float((high - low).max()) * 1.15, 24.0), 2.0 * side)
    return SIDE / extent, (low + high) / 2 - extent / 2


def _zoomed(image: np.ndarray, corner: np.ndarray, zoom: float) -> np.ndarray:
    matrix = np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]])
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
