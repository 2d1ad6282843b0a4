"""The overlay: frames with the targets painted over them, written as a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.errors import DataError
from tracker_ar.tracker import Prediction

# RGB, the qualitative colours of Okabe and Ito, which colour-blind people can tell apart, made brighter.
COLOURS = ((255, 72, 40), (40, 170, 255), (255, 210, 40), (40, 220, 150), (235, 110, 215), (255, 150, 40),
           (130, 235, 255), (190, 150, 255))
FILL = 0.4  # opacity of a mask
# Four-character code and file ending, the most widely playable first. Motion JPEG is built into OpenCV.
CODECS = (("mp4v", ".mp4"), ("avc1", ".mp4"), ("MJPG", ".avi"))


def paint(image: np.ndarray, predictions: Sequence[Prediction], note: str = "") -> np.ndarray:
    """A copy of `image`, (H, W, 3) uint8 RGB: masks filled and outlined, each target's number and score.

    A tag stands beside the largest part of its mask, or the box where the mask is empty, and keeps clear of masks and
    other tags where it can. note: a few words for the upper left corner.
    """
    painted = image.copy()
    scale = max(min(image.shape[:2]) / 720, 0.5)
    thickness = max(round(2 * scale), 1)
    taken = np.zeros(image.shape[:2], np.uint8)  # what tags should not cover, and how little
    shapes = []
    for index, prediction in enumerate(predictions):
        colour = COLOURS[index % len(COLOURS)]
        outlines, _ = cv2.findContours(prediction.mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(painted, outlines, -1, (0, 0, 0), thickness + 2, cv2.LINE_AA)
        # The fill covers the inner half of the dark line, which would hide small targets.
        tinted = cv2.addWeighted(image, 1 - FILL, np.full_like(image, colour), FILL, 0)
        cv2.copyTo(tinted, prediction.mask, painted)
        cv2.drawContours(painted, outlines, -1, colour, thickness, cv2.LINE_AA)
        taken |= prediction.mask
        shapes.append(max(outlines, key=cv2.contourArea)[:, 0] if outlines else _corners(prediction.box, image.shape))
    if note:
        _put(_plate(note, (255, 255, 255), scale), [(0, 0)], painted, taken)
    for index, (prediction, shape) in enumerate(zip(predictions, shapes)):  # over all masks
        plate = _plate(f"{index + 1}  {prediction.score:.2f}", COLOURS[index % len(COLOURS)], scale)
        _put(plate, _places_beside(shape, plate.shape, image.shape, thickness), painted, taken)
    return painted


def _corners(box: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """The corner pixels of a box, (4, 2) x, y, moved into the image."""
    x, y, width, height = box
    corners = np.array([(left, top) for left in (x, x + width - 1) for top in (y, y + height - 1)])
    return np.clip(np.rint(corners), 0, (image_shape[1] - 1, image_shape[0] - 1)).astype(int)


def _plate(text: str, colour: tuple[int, int, int], scale: float) -> np.ndarray:
    """Black text on `colour`, (height, width, 3) uint8."""
    size, thickness, pad = 0.8 * scale, max(round(1.5 * scale), 1), round(5 * scale)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thickness)
    plate = np.full((height + below + 2 * pad, width + 2 * pad, 3), colour, np.uint8)
    baseline = (pad, pad + height)
    return cv2.putText(plate, text, baseline, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), thickness, cv2.LINE_AA)


def _places_beside(
    shape: np.ndarray, plate_shape: tuple[int, ...], image_shape: tuple[int, ...], gap: int
) -> list[tuple[int, int]]:
    """Where the left, upper corner x, y of a plate may lie: above the shape, below, to the right, to the left.

    shape: pixels of an outline, (N, 2) x, y. The plate is as near to the shape as it can be with `gap` pixels between,
    and moved into the image, where it may lie over the shape.
    """
    height, width = plate_shape[:2]
    last = np.maximum((image_shape[1] - width, image_shape[0] - height), 0)
    left, top = np.minimum(shape.min(axis=0), last)
    columns = shape[(shape[:, 0] >= left) & (shape[:, 0] < left + width), 1]
    rows = shape[(shape[:, 1] >= top) & (shape[:, 1] < top + height), 0]
    places = [(left, columns.min() - gap - height), (left, columns.max() + 1 + gap),
              (rows.max() + 1 + gap, top), (rows.min() - gap - width, top)]
    return [(int(x), int(y)) for x, y in np.clip(places, 0, last)]


def _put(plate: np.ndarray, places: Sequence[tuple[int, int]], image: np.ndarray, taken: np.ndarray) -> None:
    """Lay a plate over `image` at the place, x, y, where it covers least, the first of several; mark it as taken."""
    height, width = plate.shape[:2]
    areas = [(slice(y, y + height), slice(x, x + width)) for x, y in places]
    area = min(areas, key=lambda area: taken[area].sum())
    visible = image[area]
    visible[:] = plate[: visible.shape[0], : visible.shape[1]]
    taken[area] = 2  # rather over a mask than over another plate


class VideoFile:
    """A video written frame by frame into `folder`/`stem` with the ending of the first codec that works."""

    def __init__(self, folder: Path, stem: str, fps: float, size: tuple[int, int]) -> None:
        """size: (height, width) of all frames. Raises DataError when this OpenCV can write no such video."""
        for codec, ending in CODECS:
            self.path = folder / f"{stem}{ending}"
            fourcc = cv2.VideoWriter.fourcc(*codec)
            self._writer = cv2.VideoWriter(str(self.path), fourcc, fps, size[::-1])
            if self._writer.isOpened():
                break
            self._writer.release()
            self.path.unlink(missing_ok=True)
        else:
            tried = ", ".join(codec for codec, _ in CODECS)
            raise DataError(
                f"This OpenCV can write no video of {size[1]} x {size[0]} pixels (tried {tried}); use "
                "--no-video, or install the wheel of opencv-python, which brings FFmpeg."
            )
        self._frames = 0

    def add(self, image: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB."""
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._frames += 1

    def close(self) -> bool:
        """Finish the file; whether it is complete and readable.

        OpenCV does not report a write that failed, so the file is opened again and looked at.
        """
        self._writer.release()
        capture = cv2.VideoCapture(str(self.path))
        frames, readable = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.read()[0]
        capture.release()
        return readable and frames == self._frames
