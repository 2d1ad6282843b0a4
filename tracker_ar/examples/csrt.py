"""OpenCV's CSRT with the refiner behind it, in a loop of your own.

    python -m tracker_ar.examples.csrt SOURCE X,Y,W,H OVERLAY.mp4

SOURCE is a video or a folder of images, the box lies around the target in the first one. CSRT needs
opencv-contrib-python (the extra 'compare').
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import numpy as np

import tracker_ar
from tracker_ar.base.opencv import opencv_tracker
from tracker_ar.examples.files import Painted, run


def follow(first: np.ndarray, images: Iterable[np.ndarray], box: np.ndarray) -> Iterator[Painted]:
    """first, images: (H, W, 3) uint8 RGB; box: x, y, w, h in the first. Yields each further one, tracked."""
    base = opencv_tracker("csrt")
    refiner = tracker_ar.build_refiner("lite")
    frame = tracker_ar.Frame.of(first)
    found = base.start(frame, box)
    target = refiner.start(frame, box)  # a mask in place of the box makes better masks
    for image in images:
        frame = tracker_ar.Frame.of(image)
        (result,) = base.track(frame, [found])
        (refined,) = refiner.refine(frame, [target], [result.box], learn=[True])
        yield image, refined  # .mask, .box around it, .score


if __name__ == "__main__":
    sys.exit(run(follow, __doc__))
