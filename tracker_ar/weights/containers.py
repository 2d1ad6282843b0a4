"""Reading checkpoint files: torch's two containers, whatever dictionary the weights stand in, and safetensors.

Nothing in a file is executed (`pickle_reader`), and time and memory stay in proportion to the file's size.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open

from tracker_ar.errors import CheckpointError
from tracker_ar.weights.pickle_reader import MAX_PICKLE_BYTES, read_pickle
from tracker_ar.weights.pickle_values import (
    STORAGE_DTYPES,
    InertObject,
    Pickled,
    StorageRecord,
    TensorRecord,
    quote,
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_DTYPES = frozenset(getattr(torch, name) for name in STORAGE_DTYPES.values())
# Where the weights stand in a file that holds more: pytracking and Alpha-Refine, PySOT's training, RT-MDNet.
_WEIGHTS_KEYS = ("net", "state_dict", "shared_layers")
_DATA_PARALLEL = "module."  # before every key of a network that was saved from within torch's DataParallel
_MOST_TIMES = 4  # that a file may repeat its numbers in several tensors: shared weights, but not a forger's views
_DOWNLOAD_AGAIN = "download it again in a browser, and do not unpack it"
_ZIP_DAMAGE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, ValueError, OverflowError,
)


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one network.

    state_dict: key -> contiguous CPU tensor with finite values, in the file's own dtype.
    metadata: of torch's containers: container ('zip' or 'legacy'), key (under which the weights stood, where there was
        one), prefix (that was before every key, and is left off) and, where the file has them, epoch, net_type,
        actor_type, constructor; of a safetensors file: its text entries.
    path: the file.
    """

    state_dict: dict[str, torch.Tensor]
    metadata: dict[str, object]
    path: Path


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a file of torch (zip container, or the older one of torch < 1.6) or a safetensors file.

    The weights are what stands under 'net', 'state_dict' or 'shared_layers', or the file is the state dict itself; the
    prefix `module.` is left off. Tensors come in the file's dtypes, on the CPU, wherever they were saved from. Raises
    `CheckpointError` with cause and fix for a file that is missing, empty, truncated or damaged, is not a checkpoint,
    names a foreign global, or holds values that are no finite tensors.
    """
    path = Path(path)
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}; check the path") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _read(path: Path) -> Checkpoint:
    if path.exists() and not path.is_file():
        raise CheckpointError("it is not a file; name the .pth.tar file itself, which must not be unpacked")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise CheckpointError(f"the file is empty; {_DOWNLOAD_AGAIN}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            head = data[:512]
            if head[4:9] == b"\0\0\0\0{":
                state_dict, metadata = _read_safetensors(path)
            elif head.startswith(b"PK\x03\x04"):
                state_dict, metadata = _read_zip(file, len(data))
            elif head.startswith(b"\x80"):
                state_dict, metadata = _read_legacy(data)
            else:
                raise CheckpointError(_what_it_is_instead(head))
    _check_values(state_dict)
    return Checkpoint(state_dict, metadata, path)


def _what_it_is_instead(head: bytes) -> str:
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return ("it is a web page, not a checkpoint (Google Drive answers so in place of large files that it "
                f"cannot scan, or when a limit is reached); {_DOWNLOAD_AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if head[257:262] == b"ustar":
        return "it is a tar archive around the checkpoint: unpack that once, and use the .pth or .pth.tar file inside"
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")):
        return "it is a packed archive: unpack it, and use the .pth or .pth.tar file inside"
    return ("it is neither a PyTorch checkpoint nor a safetensors file, or its beginning is damaged; "
            f"{_DOWNLOAD_AGAIN}")


def _check_values(state_dict: dict[str, torch.Tensor]) -> None:
    for key, tensor in state_dict.items():
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"{quote(key)} holds values of type {tensor.dtype}, as no weights here do")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{quote(key)} holds values that are not finite: the file is damaged, or "
                                  "its training diverged; use another one")


# ---- safetensors


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
        raise CheckpointError(f"its safetensors content is truncated or damaged ({error}); install or "
                              "download it again") from error


# ---- torch's zip container: one record for the pickled part, one for every storage


def _read_zip(file: IO[bytes], file_size: int) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    try:
        with zipfile.ZipFile(file) as archive:
            roots = [name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise CheckpointError("it is a zip archive, but not one that PyTorch wrote; install the "
                                      "downloaded file as it is, neither packed nor unpacked")
            root = roots[0]

            def record(name: str, limit: int, size: int | None = None) -> bytes:
                try:
                    info = archive.getinfo(root + name)
                except KeyError:
                    raise CheckpointError(f"it lacks the part {quote(name)}; {_DOWNLOAD_AGAIN}") from None
                # torch stores records as they are; a packed one could unfold without bound.
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > limit:
                    raise CheckpointError(f"its part {quote(name)} is packed or too long for a checkpoint")
                if size not in (None, info.file_size):
                    raise CheckpointError(f"its part {quote(name)} is incomplete; {_DOWNLOAD_AGAIN}")
                return archive.read(info)

            if root + "byteorder" in archive.namelist() and record("byteorder", 16) != b"little":
                raise CheckpointError("it was written on a big-endian machine, which is not supported")
            top = read_pickle(record("data.pkl", min(MAX_PICKLE_BYTES, file_size))).value
            records, place = _weights(top)

            def storage_bytes(storage: StorageRecord) -> bytes:
                return record(f"data/{storage.key}", file_size, storage.count * _dtype(storage).itemsize)

            state_dict = _build_tensors(records, storage_bytes, file_size)
            return state_dict, {"container": "zip", **place, **_plain_entries(top)}
    except _ZIP_DAMAGE as error:
        raise CheckpointError(f"it is truncated or damaged ({error}); {_DOWNLOAD_AGAIN}") from error


# ---- the container of torch < 1.6: pickles one after the other, then all storages


def _read_legacy(data: mmap.mmap) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    magic = read_pickle(data)
    if magic.value != _LEGACY_MAGIC:
        raise CheckpointError("it is a pickle, but not a PyTorch checkpoint; nothing in it was executed")
    version = read_pickle(data, magic.end)
    system = read_pickle(data, version.end)
    if version.value != _LEGACY_VERSION or not isinstance(system.value, dict) \
            or system.value.get("little_endian") is not True:
        raise CheckpointError("its container has an unknown version or byte order, or is damaged; "
                              f"{_DOWNLOAD_AGAIN}")
    top = read_pickle(data, system.end)
    keys = read_pickle(data, top.end)
    records, place = _weights(top.value)
    places = _legacy_places(data, keys, top.storages)

    def storage_bytes(storage: StorageRecord) -> bytes:
        if storage.key not in places:
            raise CheckpointError(f"it lacks the numbers of a tensor; {_DOWNLOAD_AGAIN}")
        start, size = places[storage.key]
        return data[start : start + size]

    state_dict = _build_tensors(records, storage_bytes, len(data))
    return state_dict, {"container": "legacy", **place, **_plain_entries(top.value)}


def _legacy_places(data: mmap.mmap, keys: Pickled,
                   storages: dict[str, StorageRecord]) -> dict[str, tuple[int, int]]:
    """Where each storage's bytes lie: key -> (first byte, number of bytes). A count leads each block."""
    listed = keys.value
    if not isinstance(listed, list) or any(type(key) is not str or key not in storages for key in listed):
        raise CheckpointError(f"its list of storages is damaged; {_DOWNLOAD_AGAIN}")
    places = {}
    position = keys.end
    for key in listed:
        storage = storages[key]
        size = storage.count * _dtype(storage).itemsize
        if position + 8 + size > len(data):
            raise CheckpointError(f"it is truncated: it ends at byte {len(data)}, but its storages reach "
                                  f"further; {_DOWNLOAD_AGAIN}")
        if struct.unpack_from("<q", data, position)[0] != storage.count:
            raise CheckpointError(f"the size of a storage contradicts its description; {_DOWNLOAD_AGAIN}")
        places[key] = (position + 8, size)
        position += 8 + size
    return places


# ---- from records to tensors


def _weights(top: object) -> tuple[dict[str, TensorRecord], dict[str, object]]:
    """The state dict within what a file holds, and where it stood: its key and the prefix of its keys, if any."""
    entries = top if isinstance(top, dict) else {}
    key = next((key for key in _WEIGHTS_KEYS if key in entries), None)
    found = entries if key is None else entries[key]
    if not isinstance(found, dict) or not found or (
        key is None and not any(isinstance(value, TensorRecord) for value in found.values())
    ):
        names = ", ".join(quote(name, 30) for name in list(entries)[:6])
        raise CheckpointError("it holds no weights of a network" + (f" (it holds {names})" if names else "")
                              + "; use a checkpoint that the authors published or their training wrote")
    for name, value in found.items():
        if type(name) is not str or not isinstance(value, TensorRecord):
            raise CheckpointError(f"the entry {quote(name)} of its {quote(key) if key else 'weights'} is not a tensor "
                                  "with a text as its key; use the authors' file")
    place: dict[str, object] = {} if key is None else {"key": key}
    if all(name.startswith(_DATA_PARALLEL) for name in found):
        place["prefix"] = _DATA_PARALLEL
        found = {name.removeprefix(_DATA_PARALLEL): record for name, record in found.items()}
    return found, place


def _plain_entries(top: object) -> dict[str, object]:
    assert isinstance(top, dict)  # or `_weights` had refused it
    names = ("epoch", "net_type", "actor_type")
    entries = {name: top[name] for name in names if type(top.get(name)) in (str, int)}
    constructor = top.get("constructor")
    fields = constructor.fields if isinstance(constructor, InertObject) else None
    if fields and type(fields.get("fun_name")) is str:
        entries["constructor"] = fields["fun_name"]
    return entries


def _dtype(storage: StorageRecord) -> torch.dtype:
    return getattr(torch, storage.dtype)


def _build_tensors(records: dict[str, TensorRecord], storage_bytes: Callable[[StorageRecord], bytes],
                   file_size: int) -> dict[str, torch.Tensor]:
    _check_claims(records, file_size)
    uses = Counter(record.storage.key for record in records.values())
    storages: dict[str, torch.Tensor] = {}
    tensors = {}
    for key, record in records.items():
        storage = record.storage
        if storage.key not in storages:
            storages[storage.key] = torch.frombuffer(_content(key, storage, storage_bytes), dtype=_dtype(storage))
        view = storages[storage.key].as_strided(record.size, record.stride, record.offset)
        alone = uses[storage.key] == 1
        tensors[key] = view.contiguous() if alone else view.clone(memory_format=torch.contiguous_format)
    return tensors


def _check_claims(records: dict[str, TensorRecord], file_size: int) -> None:
    """All sizes against the file's, before memory is taken: a forger's views can repeat at no cost."""
    storages: dict[str, int] = {}
    claimed = 0
    for key, record in records.items():
        last = record.offset + sum((n - 1) * step for n, step in zip(record.size, record.stride))
        count = math.prod(record.size)
        if count == 0 or last >= record.storage.count:
            raise CheckpointError(f"the tensor {quote(key)} is empty or reaches beyond its storage; "
                                  f"{_DOWNLOAD_AGAIN}")
        itemsize = _dtype(record.storage).itemsize
        storages[record.storage.key] = record.storage.count * itemsize
        claimed += count * itemsize
    stored = sum(storages.values())
    if stored > file_size or claimed > _MOST_TIMES * file_size:
        raise CheckpointError(f"its tensors claim {max(stored, claimed)} bytes, but the file has {file_size}: it is "
                              f"truncated or damaged; {_DOWNLOAD_AGAIN}")


def _content(key: str, storage: StorageRecord, storage_bytes: Callable[[StorageRecord], bytes]) -> bytearray:
    content = bytearray(storage_bytes(storage))
    if len(content) != storage.count * _dtype(storage).itemsize:
        raise CheckpointError(f"the numbers of {quote(key)} are incomplete; {_DOWNLOAD_AGAIN}")
    return content
