"""`alpharefine demo`: what the server of the page refuses, and from whom."""

from __future__ import annotations

import json
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from demo_client import FRAMES, Running, encoded, framed, sessions_in, wait_until
from video_fixtures import BOX, HEIGHT, WIDTH

from tracker_ar.demo.guard import Guard, own_names

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


# ---- targets and uploads


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
