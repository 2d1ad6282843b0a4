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

    note: a few words for the upper left corner.
    """
    painted = image.copy()
    scale = max(min(image.shape[:2]) / 720, 0.5)
    for index, prediction in enumerate(predictions):
        colour = COLOURS[index % len(COLOURS)]
        outlines, _ = cv2.findContours(prediction.mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        thickness = max(round(2 * scale), 1)
        cv2.drawContours(painted, outlines, -1, (0, 0, 0), thickness + 2, cv2.LINE_AA)
        # The fill covers the inner half of the dark line, which would hide small targets.
        tinted = cv2.addWeighted(image, 1 - FILL, np.full_like(image, colour), FILL, 0)
        cv2.copyTo(tinted, prediction.mask, painted)
        cv2.drawContours(painted, outlines, -1, colour, thickness, cv2.LINE_AA)
    for index, prediction in enumerate(predictions):  # over all masks
        x, y = prediction.box[:2]
        _label(painted, f"{index + 1}  {prediction.score:.2f}", (x, y), COLOURS[index % len(COLOURS)], scale)
    if note:
        _label(painted, note, (0, 0), (255, 255, 255), scale)
    return painted


def _label(
    image: np.ndarray, text: str, corner: tuple[float, float], colour: tuple[int, int, int], scale: float
) -> None:
    """Black text on a plate of `colour` just above `corner` (x, y), moved so that it lies in the image."""
    size, thickness, pad = 0.8 * scale, max(round(1.5 * scale), 1), round(5 * scale)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thickness)
    plate_width, plate_height = width + 2 * pad, height + below + 2 * pad
    left = int(np.clip(corner[0], 0, max(image.shape[1] - plate_width, 0)))
    top = int(np.clip(corner[1] - plate_height, 0, max(image.shape[0] - plate_height, 0)))
    image[top : top + plate_height, left : left + plate_width] = colour
    baseline = (left + pad, top + pad + height)
    cv2.putText(image, text, baseline, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), thickness, cv2.LINE_AA)


class VideoFile:
    """A video written frame by frame into `folder`/`stem` with the ending of the first codec that works."""

    def __init__(self, folder: Path, stem: str, fps: float, size: tuple[int, int]) -> None:
        """size: (height, width) of all frames. Raises DataError when this OpenCV can write no such video."""
        for codec, ending in CODECS:
            self.path = folder / f"{stem}{ending}"
            fourcc = cv2.VideoWriter_fourcc(*codec)
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
