"""What a pickled checkpoint is read as: names, and descriptions of tensors and objects. Nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass, field

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
REBUILD_TENSOR_OLD = "torch._utils._rebuild_tensor"  # torch < 0.4
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
# The training framework's own classes that stand in the authors' files; only their fields are kept.
AUTHORS_CLASSES = frozenset({
    "ltr.admin.model_constructor.NetConstructor",
    "ltr.admin.settings.Settings",
    "ltr.admin.local.EnvironmentSettings",
    "ltr.admin.stats.AverageMeter",
    "ltr.admin.stats.StatValue",
})
# What these classes and the constructors' modules were called in the framework's first release.
OLD_NAMES = (("dlframework.common.utils.", "ltr.admin."), ("dlframework.", ""))
KNOWN_GLOBALS = AUTHORS_CLASSES | STORAGE_DTYPES.keys() | {
    ORDERED_DICT, REBUILD_TENSOR, REBUILD_TENSOR_OLD, REBUILD_PARAMETER,
}


class OtherKeys:
    """Stands in a dictionary for all entries whose key is no text: those are passed over, since nothing here needs
    them, and numbers could be chosen so that each costs the time of all."""


OTHER_KEYS = OtherKeys()


@dataclass(frozen=True)
class GlobalName:
    """A class or function that the file names; nothing is imported for it."""

    name: str


@dataclass(eq=False, slots=True)
class InertObject:
    """An object of one of `AUTHORS_CLASSES`: its class name and fields, without behaviour."""

    class_name: str
    fields: dict | None = field(default=None, repr=False)


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
    """`text` from a file, shortened and with control characters escaped, for messages; of anything else its type."""
    if not isinstance(text, str):
        return f"something of type {type(text).__name__}"
    return repr(text if len(text) <= limit else text[:limit] + "...")
