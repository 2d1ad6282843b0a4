"""Tracker id ``AlphaRefine-Box``: ``AlphaRefine`` on sequences of boxes; reports the box around its mask."""

from __future__ import annotations

import sys

from vot_wrapper.alpharefine import make_tracker
from vot_wrapper.launch import launch

if __name__ == "__main__":
    sys.exit(launch(make_tracker, report="boxes"))
