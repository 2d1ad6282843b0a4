"""A double of a tracker behind the real TraX server, with a real client or bare streams in front of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import trax
import trax_session
from trax_session import PATIENCE as PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 64)
MASK = trax.Mask.create(np.ones((10, 8), np.uint8), x=4, y=6)


def start_server(behaviour: str, report: str = "masks") -> subprocess.Popen:
    """A double behind the real server; stdout and stderr are one pipe, as in the toolkit."""
    environment = {**os.environ, "DOUBLE": behaviour, "REPORT": report, "PYTHONPATH": str(ROOT),
                   "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/doubles/double_tracker.py")], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
    )


class Session(trax_session.Session):
    """A double behind the real server and a real client in front of it."""

    def __init__(self, behaviour: str, report: str = "masks") -> None:
        super().__init__(start_server(behaviour, report))


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
