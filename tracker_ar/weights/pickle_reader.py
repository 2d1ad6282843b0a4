"""Reads pickled checkpoints as data: a pickle interpreter that never calls or imports anything.

`pickle.Unpickler` with a restricted `find_class` still calls, hashes and sets attributes on what a file asks
for, and allocates what a file claims to hold. Here a global is only its name, a tensor is only a description
of where its numbers lie, and an object of the authors' five classes is only its fields. Whatever else a file
names or asks for ends in a `CheckpointError` before the next instruction is read.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Union

from tracker_ar.errors import CheckpointError

Sliceable = Union[bytes, mmap.mmap]

# Longer than any real one (a few hundred kB): bounds the time and memory that a made-up file can cost.
MAX_PICKLE_BYTES = 4 << 20

ORDERED_DICT = "collections.OrderedDict"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
STORAGE_DTYPES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
}
# The training framework's own classes that stand in the authors' files; only their fields are kept.
AUTHORS_CLASSES = frozenset({
    "ltr.admin.model_constructor.NetConstructor",
    "ltr.admin.settings.Settings",
    "ltr.admin.local.EnvironmentSettings",
    "ltr.admin.stats.AverageMeter",
    "ltr.admin.stats.StatValue",
})
_KNOWN_GLOBALS = AUTHORS_CLASSES | STORAGE_DTYPES.keys() | {ORDERED_DICT, REBUILD_TENSOR}


@dataclass(frozen=True)
class GlobalName:
    """A class or function that the file names; nothing is imported for it."""

    name: str


@dataclass
class InertObject:
    """An object of one of `AUTHORS_CLASSES`: its class name and fields, without behaviour."""

    class_name: str
    fields: dict[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class StorageRecord:
    """A block of numbers elsewhere in the file: its key there, its dtype's name, how many it claims."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the file describes it: a view (offset, size, stride, in elements) of a storage."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Pickled:
    """The value of one pickle, the position right after it, and every storage that it mentions, by key."""

    value: object
    end: int
    storages: dict[str, StorageRecord]


def quote(text: object, limit: int = 120) -> str:
    """`text` from a file, shortened and with control characters escaped, for messages."""
    shown = str(text)[: limit + 1]
    return repr(shown if len(shown) <= limit else shown[:limit] + "...")


def read_pickle(data: Sliceable, start: int = 0) -> Pickled:
    """The pickle that begins at `start` of `data` (bytes, or an mmap of a whole file).

    Values are None, bool, int, float, str, bytes, tuple, list, dict (also for `OrderedDict`) and the classes
    of this module. Raises `CheckpointError` for a foreign global (by name), an instruction that no checkpoint
    needs, and data that ends too early or contradicts itself.
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


class _Machine:
    """The stack machine of the pickle format, for the instructions that checkpoints use."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list = []
        self.outer: list[list] = []
        self.memo: dict[int, object] = {}
        self.storages: dict[str, StorageRecord] = {}

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

    def number(self, layout: str) -> int | float:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        window = self.data[self.position : self.position + 512]
        end = window.find(b"\n")
        _require(end >= 0, "a name has no end")
        self.position += end + 1
        return window[:end].decode()

    def push(self, value: object) -> None:
        self.stack.append(value)

    def since_mark(self) -> list:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def text(self, layout: str) -> None:
        # torch itself decodes this way: a lone surrogate in some path must not make a checkpoint unreadable.
        self.push(self.take(self.number(layout)).decode("utf-8", "surrogatepass"))

    def raw(self, layout: str) -> None:
        self.push(self.take(self.number(layout)))

    def long(self) -> None:
        self.push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        _require(len(self.stack) >= count, "a tuple lacks values")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.push(items)

    def name_global(self, module: object, name: object) -> None:
        full_name = f"{module}.{name}"
        if full_name not in _KNOWN_GLOBALS:
            raise CheckpointError(
                f"it names {quote(full_name)}, which has no place in these checkpoints and could run code of "
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
            # Other keys could be made to cost unbounded time when they are hashed or collide.
            _require(type(key) is str or type(key) is int and abs(key) < 1 << 60,
                     "a dictionary has a key that is neither a text nor a number")
            target[key] = value

    def storage(self) -> None:
        record = self.stack.pop()
        # The older container adds a sixth entry, for views of storages; torch writes None there since 0.4.
        _require(type(record) is tuple and len(record) in (5, 6) and record[5:] in ((), (None,)),
                 "a storage is not described as one")
        tag, kind, key, _, count = record[:5]
        _require(tag == "storage" and type(kind) is GlobalName and kind.name in STORAGE_DTYPES
                 and type(key) is str and _is_size(count), "a storage is not described as one")
        storage = StorageRecord(key, STORAGE_DTYPES[kind.name], count)
        _require(self.storages.setdefault(key, storage) == storage, "a storage is described in two ways")
        self.push(storage)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if type(function) is GlobalName else None
        if name == ORDERED_DICT and arguments == ():
            self.push({})
        elif name == REBUILD_TENSOR:
            self.push(_tensor_record(arguments))
        else:
            raise CheckpointError(
                f"it calls {quote(name)} in a way that no checkpoint needs; nothing was executed"
            )

    def new_object(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        _require(type(made) is GlobalName and made.name in AUTHORS_CLASSES and arguments == (),
                 "an object is made of something that is no class")
        self.push(InertObject(made.name))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        # A state dict carries module versions as an attribute; nothing here needs them.
        if type(target) is not dict:
            _require(type(target) is InertObject and type(state) is dict, "fields are given to a plain value")
            target.fields.update(state)


def _tensor_record(arguments: object) -> TensorRecord:
    _require(type(arguments) is tuple and len(arguments) in (6, 7), "a tensor is not described as one")
    storage, offset, size, stride = arguments[:4]
    _require(
        type(storage) is StorageRecord and _is_size(offset)
        and type(size) is tuple and type(stride) is tuple and len(size) == len(stride) <= 8
        and all(map(_is_size, size)) and all(map(_is_size, stride)),
        "a tensor is not described as one",
    )
    return TensorRecord(storage, offset, size, stride)


def _mark(machine: _Machine) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


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
    ord("T"): lambda m: m.raw("<I"),
    ord("U"): lambda m: m.raw("<B"),
    ord("B"): lambda m: m.raw("<I"),
    ord("C"): lambda m: m.raw("<B"),
    ord("("): _mark,
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
