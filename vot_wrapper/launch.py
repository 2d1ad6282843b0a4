"""The first thing that an entry module runs: make the protocol safe, then load everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tracker_ar.calm import calm
from vot_wrapper.protocol import ProtocolChannel

if TYPE_CHECKING:
    from tracker_ar.prediction import Tracker
    from vot_wrapper.server import Report

calm()


def launch(make_tracker: Callable[[], Tracker], report: Report | None = None) -> int:
    """Serve one tracker over TraX until the client quits, goes away, or sends SIGTERM.

    ``make_tracker`` is called once, before the hello, when stray output can no longer do harm; it should do
    all heavy imports itself. ``report``: what the client gets of each target, its mask or the box around it; None
    for what the tracker's profile says.
    Returns the exit status: 0, or 1 when the tracker could not be built or failed.
    """
    with ProtocolChannel() as channel:
        from vot_wrapper.server import serve

        return serve(make_tracker, channel, report)
