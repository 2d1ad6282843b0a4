"""The refinement module: turns any base tracker's box into a precise mask."""

from tracker_ar.refine.refiner import Refinement, Refiner

__all__ = ["Refinement", "Refiner"]
