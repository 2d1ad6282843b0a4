"""How long a frame takes with several targets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tracker_ar.speed.ceilings import wait_for
from tracker_ar.multi_target import MultiTargetTracker
from tracker_ar.tracker import AlphaRefineTracker

if TYPE_CHECKING:
    from tracker_ar.speed.measure import Clip


def time_targets(
    tracker: AlphaRefineTracker, clip: Clip, counts: Sequence[int], frames: int, on_frame: Callable[[], Any]
) -> dict[int, list[float]]:
    """Seconds of whole frames for each number of targets; the numbers take turns, frame by frame.

    The clip has one target: it is given as many times as there are targets to be.
    """
    device = next(tracker.base._network.parameters()).device
    several = {count: MultiTargetTracker(tracker) for count in counts}
    for count, targets in several.items():
        targets.initialize(clip.image(0), [clip.region] * count)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(1, frames + 1):
        for count, targets in several.items():
            wait_for(device)
            begin = time.perf_counter()
            targets.track(clip.image(number))
            wait_for(device)
            seconds[count].append(time.perf_counter() - begin)
            on_frame()
    return seconds
