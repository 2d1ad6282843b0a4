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
    from tracker_ar.frame import Frame
    from tracker_ar.prediction import Prediction
    from tracker_ar.tracker import AlphaRefineTracker
    from tracker_ar.zoo import build_refiner, build_tracker

__version__ = "0.1.0"
__all__ = ["AdaptedTracker", "AlphaRefineTracker", "Frame", "Prediction", "build_refiner", "build_tracker"]

_PLACES = {
    "AdaptedTracker": "tracker_ar.base.adapted",
    "AlphaRefineTracker": "tracker_ar.tracker",
    "Frame": "tracker_ar.frame",
    "Prediction": "tracker_ar.prediction",
    "build_refiner": "tracker_ar.zoo",
    "build_tracker": "tracker_ar.zoo",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: torch takes seconds, and the command line and the TraX server start without it.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'tracker_ar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
