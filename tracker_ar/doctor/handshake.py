"""A real TraX session with a tracker, started as the toolkit starts it, which always comes to an end."""

from __future__ import annotations

import os
import re
import shlex
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracker_ar.doctor.report import Row, failed, ok, warning
from tracker_ar.doctor.workspace import Launch
from tracker_ar.geometry import place_mask

if TYPE_CHECKING:
    import trax

FRAMES = 12  # after the first
FPS = 20.0
TIMEOUT = 60.0  # seconds for the hello and for each answer
_LAST_WORDS = 30  # lines
_GRACE = 3.0  # seconds between asking a tracker to end and ending it
_REST = 1 << 20  # bytes; a pipe holds less
_PROTOCOL_LINE = re.compile(r"^@@TRAX:")


@dataclass
class Session:
    """What happened between the doctor and a tracker.

    stage: what was waited for last: 'start' (the hello), 'initialize', 'frame N'; 'done' when all went well.
    hello_seconds: from the start of the process. frame_seconds: of each frame, by the toolkit's clock.
    profile: of the hello. overlaps: IoU of each reported mask with the true one, nothing for boxes.
    failure: what went wrong, empty if nothing did. exit_status: None where the process had to be ended.
    log: what came through the pipe, in pieces. patience: seconds for the present stage; deadline: its end, on
    the monotonic clock.
    """

    stage: str = "start"
    hello_seconds: float = 0.0
    profile: str | None = None
    initialize_seconds: float = 0.0
    frame_seconds: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    failure: str = ""
    exit_status: int | None = None
    log: list[str] = field(default_factory=list)
    patience: float = TIMEOUT
    deadline: float = float("inf")


def converse(launch: Launch, timeout: float = TIMEOUT, frames: int = FRAMES) -> Session:
    """Start a tracker, wait for its hello, initialize it with a mask, send it frames, end it.

    timeout: seconds for the hello and for each answer, unless the registry grants less. Raises nothing for
    a tracker that fails; no process of the tracker is left, also after Ctrl-C.
    """
    session = Session()
    with tempfile.TemporaryDirectory(prefix="alpharefine-doctor-", ignore_cleanup_errors=True) as folder:
        images, masks = _write_sequence(Path(folder), frames + 1)
        work = Path(folder) / "work"
        work.mkdir()
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                launch.command, cwd=work, env={**os.environ, **launch.environment}, bufsize=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True)  # so that whatever it starts ends with it
        except OSError as error:
            session.failure = f"it cannot be started: {error}"
            return session
        session.patience, session.deadline = timeout, started + timeout
        # libtrax waits in native code, where neither a timeout nor Ctrl-C reaches it: hence a thread.
        talk = threading.Thread(
            target=_talk, args=(session, process, images, masks, min(timeout, launch.timeout), started),
            daemon=True)
        try:
            talk.start()
            while talk.is_alive() and time.monotonic() < session.deadline:
                talk.join(0.05)
            if talk.is_alive():
                session.failure = f"no answer within {session.patience:g} s"
            elif session.failure:
                _wait(process)
            session.exit_status = process.poll()
        finally:
            session.log.append(_end(process, talk))
    return session


def _talk(session: Session, process: subprocess.Popen, images: list[Path], masks: list[np.ndarray],
          timeout: float, started: float) -> None:
    """The dialogue, in a thread of its own; what goes wrong ends up in `session.failure`."""
    import trax
    from trax.client import Client

    client = None
    try:
        assert process.stdin is not None and process.stdout is not None
        streams = (process.stdin.fileno(), process.stdout.fileno())
        client = Client(stream=streams, log=session.log.append)
        session.hello_seconds, session.profile = time.monotonic() - started, client.get("profile")
        _ask(session, "initialize", timeout)
        begun = time.monotonic()
        region = trax.Mask.create(np.ascontiguousarray(masks[0]))
        client.initialize(_image(images[0]), [(region, {})], {})
        session.initialize_seconds = time.monotonic() - begun
        for number, (image, mask) in enumerate(zip(images[1:], masks[1:]), 1):
            _ask(session, f"frame {number}", timeout)
            objects, seconds = client.frame(_image(image), {}, [])
            session.frame_seconds.append(seconds)
            session.overlaps += _overlap(objects[0][0], mask)
        _ask(session, "done", _GRACE)
        client.quit()
    except Exception as error:  # TraxException, and whatever a strange answer leads to
        if not session.failure:  # after a timeout the pipe closes under the client
            session.failure = str(error) or type(error).__name__
    finally:
        # Its release writes a last message, so it must come while the streams are open.
        if client is not None:
            client._handle = None


def _ask(session: Session, stage: str, timeout: float) -> None:
    session.patience, session.deadline = timeout, time.monotonic() + timeout
    session.stage = stage


def _image(path: Path) -> dict[str, object]:
    from trax.image import FileImage

    return {"color": FileImage.create(str(path))}


def _overlap(region: trax.Region, truth: np.ndarray) -> list[float]:
    import trax

    if region.type != trax.Region.MASK:
        return []
    mask = place_mask(region.array(), region.offset(), truth.shape)
    union = np.count_nonzero(mask | (truth != 0))
    return [np.count_nonzero(mask & (truth != 0)) / union if union else 1.0]


def _write_sequence(folder: Path, length: int) -> tuple[list[Path], list[np.ndarray]]:
    """The first frames of a synthetic sequence as image files, and the true masks."""
    import cv2

    from tracker_ar.data.synthetic import procedural

    scene, images, masks = procedural._deforming(), [], []
    for frame in range(length):
        image, mask = procedural.render(scene, frame)
        path = folder / f"{frame + 1:08d}.jpg"
        path.write_bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
        images.append(path)
        masks.append(mask)
    return images, masks


# ---- ending


def _wait(process: subprocess.Popen) -> None:
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        pass


def _end(process: subprocess.Popen, talk: threading.Thread) -> str:
    """End the tracker and all that it started, politely at first; returns its output that nobody has read."""
    if process.poll() is None and not talk.is_alive():
        _wait(process)
    if process.poll() is None:
        process.terminate()
        _wait(process)
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
    talk.join(_GRACE)  # its pipe has no writer any more
    if talk.is_alive() or os.name == "nt":  # Windows cannot look into a pipe without waiting
        return ""
    assert process.stdin is not None and process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)  # something may have left the group and hold the pipe
    rest = process.stdout.read(_REST) or b""
    process.stdin.close()
    process.stdout.close()
    return rest.decode("utf-8", "replace")


# ---- rows


def rows(session: Session, launch: Launch, fps: float = FPS) -> Iterator[Row]:
    """The report about a session. fps: of the real-time limit."""
    if session.stage == "start":
        yield _failure("TraX hello", session, launch)
        return
    hello = f"after {session.hello_seconds:.1f} s, profile {session.profile or 'not reported'}"
    if session.profile == "none":  # what the server says when the tracker could not be built
        hello += " (the tracker could not be built)"
    yield ok("TraX hello", hello)
    if session.stage == "initialize":
        yield _failure("initialize", session, launch)
        return
    yield ok("initialize", f"{session.initialize_seconds:.2f} s")
    if session.failure:
        yield _failure("tracking", session, launch)
        return
    overlap = ""
    if session.overlaps:
        overlap = f", mean overlap with the true masks {np.mean(session.overlaps):.2f}"
    yield ok("tracking", f"{len(session.frame_seconds)} frames of a synthetic sequence{overlap}")
    yield _speed(session, fps)


def _speed(session: Session, fps: float) -> Row:
    median = statistics.median(session.frame_seconds)
    limit = f"the limit at {fps:g} fps is {1000 / fps:.0f} ms"
    found = f"median {1000 * median:.0f} ms per frame, {limit}"
    if median <= 1 / fps:
        return ok("real time", found)
    fixes = ["End other programs", "give it all cores (row CPU)", "use a GPU"]
    if session.profile != "lite":
        fixes.append("take the tracker AlphaRefine-Lite")
    return warning("real time", found,
                   "Slower than real time: the toolkit's realtime experiment will skip frames.",
                   f"{', '.join(fixes[:-1])}, or {fixes[-1]}.")


def _failure(name: str, session: Session, launch: Launch) -> Row:
    command = " ".join(launch.command)
    cause = [f"Waiting for the answer to '{session.stage}': {session.failure}."]
    if session.exit_status is not None:
        cause.append(_ending(session.exit_status))
    words = last_words(session.log)
    cause += ["The tracker said:", *(f"  {line}" for line in words)] if words else ["It said nothing."]
    if session.failure.startswith("no answer"):
        fix = ("If the machine is slow or busy, give it more time with --timeout; otherwise see what it "
                f"waits for. By hand:\n{_by_hand(launch)}")
    else:
        fix = ("Fix what the last lines name. By hand (it should print @@TRAX:hello and wait):\n"
                f"{_by_hand(launch)}")
    return failed(name, f"{command} failed", "\n".join(cause), fix)


def _by_hand(launch: Launch) -> str:
    path = launch.environment.get("PYTHONPATH")
    return " ".join([*([f"PYTHONPATH={path}"] if path else []), shlex.join(launch.command)])


def _ending(status: int) -> str:
    if status >= 0:
        return f"The process ended with status {status}."
    name = signal.Signals(-status).name
    hint = "; as a rule the system was out of memory" if -status == 9 else ""
    return f"The process was ended by {name}{hint}."


def last_words(log: list[str]) -> list[str]:
    """The last lines of what a tracker printed, without protocol messages."""
    lines = "".join(log).splitlines()
    return [line for line in lines if line.strip() and not _PROTOCOL_LINE.match(line)][-_LAST_WORDS:]
