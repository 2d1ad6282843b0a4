"""Small videos, and a tracker that needs no networks, for the tests of `alpharefine track`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from tracker_ar.commands import track as command
from tracker_ar.errors import InputError
from tracker_ar.geometry import box_from_mask, mask_from_box, region_box
from tracker_ar.prediction import Prediction, without_overlap

HEIGHT, WIDTH = 48, 64
STEP = 2  # pixels that the target moves to the right, frame by frame
BOX = (10.0, 12.0, 12.0, 8.0)


def picture(frame: int) -> np.ndarray:
    """Frame `frame` (from 0), RGB: a red rectangle, at BOX in the first one, on grey."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    x = int(BOX[0]) + STEP * frame
    image[12:20, x : x + 12] = (250, 30, 20)
    return image


def write_images(folder: Path, frames: int = 6) -> Path:
    """Frames as 1.png, 2.png, ..., 10.png: their natural order is not the alphabetical one."""
    folder.mkdir()
    for frame in range(frames):
        cv2.imwrite(str(folder / f"{frame + 1}.png"), cv2.cvtColor(picture(frame), cv2.COLOR_RGB2BGR))
    return folder


def write_video(path: Path, frames: int = 6) -> Path:
    """The same frames as a Motion JPEG video at 12 fps."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (WIDTH, HEIGHT))
    for frame in range(frames):
        writer.write(cv2.cvtColor(picture(frame), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


class MovingBox:
    """Stands for AlphaRefineTracker: the boxes of the first frame, moved by STEP pixels per frame.

    Its scores are `first_scores`, one per target, less 0.1 per frame. Refuses frames of another size, as the tracker
    does.
    """

    profile = SimpleNamespace(name="lite", minimum_side=10.0)

    def __init__(self, *first_scores: float) -> None:
        self.first_scores = first_scores or (0.9,) * 10

    def initialize(self, image: np.ndarray, region: list) -> list[Prediction]:
        self.size = image.shape[:2]
        self.boxes: list[np.ndarray] = []
        self.scores: list[float] = []
        return without_overlap([self.add(image, one) for one in region])

    def add(self, image: np.ndarray, region: Sequence[float] | np.ndarray) -> Prediction:
        box = region_box(region, image.shape[:2])
        self.scores.append(self.first_scores[len(self.boxes)])
        self.boxes.append(box)
        mask = np.asarray(region != 0, np.uint8) if np.ndim(region) == 2 else self.mask(image, box)
        return Prediction(box, mask, 1.0)

    def track(self, image: np.ndarray) -> list[Prediction]:
        if image.shape[:2] != self.size:
            raise InputError("The frame has another size.")
        self.boxes = [box + [STEP, 0, 0, 0] for box in self.boxes]
        self.scores = [score - 0.1 for score in self.scores]
        found = zip(self.boxes, self.scores)
        return without_overlap([Prediction(box, self.mask(image, box), score) for box, score in found])

    @staticmethod
    def mask(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """The box without its last row, so that masks and boxes can be told apart."""
        mask = mask_from_box(box, image.shape[:2])
        return mask_from_box(box_from_mask(mask) - [0, 0, 0, 1], image.shape[:2])


class Builder:
    """Stands for `build_tracker`; remembers what it was asked for. Every target gets the next one of the scores."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores
        self.asked: tuple = ()

    def __call__(self, *asked: object, fast: bool) -> MovingBox:
        self.asked, self.fast = asked, fast
        self.tracker = MovingBox(*self.scores)
        return self.tracker


def arguments(*words: object) -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args([str(word) for word in words])


def track(*words: object, build: Builder | None = None) -> int:
    """`alpharefine track WORDS` with stub trackers."""
    return command.run(arguments(*words), build or Builder())


def box_option(box: Sequence[float] = BOX) -> str:
    """`--box` and its value as one word."""
    return "--box=" + ",".join(f"{value:g}" for value in box)
