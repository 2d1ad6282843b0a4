"""A tracker of your own as the base of AlphaRefine.

    python -m tracker_ar.examples.own_tracker SOURCE X,Y,W,H OVERLAY.mp4

SOURCE is a video or a folder of images, the box lies around the target in the first one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

import tracker_ar
from tracker_ar.examples.files import Painted, run
from tracker_ar.prediction import single


class TemplateMatcher:
    """Stands for your tracker: looks for the target as it was in the first frame, near its last place."""

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        self.box = np.rint(np.maximum(box, 0)).astype(int)
        x, y, width, height = self.box
        self.template = image[y : y + height, x : x + width].copy()

    def update(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        x, y, width, height = self.box
        left, top = max(x - width, 0), max(y - height, 0)
        around = image[top : y + 2 * height, left : x + 2 * width]
        differences = cv2.matchTemplate(around, self.template, cv2.TM_SQDIFF_NORMED)
        difference, _, best, _ = cv2.minMaxLoc(differences)
        self.box = np.array([left + best[0], top + best[1], width, height])
        return self.box, 1 - difference


def follow(first: np.ndarray, images: Iterable[np.ndarray], box: np.ndarray) -> Iterator[Painted]:
    """first, images: (H, W, 3) uint8 RGB; box: x, y, w, h in the first. Yields each further one, tracked."""
    tracker = tracker_ar.build_tracker("lite", base=tracker_ar.AdaptedTracker(TemplateMatcher))
    tracker.initialize(first, box)
    for image in images:
        yield image, single(tracker.track(image))  # .mask, .box of the base tracker, .score


if __name__ == "__main__":
    sys.exit(run(follow, __doc__))
