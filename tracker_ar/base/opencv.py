"""Correlation filter trackers of OpenCV as base trackers: CSRT and KCF."""

from __future__ import annotations

import cv2
import numpy as np

from tracker_ar.base.adapted import AdaptedTracker
from tracker_ar.errors import InputError
from tracker_ar.geometry import clip_box

OPENCV_TRACKERS = ("csrt", "kcf")


def opencv_tracker(name: str) -> AdaptedTracker:
    """OpenCV's 'csrt' (Lukezic et al., CVPR 2017) or 'kcf' (Henriques et al., TPAMI 2015).

    CSRT has OpenCV's settings. KCF never gives up, as in its paper: with OpenCV's threshold it fails after
    some frames of most videos and never recovers. Raises InputError where this OpenCV lacks the tracker: both
    live in the contrib modules.
    """
    if name not in OPENCV_TRACKERS:
        known = ", ".join(OPENCV_TRACKERS)
        raise InputError(f"There is no OpenCV tracker {name!r} here: choose one of {known}.")
    if not hasattr(cv2, f"Tracker{name.upper()}"):
        raise InputError(
            f"OpenCV {cv2.__version__} as installed has no {name.upper()}: it is in opencv-contrib-python, "
            "which takes the place of opencv-python. Install it with pip install --force-reinstall --no-deps "
            f"'opencv-contrib-python=={cv2.__version__}.*'.")
    create = _create_kcf if name == "kcf" else cv2.TrackerCSRT.create
    return AdaptedTracker(lambda: OpenCVConventions(create()))


class OpenCVConventions:
    """Between our images and boxes and a tracker of OpenCV, which takes BGR and whole pixels.

    It does not check that the box lies in the image.
    """

    def __init__(self, tracker: cv2.Tracker) -> None:
        self._tracker = tracker

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        inside = clip_box(box, image.shape[:2], min_side=1.0)
        pixels = tuple(int(value) for value in np.rint(inside))
        self._tracker.init(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), pixels)

    def update(self, image: np.ndarray) -> tuple[bool, tuple[float, ...]]:
        return self._tracker.update(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def _create_kcf() -> cv2.Tracker:
    parameters = cv2.TrackerKCF_Params()
    parameters.detect_thresh = 0.0
    return cv2.TrackerKCF.create(parameters)
