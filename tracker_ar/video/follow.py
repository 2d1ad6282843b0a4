"""The loop over the frames: every target in every frame, whatever the frames are like."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tracker_ar.errors import InputError
from tracker_ar.prediction import Prediction, Tracker, listed
from tracker_ar.video.sources import Frame

State = Literal["given", "tracked", "repeated"]


@dataclass(frozen=True)
class TrackedFrame:
    """All targets in one frame.

    number, name: as the source has them.
    image: (H, W, 3) uint8 RGB, the last usable one where this frame is not.
    predictions: one per target; their masks do not overlap.
    state: 'given' for the first frame, 'tracked', or 'repeated' where the frame could not be used and the
        result of the one before stands again; problem: why not.
    seconds: spent on finding the targets.
    """

    number: int
    name: str
    image: np.ndarray
    predictions: list[Prediction]
    state: State
    problem: str = ""
    seconds: float = 0.0


def follow(
    first: Frame, further: Iterable[Frame], regions: Sequence[np.ndarray], tracker: Tracker
) -> Iterator[TrackedFrame]:
    """Learn a target from each region in the first frame, then track them; a result for every frame.

    A frame that is not decoded, or that the tracker refuses with
    InputError (one of another size), repeats the result before it, and tracking goes on with the next one.
    Raises InputError for a first frame that is not decoded.
    """
    image = first.image
    if image is None:
        raise InputError("The first frame cannot be decoded.")
    started = time.perf_counter()
    predictions = tracker.initialize(image, list(regions))
    seconds = time.perf_counter() - started
    yield TrackedFrame(first.number, first.name, image, predictions, "given", seconds=seconds)
    for frame in further:
        started = time.perf_counter()
        try:
            if frame.image is None:
                raise InputError("The frame cannot be decoded.")
            predictions, image = listed(tracker.track(frame.image)), frame.image
        except InputError as error:
            yield TrackedFrame(frame.number, frame.name, image, predictions, "repeated", str(error))
            continue
        seconds = time.perf_counter() - started
        yield TrackedFrame(frame.number, frame.name, image, predictions, "tracked", seconds=seconds)
