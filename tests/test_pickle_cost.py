"""No pickled part costs more than its bytes, whatever its instructions ask for; and what old picklers write is read."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tracker_ar.errors import CheckpointError
from tracker_ar.weights.containers import read_checkpoint
from tracker_ar.weights.pickle_reader import read_pickle
from tracker_ar.weights.pickle_values import OTHER_KEYS

LEAVES = 20  # doublings: printed, compared or hashed whole, such a tuple has a million leaves
DOUBLED = b")q\x00" + b"h\x00h\x00\x86q\x00" * LEAVES
DEEP = b")" + b"\x85" * 50_000
LONG_TEXT = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\n%bX\x03\0\0\0cpuK\x04tQ"
TENSOR_OLD = (b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04NtQ"
              b"K\x00K\x02K\x02\x86K\x02K\x01\x86tR")


def cost(call: Callable[[], object]) -> tuple[int, object]:
    """The most memory that was taken at a time, in bytes, and the result or the error's text."""
    tracemalloc.start()
    try:
        try:
            result = call()
        except CheckpointError as error:
            result = str(error)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def container(path: Path, kind: str, pickled: bytes) -> Path:
    numbers = np.arange(4, dtype="<f4").tobytes()
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", pickled)
            archive.writestr("a/data/0", numbers)
    else:
        head = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join(head) + pickled + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 4) + numbers)
    return path


# What is built on the stack, then an instruction that would print, join, hash, compare, copy or walk through it.
REFUSED = {
    "joined to a name": b"%bh\x00\x93.",
    "called": b"%b)R.",
    "made an object of": b"%b)\x81.",
    "arguments of a class": b"cltr.admin.settings\nSettings\n%b\x81.",
    "arguments of a dictionary": b"ccollections\nOrderedDict\n%bR.",
    "pairs of a dictionary": b"ccollections\nOrderedDict\n%b\x85R.",
    "arguments of a tensor": b"ctorch._utils\n_rebuild_tensor_v2\n%bR.",
    "a storage": b"%bQ.",
    "fields": b"cltr.admin.settings\nSettings\n)\x81%bb.",
    "filled": b"%b(K\x01K\x02u.",
    "appended to": b"%b(K\x01e.",
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("value", [DOUBLED, DEEP + b"q\x00", LONG_TEXT + b"q\x00"], ids=["doubled", "deep", "long"])
def test_no_instruction_looks_into_a_value(what: str, value: bytes) -> None:
    content = REFUSED[what] % value
    peak, message = cost(lambda: read_pickle(content))
    assert isinstance(message, str) and len(message) < 400
    assert peak < 100 * len(content) + 50_000


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("value", [DOUBLED, DEEP, LONG_TEXT], ids=["doubled", "deep", "long"])
@pytest.mark.parametrize("place", [b"%b.", b"}X\x03\0\0\0net%bs.", b"}X\x03\0\0\0net}X\x01\0\0\0a%bss.",
                                   b"}%bX\x01\0\0\0as.", b"}X\x03\0\0\0net}" + TENSOR_OLD + b"%bss."])
def test_nor_does_the_reader(tmp_path: Path, kind: str, value: bytes, place: bytes) -> None:
    path = container(tmp_path / "made", kind, b"\x80\x02" + place % value)
    peak, message = cost(lambda: read_checkpoint(path))
    assert isinstance(message, str) and str(path) in message and len(message) < 500 + len(str(path))
    assert peak < 100 * path.stat().st_size + 200_000


@pytest.mark.parametrize(("content", "says"), [
    # Fields that cost their number of entries each time they are given.
    (b"cltr.admin.settings\nSettings\n)\x81q\x00}q\x01(" + b"".join(b"X\x02\0\0\0%02dN" % n for n in range(100))
     + b"u" + b"h\x00h\x01b" * 50 + b".", "twice"),
    # A list that is made a dictionary again and again.
    (b"](" + b"X\x01\0\0\0aN\x86" * 100 + b"eq\x00" + b"ccollections\nOrderedDict\nq\x01"
     + b"h\x01h\x00\x85R" * 50 + b".", "again and again"),
    # Long equal texts, each compared with the key in the table.
    (b"}" + b"X\x58\x02\0\0" + b"k" * 600 + b"Ns.", "longer than any"),
    (STORAGE % (b"X\x58\x02\0\0" + b"k" * 600) + b".", "not described"),
    (b"c" + b"m" * 300 + b"\nn\n.", "no short text"),
    (b"(" * 2000 + b".", "nested too deeply"),
    (b"Nr\xff\xff\xff\xff.", "no pickler"),
])
def test_work_that_could_be_asked_for_without_end_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_pickle(content)


def test_keys_that_are_no_texts_are_passed_over() -> None:
    # Numbers can be chosen to collide in a table; a tuple of tuples takes long to hash.
    numbers = b"".join(b"\x8a\x08" + struct.pack("<q", n << 40) + b"N" for n in range(1000))
    value = read_pickle(b"}(" + numbers + DOUBLED + b"NX\x01\0\0\0aK\x01u.").value
    assert isinstance(value, dict) and value == {OTHER_KEYS: None, "a": 1}


@pytest.mark.parametrize("instruction", [b"}", b"]", b"(", b")\x85", b"}q\x00", b"K\x01",
                                         b"\x8a\x01\x02", b"G" + bytes(8), b"X\0\0\0\0",
                                         b"ccollections\nOrderedDict\n)R",
                                         b"cltr.admin.settings\nSettings\n)\x81"])
def test_memory_grows_with_the_file_only(instruction: bytes) -> None:
    content = instruction * (100_000 // len(instruction))
    peak, _ = cost(lambda: read_pickle(content))
    assert peak < 150 * len(content)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_the_form_of_python_2_and_torch_below_0_4_is_read(tmp_path: Path, kind: str) -> None:
    pickled = (b"\x80\x02}q\x01U\rshared_layersccollections\nOrderedDict\n]](U\x0econv1.0.weight" + TENSOR_OLD
               + b"ea\x85RsU\x07trainerK\x01s.")
    found = read_checkpoint(container(tmp_path / "old", kind, pickled))
    assert found.state_dict["conv1.0.weight"].tolist() == [[0.0, 1.0], [2.0, 3.0]]
