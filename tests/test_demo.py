"""`alpharefine demo`: what the server of the page does, and what it leaves behind."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from demo_client import FRAMES, Running, encoded, framed, sessions_in, wait_until
from video_fixtures import BOX, HEIGHT, STEP, WIDTH, MovingBox

from tracker_ar.commands import demo as command
from tracker_ar.demo.app import STATIC
from tracker_ar.errors import InputError
from tracker_ar.geometry import mask_from_box
from tracker_ar.video.results import VOT_ENDINGS


class Held(MovingBox):
    """Tracks a frame each time it is allowed to."""

    def __init__(self, allowed: threading.Semaphore) -> None:
        super().__init__()
        self.allowed = allowed

    def track(self, image: np.ndarray) -> object:
        assert self.allowed.acquire(timeout=300)
        return super().track(image)


class Failing(MovingBox):
    """Fails at its third frame."""

    def __init__(self, error: Exception) -> None:
        super().__init__(1.0)
        self.error = error

    def track(self, image: np.ndarray) -> object:
        if self.scores[0] < 0.85:
            raise self.error
        return super().track(image)


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
        names = ["boxes.csv", *masks, "masks.jsonl", "overlay.mp4",
                 *(f"target_{number}{ending}" for number in (1, 2) for ending in VOT_ENDINGS)]
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
    server = start(Held(allowed))
    session = "/api/sessions/" + server.ask("POST", "/api/cameras", encoded(0, ".jpg"), 201)["session"]
    server.track(session, BOX)
    answers = [server.send("POST", f"{session}/pictures", encoded(1, ".jpg")).status for _ in range(12)]
    assert answers[0] == 200 and 429 in answers
    allowed.release(10)


def test_pause_resume_finish_and_reconnecting(start: Callable[..., Running], video: bytes) -> None:
    allowed = threading.Semaphore(0)
    server = start(Held(allowed))
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
    server = start(Held(allowed))
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
    server = start(Held(allowed))
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
    server = start(Failing(error))
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


class Unable(MovingBox):
    def initialize(self, *given: object) -> None:
        raise InputError("There is no memory for so many targets; draw fewer boxes.")


def test_targets_that_cannot_be_learned_are_reported(start: Callable[..., Running], video: bytes) -> None:
    server = start(Unable())
    session = server.upload(video)
    server.track(session, BOX)
    assert list(server.events(session, 1)) == [{"type": "failed", "frames": 0, "results": False,
        "message": "There is no memory for so many targets; draw fewer boxes."}]


# ---- what stays


def test_a_closed_session_is_gone(start: Callable[..., Running], video: bytes, temporary: Path) -> None:
    allowed = threading.Semaphore(0)
    server = start(Held(allowed))
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


def test_what_nobody_uses_goes(start: Callable[..., Running], video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
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
