"""`alpharefine track`: what is written, from which sources, and that it is whole or not there."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_fixtures import BOX, HEIGHT, STEP, WIDTH, Builder, MovingBox, box_option, track, write_images, write_video

from tracker_ar.errors import DataError
from tracker_ar.geometry import mask_from_box
from tracker_ar.run_lengths import coco_rle, encode_mask_line
from tracker_ar.video import overlay, results, sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "frames")


def masks_of(out: Path) -> dict[int, np.ndarray]:
    files = sorted((out / "masks").iterdir())
    return {int(file.stem): cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files}


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "boxes.csv", newline="") as file:
        return list(csv.DictReader(file))


def decode_rle(segmentation: dict) -> np.ndarray:
    values = np.arange(len(segmentation["counts"])) % 2
    return np.repeat(values, segmentation["counts"]).reshape(segmentation["size"], order="F")


def expected_mask(frame: int) -> np.ndarray:
    """The stub's mask in frame `frame`, from 0."""
    x, y, width, height = BOX
    return mask_from_box((x + STEP * frame, y, width, height - 1), (HEIGHT, WIDTH))


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir() if path.name.startswith(out.name) and path != out]


# ---- what is written


def test_one_target_in_a_folder_of_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    build = Builder()
    assert track(folder, box_option(), "--profile", "lite", "--out", out, build=build) == 0
    assert build.asked == ("lite", "auto", None) and build.fast
    assert track(folder, box_option(), "--plain", "--out", tmp_path / "plain", build=build) == 0
    assert not build.fast
    assert sorted(path.name for path in out.iterdir()) == [
        "boxes.csv", "masks", "masks.jsonl", "overlay.mp4", "target_1.txt", "target_1_boxes.txt",
        "target_1_confidence.value"]
    assert leftovers(out) == []

    masks = masks_of(out)
    assert list(masks) == [1, 2, 3, 4, 5, 6]
    for number, mask in masks.items():
        assert mask.dtype == np.uint8 and np.array_equal(mask, expected_mask(number - 1))

    rows = rows_of(out)
    assert [row["state"] for row in rows] == ["given"] + ["tracked"] * 5
    assert [row["image"] for row in rows] == [f"{number}.png" for number in range(1, 7)]
    assert [float(row["score"]) for row in rows] == pytest.approx([1, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert [float(row["x"]) for row in rows] == [BOX[0] + STEP * frame for frame in range(6)]
    assert {(row["y"], row["width"], row["height"]) for row in rows} == {("12.000", "12.000", "8.000")}
    assert {row["mask_pixels"] for row in rows} == {str(12 * 7)}

    assert (out / "target_1.txt").read_text().splitlines() == [
        encode_mask_line(expected_mask(frame)) for frame in range(6)]
    boxes = [line.split(",") for line in (out / "target_1_boxes.txt").read_text().splitlines()]
    assert np.array_equal(np.array(boxes, float), [(BOX[0] + STEP * frame, *BOX[1:]) for frame in range(6)])
    scores = (out / "target_1_confidence.value").read_text().splitlines()
    assert [float(score) for score in scores] == pytest.approx([1, 0.8, 0.7, 0.6, 0.5, 0.4])
    entries = [json.loads(line) for line in (out / "masks.jsonl").read_text().splitlines()]
    assert [(entry["frame"], entry["target"]) for entry in entries] == [(number, 1) for number in range(1, 7)]
    for frame, entry in enumerate(entries):
        assert np.array_equal(decode_rle(entry["segmentation"]), expected_mask(frame))

    printed = capsys.readouterr()
    assert "6 frames, " in printed.out and " fps; " in printed.out and str(out) in printed.out
    assert "6/6" in printed.err


def test_the_overlay_shows_the_targets_and_nothing_else(tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.avi")
    out = tmp_path / "out"
    assert track(source, box_option((30, 22, 12, 8)), "--out", out) == 0
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    image = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB).astype(int)
    inside, outside = image[24:27, 33:39].mean((0, 1)), image[40:].mean((0, 1))
    assert inside[0] - inside[2] > 50  # the first colour is red, on grey
    assert np.abs(outside - 90).max() < 12
    capture.release()


def test_several_targets_keep_their_order_and_do_not_overlap(folder: Path, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[14:24, 16:30] = 255
    cv2.imwrite(str(tmp_path / "second.png"), mask)
    out = tmp_path / "out"
    build = Builder(0.6, 0.9, 0.95)
    assert track(folder, box_option(), "--mask", tmp_path / "second.png", box_option((40, 30, 10, 10)),
                 "--out", out, build=build) == 0
    labels = masks_of(out)
    assert [set(np.unique(label)) for label in labels.values()] == [{0, 1, 2, 3}] * 6
    assert labels[1][15, 17] == 1  # equal scores in the first frame: the earlier target's
    assert labels[2][15, 19] == 2  # then the second has the higher score
    entries = [json.loads(line) for line in (out / "masks.jsonl").read_text().splitlines()]
    assert [(entry["frame"], entry["target"]) for entry in entries[:4]] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    for entry in entries:
        assert np.array_equal(decode_rle(entry["segmentation"]), labels[entry["frame"]] == entry["target"])
    for number in (1, 2, 3):
        lines = (out / f"target_{number}.txt").read_text().splitlines()
        assert lines == [encode_mask_line(label == number) for label in labels.values()]
    assert [row["target"] for row in rows_of(out)] == ["1", "2", "3"] * 6
    # The second target was given as a mask: the result is that mask, less what the first one has.
    assert np.array_equal(labels[1] == 2, (mask > 0) & (labels[1] != 1))


@pytest.mark.parametrize(("mask", "counts"), [
    ([[0, 0, 1], [1, 1, 1]], [1, 1, 1, 3]),  # down the columns: 0 1, 0 1, 1 1
    ([[1, 1], [0, 1]], [0, 1, 1, 2]),
    ([[0, 0], [0, 0]], [4]),
    ([[1, 1]], [0, 2]),
])
def test_coco_counts_run_down_the_columns_and_begin_with_background(mask: list, counts: list) -> None:
    array = np.array(mask, np.uint8)
    assert coco_rle(array) == {"size": list(array.shape), "counts": counts}


# ---- frames that cannot be used


def test_bad_frames_repeat_the_result_before_them(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    (folder / "4.png").write_bytes(b"")
    cv2.imwrite(str(folder / "5.png"), np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))
    out = tmp_path / "out"
    assert track(folder, box_option(), "--out", out) == 0
    rows = rows_of(out)
    assert [row["state"] for row in rows] == ["given", "tracked", *["repeated"] * 3, "tracked"]
    assert {row["x"] for row in rows[1:5]} == {rows[1]["x"]}
    assert float(rows[5]["x"]) == BOX[0] + 2 * STEP  # tracked on from the last good frame
    masks = masks_of(out)
    assert all(np.array_equal(masks[number], masks[2]) for number in (3, 4, 5))
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    capture.release()
    printed = capsys.readouterr()
    assert "3 of them could not be used" in printed.out
    assert "frame 3 (3.png) is skipped" in printed.err and "another size" in printed.err


def test_only_the_first_warnings_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_images(tmp_path / "frames", 12)
    for number in range(2, 12):
        (folder / f"{number}.png").write_bytes(b"not an image")
    assert track(folder, box_option(), "--no-video", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert printed.err.count("is skipped") == 5
    assert "10 of them could not be used" in printed.out


def test_a_video_that_ends_early_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sources, "_frame_count", lambda capture: 40)
    video = write_video(tmp_path / "clip.avi")
    assert track(video, box_option(), "--no-video", "--out", tmp_path / "out") == 0
    assert "announces 40 frames, but 34 of them" in capsys.readouterr().out


# ---- stopping, and failing


def stopping(frames: int, action: object) -> type:
    """A tracker that does `action` at its `frames`-th track()."""

    class Stopping(MovingBox):
        calls = 0

        def track(self, image: np.ndarray) -> object:
            Stopping.calls += 1
            if Stopping.calls == frames:
                action()
            return super().track(image)

    return Stopping


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_in_the_source_saves_what_there_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    read = sources._read_image

    def read_or_stop(file: Path) -> np.ndarray | None:
        if file.name == "4.png":
            os.kill(os.getpid(), signal.SIGINT)
        return read(file)

    monkeypatch.setattr(sources, "_read_image", read_or_stop)
    out = tmp_path / "out"
    assert track(folder, box_option(), "--out", out) == 130
    assert "stopped after frame 4" in capsys.readouterr().out
    assert list(masks_of(out)) == [1, 2, 3, 4]
    assert len(rows_of(out)) == len((out / "target_1.txt").read_text().splitlines()) == 4
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and capture.read()[0]
    capture.release()
    assert leftovers(out) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_finaliser_completes_the_frame(number: int, folder: Path, tmp_path: Path) -> None:
    class Finalised:
        def __del__(self) -> None:  # swallows what a handler would raise
            os.kill(os.getpid(), number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    tracker = stopping(3, Finalised)
    out = tmp_path / "out"
    assert track(folder, box_option(), "--out", out, build=lambda *_, **__: tracker()) == 130
    assert list(masks_of(out)) == [1, 2, 3, 4]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_ctrl_c_while_writing_completes_the_frame(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signal_in_the_middle(frame: int, write: object) -> object:
        def add_target(self: results.ResultsFolder, result: object, number: int) -> None:
            if result.number == frame:
                os.kill(os.getpid(), signal.SIGINT)
            write(self, result, number)

        return add_target

    monkeypatch.setattr(results.ResultsFolder, "_add_target",
                        signal_in_the_middle(4, results.ResultsFolder._add_target))
    out = tmp_path / "out"
    assert track(folder, box_option(), "--out", out) == 130
    assert list(masks_of(out)) == [1, 2, 3, 4]
    assert len(rows_of(out)) == 4


def test_ctrl_c_before_the_first_result_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    class Interrupted(MovingBox):
        def __init__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        track(folder, box_option(), "--out", out, build=lambda *_, **__: Interrupted())
    assert not out.exists() and leftovers(out) == []


def test_a_full_disk_is_reported_and_nothing_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "00000003.png":
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "out"
    with pytest.raises(DataError, match="No space left on device.*removed; free some space"):
        track(folder, box_option(), "--out", out)
    assert not out.exists() and leftovers(out) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_disk_that_is_full_when_files_are_closed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_full(self: results.ResultsFolder, name: str) -> object:
        file = open("/dev/full" if name == "masks.jsonl" else self._temporary / name, "w")
        self._files.append(file)
        return file

    monkeypatch.setattr(results.ResultsFolder, "_open", open_full)
    out = tmp_path / "out"
    with pytest.raises(DataError, match="No space left"):
        track(folder, box_option(), "--out", out)
    assert not out.exists() and leftovers(out) == []


def test_a_failing_tracker_keeps_what_was_done(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="out of memory"):
        track(folder, box_option(), "--out", out, build=lambda *_, **__: stopping(3, fail)())
    assert list(masks_of(out)) == [1, 2, 3] and leftovers(out) == []
    assert f"The results up to frame 3 are in {out}" in capsys.readouterr().err


def test_a_video_that_cannot_be_read_back_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def lose_frames(self: overlay.VideoFile, image: np.ndarray) -> None:
        self._frames += 1

    monkeypatch.setattr(overlay.VideoFile, "add", lose_frames)
    out = tmp_path / "out"
    assert track(folder, box_option(), "--out", out) == 1
    assert not list(out.glob("overlay*")) and len(masks_of(out)) == 6
    assert "could not be read back" in capsys.readouterr().err


def test_the_video_falls_back_to_what_can_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "CODECS", (("????", ".nothing"), ("MJPG", ".avi")))
    assert track(folder, box_option(), "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "overlay.avi").stat().st_size > 0
    monkeypatch.setattr(overlay, "CODECS", (("????", ".nothing"),))
    with pytest.raises(DataError, match="can write no video.*--no-video"):
        track(folder, box_option(), "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists() and leftovers(tmp_path / "none") == []



@pytest.mark.parametrize("name", ["boxes.csv", "thesis.tex"])
def test_what_appears_in_the_folder_meanwhile_is_kept(name: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write() -> None:
        out.mkdir()
        (out / name).write_text("of somebody else")

    with pytest.raises(DataError, match=r"cannot be put there.*they are complete in .*out\.unfinished-\d+"):
        track(folder, box_option(), "--no-video", "--out", out, build=lambda *_, **__: stopping(3, write)())
    assert [path.name for path in out.iterdir()] == [name]
    (unfinished,) = leftovers(out)
    assert len(masks_of(tmp_path / unfinished)) == len(rows_of(tmp_path / unfinished)) == 6
