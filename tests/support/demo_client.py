"""A running server of the page with stub trackers, and requests as the page makes them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest
from video_fixtures import MovingBox, picture, write_video

from tracker_ar.demo.limits import Limits
from tracker_ar.demo.server import make_server

SECONDS = 20
FRAMES = 6


def framed(*files: bytes) -> bytes:
    """The body of an upload: every file preceded by its length."""
    return b"".join(len(file).to_bytes(8, "big") + file for file in files)


def encoded(frame: int, ending: str = ".png") -> bytes:
    """Frame `frame` of the small video as an image file."""
    return cv2.imencode(ending, cv2.cvtColor(picture(frame), cv2.COLOR_RGB2BGR))[1].tobytes()


def sessions_in(temporary: Path) -> list[str]:
    """The folders of all sessions."""
    return [path.name for folder in temporary.iterdir() for path in folder.iterdir()]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for it to be true; fails after SECONDS."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Running:
    """The server in a thread of its own, on a free port of the loopback address."""

    def __init__(self, tracker: Any = None, **limits: Any) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        ready = threading.Event()
        bounds = Limits(**limits)
        self.server = make_server(tracker or MovingBox(), "stub", "127.0.0.1", listening, bounds, lambda _: ready.set())
        self.sessions = self.server.config.app.state.pages.sessions
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        assert ready.wait(SECONDS)

    def stop(self) -> None:
        """As Ctrl-C does."""
        self.server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def send(self, method: str, path: str, body: Any = None, **headers: str | None) -> http.client.HTTPResponse:
        """The answer to a request of the page; `headers` (_ for -) replace some, None leaves one out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        host = f"127.0.0.1:{self.port}"
        sent = {"host": host, "origin": f"http://{host}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if not isinstance(body, (bytes, type(None))):
            body = json.dumps(body).encode()
        for name, value in ({"content-length": str(len(body or b""))} | sent).items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse()

    def ask(self, method: str, path: str, body: Any = None, status: int | None = None, **headers: Any) -> Any:
        """The JSON of the answer, after a check of its status."""
        answer = self.send(method, path, body, **headers)
        found = json.loads(answer.read())
        assert answer.status in ([status] if status else (200, 201, 202)), (answer.status, found)
        return found

    def upload(self, *files: bytes) -> str:
        """The path of the session with these files."""
        return "/api/sessions/" + self.ask("POST", "/api/uploads", framed(*files), 201)["session"]

    def track(self, session: str, *boxes: Sequence[float]) -> int:
        """Start; the number of the run."""
        return self.ask("POST", f"{session}/track", {"boxes": [list(box) for box in boxes]}, 202)["run"]

    def events(self, session: str, run: int, **headers: str) -> Iterator[dict]:
        """The messages of a run until its end, as they come."""
        answer = self.send("GET", f"{session}/runs/{run}/events", **headers)
        assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server keeps its files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def start(temporary: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers that are stopped with the test; nothing of theirs may stay."""
    running: list[Running] = []

    def start_one(*arguments: object, **limits: object) -> Running:
        running.append(Running(*arguments, **limits))
        return running[-1]

    yield start_one
    for server in running:
        server.stop()
    assert list(temporary.iterdir()) == []


@pytest.fixture
def server(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def video(tmp_path: Path) -> bytes:
    return write_video(tmp_path / "clip.avi", FRAMES).read_bytes()
