"""`alpharefine track`: sources and targets, good and bad, and where results may go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_fixtures import BOX, HEIGHT, WIDTH, Builder, arguments, box_option, picture, track, write_images, write_video

from tracker_ar.errors import DataError, InputError
from tracker_ar.video import sources, targets
from tracker_ar.video.results import VOT_ENDINGS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "frames", 12)


# ---- sources


def test_images_come_in_natural_order_in_rgb(folder: Path) -> None:
    (folder / "notes.txt").write_text("not an image")
    (folder / "._1.png").write_bytes(b"what another system left")
    source = sources.open_source(str(folder))
    frames = list(source.frames)
    assert source.length == 12 and source.name == "frames"
    assert [frame.number for frame in frames] == list(range(1, 13))
    assert [frame.name for frame in frames] == [f"{number}.png" for number in range(1, 13)]
    for index, frame in enumerate(frames):
        assert np.array_equal(frame.image, picture(index))


@pytest.mark.parametrize(("names", "expected"), [
    (["b10.png", "b9.png", "a.png"], ["a.png", "b9.png", "b10.png"]),
    (["7.png", "x.png", "007a.png", "07.png"], ["07.png", "7.png", "007a.png", "x.png"]),
    (["²3.png", "3.PNG"], ["3.PNG", "²3.png"]),
])
def test_natural_order_of_odd_names(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in sources._images_in(tmp_path)] == expected


@pytest.mark.parametrize("kind", ["images", "video"])
def test_a_range_of_frames(kind: str, folder: Path, tmp_path: Path) -> None:
    place = folder if kind == "images" else write_video(tmp_path / "clip.avi", 12)
    source = sources.open_source(str(place), 3, 6)
    frames = list(source.frames)
    assert source.length == 4
    assert [frame.number for frame in frames] == [3, 4, 5, 6]
    for frame in frames:  # Motion JPEG is not exact
        assert np.abs(frame.image.astype(int) - picture(frame.number - 1)).mean() < 4
    assert sources.open_source(str(place), 11).length == 2
    with pytest.raises(DataError, match="none to start with at 13|no frame 13; it has fewer"):
        track(place, box_option(), "--start", "13", "--out", tmp_path / "out")
    for start, end in ((0, None), (5, 4)):
        with pytest.raises(InputError, match="leave no frame"):
            sources.open_source(str(place), start, end)


def test_a_video_says_its_speed_and_length(tmp_path: Path) -> None:
    source = sources.open_source(str(write_video(tmp_path / "clip.avi")))
    assert (source.name, source.fps, source.length) == ("clip", 12.0, 6)
    assert [frame.name for frame in source.frames] == [""] * 6


class Damaged:
    """Stands for cv2.VideoCapture: `pattern` says which frames can be grabbed (1), none after its end."""

    def __init__(self, pattern: str, total: float) -> None:
        self.pattern, self.total, self.grabs = pattern, total, 0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, setting: int) -> float:
        return self.total if setting == cv2.CAP_PROP_FRAME_COUNT else 25.0

    def grab(self) -> bool:
        self.grabs += 1
        return self.pattern[self.grabs - 1 : self.grabs] == "1"

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, picture(self.grabs)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(("pattern", "total", "start", "end", "expected"), [
    ("111111", 6, 1, None, "111111"),
    ("110011", 6, 1, None, "110011"),  # damaged in the middle
    ("110011", 6, 1, 5, "11001"),
    ("110011", 6, 4, None, "011"),
    ("111000", 6, 1, None, "111"),  # cut off
    ("111111", 4, 1, None, "111111"),  # the container announces too few, too many, or nothing
    ("1111", 9, 1, None, "1111"),
    ("1111", 0, 1, None, "1111"),
    ("11", 1e7, 1, None, "11"),
    ("001111", 6, 1, 4, "0011"),
])
def test_damaged_stretches_of_a_video(
    pattern: str, total: float, start: int, end: int | None, expected: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0")
    capture = Damaged(pattern, total)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    frames = list(sources.open_source(str(tmp_path / "clip.mp4"), start, end).frames)
    assert [frame.number for frame in frames] == list(range(start, start + len(expected)))
    assert "".join(str(int(frame.image is not None)) for frame in frames) == expected
    assert all(np.array_equal(frame.image[:, :, ::-1], picture(frame.number)) for frame in frames
               if frame.image is not None)
    assert capture.grabs < 1000


def test_grey_16_bit_and_transparent_images_are_read(tmp_path: Path) -> None:
    grey = picture(0)[:, :, 0]
    for number, image in enumerate((grey, grey.astype(np.uint16) * 257, np.dstack([picture(0), grey])), 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    for frame in sources.open_source(str(tmp_path)).frames:
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.dtype == np.uint8
        assert np.array_equal(frame.image[..., 2], grey if frame.number < 3 else picture(0)[:, :, 0])


def test_sources_that_are_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("FFmpeg would make a film of this\n" * 100)
    (tmp_path / "broken.mp4").write_bytes(b"\0\1\2\3" * 1000)
    (tmp_path / "nothing.mp4").write_bytes(b"")
    for name, message in {
        "absent.mp4": "there is no such video file",
        "empty": "no images in this folder; these endings count",
        ".": "no images in this folder; the folder .*frames has some",
        "notes.txt": "is a text file",
        "broken.mp4": "cannot be opened as a video",
        "nothing.mp4": "cannot be opened as a video",
        "frames/1.png": "is one image; give the folder",
    }.items():
        with pytest.raises(DataError, match=message):
            sources.open_source(str(tmp_path / name))


def test_a_first_frame_that_cannot_be_decoded(folder: Path, tmp_path: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"first frame \(1.png\).*--start"):
        track(folder, box_option(), "--out", tmp_path / "out")
    assert track(folder, box_option(), "--start", "2", "--no-video", "--out", tmp_path / "out") == 0
    assert sorted(file.name for file in (tmp_path / "out" / "masks").iterdir())[0] == "00000002.png"


class Camera:
    """Stands for cv2.VideoCapture with a camera: three frames, one failure, then as `then` says."""

    def __init__(self, opens: bool = True, then: str = "unplugged") -> None:
        self.opens, self.then, self.reads, self.released = opens, then, 0, False

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def get(self, setting: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.reads += 1
        if self.reads == 5 and self.then == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        good = self.reads <= 5 and self.reads != 3
        return good, picture(self.reads) if good else None

    def release(self) -> None:
        self.released = True


def test_a_camera_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera(opens=False))
    with pytest.raises(DataError, match="Camera 3 cannot be opened"):
        sources.open_source("3")


def test_a_camera_runs_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                    capsys: pytest.CaptureFixture) -> None:
    camera = Camera(then="ctrl-c")
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: camera)
    monkeypatch.chdir(tmp_path)
    assert track("0", box_option(), "--no-video") == 130
    assert len(list((tmp_path / "camera-0-tracked" / "masks").iterdir())) == 5
    printed = capsys.readouterr().out
    assert "stopped after frame 5" in printed and "1 of them could not be used" in printed
    assert camera.released


def test_a_camera_that_is_unplugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera())
    with pytest.raises(DataError, match="unplugged"):
        track("0", box_option(), "--no-video", "--out", tmp_path / "out")
    # What was seen until then is kept.
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 5 + sources.CAMERA_PATIENCE - 1


# ---- targets


def test_targets_keep_the_order_of_the_command_line() -> None:
    args = arguments("x.mp4", "--mask", "a.png", "--box", "1,2,3,4", "--mask", "b.png")
    assert args.targets == [Path("a.png"), (1.0, 2.0, 3.0, 4.0), Path("b.png")]
    for text in ("1,2,3", "1,2,3,4,5", "a,b,c,d", ""):
        with pytest.raises(SystemExit):
            arguments("x.mp4", f"--box={text}")


def test_targets_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    small, empty, no_image = tmp_path / "small.png", tmp_path / "empty.png", tmp_path / "text.png"
    cv2.imwrite(str(small), np.full((HEIGHT, WIDTH - 1), 255, np.uint8))
    cv2.imwrite(str(empty), np.zeros((HEIGHT, WIDTH), np.uint8))
    no_image.write_text("hello")
    for option, error, message in (
        (box_option((WIDTH, 5, 10, 10)), InputError, "--box 64,5,10,10: .*outside the image of 64 x 48"),
        (box_option((5, 5, 0, 10)), InputError, "--box 5,5,0,10: .*positive width"),
        ("--box=nan,5,5,5", InputError, "finite"),
        (f"--mask={small}", InputError, "small.png: The mask is 63 x 48, the image 64 x 48"),
        (f"--mask={empty}", InputError, "empty.png: The mask marks no pixel"),
        (f"--mask={no_image}", DataError, "not an image"),
        (f"--mask={tmp_path / 'absent.png'}", DataError, "absent.png: missing"),
        ("--no-video", InputError, "Nothing to follow: give a target"),
    ):
        with pytest.raises(error, match=message):
            track(folder, option, "--out", tmp_path / "out")
    with pytest.raises(InputError, match="256 targets are too many"):
        track(folder, *[box_option()] * 256, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_in_colour_and_with_transparency(tmp_path: Path) -> None:
    target = np.zeros((HEIGHT, WIDTH), np.uint8)
    target[5:9, 6:20] = 255
    zero = np.zeros_like(target)
    for name, image in {
        "grey": target // 255,
        "16bit": target.astype(np.uint16) * 200,
        "red": np.dstack([zero, zero, target]),
        "opaque": np.dstack([target, target, target, zero + 255]),
        "transparent": np.dstack([zero + 255, zero + 255, zero + 255, target]),
    }.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        mask = targets.read_mask(tmp_path / f"{name}.png")
        assert mask.dtype == np.uint8 and np.array_equal(mask, target // 255), name


def test_boxes_drawn_with_the_mouse(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    drawn = np.array([[10, 12, 12, 8], [3, 3, 0, 0], [30, 20, 12, 9]])
    monkeypatch.setattr(cv2, "selectROIs", lambda *_, **__: drawn)
    build = Builder()
    assert track(folder, "--select", "--no-video", "--out", tmp_path / "out", build=build) == 0
    assert len(build.tracker.boxes) == 2  # a click without dragging is no box
    monkeypatch.setattr(cv2, "selectROIs", lambda *_, **__: ())
    with pytest.raises(InputError, match="No box was drawn"):
        track(folder, "--select", "--out", tmp_path / "none")


def test_boxes_drawn_on_a_large_frame_are_scaled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    drawn = [[10, 20, 30, 40]]
    monkeypatch.setattr(cv2, "selectROIs", lambda _, image, **__: shown.append(image.shape) or drawn)
    assert targets.select_boxes(np.zeros((1440, 2560, 3), np.uint8)) == [(20.0, 40.0, 60.0, 80.0)]
    assert shown == [(720, 1280, 3)]


@pytest.mark.parametrize(("stderr", "cause"), [
    ("qt.qpa.xcb: could not connect to display", "no display can be reached"),
    ("cv2.error: The function is not implemented. Rebuild the library", "opencv-python-headless"),
])
def test_no_window_can_be_opened(stderr: str, cause: str, folder: Path, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 134, "", stderr))
    with pytest.raises(InputError, match=f"{cause}.*--box"):
        track(folder, "--select", "--out", tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_without_a_display_select_does_not_end_the_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match="--select cannot open a window"):
        track(folder, "--select", "--out", tmp_path / "out")


# ---- where results go


def test_results_that_are_there_are_replaced_only_by_force(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert track(folder, box_option(), box_option(), "--out", out) == 0
    before = (out / "boxes.csv").read_bytes()
    with pytest.raises(InputError, match="holds results already.*--force"):
        track(folder, box_option(), "--out", out)
    assert (out / "boxes.csv").read_bytes() == before
    assert track(folder, box_option(), "--end", "4", "--no-video", "--force", "--out", out) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["boxes.csv", "masks", "masks.jsonl", *(f"target_1{ending}" for ending in VOT_ENDINGS)]
    assert len(list((out / "masks").iterdir())) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out"]


def test_a_folder_with_other_things_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    for out in (folder, tmp_path):
        with pytest.raises(InputError, match="holds something else"):
            track(folder, box_option(), "--force", "--out", out)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        track(folder, box_option(), "--force", "--out", tmp_path / "file")
    assert len(list(folder.iterdir())) == 12


def test_an_empty_folder_is_used_and_parents_are_made(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert track(folder, box_option(), "--no-video", "--out", tmp_path / "out") == 0
    assert track(folder, box_option(), "--no-video", "--out", tmp_path / "a" / "b") == 0
    assert (tmp_path / "a" / "b" / "boxes.csv").is_file()


def test_a_place_where_nothing_can_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written .Not a directory.*--out"):
        track(folder, box_option(), "--out", tmp_path / "file" / "out")


def test_the_default_folder_has_the_name_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clip.avi")
    monkeypatch.chdir(tmp_path)
    assert track("clip.avi", box_option(BOX), "--no-video") == 0
    assert (tmp_path / "clip-tracked" / "boxes.csv").is_file()
