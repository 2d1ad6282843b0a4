"""Tracker id ``StaticBox``: the box of the first frame for ever. The least that a tracker must beat."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vot_wrapper.launch import launch

if TYPE_CHECKING:
    from tracker_ar import AlphaRefineTracker


def make_tracker() -> AlphaRefineTracker:
    """A tracker without weights."""
    from tracker_ar import AlphaRefineTracker
    from tracker_ar.base.settings import BaseSettings
    from tracker_ar.base.static import StaticTracker
    from tracker_ar.profiles import Profile
    from tracker_ar.refine.settings import RefinerSettings

    profile = Profile("static-box", BaseSettings(), RefinerSettings(), minimum_side=1.0)
    return AlphaRefineTracker(StaticTracker(), None, profile)


if __name__ == "__main__":
    sys.exit(launch(make_tracker))
