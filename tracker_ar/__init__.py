"""AlphaRefine: precise masks of a tracked target in real time.

    tracker = tracker_ar.build_tracker("lite")
    tracker.initialize(first_frame, mask_or_box)
    prediction = tracker.track(next_frame)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker_ar.tracker import AlphaRefineTracker, Prediction, build_tracker

__version__ = "0.1.0"
__all__ = ["AlphaRefineTracker", "Prediction", "build_tracker"]


def __getattr__(name: str) -> Any:
    # Imported at first use: torch takes seconds, and the command line and the TraX server start without it.
    if name in __all__:
        from tracker_ar import tracker

        return getattr(tracker, name)
    raise AttributeError(f"module 'tracker_ar' has no attribute {name!r}")
