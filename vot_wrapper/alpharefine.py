"""Tracker id ``AlphaRefine``: the challenge entry if the authors' weights are installed, else ``lite``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vot_wrapper.launch import launch

if TYPE_CHECKING:
    from tracker_ar import AlphaRefineTracker


def make_tracker() -> AlphaRefineTracker:
    """The best profile whose checkpoints are installed and verified."""
    from tracker_ar import build_tracker
    from tracker_ar.weights.store import installed_profile

    profile = installed_profile()
    if profile != "vot2020":
        print("AlphaRefine: the authors' checkpoints are not installed, so this is not the challenge entry; "
              "see `alpharefine checkpoints --help`", file=sys.stderr)
    return build_tracker(profile)


if __name__ == "__main__":
    sys.exit(launch(make_tracker))
