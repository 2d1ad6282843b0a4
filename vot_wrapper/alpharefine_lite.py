"""Tracker id ``AlphaRefine-Lite``: profile ``lite``, or an error; never another profile."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vot_wrapper.launch import launch

if TYPE_CHECKING:
    from tracker_ar import AlphaRefineTracker


def make_tracker() -> AlphaRefineTracker:
    """Profile ``lite``. Raises CheckpointError when its weights are missing."""
    from tracker_ar import build_tracker

    return build_tracker("lite")


if __name__ == "__main__":
    sys.exit(launch(make_tracker))
