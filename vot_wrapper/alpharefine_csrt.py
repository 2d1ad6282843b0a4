"""Tracker id ``AlphaRefine-CSRT``: OpenCV's CSRT finds the target, the refiner makes its mask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vot_wrapper.launch import launch

if TYPE_CHECKING:
    from tracker_ar import AlphaRefineTracker


def make_tracker() -> AlphaRefineTracker:
    """CSRT with the refiner of the best profile that is installed.

    CSRT goes on from its own box: it takes no corrections, and starting it anew would lose what it has
    learned.
    Raises InputError when OpenCV lacks CSRT, CheckpointError when the refiner's weights are missing.
    """
    from dataclasses import replace

    from tracker_ar import AlphaRefineTracker, build_refiner
    from tracker_ar.base.opencv import opencv_tracker
    from tracker_ar.weights.store import installed_profile
    from tracker_ar.profiles import PROFILES

    base = opencv_tracker("csrt")
    profile = PROFILES[installed_profile()]
    named = replace(profile, name=f"csrt+{profile.name}")
    return AlphaRefineTracker(base, build_refiner(profile.name), named)


if __name__ == "__main__":
    sys.exit(launch(make_tracker))
