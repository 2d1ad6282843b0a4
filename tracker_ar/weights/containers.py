"""Reading checkpoint files: the authors' `.pth.tar` in both of torch's containers, and safetensors.

Nothing in a file is executed (`inert_pickle`), and no more memory is taken than the file's own size.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tracker_ar.errors import CheckpointError
from tracker_ar.weights.pickle_reader import (
    MAX_PICKLE_BYTES,
    STORAGE_DTYPES,
    InertObject,
    Pickled,
    StorageRecord,
    TensorRecord,
    quote,
    read_pickle,
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_DTYPES = frozenset(getattr(torch, name) for name in STORAGE_DTYPES.values())
_DOWNLOAD_AGAIN = "download it again in a browser, and do not unpack it"
_ZIP_DAMAGE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, ValueError, OverflowError,
)


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one network.

    state_dict: key -> contiguous CPU tensor with finite values, in the file's own dtype.
    metadata: of a `.pth.tar`: container ('zip' or 'legacy') and, where the file has them, epoch, net_type,
        actor_type, constructor; of a safetensors file: its text entries.
    path: the file.
    """

    state_dict: dict[str, torch.Tensor]
    metadata: dict[str, object]
    path: Path


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read the authors' `.pth.tar` (zip container, or the older one of torch < 1.6) or a safetensors file.

    The weights of a `.pth.tar` are what stands under its key 'net'. Tensors come in the file's dtypes, on the
    CPU, wherever they were saved from. Raises `CheckpointError` with cause and cure for a file that is
    missing, empty, truncated or damaged, is not a checkpoint, names a foreign global, or holds values that
    are no finite tensors.
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


def read_header(path: str | os.PathLike) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by key and the text entries of a safetensors file, without its numbers.

    Fast (about a millisecond), and notices a file that was cut off. Raises `CheckpointError`.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            return shapes, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path} is missing, truncated or damaged ({error})") from error


# ---- torch's zip container: one record for the pickled part, one for every storage


def _read_zip(file: object, file_size: int) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    try:
        with zipfile.ZipFile(file) as archive:
            roots = [name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise CheckpointError("it is a zip archive, but not one that PyTorch wrote; install the "
                                      "downloaded file as it is, neither packed nor unpacked")
            root = roots[0]

            def record(name: str, limit: int) -> bytes:
                try:
                    info = archive.getinfo(root + name)
                except KeyError:
                    raise CheckpointError(f"it lacks the part {quote(name)}; {_DOWNLOAD_AGAIN}") from None
                # torch stores records as they are; a packed one could unfold without bound.
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > limit:
                    raise CheckpointError(f"its part {quote(name)} is packed or too long for a checkpoint")
                return archive.read(info)

            if root + "byteorder" in archive.namelist() and record("byteorder", 16) != b"little":
                raise CheckpointError("it was written on a big-endian machine, which is not supported")
            top = read_pickle(record("data.pkl", min(MAX_PICKLE_BYTES, file_size))).value
            records = _net_records(top)

            def storage_bytes(storage: StorageRecord) -> bytes:
                return record(f"data/{storage.key}", file_size)

            state_dict = _build_tensors(records, storage_bytes, file_size)
            return state_dict, {"container": "zip", **_plain_entries(top)}
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
    records = _net_records(top.value)
    places = _legacy_places(data, keys, top.storages)

    def storage_bytes(storage: StorageRecord) -> bytes:
        if storage.key not in places:
            raise CheckpointError(f"it lacks the numbers of a tensor; {_DOWNLOAD_AGAIN}")
        start, size = places[storage.key]
        return data[start : start + size]

    state_dict = _build_tensors(records, storage_bytes, len(data))
    return state_dict, {"container": "legacy", **_plain_entries(top.value)}


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


def _net_records(top: object) -> dict[str, TensorRecord]:
    net = top.get("net") if isinstance(top, dict) else None
    if not isinstance(net, dict) or not net:
        entries = [quote(key, 30) for key in list(top)[:6]] if isinstance(top, dict) else []
        raise CheckpointError("it holds no 'net' with the weights of a network"
                              + (f" (it holds {', '.join(entries)})" if entries else "")
                              + "; use a checkpoint that the authors' training wrote")
    for key, value in net.items():
        if type(key) is not str or not isinstance(value, TensorRecord):
            raise CheckpointError(f"the entry {quote(key)} of its 'net' is not a tensor; "
                                  "use the authors' file")
    return net


def _plain_entries(top: dict) -> dict[str, object]:
    names = ("epoch", "net_type", "actor_type")
    entries = {name: top[name] for name in names if type(top.get(name)) in (str, int)}
    constructor = top.get("constructor")
    if isinstance(constructor, InertObject) and type(constructor.fields.get("fun_name")) is str:
        entries["constructor"] = constructor.fields["fun_name"]
    return entries


def _dtype(storage: StorageRecord) -> torch.dtype:
    return getattr(torch, storage.dtype)


def _build_tensors(records: dict[str, TensorRecord], storage_bytes: Callable[[StorageRecord], bytes],
                   file_size: int) -> dict[str, torch.Tensor]:
    _check_claims(records, file_size)
    return {key: _build_tensor(key, record, storage_bytes) for key, record in records.items()}


def _check_claims(records: dict[str, TensorRecord], file_size: int) -> None:
    """All sizes against the file's, before memory is taken: a forger's views can repeat at no cost."""
    claimed = 0
    for key, record in records.items():
        last = record.offset + sum((n - 1) * step for n, step in zip(record.size, record.stride))
        count = math.prod(record.size)
        if count == 0 or last >= record.storage.count:
            raise CheckpointError(f"the tensor {quote(key)} is empty or reaches beyond its storage; "
                                  f"{_DOWNLOAD_AGAIN}")
        claimed += max(record.storage.count, count) * _dtype(record.storage).itemsize
    if claimed > file_size:
        raise CheckpointError(f"its tensors claim {claimed} bytes, but the file has {file_size}: it is "
                              f"truncated or damaged; {_DOWNLOAD_AGAIN}")


def _build_tensor(key: str, record: TensorRecord,
                  storage_bytes: Callable[[StorageRecord], bytes]) -> torch.Tensor:
    dtype = _dtype(record.storage)
    content = bytearray(storage_bytes(record.storage))
    if len(content) != record.storage.count * dtype.itemsize:
        raise CheckpointError(f"the numbers of {quote(key)} are incomplete; {_DOWNLOAD_AGAIN}")
    flat = torch.frombuffer(content, dtype=dtype)
    return flat.as_strided(record.size, record.stride, record.offset).contiguous()
