"""The one entry for the VOT toolkit: serves the tracker that the environment variable ALPHAREFINE_TRACKER names.

Any name of `alpharefine trackers`; without the variable the best that is installed. In trackers.ini:
``env_ALPHAREFINE_TRACKER = csrt+lite``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from vot_wrapper.launch import launch

if TYPE_CHECKING:
    from tracker_ar import AlphaRefineTracker

VARIABLE = "ALPHAREFINE_TRACKER"


def make_tracker() -> AlphaRefineTracker:
    """The named tracker and no other. Raises InputError for an unknown name, CheckpointError for missing weights."""
    from tracker_ar import build_tracker
    from tracker_ar.zoo import BEST, BEST_NAMES

    name = os.environ.get(VARIABLE) or "alpharefine"
    tracker = build_tracker(name)
    if name in BEST_NAMES and tracker.profile.name != BEST[0]:
        print(f"AlphaRefine: the weights of {BEST[0]} are not installed, so this is not the challenge entry; "
              "see `alpharefine checkpoints --help`", file=sys.stderr)
    return tracker


if __name__ == "__main__":
    sys.exit(launch(make_tracker))
