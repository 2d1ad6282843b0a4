"""Image files: what they are read as, and what is refused before it takes memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tracker_ar.errors import DataError
from tracker_ar.images import FORMATS, TooLarge, decode_image, image_header, read_image, read_labels, read_visible

ROOT = Path(__file__).resolve().parents[1]
RGB = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (40, 56), np.uint16)


def encoded(pixels: np.ndarray, ending: str) -> bytes:
    return cv2.imencode(ending, pixels)[1].tobytes()


def saved(kind: str, mode: str = "RGB", orientation: int = 1) -> bytes:
    image = Image.fromarray(RGB).convert(mode)
    tags = image.getexif()
    tags[274] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=tags)
    return file.getvalue()


@pytest.mark.parametrize("data", [
    *(encoded(RGB, ending) for ending in FORMATS.values()),
    *(encoded(RGB[..., 0], ending.replace("ppm", "pgm")) for ending in FORMATS.values()),
    encoded(np.dstack([RGB, RGB[..., :1]]), ".png"), *(encoded(DEEP, ending) for ending in (".png", ".pgm", ".tif")),
    saved("PNG", "P"), saved("PNG", "1"), saved("JPEG", "CMYK"), saved("TIFF", "CMYK"),
    *(saved(kind, orientation=turn) for kind in ("JPEG", "PNG", "TIFF", "WEBP") for turn in (3, 6)),
])
def test_pixels_are_those_of_opencv(data: bytes) -> None:
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    found = decode_image(data, "image")
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_annotated_images_are_read_as_stored(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "turned"
    file.write_bytes(saved(kind, orientation=6))
    assert read_image(file).shape == (56, 40, 3)
    assert read_image(file, upright=False).shape == (40, 56, 3)


def test_sizes_are_refused_by_the_header() -> None:
    data = encoded(RGB, ".png")
    assert image_header(data[:60], "image") == ("PNG", 56, 40)
    for read in (decode_image, image_header):
        with pytest.raises(TooLarge, match="^Image 2 is 56 x 40 pixels"):
            read(data, "Image 2", most_pixels=56 * 40 - 1)
        with pytest.raises(DataError, match="not an image of the kinds JPEG"):
            read(data, "image", formats=["JPEG"])
    for damaged in (b"", b"no image", data[:60], encoded(RGB, ".jpg")[:40]):
        with pytest.raises(DataError, match="^image: damaged"):
            decode_image(damaged, "image")


def two_sizes(side: int) -> bytes:
    """A TIFF that says 64 x 64 to those who heed the last tag of a kind, and `side` to those who heed the first."""
    rows = zlib.compress(bytes(side * side))
    tags = [(256, side), (256, 64), (257, side), (257, 64), (258, 8), (259, 8), (262, 1), (273, 200), (277, 1),
            (278, side), (279, len(rows))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\0") + rows


def test_a_file_of_two_sizes_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "frame.tif"
    file.write_bytes(two_sizes(8000))
    assert image_header(file.read_bytes(), "image") == ("TIFF", 64, 64)
    program = ("import resource, sys; from tracker_ar.images import *; from tracker_ar.errors import DataError\n"
               "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak()\n"
               "try: print(read_image(sys.argv[1]).shape)\n"
               "except DataError: print(peak() - before)")
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", program, file], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # KiB; OpenCV takes 430 MB


def test_a_jpeg_of_two_sizes_is_refused() -> None:
    data = encoded(RGB, ".jpg")
    at = data.index(b"\xff\xc0")
    header = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    larger = header[:5] + struct.pack(">HH", 8000, 8000) + header[9:]
    with pytest.raises(DataError, match="damaged"):
        decode_image(data[:at] + larger + data[at:], "image")


@pytest.mark.parametrize("read", [read_image, read_labels, read_visible])
def test_what_cannot_be_read_is_named(read: Callable, tmp_path: Path) -> None:
    for place in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(DataError, match=place.name):
            read(place)


def test_label_maps_are_read_as_stored(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB[..., 0] % 4, "P")
    palette.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10, 10, 10, 200])
    palette.save(tmp_path / "palette.png")
    cv2.imwrite(str(tmp_path / "deep.png"), DEEP)
    np.testing.assert_array_equal(read_labels(tmp_path / "palette.png"), RGB[..., 0] % 4)
    np.testing.assert_array_equal(read_labels(tmp_path / "deep.png"), DEEP)
    np.testing.assert_array_equal(read_visible(tmp_path / "palette.png"), RGB[..., 0] % 4 > 0)
    np.testing.assert_array_equal(read_visible(tmp_path / "deep.png"), DEEP > 0)


def test_one_reader() -> None:
    files = [file for room in ("tracker_ar", "vot_wrapper") for file in (ROOT / room).rglob("*.py")]
    readers = {file.name for file in files if any(word in file.read_text(encoding="utf-8")
                                                  for word in ("imread(", "imdecode(", "Image.open("))}
    assert readers <= {"images.py", "photometry.py", "make_pictures.py"}  # these two decode what they wrote
