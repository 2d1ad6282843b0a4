"""`alpharefine demo`: what the server of the page takes, does, refuses and leaves behind."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from demo_client import Running, encoded, framed
from video_fixtures import BOX, HEIGHT, STEP, WIDTH, MovingBox, write_video

from tracker_ar.demo import command
from tracker_ar.demo.app import STATIC
from tracker_ar.demo.guard import Guard, own_names
from tracker_ar.errors import InputError
from tracker_ar.geometry import mask_from_box

FRAMES = 6


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


class Held(MovingBox):
    """Tracks a frame each time it is allowed to."""

    def __init__(self, allowed: threading.Semaphore) -> None:
        super().__init__()
        self.allowed = allowed

    def track(self, image: np.ndarray) -> object:
        assert self.allowed.acquire(timeout=20)
        return super().track(image)


class Failing(MovingBox):
    """Fails at its third frame."""

    def __init__(self, error: Exception) -> None:
        super().__init__(1.0)
        self.error = error

    def track(self, image: np.ndarray) -> object:
        if self.score < 0.85:
            raise self.error
        return super().track(image)


def sessions_in(temporary: Path) -> list[str]:
    """The folders of all sessions."""
    return [path.name for folder in temporary.iterdir() for path in folder.iterdir()]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- the page


def test_the_page_and_its_files_come_with_security_headers(server: Running) -> None:
    for path in ["/", *(f"/static/{file.name}" for file in STATIC.iterdir())]:
        answer = server.send("GET", path, origin=None)
        assert answer.status == 200 and len(answer.read()) > 100
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for file in STATIC.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+", file.read_text()))
        assert addresses <= {"http://www.w3.org"}, file.name  # the name space of SVG
        assert "<style" not in file.read_text() and " style=" not in file.read_text()


@pytest.mark.parametrize("path", [
    "/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%2f..%2fcli.py",
    "/nothing", "/api/sessions/..%2f..", "/api/sessions/../../etc/runs/1/frames/1.jpg",
    "/api/examples/..%2fx/thumbnail.jpg",
    "/api/sessions/x/runs/1/frames/1.jpg", "/api/sessions/x/results.zip", "/api/sessions/x/runs/1/events",
])
def test_paths_lead_nowhere_else(server: Running, path: str) -> None:
    answer = server.send("GET", path)
    assert answer.status in (404, 405)
    assert json.loads(answer.read())["message"]


# ---- who may ask


@pytest.mark.parametrize("headers", [
    {"host": "evil.example"},
    {"host": "evil.example:{port}", "origin": "http://evil.example:{port}"},
    {"host": "localhost.evil.example:{port}", "origin": None},
    {"host": "192.168.1.7:{port}", "origin": "http://192.168.1.7:{port}"},
    {"host": "", "origin": None},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "https://127.0.0.1:{port}"},
    {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "origin": None},
    {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
])
def test_other_sites_are_refused(server: Running, headers: dict) -> None:
    headers = {name: value and value.format(port=server.port) for name, value in headers.items()}
    for method, path in [("GET", "/api/about"), ("POST", "/api/examples/made_scaled")]:
        answer = server.send(method, path, **headers)
        assert answer.status == 403 and json.loads(answer.read())["message"]
    assert not server.sessions._sessions


def test_what_changes_something_needs_an_origin(server: Running) -> None:
    assert server.ask("GET", "/api/about", origin=None)["local"] is True
    server.ask("POST", "/api/examples/made_scaled", status=403, origin=None)
    server.ask("DELETE", "/api/sessions/x", status=403, origin=None)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
def test_the_own_names_are_taken(server: Running, name: str) -> None:
    host = f"{name}:{server.port}"
    server.ask("GET", "/api/about", host=host, origin=f"http://{host}")
    link_elsewhere = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert server.send("GET", "/", host=host, origin=None, **link_elsewhere).status == 200


def test_a_server_for_others_answers_to_addresses_and_its_own_name() -> None:
    guard = Guard(None, own_names("tracker.example"), loopback_only=False)
    own = ["192.168.1.7:80", "[fe80::1]:80", "tracker.example:80", socket.gethostname(), "localhost"]
    assert all(map(guard._is_own, own))
    assert not any(map(guard._is_own, ["evil.example:80", "evil.example", "tracker.example.evil:80"]))


# ---- tracking


def test_a_video_from_upload_to_download(server: Running, video: bytes) -> None:
    described = server.ask("POST", "/api/uploads", framed(video), 201)
    assert {name: described[name] for name in ("kind", "width", "height", "fps", "length", "announced")} == {
        "kind": "video", "width": WIDTH, "height": HEIGHT, "fps": 12.0, "length": FRAMES, "announced": FRAMES}
    session = "/api/sessions/" + described["session"]
    server.ask("GET", f"{session}/results.zip", status=404)
    assert server.track(session, BOX, (40, 30, 10, 10)) == 1
    *frames, saving, done = server.events(session, 1)
    assert saving == {"type": "saving"} and done == {"type": "done", "frames": FRAMES, "results": True}
    assert [frame["number"] for frame in frames] == list(range(1, FRAMES + 1))
    assert [frame["state"] for frame in frames] == ["given"] + ["tracked"] * (FRAMES - 1)
    target = frames[2]["targets"][0]
    assert target["box"] == [BOX[0] + 2 * STEP, *BOX[1:]] and target["score"] == pytest.approx(0.7)
    values = np.arange(len(target["mask"]["counts"])) % 2
    mask = np.repeat(values, target["mask"]["counts"]).reshape(target["mask"]["size"], order="F")
    assert np.array_equal(mask, mask_from_box((BOX[0] + 2 * STEP, 12, 12, 7), (HEIGHT, WIDTH)))
    picture = server.send("GET", f"{session}/runs/1/frames/3.jpg")
    assert cv2.imdecode(np.frombuffer(picture.read(), np.uint8), 1).shape == (HEIGHT, WIDTH, 3)

    answer = server.send("GET", f"{session}/results.zip")
    with zipfile.ZipFile(io.BytesIO(answer.read())) as archive:
        masks = [f"masks/{number:08d}.png" for number in range(1, FRAMES + 1)]
        names = ["boxes.csv", *masks, "masks.jsonl", "overlay.mp4", "target_1.txt", "target_2.txt"]
        files = [name for name in archive.namelist() if not name.endswith("/")]
        assert files == [f"alpharefine-results/{name}" for name in names]
        assert len(archive.read("alpharefine-results/boxes.csv").splitlines()) == 1 + 2 * FRAMES


def test_images_in_the_order_sent_and_other_targets_afterwards(server: Running) -> None:
    endings = [".png", ".jpg", ".webp", ".bmp"]
    session = server.upload(*(encoded(frame, ending) for frame, ending in enumerate(endings)))
    for run, box in enumerate([BOX, (20, 20, 8, 8)], 1):
        assert server.track(session, box) == run
        *frames, _, done = server.events(session, run)
        lefts = [frame["targets"][0]["box"][0] for frame in frames]
        assert lefts == [box[0] + STEP * frame for frame in range(4)]
        assert done["results"]
    server.ask("GET", f"{session}/runs/1/events", status=404)


def test_targets_may_be_given_in_a_later_frame(server: Running, video: bytes) -> None:
    for files, kind in [((video,), ""), ([encoded(frame) for frame in range(FRAMES)], "images")]:
        session = server.upload(*files)
        assert server.ask("POST", f"{session}/start", {"frame": 3}) == {"length": FRAMES - 2}, kind
        server.track(session, BOX)
        *frames, _, done = server.events(session, 1)
        assert [frame["number"] for frame in frames] == [3, 4, 5, 6] and frames[0]["state"] == "given"
        assert done["frames"] == 4
        archive = zipfile.ZipFile(io.BytesIO(server.send("GET", f"{session}/results.zip").read()))
        assert "alpharefine-results/masks/00000003.png" in archive.namelist()
        server.ask("POST", f"{session}/start", {"frame": 1})
    for frame in (0, FRAMES + 1, -1, "2", 2.5, None, [1], 10**30):
        server.ask("POST", f"{session}/start", {"frame": frame}, 400)
    camera = "/api/sessions/" + server.ask("POST", "/api/cameras", encoded(0, ".jpg"), 201)["session"]
    server.ask("POST", f"{camera}/start", {"frame": 2}, 400)


def test_an_example_brings_its_target(server: Running) -> None:
    about = server.ask("GET", "/api/about")
    assert len(about["examples"]) == 4
    for example in about["examples"]:
        assert server.send("GET", f"/api/examples/{example['name']}/thumbnail.jpg").read()[:2] == b"\xff\xd8"
    described = server.ask("POST", f"/api/examples/{about['examples'][0]['name']}", status=201)
    session, (box,) = "/api/sessions/" + described["session"], described["boxes"]
    assert min(box) > 10 and described["length"] == 60
    server.track(session, box)
    assert next(server.events(session, 1))["targets"][0]["box"] == box
    server.ask("POST", f"{session}/finish")
    server.ask("POST", "/api/examples/other", status=404)


def test_the_camera(server: Running) -> None:
    session = "/api/sessions/" + server.ask("POST", "/api/cameras", encoded(0, ".jpg"), 201)["session"]
    server.track(session, BOX)
    events = server.events(session, 1)
    for frame in range(1, 4):
        assert next(events)["number"] == frame
        server.ask("POST", f"{session}/pictures", encoded(frame, ".jpg"))
    assert next(events)["targets"][0]["box"][0] == BOX[0] + 3 * STEP
    server.ask("POST", f"{session}/pictures", b"not a picture", status=415)
    server.ask("POST", f"{session}/pictures", encoded(0), status=415)  # a PNG
    server.ask("POST", f"{session}/finish")
    assert list(events)[-1] == {"type": "done", "frames": 4, "results": True}


def test_pictures_that_come_too_fast_are_refused(start: Callable[..., Running]) -> None:
    allowed = threading.Semaphore(0)
    server = start(lambda count: [Held(allowed)])
    session = "/api/sessions/" + server.ask("POST", "/api/cameras", encoded(0, ".jpg"), 201)["session"]
    server.track(session, BOX)
    answers = [server.send("POST", f"{session}/pictures", encoded(1, ".jpg")).status for _ in range(5)]
    assert answers[0] == 200 and answers[-1] == 429
    allowed.release(10)


def test_pause_resume_finish_and_reconnecting(start: Callable[..., Running], video: bytes) -> None:
    allowed = threading.Semaphore(0)
    server = start(lambda count: [Held(allowed)])
    session = server.upload(video)
    server.track(session, BOX)
    events = server.events(session, 1)
    assert next(events)["number"] == 1
    server.ask("POST", f"{session}/pause")
    allowed.release(10)
    job = server.sessions._sessions[session.rpartition("/")[2]].job
    time.sleep(0.3)
    assert len(job.feed._messages) <= 2  # the frame that was begun may come
    server.ask("POST", f"{session}/resume")
    assert next(events)["number"] == 2
    assert [event.get("number") for event in server.events(session, 1, last_event_id="4")][:2] == [5, 6]
    assert list(events)[-1]["frames"] == FRAMES


def test_finishing_early_keeps_what_was_tracked(start: Callable[..., Running], video: bytes) -> None:
    allowed = threading.Semaphore(0)
    server = start(lambda count: [Held(allowed)])
    session = server.upload(video)
    server.track(session, BOX)
    events = server.events(session, 1)
    allowed.release(1)
    assert [next(events)["number"], next(events)["number"]] == [1, 2]
    server.ask("POST", f"{session}/finish")
    allowed.release(10)
    done = list(events)[-1]
    assert done["type"] == "done" and done["results"] and 2 <= done["frames"] <= 3


def test_one_video_at_a_time(start: Callable[..., Running], video: bytes) -> None:
    allowed = threading.Semaphore(0)
    server = start(lambda count: [Held(allowed)])
    first, second = server.upload(video), server.upload(video)
    server.track(first, BOX)
    refused = server.ask("POST", f"{second}/track", {"boxes": [BOX]}, 409)
    assert "Another page is tracking" in refused["message"]
    assert "already" in server.ask("POST", f"{first}/track", {"boxes": [BOX]}, 409)["message"]
    allowed.release(100)
    assert list(server.events(first, 1))[-1]["type"] == "done"
    server.track(second, BOX)
    assert list(server.events(second, 1))[-1]["type"] == "done"


@pytest.mark.parametrize(("error", "words"), [
    (InputError("The frame is upside down."), ""),
    (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory"),
])
def test_what_goes_wrong_is_said_and_what_was_done_is_kept(
    start: Callable[..., Running], video: bytes, error: Exception, words: str
) -> None:
    server = start(lambda count: [Failing(error)])
    session = server.upload(video)
    server.track(session, BOX)
    *events, last = server.events(session, 1)
    if isinstance(error, InputError):  # of one frame: tracking goes on
        assert events[4]["state"] == "repeated" and events[4]["problem"] == str(error)
        assert last["type"] == "done"
    else:
        assert last["type"] == "failed" and words in last["message"]
        assert last["frames"] == 3 and last["results"]
        archive = server.send("GET", f"{session}/results.zip").read()
        assert len(zipfile.ZipFile(io.BytesIO(archive)).namelist()) > 3


def test_trackers_that_cannot_be_built_are_reported(start: Callable[..., Running], video: bytes) -> None:
    def build(count: int) -> list:
        raise InputError("There is no memory for so many targets; draw fewer boxes.")

    server = start(build)
    session = server.upload(video)
    server.track(session, BOX)
    assert list(server.events(session, 1)) == [{"type": "failed", "frames": 0, "results": False,
        "message": "There is no memory for so many targets; draw fewer boxes."}]


@pytest.mark.parametrize("asked", [
    b"", b"[]", b"nonsense", b"[" * 3000, b'{"boxes": []}', b'{"boxes": 3}', b'{"boxes": [[1, 2, 3]]}',
    b'{"boxes": [[1, 2, 3, "x"]]}', b'{"boxes": [[1, 2, 3, null]]}', b'{"boxes": [[0, 0, 0, 5]]}',
    b'{"boxes": [[900, 2, 3, 4]]}', b'{"boxes": [[NaN, 2, 3, 4]]}', b'{"boxes": [[1e999, 2, 3, 4]]}',
    b'{"boxes": ["1234"]}', b'{"boxes": [' + b",".join([b"[1,2,9,9]"] * 9) + b"]}",
])
def test_targets_that_cannot_be_followed(server: Running, video: bytes, asked: bytes) -> None:
    session = server.upload(video)
    assert server.ask("POST", f"{session}/track", asked, 400)["message"]
    server.ask("POST", f"{session}/finish", status=409)


# ---- uploads


def png_header(width: int, height: int) -> bytes:
    """A PNG file that announces its size and holds nothing else."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
              b"IDAT" + zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)


@pytest.mark.parametrize(("body", "status", "words"), [
    (framed(b"just words"), 415, "neither a video nor an image"),
    (framed(b""), 415, "neither"),
    (framed(b"#EXTM3U\n\x00\n#EXTINF:1,\nfile:///etc/hostname\n"), 415, "neither"),
    (framed(b"ffconcat version 1.0\nfile '/etc/hostname'\n\x00"), 415, "neither"),
    (framed(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, "neither"),
    (framed(b"\0\0\0\x20ftypisom" + bytes(500)), 415, "cannot be opened as a video"),
    (framed(b"RIFF\xff\0\0\0AVI LIST" + bytes(100)), 415, "cannot be opened as a video"),
    (framed(encoded(0)[:60]), 415, "damaged"),
    (framed(encoded(0), b"not an image"), 415, "Image 2"),
    (framed(encoded(0), b"\0\0\0\x20ftypisom" + bytes(500)), 415, "choose one video"),
    (framed(png_header(40_000, 40_000)), 413, "million"),
    (framed(png_header(5000, 4000)), 413, "5000 x 4000"),
    (framed(encoded(0), png_header(5000, 4000)), 413, "Image 2 is 5000 x 4000"),
    (framed(*[encoded(0)] * 5), 413, "choose fewer"),
    (framed(bytes(300_000)), 413, "--max-upload"),
    ((10**12).to_bytes(8, "big") + b"x", 413, "--max-upload"),
    (framed(encoded(0))[:-5], 400, "not complete"),
    (b"", 400, "not complete"),
    (b"\0\0\0", 400, "not complete"),
])
def test_bad_uploads_are_refused_and_nothing_stays(
    start: Callable[..., Running], temporary: Path, body: bytes, status: int, words: str
) -> None:
    server = start(upload_bytes=250_000, frames=4)
    assert words in server.ask("POST", "/api/uploads", body, status)["message"]
    assert sessions_in(temporary) == []


def test_an_upload_of_unknown_length_is_bounded_too(start: Callable[..., Running], temporary: Path) -> None:
    server = start(upload_bytes=100_000)
    chunk = b"10000\r\n" + (2**20).to_bytes(8, "big") + bytes(2**16 - 8) + b"\r\n"
    answer = server.send("POST", "/api/uploads", chunk * 3, transfer_encoding="chunked", content_length=None)
    assert answer.status == 413
    wait_until(lambda: not server.sessions._sessions)


def test_an_upload_that_breaks_off_leaves_nothing(server: Running, temporary: Path) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        host = f"127.0.0.1:{server.port}"
        connection.sendall(f"POST /api/uploads HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
                           "Content-Length: 5000\r\n\r\n".encode() + framed(bytes(2000)))
        wait_until(lambda: server.sessions._sessions)
    wait_until(lambda: not server.sessions._sessions and not sessions_in(temporary))


def test_a_long_video_is_tracked_up_to_the_limit(start: Callable[..., Running], video: bytes) -> None:
    server = start(frames=4)
    described = server.ask("POST", "/api/uploads", framed(video), 201)
    assert (described["length"], described["announced"]) == (4, FRAMES)
    session = "/api/sessions/" + described["session"]
    server.track(session, BOX)
    assert list(server.events(session, 1))[-1] == {"type": "done", "frames": 4, "results": True}
    assert server.ask("POST", f"{session}/start", {"frame": 2})["length"] == 4


def test_a_video_of_too_many_pixels(start: Callable[..., Running], video: bytes) -> None:
    server = start(pixels=WIDTH * HEIGHT - 1)
    assert f"{WIDTH} x {HEIGHT}" in server.ask("POST", "/api/uploads", framed(video), 413)["message"]
    server.ask("POST", "/api/cameras", encoded(0, ".jpg"), 413)


# ---- what stays


def test_a_closed_session_is_gone(start: Callable[..., Running], video: bytes, temporary: Path) -> None:
    allowed = threading.Semaphore(0)
    server = start(lambda count: [Held(allowed)])
    session = server.upload(video)
    server.track(session, BOX)
    allowed.release(1)
    closing = threading.Thread(target=lambda: server.ask("DELETE", session))
    closing.start()
    allowed.release(100)
    closing.join(20)
    assert sessions_in(temporary) == []
    server.ask("POST", f"{session}/track", {"boxes": [BOX]}, 404)
    session = server.upload(video)  # and another one can track
    server.track(session, BOX)
    assert list(server.events(session, 1))[-1]["type"] == "done"


def test_what_nobody_uses_goes(
    start: Callable[..., Running], video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker_ar.demo.app.SWEEP_SECONDS", 0.05)
    server = start(idle_seconds=0.3, unwatched_seconds=0.3)
    server.upload(video)
    wait_until(lambda: not server.sessions._sessions)
    session = "/api/sessions/" + server.ask("POST", "/api/cameras", encoded(0, ".jpg"), 201)["session"]
    server.track(session, BOX)
    events = server.events(session, 1)
    next(events)
    time.sleep(1)
    assert server.sessions._sessions  # a page looks at it
    del events
    wait_until(lambda: not server.sessions._sessions)


def test_the_longest_unused_session_makes_room(start: Callable[..., Running], video: bytes) -> None:
    server = start(sessions=2)
    sessions = [server.upload(video) for _ in range(3)]
    server.ask("POST", f"{sessions[0]}/track", {"boxes": [BOX]}, 404)
    server.track(sessions[2], BOX)


def test_stopping_ends_what_runs(start: Callable[..., Running], temporary: Path) -> None:
    server = start()
    session = "/api/sessions/" + server.ask("POST", "/api/cameras", encoded(0, ".jpg"), 201)["session"]
    server.track(session, BOX)
    events = server.events(session, 1)
    next(events)
    server.ask("POST", f"{session}/pause")
    server.stop()
    assert list(events) == []
    assert list(temporary.iterdir()) == []


# ---- the command


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(words)


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs starlette and uvicorn.*'\.\[demo\]'"):
        command.run(arguments())


def test_addresses_that_cannot_be_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(InputError, match="--port"):
            command.run(arguments("--port", str(taken.getsockname()[1])))
    for words in [("--host", "no.such.host.invalid"), ("--port", "99999"), ("--max-frames", "0")]:
        with pytest.raises(InputError, match="--"):
            command.run(arguments(*words))


def test_ctrl_c_ends_it_cleanly(temporary: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tracker_ar.cli", "demo", "--port", "0", "--profile", "lite"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"TMPDIR": str(temporary)})
    try:
        lines = iter(process.stdout.readline, "")
        address = next(re.search(r"http://127.0.0.1:\d+/", line) for line in lines if "http" in line)
        assert address and list(temporary.iterdir())
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0 and rest == "stopped; temporary files are deleted\n"
    assert list(temporary.iterdir()) == []
