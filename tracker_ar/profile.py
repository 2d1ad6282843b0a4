"""What one complete tracker consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Feedback = Literal["base", "refined"]
Report = Literal["masks", "boxes"]


@dataclass(frozen=True)
class Profile:
    """One complete tracker.

    name: what `build_tracker` takes and what the TraX hello says. base, refiner: settings of their engines, None where
    those have none. base_name, refiner_name: which they are in the tables of `tracker_ar.zoo`; '' for a base tracker
    alone.
    minimum_side: pixels; boxes are clipped to the image with at least this width and height (Alpha-Refine's scripts).
    confident_score: of the base tracker, from which the refiner's target model may learn. feedback: which box, clipped,
    goes back to the base tracker after each frame: its own (Alpha-Refine's VOT2020 entry) or the refined one (its
    scripts for LaSOT, TrackingNet and GOT-10k). report: what the TraX server sends.
    """

    name: str
    base: Any
    refiner: Any
    base_name: str
    refiner_name: str = ""
    minimum_side: float = 10.0
    confident_score: float = 0.5
    feedback: Feedback = "base"
    report: Report = "masks"
