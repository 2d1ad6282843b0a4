"""A double of a tracker behind the real TraX server, with a real client or bare streams in front of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import trax
from trax.client import Client

ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 64)
PATIENCE = 60
MASK = trax.Mask.create(np.ones((10, 8), np.uint8), x=4, y=6)


def start_server(behaviour: str, report: str = "masks") -> subprocess.Popen:
    """A double behind the real server; stdout and stderr are one pipe, as in the toolkit."""
    environment = {**os.environ, "DOUBLE": behaviour, "REPORT": report, "PYTHONPATH": str(ROOT),
                   "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/doubles/double_tracker.py")], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
    )


class Session:
    """A server and a real client in front of it."""

    def __init__(self, behaviour: str, report: str = "masks") -> None:
        self.process = start_server(behaviour, report)
        self.pieces: list[str] = []
        # A client that waits for a server in vain would wait for ever.
        self.watchdog = threading.Timer(PATIENCE, self.process.kill)
        self.watchdog.start()
        streams = (self.process.stdin.fileno(), self.process.stdout.fileno())
        self.client = Client(stream=streams, log=self.pieces.append)

    @property
    def log(self) -> str:
        """Everything that went through the pipe, protocol messages included."""
        return "".join(self.pieces)

    def initialize(self, image: Path, region: trax.Region) -> tuple[np.ndarray, dict]:
        (state,) = self.initialize_all(image, region)
        return state

    def initialize_all(self, image: Path, *regions: trax.Region) -> list[tuple[np.ndarray, dict]]:
        images = {"color": trax.FileImage.create(str(image))}
        return _states(self.client.initialize(images, [(region, {}) for region in regions], {}))

    def frame(self, image: Path) -> tuple[np.ndarray, dict]:
        (state,) = self.frame_of_all(image)
        return state

    def frame_of_all(self, image: Path, *new: trax.Region) -> list[tuple[np.ndarray, dict]]:
        images = {"color": trax.FileImage.create(str(image))}
        return _states(self.client.frame(images, {}, [(region, {}) for region in new]))

    def end(self) -> int:
        """Wait for the server and return its exit status; the rest of its output joins the log."""
        status = self.process.wait(PATIENCE)
        self.pieces.append(self.process.stdout.read().decode())
        return status

    def close(self) -> None:
        self.watchdog.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        # The handle writes a last message when it is released: while its streams and its logger still exist.
        self.client._handle = None


def _states(reply: tuple[list, float]) -> list[tuple[np.ndarray, dict]]:
    """Masks as arrays, boxes as x, y, w, h."""
    return [(region.array() if region.type == trax.Region.MASK else np.array(region.bounds()), properties)
            for region, properties in reply[0]]


def wait_for_line(process: subprocess.Popen, start: bytes) -> None:
    seen = []
    while line := process.stdout.readline():
        seen.append(line)
        if line.startswith(start):
            return
    raise AssertionError(f"the server ended without a line {start!r}: {seen}")


def raw_session(behaviour: str, frame: Path) -> subprocess.Popen:
    """A server that has been initialized by hand, so that the streams can be closed under it."""
    process = start_server(behaviour)
    wait_for_line(process, b"@@TRAX:hello")
    process.stdin.write(f'@@TRAX:initialize "4,6,8,10"\n@@TRAX:frame "file://{frame}"\n'.encode())
    wait_for_line(process, b"@@TRAX:state")
    return process


@pytest.fixture
def serve() -> Iterator[Callable[[str], Session]]:
    sessions = []

    def start(behaviour: str, report: str = "masks") -> Session:
        sessions.append(Session(behaviour, report))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    file = tmp_path / "frame.png"
    cv2.imwrite(str(file), np.zeros((*SIZE, 3), np.uint8))
    return file
