"""Where frames come from: a video file, a folder of images, a camera.

Frames are numbered from 1, as in the VOT layout.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.errors import DataError, InputError
from tracker_ar.images import read_image
from tracker_ar.places import expanded
from tracker_ar.quiet import quiet_opencv

IMAGE_SUFFIXES = frozenset({".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FALLBACK_FPS = 30.0  # for folders of images and cameras that do not say
VIDEO_PATIENCE = 300  # frames in a row that may be damaged before the rest of a video is given up
CAMERA_PATIENCE = 30  # frames in a row that a camera may fail to give


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    number: from 1. name: of the image file, empty for videos and cameras. image: (H, W, 3) uint8 RGB, or None
    when it could not be decoded.
    """

    number: int
    name: str
    image: np.ndarray | None


@dataclass(frozen=True)
class Source:
    """An open source.

    name: for the names of results. fps: of a video made from it. length: how many frames
    `frames` is expected to give, None where that is not known. frames: close it to let go of the device or
    file; it is empty where a video ends before its first frame.
    """

    name: str
    fps: float
    length: int | None
    frames: Generator[Frame, None, None]


def open_source(place: str, start: int = 1, end: int | None = None) -> Source:
    """Open `place`: a path, or a camera's number where no file has that name.

    start, end: the first and last frame to give, counted from 1. Raises InputError for a range that cannot
    be, DataError with cause and fix for a source that is missing or holds nothing to see.
    """
    if start < 1 or (end is not None and end < start):
        raise InputError(f"--start {start} and --end {end} leave no frame: frames count from 1, and the end "
                         "is not before the start.")
    if not place.strip():
        raise InputError("The source has an empty name: give a path, or a camera's number (0 is the first).")
    path = expanded(place)
    if path.is_dir():
        return _open_folder(path, start, end)
    if path.is_file():
        return _open_video(path, start, end)
    if place.isascii() and place.isdigit():
        return _open_camera(int(place), start, end)
    raise DataError(f"{place}: there is no such video file or folder of images; give a path, or a camera's "
                    "number (0 is the first).")


# ---- a folder of images


def _open_folder(folder: Path, start: int, end: int | None) -> Source:
    try:
        files = _images_in(folder)
        folders = [] if files else sorted(child for child in folder.iterdir() if child.is_dir())
        below = [child for child in folders if _images_in(child)]
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror}).") from error
    if not files:
        endings = " ".join(sorted(IMAGE_SUFFIXES))
        fix = f"the folder {below[0]} has some" if below else f"these endings count: {endings}"
        raise DataError(f"{folder}: no images in this folder; {fix}.")
    chosen = files[start - 1 : end]
    if not chosen:
        raise DataError(f"{folder}: has {len(files)} images, so there is none to start with at {start}.")
    frames = (Frame(number, file.name, _read_image(file)) for number, file in enumerate(chosen, start))
    return Source(folder.resolve().name, FALLBACK_FPS, len(chosen), frames)


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order: 2.jpg before 10.jpg. Hidden files do not count."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES
             and not file.name.startswith(".") and not file.is_dir()]
    return sorted(files, key=lambda file: _natural_key(file.name))


def _natural_key(name: str) -> tuple[list[str | int], str]:
    # Text and numbers alternate, so equal positions can always be compared.
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _read_image(file: Path) -> np.ndarray | None:
    try:
        return read_image(file)
    except DataError:
        return None


# ---- a video file


def _open_video(path: Path, start: int, end: int | None) -> Source:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{path}: this is one image; give the folder that holds the images of the video.")
    if _is_text(path):  # FFmpeg would render it
        raise DataError(f"{path}: this is a text file, not a video.")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise DataError(f"{path}: cannot be opened as a video; it is damaged, not a video, or of a format "
                        "that this OpenCV cannot read (convert it to MP4, or give a folder of its frames).")
    total = _frame_count(capture)
    length = None
    if total is not None:
        length = max((total if end is None else min(total, end)) - start + 1, 1)
    return Source(path.stem, _fps(capture), length, _video_frames(capture, start, end, total or 0))


def _video_frames(capture: cv2.VideoCapture, start: int, end: int | None, total: int) -> Generator[Frame, None, None]:
    """A failure to grab is the end of the video, or a damaged frame if good ones follow before `total`."""
    given = number = 0
    with _released(capture):
        while (end is None or number < end) and number - given <= VIDEO_PATIENCE:
            number += 1
            if not capture.grab():
                if number >= total:
                    return
                continue
            image = _rgb(*capture.retrieve()) if number >= start else None
            yield from (Frame(lost, "", None) for lost in range(max(given + 1, start), number))
            given = number
            if number >= start:
                yield Frame(number, "", image)


def _rgb(decoded: bool, image: np.ndarray | None) -> np.ndarray | None:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if decoded and image is not None else None


def _is_text(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    return bool(head) and all(byte >= 32 or byte in b"\t\n\f\r\x1b" for byte in head)


def _frame_count(capture: cv2.VideoCapture) -> int | None:
    """What the container announces, an estimate in some formats; None for no sane number."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e8 else None


def _fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 1 <= fps <= 1000 else FALLBACK_FPS


# ---- a camera


def _open_camera(index: int, start: int, end: int | None) -> Source:
    with quiet_opencv():  # every back end would report its failure at length
        try:
            capture = cv2.VideoCapture(index)
        except cv2.error:
            capture = cv2.VideoCapture()
    if not capture.isOpened():
        raise DataError(f"Camera {index} cannot be opened: it is not there, in use by another program, or "
                        "may not be used by this one. If you meant a file or folder, check the path.")
    length = None if end is None else end - start + 1
    return Source(f"camera-{index}", _fps(capture), length, _camera_frames(capture, index, start, end))


def _camera_frames(
    capture: cv2.VideoCapture, index: int, start: int, end: int | None
) -> Generator[Frame, None, None]:
    number = failures = 0
    with _released(capture):
        while end is None or number < end:
            number += 1
            decoded, image = capture.read()
            failures = 0 if decoded else failures + 1
            if failures == CAMERA_PATIENCE:
                raise DataError(f"Camera {index} gives no more frames: was it unplugged?")
            if number >= start:
                yield Frame(number, "", _rgb(decoded, image))


@contextlib.contextmanager
def _released(capture: cv2.VideoCapture) -> Iterator[None]:
    try:
        yield
    finally:
        capture.release()
