"""One case of each kind that `fuzz.py` and the fast suite run: made from a random generator, and what must hold.

A case raises AssertionError, or whatever escaped, when something is wrong.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import struct
import sys
import tempfile
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from tracker_ar.crops import refiner_crop, sample_patch
from tracker_ar.errors import CheckpointError, InputError
from tracker_ar.geometry import box_iou, clip_box, mask_from_box, pad_mask, region_box

Case = Callable[[random.Random], None]

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
MEMORY = "/dev/shm"  # files that are written a million times had better not go to a disk
FRAME = b"/frame.png"  # stands for a file that is there
SIZE = (48, 64)
ODD = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, -1e-30, 1e6, 1e9, -1e9, 2**31, 1e30, -1e30, 3e38, 1e300,
       float("inf"), -float("inf"), float("nan"))


def randomness(kind: str, seed: int, number: int) -> random.Random:
    """The generator of one case."""
    return random.Random(f"{kind} {seed} {number}")


@contextlib.contextmanager
def running(kind: str) -> Iterator[Case]:
    """What runs one case of a kind, with what it needs to be there."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        yield KINDS[kind](Path(folder))


def number(random: random.Random, scale: float = 100.0) -> float:
    """Mostly a coordinate, sometimes something that is none."""
    return random.choice(ODD) if random.random() < 0.2 else round(random.uniform(-scale / 4, scale), 2)


# ---- regions: from what TraX hands over to what the tracker takes


def regions(folder: Path) -> Case:
    """An initial region of any kind gives a usable mask or box, or InputError."""
    from vot_wrapper.regions import decode_region, encode_mask

    def run(random: random.Random) -> None:
        size = (random.randint(1, 60), random.randint(1, 60))
        try:
            region = decode_region(trax_region(random), size)
        except InputError:
            return
        if region.ndim == 2:
            assert region.shape == size and region.dtype == np.uint8 and region.flags.c_contiguous
            assert region.any() and region.max() == 1
        else:
            assert region.shape == (4,) and np.isfinite(region).all() and region[2:].min() > 0
        mask = region if region.ndim == 2 else mask_from_box(region, size)
        assert mask.shape == size and mask.dtype == np.uint8 and mask.max() <= 1
        assert np.array_equal(encode_mask(mask, size).array(), mask)
        with contextlib.suppress(InputError):  # a box outside the image
            box = region_box(region, size)
            inside = clip_box(box, size)
            assert (inside >= 0).all() and inside[0] + inside[2] <= size[1] and inside[1] + inside[3] <= size[0]
            assert refiner_crop(np.zeros((*size, 3), np.uint8), inside, size=8).pixels.shape == (8, 8, 3)

    return run


def trax_region(random: random.Random) -> object:
    """A region as TraX could deliver it."""
    import trax

    kind = random.randrange(10)
    if kind == 0:
        return trax.Special.create(random.choice((0, 1, -1, 2**31 - 1, -(2**31))))
    if kind < 4:
        return trax.Rectangle.create(*(number(random) for _ in range(4)))
    if kind < 7:
        return trax.Polygon.create([(number(random), number(random)) for _ in range(random.randint(3, 8))])
    height, width = random.randint(1, 80), random.randint(1, 80)
    fill = random.choice((0, 1, 1, 255, None))
    if fill is None:
        pixels = np.frombuffer(random.randbytes(height * width), np.uint8).reshape(height, width) > 200
    else:
        pixels = np.full((height, width), fill)
    reach = random.choice((0, 0, 10, 70, 10**6, 2**31 - 100))
    offset = (random.randint(-reach, reach), random.randint(-reach, reach))
    return trax.Mask.create(np.ascontiguousarray(pixels, np.uint8), *offset)


# ---- protocol: a client that says anything, through libtrax itself


def protocol(folder: Path) -> Case:
    """Whatever a client says, the server ends with 0 or 1 and gives the reason for a refusal."""
    from tracker_ar.zoo import build_tracker
    from vot_wrapper import server
    from vot_wrapper.gate import RequestGate

    frame = folder / "frame.png"
    cv2.imwrite(str(frame), np.zeros((*SIZE, 3), np.uint8))
    requests, answers = folder / "requests", folder / "answers"

    def run(random: random.Random) -> None:
        gate = RequestGate()
        said = conversation(random).replace(FRAME, str(frame).encode())
        passed, position = [], 0
        while not gate.closed:
            step = random.choice((1, 7, 100, 65536))
            chunk = said[position : position + step]
            passed.append(gate.feed(chunk))
            position += step
        requests.write_bytes(b"".join(passed))
        with open(requests, "rb") as source, open(answers, "w+b") as target:
            os.environ["TRAX_IN"], os.environ["TRAX_OUT"] = str(source.fileno()), str(target.fileno())
            channel = SimpleNamespace(lock=threading.Lock(), gate=gate, end_log=lambda: None)
            with contextlib.redirect_stderr(io.StringIO()):
                status = server.serve(lambda: build_tracker("static"), channel)
            target.seek(0)
            answer = target.read()
        assert status in (0, 1) and answer.startswith(b"@@TRAX:hello") and answer.isascii()
        if status == 1:
            assert b'"trax.reason=' in answer, answer[-300:]

    return run


def conversation(random: random.Random) -> bytes:
    """Requests good and bad, bytes that are none, and perhaps an end in the middle."""
    lines = [b"".join(request(random) for _ in range(random.randint(1, 4)))]
    if random.random() < 0.5:  # begin well, to get further
        lines.insert(0, b'@@TRAX:initialize "4,6,8,10"\n@@TRAX:frame "file://%s"\n' % FRAME)
    said = bytearray(b"".join(lines))
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        at = random.randrange(len(said))
        edit = random.randrange(4)
        if edit == 0:
            said[at] = random.randrange(256)
        elif edit == 1:
            del said[at : at + random.randint(1, 10)]
        elif edit == 2:
            said[at:at] = random.choice((random.randbytes(3), b'"', b"\\", b"\n", b"\0", b"@@TRAX:", b" ", b"="))
        else:
            said[at:at] = random.choice((b"9", b"-", b",", b"1,")) * random.choice((1, 20, 3000))
        if not said:
            return b""
    return bytes(said[: random.randrange(len(said) + 1)] if random.random() < 0.2 else said)


def request(random: random.Random) -> bytes:
    """One line, as a rule a request."""
    verb = random.choice((b"initialize",) * 6 + (b"frame",) * 4 + (b"quit", b"hello", b"state", b"", b"INITIALIZE"))
    image = random.choice((FRAME,) * 6 + (b"/missing.png", b"/dev/zero", b"", b"/" + b"a" * 5000, b"/\xc3\xa9.png"))
    prefix = random.choice((b"file://",) * 12 + (b"http://", b"data:", b"image:", b"", b"color=file://"))
    texts = [region_text(random) if verb == b"initialize" else prefix + image]
    if random.random() < 0.2:
        texts.insert(random.randrange(2), random.choice((b"a=b", b"=", b"k=\\n", b"x", b"", b"trax.x=1")))
    line = b"@@TRAX:" + verb + b"".join(b' "%s"' % text for text in texts if text is not None)
    if verb == b"initialize" and random.random() < 0.8:
        line += b'\n@@TRAX:frame "%s%s"' % (prefix, image)
    return line + random.choice((b"\n",) * 10 + (b"\r\n", b" \n", b"\nnoise\n", b""))


def region_text(random: random.Random) -> bytes | None:
    """The text of a region, or of none."""
    kind = random.randrange(10)
    if kind == 0:
        return random.choice((None, b"", b" ", b"special", b"1", b"nan", b"mask:", b"mask:1,2", b"m", b",", b"\\x"))
    if kind < 4:
        count = random.choice((4,) * 8 + (1, 2, 3, 5, 6, 7, 8, 200))
        return b",".join(b"%.3f" % number(random) for _ in range(count))
    header = [random.choice((0, 0, 5, 60, -3, 10**6, 2**31 - 1, -(2**31), 2**32, 10**12)) for _ in range(2)]
    header += [random.choice((1, 3, 10, 50, 70, 70, 0, -2, 30_000, 46_341, 65_536, 2**31 - 1)) for _ in range(2)]
    if random.random() < 0.5:
        header = [random.randint(-5, 60), random.randint(-5, 60), random.randint(1, 60), random.randint(1, 60)]
    runs, left = [], max(header[2] * header[3], 1)
    while left > 0 and len(runs) < 30:
        runs.append(random.randint(0, left))
        left -= runs[-1]
    if random.random() < 0.2:
        runs.append(random.choice((-1, 10**6, 2**31, 2**32 + 5, 10**15)))
    return b"mask:" + b",".join(b"%d" % value for value in header + runs)


# ---- geometry


def geometry(folder: Path) -> Case:
    """Boxes, masks and crops of anything give what they promise, or InputError."""
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)

    def run(random: random.Random) -> None:
        box = [number(random) for _ in range(random.choice((4,) * 9 + (3,)))]
        other = [number(random) for _ in range(4)]
        size = (random.randint(1, 60), random.randint(1, 60))
        with contextlib.suppress(InputError):
            assert -1e-9 <= box_iou(box, other) <= 1 + 1e-9
        with contextlib.suppress(InputError):
            assert mask_from_box(box, size).shape == size
        with contextlib.suppress(InputError):
            x, y, width, height = clip_box(box, size, random.choice((0.0, 1.0, 10.0)))
            assert 0 <= x and 0 <= y and x + width <= size[1] and y + height <= size[0]
        mask = np.full((random.randint(0, 70), random.randint(0, 70)), random.choice((0, 1, 7)))
        assert pad_mask(mask, size).shape == size
        with contextlib.suppress(InputError):
            assert refiner_crop(image, box, size=8).pixels.shape == (8, 8, 3)
        mode = random.choice(("replicate", "inside", "inside_major"))
        with contextlib.suppress(InputError), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            patch = sample_patch(image, box[:2], np.abs(other[2:]), 16, mode, random.choice((None, 1.5))).patch
            assert patch.shape == (1, 3, 16, 16) and bool(patch.isfinite().all())

    return run


# ---- checkpoints


def checkpoints(folder: Path) -> Case:
    """A damaged or malicious file gives finite tensors or CheckpointError, and nothing in it is executed."""
    from tracker_ar.weights.containers import read_checkpoint

    marker = folder / "executed"
    sources, payloads = checkpoint_files(marker), [*payload_bytes(marker)]
    path = folder / "mutated"
    watching = [False]

    def forbid(event: str, arguments: tuple) -> None:
        if watching[0] and event in FORBIDDEN:
            raise SystemError(f"{event} {arguments!r:.200}")  # which no CheckpointError hides

    for content in sources:  # whatever is imported on first use
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):
            read_checkpoint(path)
    b"a".decode("cp437")
    sys.addaudithook(forbid)

    def run(random: random.Random) -> None:
        path.write_bytes(mutation(random, random.choice(sources), payloads))
        watching[0] = True
        try:
            state_dict = read_checkpoint(path).state_dict
        except CheckpointError:
            state_dict = {}
        finally:
            watching[0] = False
        assert not marker.exists()
        assert all(bool(tensor.isfinite().all()) for tensor in state_dict.values())

    return run


FORBIDDEN = frozenset({
    "os.mkdir", "os.remove", "os.rename", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
    "pickle.find_class", "exec", "compile", "marshal.loads", "socket.connect", "shutil.rmtree", "ctypes.dlopen",
})


def checkpoint_files(marker: Path) -> list[bytes]:
    """Sound ones in all containers, and live malicious ones."""
    import torch
    from safetensors.torch import save

    from tracker_ar.weights.containers import read_checkpoint

    files = [file.read_bytes() for file in sorted(DATA.iterdir())]
    files.append(save(read_checkpoint(DATA / "super_dimp.zip.pth.tar").state_dict, {"format": "x"}))
    weights = OrderedDict(weight=torch.ones(3, 2), bias=torch.ones(3))
    for container in (True, False):
        for content in ({"net": weights, "stats": [1.5, None]}, {"net": weights, "settings": Payload(marker)}):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=container)
            files.append(stream.getvalue())
    return files


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def payload_bytes(marker: Path) -> Iterator[bytes]:
    """Instructions that would make the marker, for every protocol, and pieces that shift what follows."""
    for number in range(6):
        dumped = pickle.dumps(Payload(marker), protocol=number)
        yield dumped
        yield dumped[2:-1]
    text = str(marker).encode()
    yield b"cbuiltins\neval\nX" + struct.pack("<I", len(text)) + text + b"\x85R"
    yield b"cposix\nmkdir\n"
    yield from (b"R", b"b", b"\x81", b"\x93", b"i", b"o", b"P1\n", b"\x82\x01", b"(", b".", b"Q", b"0", b"\x80\x04")


def mutation(random: random.Random, content: bytes, payloads: list[bytes]) -> bytes:
    """`content` with a few edits, most of them where its structure lies; a zip is packed anew now and then."""
    if content.startswith(b"PK") and random.random() < 0.5:
        return repacked(random, content, payloads)
    return edited(random, content, payloads)


def repacked(random: random.Random, content: bytes, payloads: list[bytes]) -> bytes:
    """A sound zip archive with a mutated part: what a checksum would otherwise have hidden."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            if name.endswith("data.pkl") or random.random() < 0.05:
                part = edited(random, part, payloads)
            if random.random() < 0.99:
                packed = zipfile.ZIP_DEFLATED if random.random() < 0.01 else zipfile.ZIP_STORED
                new.writestr(zipfile.ZipInfo(name), part, packed)
    return stream.getvalue()


def edited(random: random.Random, content: bytes, payloads: list[bytes]) -> bytes:
    """`content` with one to six edits in its first bytes, its last ones, or anywhere."""
    result = bytearray(content)
    for _ in range(random.randint(1, 6)):
        reach = min(random.choice((60, 400, 4000, len(result))), len(result))
        at = random.randrange(reach) if reach else 0
        if random.random() < 0.2:
            at = max(len(result) - 1 - at, 0)
        edit = random.randrange(6)
        if edit < 2 and result:
            result[at] = random.choice((random.randrange(256), result[at] ^ (1 << random.randrange(8)), 0, 255))
        elif edit == 2:
            result[at:at] = random.choice((random.randbytes(4), b"\xff" * 8, *payloads))
        elif edit == 3:
            del result[at : at + random.choice((1, 2, 4, 8, 100))]
        elif edit == 4:
            piece = random.choice(payloads)
            result[at : at + len(piece)] = piece
        elif random.random() < 0.3:
            del result[at:]
    return bytes(result) or b"\0"


KINDS = {"regions": regions, "protocol": protocol, "geometry": geometry, "checkpoints": checkpoints}
