"""What can be tracked: uploaded videos and images, the camera of the browser, rendered examples."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import AsyncIterable, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from tracker_ar.demo.limits import Limits, Refused
from tracker_ar.errors import DataError
from tracker_ar.images import FORMATS, TooLarge, decode_image, image_header
from tracker_ar.video.sources import Frame, Source, open_source

CAMERA_FPS = 15.0  # the page sends no more
LENGTH_BYTES = 8  # before each file of an upload, big endian
# How the containers begin that are handed to FFmpeg: bytes at an offset. It would take other things as well,
# among them play lists that name files of this computer and addresses to fetch.
CONTAINERS = ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "),
              (0, b"OggS"), (0, b"FLV\x01"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"),
              (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"))
NOTHING_YET = Frame(0, "", None)  # from the camera, so that whoever waits can look up
TRANSPORT_STREAM = 188  # bytes from one sync byte, 0x47, to the next (ISO 13818-1)


@dataclass(frozen=True)
class Clip:
    """Frames to track in, of checked size.

    kind: 'video', 'images', 'camera' or 'example'.
    start: number of the frame in which targets are given, counted from 1.
    first: that frame, (H, W, 3) uint8 RGB.
    length: how many frames will come from there on, None where that is not known.
    announced: how many there are in all, None where that is not known.
    open: gives the frames from that number on, every time anew. boxes: targets proposed, x, y, w, h.
    """

    kind: str
    first: np.ndarray
    length: int | None
    announced: int | None
    fps: float
    open: Callable[[int], Source]
    boxes: tuple[tuple[float, ...], ...] = ()
    start: int = 1


def starting_at(clip: Clip, start: object) -> Clip:
    """The clip, to be tracked from frame `start` on. Raises Refused where there is no such frame."""
    if not isinstance(start, int) or not 1 <= start <= (clip.announced or 1):
        raise Refused(400, "There is no such frame.")
    first, length, _ = _first_frame(clip.open, start)
    return replace(clip, first=first, length=length, start=start)


async def receive_files(chunks: AsyncIterable[bytes], folder: Path, limits: Limits) -> list[Path]:
    """Write the files of an upload into `folder`, named by their number alone.

    chunks: the body of the request, every file preceded by its length. Raises Refused for a body that is not
    of this form, ends early, or goes beyond the limits.
    """
    files: list[Path] = []
    total = missing = 0
    head = b""
    out: BinaryIO | None = None
    try:
        async for chunk in chunks:
            total += len(chunk)
            check_upload_size(total, limits)
            view = memoryview(chunk)
            while view:
                if missing and out is not None:
                    taken = view[:missing]
                    out.write(taken)
                    missing -= len(taken)
                    view = view[len(taken):]
                    continue
                need = LENGTH_BYTES - len(head)
                head += bytes(view[:need])
                view = view[need:]
                if len(head) == LENGTH_BYTES:
                    missing, head = int.from_bytes(head, "big"), b""
                    check_upload_size(missing, limits)
                    if len(files) == limits.frames:
                        raise Refused(413, f"More than {limits.frames} images: choose fewer.")
                    if out:
                        out.close()
                    files.append(folder / f"{len(files) + 1:08d}")
                    out = open(files[-1], "wb")
    finally:
        if out:
            out.close()
    if missing or head or not files:
        raise Refused(400, "The upload is not complete; try again.")
    return files


def check_upload_size(size: int, limits: Limits) -> None:
    """Raises Refused when an upload of `size` bytes is too large."""
    if size > limits.upload_bytes:
        raise Refused(413, f"That is more than {limits.upload_bytes / 2**20:.0f} MB. Choose a shorter video, "
                           "or start alpharefine demo with a larger --max-upload.")


def open_files(files: Sequence[Path], limits: Limits) -> Clip:
    """The clip in uploaded files: one video, or images in their order. Raises Refused for anything else."""
    if len(files) == 1 and _is_video(files[0]):
        return _open_video(files[0], limits)
    if any(map(_is_video, files)):
        raise Refused(415, "There is a video among several files: choose one video, or images only.")
    for number, file in enumerate(files, 1):
        ending = _image_ending(file, limits, f"Image {number}" if len(files) > 1 else "The file")
        file.rename(file.with_suffix(ending))
    return _clip("images", files[0].parent, limits, len(files))


def _is_video(file: Path) -> bool:
    with open(file, "rb") as opened:
        head = opened.read(TRANSPORT_STREAM + 1)
    if len(head) > TRANSPORT_STREAM and head[0] == head[TRANSPORT_STREAM] == 0x47:
        return True
    return any(head[offset : offset + len(mark)] == mark for offset, mark in CONTAINERS)


def _open_video(file: Path, limits: Limits) -> Clip:
    capture = cv2.VideoCapture(str(file))  # the size, before the first frame is decoded
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    capture.release()
    _check_pixels(int(width), int(height), limits, "The video")
    try:
        whole = open_source(str(file))
        whole.frames.close()
    except DataError as error:
        raise Refused(415, "The file cannot be opened as a video: it is damaged, or of a format that OpenCV "
                           "cannot read here. Convert it to MP4 (H.264) or WebM.") from error
    return _clip("video", file, limits, whole.length)


def _clip(kind: str, place: Path, limits: Limits, announced: int | None) -> Clip:
    def open_frames(start: int) -> Source:
        return open_source(str(place), start, start + limits.frames - 1)

    first, length, fps = _first_frame(open_frames, 1)
    height, width = first.shape[:2]
    _check_pixels(width, height, limits, "The first frame")
    return Clip(kind, first, length, announced, fps, open_frames)


def _first_frame(open_frames: Callable[[int], Source], start: int) -> tuple[np.ndarray, int | None, float]:
    """Frame `start`, how many there are from it on, and the fps."""
    source = open_frames(start)
    with contextlib.closing(source.frames):
        first = next(source.frames, None)
    if first is None or first.image is None:
        raise Refused(415, f"Frame {start} cannot be decoded: the file is damaged there or holds no picture.")
    return first.image, source.length, source.fps


def _image_ending(file: Path, limits: Limits, what: str) -> str:
    try:
        kind, _, _ = image_header(file.read_bytes(), what, most_pixels=limits.pixels)
    except TooLarge as error:
        raise Refused(413, f"{error}: make it smaller.") from None
    except DataError as error:
        raise Refused(415, f"{what} is neither a video nor an image that can be read here. Videos: MP4, MOV, "
                           "WebM, MKV, AVI, OGG, MPEG. Images: JPEG, PNG, WebP, BMP, TIFF, PPM.") from error
    return FORMATS[kind]


def _check_pixels(width: int, height: int, limits: Limits, what: str) -> None:
    if width * height > limits.pixels:
        raise Refused(413, f"{what} is {width} x {height} pixels, more than {limits.pixels / 1e6:.1f} "
                           "million: make it smaller.")


# ---- the camera of the browser


class CameraFrames:
    """Frames that arrive one by one while the ones before are tracked."""

    def __init__(self, first: np.ndarray, limits: Limits) -> None:
        self.first = first
        self._limits = limits
        self._waiting: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=2)

    def add(self, image: np.ndarray | None) -> None:
        """Give the next frame, None for one that cannot be decoded. Raises Refused when it is too early."""
        try:
            self._waiting.put_nowait(image)
        except queue.Full:
            raise Refused(429, "The frames before are not tracked yet.") from None

    def clip(self) -> Clip:
        """As a clip, which can be opened once."""
        return Clip("camera", self.first, None, None, CAMERA_FPS,
                    lambda start: Source("camera", CAMERA_FPS, None, self._frames()))

    def _frames(self) -> Generator[Frame, None, None]:
        """NOTHING_YET where no frame has come for a moment, so that whoever waits can look up."""
        yield Frame(1, "", self.first)
        number = 1
        while number < self._limits.frames:
            try:
                image = self._waiting.get(timeout=0.1)
            except queue.Empty:
                yield NOTHING_YET
                continue
            number += 1
            yield Frame(number, "", image)


def decode_picture(data: bytes, limits: Limits) -> np.ndarray:
    """A picture of the camera as (H, W, 3) uint8 RGB. Raises Refused for all but a JPEG of proper size."""
    try:
        return decode_image(data, "The camera's picture", ["JPEG"], limits.pixels)
    except TooLarge as error:
        raise Refused(413, f"{error}: make it smaller.") from None
    except DataError:
        raise Refused(415, "The camera's picture cannot be decoded.") from None
