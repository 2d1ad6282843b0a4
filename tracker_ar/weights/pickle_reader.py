"""Reads pickled checkpoints as data: a pickle interpreter that never calls or imports anything.

`pickle.Unpickler` with a restricted `find_class` still calls, hashes and sets attributes on what a file asks for,
and allocates what a file claims to hold. Here a global is only its name, a tensor is only a description of where its
numbers lie, and an object of the authors' five classes is only its fields. Whatever else a file names or asks for ends
in a `CheckpointError` before the next instruction is read.

Time and memory stay in proportion to the file: an instruction costs no more than the bytes that wrote it. A pickle can
name one object many times at two bytes each, so nothing here walks through, compares, copies or prints what an object
holds, and texts that are compared (keys, names) are short.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from tracker_ar.errors import CheckpointError
from tracker_ar.weights.pickle_values import (
    AUTHORS_CLASSES,
    KNOWN_GLOBALS,
    OLD_NAMES,
    ORDERED_DICT,
    OTHER_KEYS,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
    REBUILD_TENSOR_OLD,
    STORAGE_DTYPES,
    GlobalName,
    InertObject,
    Pickled,
    StorageRecord,
    TensorRecord,
    quote,
)

Sliceable: TypeAlias = "bytes | mmap.mmap"

# Longer than any real one (a few hundred kB): bounds the time and memory that a made-up file can cost.
MAX_PICKLE_BYTES = 4 << 20

_LONGEST_KEY = 512  # characters; those of real files have less than a hundred
_LONGEST_NAME = 256
_DEEPEST_MARK = 1000  # lists within lists and so on; Python's own pickler gives up there



def read_pickle(data: Sliceable, start: int = 0) -> Pickled:
    """The pickle that begins at `start` of `data` (bytes, or an mmap of a whole file).

    Values are None, bool, int, float, str, bytes, tuple, list, dict (also for `OrderedDict`, with texts as keys) and
    the classes of this module. Raises `CheckpointError` for a foreign global (by name), an instruction that no
    checkpoint needs, and data that ends too early or contradicts itself.
    """
    machine = _Machine(data[start : start + MAX_PICKLE_BYTES])
    try:
        value = machine.run()
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise CheckpointError(f"its pickled part is damaged near byte {start + machine.position}") from error
    return Pickled(value, start + machine.position, machine.storages)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise CheckpointError(f"its pickled part is damaged: {what}")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _is_short(text: object, limit: int) -> bool:
    return type(text) is str and len(text) <= limit


class _Machine:
    """The stack machine of the pickle format, for the instructions that checkpoints use."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list = []
        self.outer: list[list] = []
        self.memo: dict[int, object] = {}
        self.storages: dict[str, StorageRecord] = {}
        self.spent = 0  # steps that took more than the bytes of their instruction

    def run(self) -> object:
        while True:
            code = self.take(1)[0]
            if code == ord("."):
                _require(len(self.stack) == 1 and not self.outer, "it does not leave exactly one value")
                return self.stack[0]
            step = _STEPS.get(code)
            if step is None:
                raise CheckpointError(
                    f"its pickled part holds instruction {chr(code)!r}, which no checkpoint needs; "
                    "nothing was executed"
                )
            step(self)

    def take(self, count: int) -> bytes:
        piece = self.data[self.position : self.position + count]
        if len(piece) < count:
            raise CheckpointError("its pickled part ends too early: the file is truncated; download it again")
        self.position += count
        return piece

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        window = self.data[self.position : self.position + 512]
        end = window.find(b"\n")
        _require(end >= 0, "a name has no end")
        self.position += end + 1
        return window[:end].decode()

    def pay(self, steps: int) -> None:
        """For work on what was read before: all of it together at most one step per byte."""
        self.spent += steps
        _require(self.spent <= len(self.data), "it asks for the same work again and again")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        _require(len(self.outer) < _DEEPEST_MARK, "it is nested too deeply")
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def text(self, layout: str) -> None:
        # torch itself decodes this way: a lone surrogate in some path must not make a checkpoint unreadable.
        self.push(self.take(self.number(layout)).decode("utf-8", "surrogatepass"))

    def text_of_python2(self, layout: str) -> None:
        self.push(self.take(self.number(layout)).decode("utf-8", "surrogateescape"))

    def raw(self, layout: str) -> None:
        self.push(self.take(self.number(layout)))

    def long(self) -> None:
        self.push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def remember(self, index: int) -> None:
        # Any pickler counts up; chosen at will, the numbers could collide in the table.
        _require(index <= self.position, "it numbers what it remembers in a way that no pickler does")
        self.memo[index] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        _require(len(self.stack) >= count, "a tuple lacks values")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.push(items)

    def name_global(self, module: object, name: object) -> None:
        _require(_is_short(module, _LONGEST_NAME) and _is_short(name, _LONGEST_NAME), "a name is no short text")
        full_name = f"{module}.{name}"
        for old, new in OLD_NAMES:
            full_name = full_name.replace(old, new, 1) if full_name.startswith(old) else full_name
        if full_name not in KNOWN_GLOBALS:
            raise CheckpointError(
                f"it names {quote(f'{module}.{name}')}, which has no place in these checkpoints and could run code of "
                "the file's maker; nothing was executed. Use the file that the authors publish"
            )
        self.push(GlobalName(full_name))

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name_global(module, name)

    def inst(self) -> None:
        self.name_global(self.line(), self.line())
        raise CheckpointError("it makes an object in a way that no checkpoint needs; nothing was executed")

    def append(self, items: list) -> None:
        target = self.stack[-1]
        _require(type(target) is list, "values are added to something that is no list")
        target.extend(items)

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        _require(type(target) is dict and len(items) % 2 == 0, "entries are added to what is no dictionary")
        for key, value in zip(items[::2], items[1::2]):
            self.set_item(target, key, value)

    def set_item(self, target: dict, key: object, value: object) -> None:
        if type(key) is str:
            _require(len(key) <= _LONGEST_KEY, "a key is longer than any of a checkpoint")
            target[key] = value
        else:
            target[OTHER_KEYS] = None

    def storage(self) -> None:
        record = self.stack.pop()
        # The older container adds a sixth entry, for views of storages; torch writes None there since 0.4.
        _require(type(record) is tuple and len(record) in (5, 6) and (len(record) == 5 or record[5] is None),
                 "a storage is not described as one")
        tag, kind, key, _, count = record[:5]
        _require(type(tag) is str and tag == "storage" and type(kind) is GlobalName and kind.name in STORAGE_DTYPES
                 and _is_short(key, _LONGEST_NAME) and _is_size(count), "a storage is not described as one")
        storage = StorageRecord(key, STORAGE_DTYPES[kind.name], count)
        _require(self.storages.setdefault(key, storage) == storage, "a storage is described in two ways")
        self.push(storage)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if type(function) is GlobalName else None
        count = len(arguments) if type(arguments) is tuple else -1
        if name == ORDERED_DICT and count == 0:
            self.push({})
        elif name == ORDERED_DICT and count == 1 and type(arguments[0]) is list:
            self.push(self.dict_of_pairs(arguments[0]))
        elif name == REBUILD_TENSOR and count in (6, 7) or name == REBUILD_TENSOR_OLD and count == 4:
            self.push(_tensor_record(*arguments[:4]))
        elif name == REBUILD_PARAMETER and count == 3 and type(arguments[0]) is TensorRecord:
            self.push(arguments[0])
        else:
            raise CheckpointError(
                f"it calls {quote(name or function)} in a way that no checkpoint needs; nothing was executed"
            )

    def dict_of_pairs(self, pairs: list) -> dict:
        """How Python 2 writes an OrderedDict."""
        self.pay(len(pairs))
        made: dict = {}
        for pair in pairs:
            _require(type(pair) in (list, tuple) and len(pair) == 2, "a dictionary is made of what are no pairs")
            self.set_item(made, *pair)
        return made

    def new_object(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        _require(type(made) is GlobalName and made.name in AUTHORS_CLASSES
                 and type(arguments) is tuple and not arguments, "an object is made of something that is no class")
        self.push(InertObject(made.name))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        # A state dict carries module versions as an attribute; nothing here needs them.
        if type(target) is not dict:
            _require(type(target) is InertObject and type(state) is dict, "fields are given to a plain value")
            _require(target.fields is None, "an object is given its fields twice")
            target.fields = state


def _tensor_record(storage: object, offset: object, size: object, stride: object) -> TensorRecord:
    _require(
        type(storage) is StorageRecord and _is_size(offset)
        and type(size) is tuple and type(stride) is tuple and len(size) == len(stride) <= 8
        and all(map(_is_size, size)) and all(map(_is_size, stride)),
        "a tensor is not described as one",
    )
    return TensorRecord(storage, offset, size, stride)  # type: ignore[arg-type]


# A row for each instruction that protocols 2 to 5 write for dictionaries of tensors, numbers, plain objects.
_STEPS: dict[int, Callable[[_Machine], object]] = {
    0x80: lambda m: m.take(1),                                      # protocol number
    0x95: lambda m: m.take(8),                                      # frame length
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: _Machine.long,
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("X"): lambda m: m.text("<I"),
    0x8C: lambda m: m.text("<B"),
    0x8D: lambda m: m.text("<Q"),
    ord("T"): lambda m: m.text_of_python2("<I"),
    ord("U"): lambda m: m.text_of_python2("<B"),
    ord("B"): lambda m: m.raw("<I"),
    ord("C"): lambda m: m.raw("<B"),
    ord("("): _Machine.mark,
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.since_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.since_mark()),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.since_mark()),
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.push(m.memo[m.number("<B")]),
    ord("j"): lambda m: m.push(m.memo[m.number("<I")]),
    ord("c"): lambda m: m.name_global(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("i"): _Machine.inst,
    ord("R"): _Machine.reduce,
    0x81: _Machine.new_object,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.storage,
}
