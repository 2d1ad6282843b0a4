"""The page of `alpharefine demo` in a real browser, with the real command and the project's weights."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser, browser, find_browser

from tracker_ar.data.synthetic.procedural import HEIGHT, WIDTH, render, synthetic_scenes
from tracker_ar.geometry import box_from_mask

LENGTH = 8
PATIENCE = 120  # seconds, for machines with much else to do

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the command serves the page; it must end cleanly and leave no files."""
    temporary = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, "-m", "tracker_ar.cli", "demo", "--port", "0", "--profile", "lite"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"TMPDIR": str(temporary)})
    try:
        lines = iter(process.stdout.readline, "")
        yield next(filter(None, (re.search(r"http://127.0.0.1:\d+/", line) for line in lines))).group()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and rest == "stopped; temporary files are deleted\n"
        assert list(temporary.iterdir()) == []
    finally:
        process.kill()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.size(1280, 860)
        yield opened


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Browser]:
    """The page, freshly opened; nothing may go wrong in its scripts."""
    chromium.errors.clear()
    chromium.open(address)
    chromium.wait("document.querySelectorAll('#examples img').length === 4")
    yield chromium
    assert chromium.errors == []


def phase(page: Browser, name: str) -> None:
    page.wait(f"document.body.dataset.phase === '{name}'", PATIENCE)


def drag_box(page: Browser, box: np.ndarray) -> None:
    """Drag the mouse around a box of the video, which the stage shows enlarged."""
    left, top, width, _ = page.rectangle("#stage")
    scale = width / WIDTH
    x, y, w, h = box * scale
    page.drag((left + x, top + y), (left + x + w, top + y + h))


def downloaded(page: Browser, folder: Path) -> zipfile.ZipFile:
    page.download_to(folder)
    page.click("#download")
    end = time.monotonic() + PATIENCE
    while not (files := list(folder.glob("*.zip"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    return zipfile.ZipFile(io.BytesIO(files[0].read_bytes()))


def test_a_video_from_upload_over_dragging_a_box_to_download(page: Browser, tmp_path: Path) -> None:
    scene = next(scene for scene in synthetic_scenes() if scene.name == "made_scaled")
    frames = [render(scene, index) for index in range(LENGTH)]
    video = tmp_path / "stars.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (WIDTH, HEIGHT))
    for image, _ in frames:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    page.choose_files("#files", [video])
    phase(page, "draw")
    assert page.evaluate("document.querySelector('#go').disabled")
    page.evaluate("document.querySelector('#start-frame').focus()")
    page.press("ArrowRight")
    page.wait("!document.querySelector('#start-frame').disabled")
    assert page.evaluate("document.querySelector('#start-number').textContent") == "2"
    drag_box(page, box_from_mask(frames[1][1]))
    assert page.evaluate("document.querySelectorAll('#targets li').length") == 1
    page.click("#go")
    phase(page, "done")
    assert page.evaluate("document.querySelector('#number').textContent") == str(LENGTH)
    assert float(page.evaluate("document.querySelector('#milliseconds').textContent")) > 0

    # The colour of the first target is on the stage with the mask, and less of it with the box alone.
    reds = {view: reddish(page, view) for view in ("both", "mask", "box")}
    assert reds["both"] > reds["mask"] > 3 * reds["box"] > 0
    page.evaluate("document.querySelector('#scrub').focus()")
    page.press("ArrowLeft")
    page.wait(f"document.querySelector('#number').textContent === '{LENGTH - 1}'")

    with downloaded(page, tmp_path / "downloads") as archive:
        names = {Path(name).name for name in archive.namelist()}
        assert {"boxes.csv", "masks.jsonl", "overlay.mp4", "target_1.txt"} <= names
        assert "alpharefine-results/masks/00000001.png" not in archive.namelist()
        for index in range(2, LENGTH):
            data = archive.read(f"alpharefine-results/masks/{index + 1:08d}.png")
            mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            truth = frames[index][1]
            assert (mask & truth).sum() / (mask | truth).sum() > 0.7


def reddish(page: Browser, view: str) -> int:
    """Pixels of the stage that are more red than green by far, with that view chosen."""
    page.evaluate(f"document.querySelector('input[value={view}]').click()")
    return page.evaluate("""(() => {
        const stage = document.querySelector("#stage");
        const data = stage.getContext("2d").getImageData(0, 0, stage.width, stage.height).data;
        let count = 0;
        for (let i = 0; i < data.length; i += 4) {
            count += data[i] > data[i + 1] + 30 && data[i] > data[i + 2] + 30;
        }
        return count;
    })()""")


def test_an_example_in_one_click_paused_and_finished_early(page: Browser) -> None:
    page.click("#examples button")
    phase(page, "tracking")
    page.click("#leave")  # and another one, while the first is still being tracked
    page.click("#examples li:last-child button")
    phase(page, "tracking")
    page.wait("Number(document.querySelector('#number').textContent) > 2", PATIENCE)
    page.press(" ")
    page.wait("document.querySelector('#hint').textContent.startsWith('Paused')")
    page.press(",")
    page.wait("!document.querySelector('#live').hidden")
    page.press(" ")
    page.click("#finish")
    phase(page, "done")
    assert int(page.evaluate("document.querySelector('#total').textContent.slice(3)")) < 60
    page.click("#again")
    phase(page, "draw")
    assert page.evaluate("document.querySelectorAll('#targets li').length") == 1
    page.click("#leave")
    phase(page, "start")


def test_without_a_mouse(page: Browser) -> None:
    page.click("#examples button")
    page.wait("Number(document.querySelector('#number').textContent) > 1", PATIENCE)
    page.click("#finish")
    phase(page, "done")
    page.click("#again")
    page.evaluate("document.querySelector('#stage').focus()")
    page.press("Enter")
    count = "document.querySelectorAll('#targets li').length"
    assert page.evaluate(count) == 2
    page.press("ArrowRight")
    page.press("ArrowDown", shift=True)
    page.press("Delete")
    assert page.evaluate(count) == 1
    page.click("#leave")


def test_the_camera(page: Browser) -> None:
    page.click("#camera")
    phase(page, "camera")
    left, top, width, height = page.rectangle("#stage")
    page.drag((left + 0.3 * width, top + 0.3 * height), (left + 0.6 * width, top + 0.7 * height))
    phase(page, "draw")
    page.wait("!document.querySelector('#go').disabled")
    page.click("#go")
    page.wait("Number(document.querySelector('#number').textContent) > 3", PATIENCE)
    page.click("#finish")
    phase(page, "done")
    assert page.evaluate("!document.querySelector('#download').hidden")
    page.click("#leave")


def test_a_second_page_is_told_that_the_tracker_is_busy(page: Browser, address: str) -> None:
    def ask(path: str, body: bytes = b"") -> dict:
        headers = {"Origin": address.rstrip("/"), "Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}api/{path}", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    other = ask("cameras", cv2.imencode(".jpg", image)[1].tobytes())["session"]
    ask(f"sessions/{other}/track", b'{"boxes": [[100, 80, 60, 50]]}')  # waits for pictures
    page.click("#examples button")
    page.wait("document.querySelector('#message-text').textContent.includes('one video at a time')", PATIENCE)
    assert page.evaluate("document.body.dataset.phase") == "draw"
    ask(f"sessions/{other}/finish")
    page.wait("!document.querySelector('#go').disabled")
    with urllib.request.urlopen(f"{address}api/sessions/{other}/runs/1/events", timeout=PATIENCE) as events:
        assert b'"done"' in events.read()
    page.click("#go")
    phase(page, "tracking")
    page.click("#leave")
    page.errors[:] = [error for error in page.errors if "409" not in error]  # the browser notes the status


def test_what_is_no_video_is_refused_in_words(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    page.choose_files("#files", [tmp_path / "notes.mp4"])
    page.wait("document.querySelector('#message-text').textContent.includes('neither a video nor an image')")
    page.click("#message-close")
    assert page.evaluate("document.querySelector('#message').hidden")
    assert page.evaluate("document.body.dataset.phase") == "start"
    page.errors[:] = [error for error in page.errors if "415" not in error]  # the browser notes the status
