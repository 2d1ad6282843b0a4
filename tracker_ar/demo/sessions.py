"""What every open page has on the server: a folder, a clip, and its tracking job. One job runs at a time."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from tracker_ar.demo.clips import CameraFrames, Clip
from tracker_ar.demo.job import Job, write_preview
from tracker_ar.demo.limits import Limits, Refused
from tracker_ar.errors import InputError
from tracker_ar.geometry import region_box
from tracker_ar.prediction import Tracker

END_PATIENCE = 20.0  # seconds in which a job should notice that it is to end: a frame or an initialisation

log = logging.getLogger(__name__)


class Session:
    """One clip of one page. name: unguessable. folder: its own, of temporary files."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        self.clip: Clip | None = None
        self.camera: CameraFrames | None = None
        self.job: Job | None = None
        self.runs = 0
        self.watchers = 0
        self.touch()

    def touch(self) -> None:
        """Somebody asked for it just now."""
        self.seen = time.monotonic()

    def hold(self, clip: Clip) -> None:
        """Keep a clip, and its first frame for the page."""
        self.clip = clip
        write_preview(self.folder, clip.start, clip.first)

    @property
    def held(self) -> Clip:
        """The clip. Raises Refused before there is one."""
        if self.clip is None:
            raise Refused(409, "The upload is not complete.")
        return self.clip

    @property
    def active(self) -> bool:
        """Whether its job computes."""
        return self.job is not None and self.job.active

    def idle(self) -> float:
        """Seconds since somebody asked for it; 0 while a page listens."""
        return 0.0 if self.watchers else time.monotonic() - self.seen


class Sessions:
    """All sessions, in one temporary folder that goes with `close`. To be used from one thread only."""

    def __init__(self, limits: Limits, tracker: Tracker) -> None:
        """tracker: follows one video at a time."""
        self.limits = limits
        self._tracker = tracker
        self._sessions: dict[str, Session] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="alpharefine-demo-"))

    def add(self) -> Session:
        """A new session. Raises Refused when there are too many in use."""
        if len(self._sessions) >= self.limits.sessions:
            idle = [one for one in self._sessions.values() if not one.active and not one.watchers]
            if not idle:
                raise Refused(503, "Too many pages are open; close one and try again.")
            self._forget(max(idle, key=Session.idle))
        folder = self._folder / secrets.token_urlsafe(18)
        folder.mkdir()
        session = Session(folder)
        self._sessions[session.name] = session
        return session

    def get(self, name: str) -> Session:
        """The session of that name. Raises Refused when there is none."""
        try:
            session = self._sessions[name]
        except KeyError:
            raise Refused(404, "This video is no longer here: it was closed, or not used for a long time. "
                               "Choose it again.") from None
        session.touch()
        return session

    def start(self, session: Session, boxes: object) -> int:
        """Track the targets in `boxes`, a list of [x, y, w, h]; the number of this run.

        Raises Refused for boxes that cannot be tracked and while something is being tracked.
        """
        clip = session.held
        regions = _checked(boxes, clip, self.limits)
        if session.active:
            raise Refused(409, "This video is being tracked already.")
        if any(other.active for other in self._sessions.values()):
            raise Refused(409, "Another page is tracking just now, and the tracker follows one video at a "
                               "time. Finish or close it there, then start again.")
        session.runs += 1
        session.job = Job(clip, regions, self._tracker, session.folder)
        session.job.archive.unlink(missing_ok=True)
        session.job.start()
        return session.runs

    async def drop(self, session: Session) -> None:
        """Stop its job and delete its files."""
        if session.job is not None:
            session.job.drop()
            if not await asyncio.to_thread(session.job.wait, END_PATIENCE):
                log.warning("a tracking job does not come to its end")
        self._forget(session)

    async def sweep(self) -> None:
        """Drop what nobody has asked for in a long time."""
        for session in list(self._sessions.values()):
            limit = self.limits.unwatched_seconds if session.active else self.limits.idle_seconds
            if session.idle() > limit:
                await self.drop(session)

    def stop(self) -> None:
        """Let all jobs end soon, without results."""
        for session in self._sessions.values():
            if session.job is not None:
                session.job.drop()

    def close(self) -> None:
        """Stop everything and delete all files."""
        self.stop()
        for session in self._sessions.values():
            if session.job is not None and not session.job.wait(END_PATIENCE):
                log.warning("a tracking job does not come to its end")
        self._sessions.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.name, None)
        shutil.rmtree(session.folder, ignore_errors=True)


def _checked(boxes: object, clip: Clip, limits: Limits) -> list[np.ndarray]:
    if not isinstance(boxes, list) or not boxes:
        raise Refused(400, "Nothing to follow: drag a box around a target first.")
    if len(boxes) > limits.targets:
        raise Refused(400, f"{len(boxes)} targets are too many: {limits.targets} at most.")
    regions = []
    for number, box in enumerate(boxes, 1):
        try:
            if not isinstance(box, list):
                raise InputError("A box is a list of four numbers, x, y, width and height.")
            region = np.array([float(value) for value in box])
            region_box(region, clip.first.shape[:2])
        except (InputError, TypeError, ValueError) as error:
            raise Refused(400, f"Target {number}: {error}") from None
        regions.append(region)
    return regions
