"""The TraX server: regions, and the protocol as a real client sees it."""

from __future__ import annotations

import configparser
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trax
from server_session import MASK, PATIENCE, SIZE, Session, raw_session, wait_for_line

from tracker_ar.errors import InputError
from tracker_ar.prediction import Prediction
from tracker_ar.zoo import profile
from vot_wrapper.regions import decode_region, encode_box, encode_mask
from vot_wrapper.server import read_frame

ROOT = Path(__file__).resolve().parents[1]


# --- regions -----------------------------------------------------------------------------------------------


def test_initial_mask_is_padded_to_the_image() -> None:
    region = trax.Mask.create(np.ones((5, 7), np.uint8), x=10, y=20)
    mask = decode_region(region, SIZE)
    expected = np.zeros(SIZE, np.uint8)
    expected[20:25, 10:17] = 1
    assert mask.dtype == np.uint8 and mask.flags.c_contiguous
    np.testing.assert_array_equal(mask, expected)


def test_initial_mask_that_starts_outside_the_image() -> None:
    pattern = np.arange(30).reshape(5, 6) % 2
    mask = decode_region(trax.Mask.create(pattern.astype(np.uint8), x=-2, y=-1), SIZE)
    np.testing.assert_array_equal(mask[:4, :4], pattern[1:, 2:])
    assert mask.shape == SIZE and mask.sum() == pattern[1:, 2:].sum()


def test_initial_mask_larger_than_the_image_is_cut() -> None:
    assert decode_region(trax.Mask.create(np.ones((80, 90), np.uint8)), SIZE).shape == SIZE


def test_rectangle_and_polygon_become_boxes() -> None:
    rectangle = trax.Rectangle.create(3.5, 4, 10, 20.25)
    np.testing.assert_allclose(decode_region(rectangle, SIZE), [3.5, 4, 10, 20.25])
    diamond = trax.Polygon.create([(10.0, 5.0), (20.0, 15.0), (10.0, 25.0), (0.0, 15.0)])
    np.testing.assert_allclose(decode_region(diamond, SIZE), [0, 5, 20, 20])


@pytest.mark.parametrize("region", [
    trax.Mask.create(np.zeros(SIZE, np.uint8)),
    trax.Mask.create(np.ones((5, 5), np.uint8), x=200, y=200),
    trax.Rectangle.create(5, 5, 0, 10),
    trax.Special.create(1),
])
def test_unusable_initial_regions(region: trax.Region) -> None:
    with pytest.raises(InputError):
        decode_region(region, SIZE)


@pytest.mark.parametrize("layout", [
    np.asfortranarray, lambda m: m.astype(bool), lambda m: np.repeat(m, 2, axis=1)[:, ::2], np.float32,
])
def test_masks_of_any_layout_arrive_unharmed(layout: Callable) -> None:
    mask = (np.random.default_rng(0).random(SIZE) > 0.6).astype(np.uint8)
    np.testing.assert_array_equal(encode_mask(layout(mask), SIZE).array(), mask)


def test_reported_masks_have_the_size_of_the_image() -> None:
    assert encode_mask(np.ones((10, 100), np.uint8), SIZE).size() == (SIZE[1], SIZE[0])


def test_reported_boxes_lie_around_the_mask_or_where_the_base_tracker_is() -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[5:9, 10:30] = 1
    prediction = Prediction(np.array([1.5, 2, 3, 4.25]), mask, 0.5)
    assert encode_box(prediction).bounds() == (10, 5, 20, 4)
    empty = replace(prediction, mask=np.zeros(SIZE, np.uint8))
    assert encode_box(empty).bounds() == (1.5, 2, 3, 4.25)


def test_grey_images_are_read_as_rgb(tmp_path: Path) -> None:
    grey = np.full(SIZE, 77, np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(read_frame(str(tmp_path / "grey.png")), np.dstack([grey] * 3))


def test_colours_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((*SIZE, 3), np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red)
    assert read_frame(str(tmp_path / "red.png"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_unreadable_images(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "frame.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match="frame.jpg"):
        read_frame(str(file))


# --- the protocol ------------------------------------------------------------------------------------------


EXPECTED = np.zeros(SIZE, np.uint8)
EXPECTED[6:16, 4:12] = 1


def test_noise_does_not_reach_the_protocol_and_one_process_serves_all_anchors(
    serve: Callable[[str], Session], frame: Path
) -> None:
    session = serve("noisy")
    assert session.client.get("profile") == "double-noisy"
    assert session.client.tracker_description == "AlphaRefine, profile double-noisy"
    for region in (MASK, trax.Rectangle.create(4, 6, 8, 10), MASK):
        mask, properties = session.initialize(frame, region)
        np.testing.assert_array_equal(mask, EXPECTED)
        assert properties == {"confidence": "1.000000", "profile": "double-noisy"}
        for _ in range(4):
            mask, properties = session.frame(frame)
            np.testing.assert_array_equal(mask, EXPECTED)
            assert properties["confidence"] == "0.750000"
    session.client.quit()
    assert session.end() == 0
    assert session.log.count(f"initialized by process {session.process.pid}") == 3
    assert "running profile double-noisy" in session.log
    for piece in ("whole line", r"\u2588 \xe9t\xe9", "native unfinished on stderr", "child unfinished"):
        assert piece in session.log


def test_bad_frames_repeat_the_last_state(serve: Callable[[str], Session], frame: Path, tmp_path: Path) -> None:
    session = serve("quiet")
    session.initialize(frame, MASK)
    (tmp_path / "damaged.jpg").write_bytes(frame.read_bytes()[:60])
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((20, 9, 3), np.uint8))
    for bad in ("damaged.jpg", "missing.jpg"):
        mask, properties = session.frame(tmp_path / bad)
        np.testing.assert_array_equal(mask, EXPECTED)
        assert properties["confidence"] == "0.000000"
    mask, properties = session.frame(tmp_path / "small.png")
    np.testing.assert_array_equal(mask, EXPECTED[:20, :9])
    assert properties["confidence"] == "0.000000"
    mask, properties = session.frame(frame)
    np.testing.assert_array_equal(mask, EXPECTED)
    assert properties["confidence"] == "0.750000"
    session.client.quit()
    assert session.end() == 0
    for cause in ("damaged.jpg: damaged", "missing.jpg: missing", "another size"):
        assert cause in session.log


def test_all_objects_of_a_session_are_tracked_and_more_may_come(serve: Callable[[str], Session], frame: Path) -> None:
    session = serve("quiet")
    assert session.client.get("multiobject")
    other, third = trax.Rectangle.create(8, 10, 20, 8), trax.Rectangle.create(40, 2, 6, 7)
    # Equal claims: what belongs to two is the earlier one's.
    expected = [EXPECTED, np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)]
    expected[1][10:18, 8:28] = 1
    expected[1] -= expected[1] * EXPECTED
    expected[2][2:9, 40:46] = 1

    def check(states: list[tuple[np.ndarray, dict]], confidences: list[str]) -> None:
        assert [properties["confidence"] for _, properties in states] == confidences
        for (mask, _), wanted in zip(states, expected):
            np.testing.assert_array_equal(mask, wanted)

    check(session.initialize_all(frame, MASK, other), ["1.000000"] * 2)
    check(session.frame_of_all(frame), ["0.750000"] * 2)
    check(session.frame_of_all(frame, third), ["0.750000", "0.750000", "1.000000"])
    check(session.frame_of_all(frame), ["0.750000"] * 3)
    check(session.frame_of_all(frame.with_name("missing.png")), ["0.000000"] * 3)
    check(session.initialize_all(frame, MASK), ["1.000000"])  # starts over
    with pytest.raises(trax.TraxException, match="missing.png"):
        session.frame_of_all(frame.with_name("missing.png"), third)
    assert session.end() == 1


def test_boxes_are_reported_where_they_are_asked_for(serve: Callable[..., Session], frame: Path) -> None:
    session = serve("quiet", "boxes")
    assert session.initialize(frame, MASK)[0].tolist() == [4, 6, 8, 10]
    states = session.frame_of_all(frame, trax.Rectangle.create(30, 20, 9.25, 5))
    assert [box.tolist() for box, _ in states] == [[4, 6, 8, 10], [30, 20, 9, 5]]
    session.client.quit()
    assert session.end() == 0


@pytest.mark.parametrize("name", ["static", "lite", "", "alpharefine-box"])
def test_the_tracker_of_the_environment_variable_is_served(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vot_wrapper.alpharefine import make_tracker
    from vot_wrapper.server import Session

    monkeypatch.setenv("ALPHAREFINE_TRACKER", name)
    tracker = make_tracker()
    assert tracker.profile.name == ("static" if name == "static" else "lite")
    assert Session(tracker)._report == ("boxes" if name == "alpharefine-box" else "masks")
    monkeypatch.setenv("ALPHAREFINE_TRACKER", "litte")
    with pytest.raises(InputError, match="no tracker 'litte'. Did you mean lite"):
        make_tracker()


def test_the_entries_of_trackers_ini_differ_in_one_line_only() -> None:
    for folder, root in ((ROOT, "."), (ROOT / "workspace", "..")):
        entries = configparser.ConfigParser()
        entries.read(folder / "trackers.ini")
        assert entries.sections() == ["AlphaRefine", "AlphaRefine-VOT2020", "AlphaRefine-Lite", "AlphaRefine-Box",
                                      "AlphaRefine-CSRT", "StaticBox"]
        for entry in map(dict, map(entries.__getitem__, entries.sections())):
            assert profile(entry.pop("env_alpharefine_tracker")) and entry.pop("label")
            assert entry == {"protocol": "traxpython", "command": "vot_wrapper.alpharefine", "paths": root,
                             "timeout": "120"}


def test_csrt_runs_or_says_how_it_would(frame: Path) -> None:
    environment = {**os.environ, "ALPHAREFINE_TRACKER": "csrt+lite"}
    with subprocess.Popen([sys.executable, "-m", "vot_wrapper.alpharefine"], cwd=ROOT, bufsize=0, env=environment,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_for_line(process, b"@@TRAX:hello")
        process.stdin.write(f'@@TRAX:initialize "4,6,8,10"\n@@TRAX:frame "file://{frame}"\n'.encode())
        if hasattr(cv2, "TrackerCSRT"):
            wait_for_line(process, b"@@TRAX:state")
        else:
            wait_for_line(process, b'@@TRAX:quit "trax.reason=InputError: OpenCV')
        process.stdin.close()
        assert process.wait(PATIENCE) == (0 if hasattr(cv2, "TrackerCSRT") else 1)


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_leaves_when_the_client_goes_or_asks(frame: Path, end: str) -> None:
    with raw_session("quiet", frame) as process:
        if end == "close":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert b"Traceback" not in process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("behaviour", ["slow", "finalising"])
def test_terminated_while_tracking(frame: Path, behaviour: str, number: int) -> None:
    with raw_session(behaviour, frame) as process:
        process.stdin.write(f'@@TRAX:frame "file://{frame}"\n'.encode())
        wait_for_line(process, b"tracking now")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert b"Traceback" not in rest and b"ignored" not in rest


def test_client_that_dies_while_tracking(frame: Path) -> None:
    with raw_session("noisy", frame) as process:
        process.stdout.close()
        process.stdin.write(f'@@TRAX:frame "file://{frame}"\n'.encode())
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_tracker_that_cannot_be_built_gives_its_reason(serve: Callable[[str], Session], frame: Path) -> None:
    session = serve("unbuildable")
    with pytest.raises(trax.TraxException, match=r"CheckpointError: no checkpoint h\\xe9re; put one there"):
        session.initialize(frame, MASK)
    assert session.end() == 1
    assert "Traceback" in session.log


def test_tracker_that_crashes_gives_its_reason(serve: Callable[[str], Session], frame: Path) -> None:
    session = serve("crashing")
    session.initialize(frame, MASK)
    session.frame(frame)
    session.frame(frame)
    with pytest.raises(trax.TraxException, match="RuntimeError: the double gave up"):
        session.frame(frame)
    assert session.end() == 1
    assert "Traceback" in session.log


def test_empty_initial_mask_gives_a_reason(serve: Callable[[str], Session], frame: Path) -> None:
    session = serve("quiet")
    with pytest.raises(trax.TraxException, match="no pixel inside the image"):
        session.initialize(frame, trax.Mask.create(np.zeros((3, 3), np.uint8)))
    assert session.end() == 1


def test_the_entry_module_imports_nothing_heavy() -> None:
    check = ("import sys, vot_wrapper.alpharefine as m; "
             "sys.exit(bool({'torch', 'numpy', 'cv2', 'trax'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
