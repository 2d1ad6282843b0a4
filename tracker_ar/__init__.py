"""AlphaRefine: precise masks of a tracked target in real time.

    tracker = tracker_ar.build_tracker("lite")
    tracker.initialize(first_frame, mask_or_box)
    prediction = tracker.track(next_frame)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker_ar.base.adapted import AdaptedTracker
    from tracker_ar.multi_target import MultiTargetTracker
    from tracker_ar.prediction import Prediction
    from tracker_ar.tracker import AlphaRefineTracker, build_refiner, build_tracker

__version__ = "0.1.0"
__all__ = [
    "AdaptedTracker", "AlphaRefineTracker", "MultiTargetTracker", "Prediction", "build_refiner", "build_tracker",
]

_ELSEWHERE = {
    "AdaptedTracker": "tracker_ar.base.adapted",
    "MultiTargetTracker": "tracker_ar.multi_target",
    "Prediction": "tracker_ar.prediction",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: torch takes seconds, and the command line and the TraX server start without it.
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "tracker_ar.tracker")), name)
    raise AttributeError(f"module 'tracker_ar' has no attribute {name!r}")
