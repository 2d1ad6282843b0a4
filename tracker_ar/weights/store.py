"""Where checkpoints lie, whether they fit, and how a user's downloads of the authors' files are installed."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from tracker_ar.atomic import replacement
from tracker_ar.weights.containers import Checkpoint, read_checkpoint, read_header
from tracker_ar.errors import CheckpointError, InputError
from tracker_ar.weights.pickle_reader import quote

__all__ = [
    "Checkpoint", "Installed", "SLOTS", "Slot", "WHERE_TO_GET", "checkpoint_dir", "find_checkpoints",
    "find_refiner_checkpoint", "install", "installed_profile", "load_into", "problem_with", "read_checkpoint", "write_checkpoint",
]

ENVIRONMENT_VARIABLE = "ALPHAREFINE_CHECKPOINTS"
FORMAT = "alpharefine-1"
PROJECT = Path(__file__).resolve().parents[2]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slot:
    """The place of one network's weights: its kind (as the file's metadata says it), profile and file name.

    published, layout: for the weights that users install, the name under which the authors published them,
    and the digest of their keys and shapes (`_layout`).
    """

    kind: str
    profile: str
    file_name: str
    published: str | None = None
    layout: str | None = None


# Base tracker before refiner in each profile.
SLOTS = (
    Slot("super_dimp", "vot2020", "super_dimp.safetensors", "super_dimp.pth.tar",
         "e4f10cca8caaa6a3e008d3fa7a2124b08f6f06c944d3fc2347694bff5b3e3c0d"),
    Slot("mask_refiner_384", "vot2020", "mask_refiner_384.safetensors", "ARnet_seg_mask_ep0040.pth.tar",
         "d7d681b5022124627848fc4556b6bb2a1416f95b0f655e4aae7eca2ab1c49398"),
    Slot("lite_base", "lite", "lite_base.safetensors"),
    Slot("lite_mask_refiner", "lite", "lite_mask_refiner.safetensors"),
)

# Links as they stand in AlphaRefine_submit/README.md of the authors' vot2020 branch; the first also in
# pytracking's MODEL_ZOO.md.
WHERE_TO_GET = """\
The authors publish the two checkpoints of the challenge entry on Google Drive:
  super_dimp.pth.tar             https://drive.google.com/file/d/1qDptswis2FxihLRYLVRGDvx6aUoAVVLv/view
  ARnet_seg_mask_ep0040.pth.tar  https://drive.google.com/open?id=1qOQRfaRMbQ2nmgX1NFjoQHfXOAn609QM
(linked from https://github.com/MasterBin-IIAU/AlphaRefine/tree/vot2020/AlphaRefine_submit and
https://github.com/visionml/pytracking/blob/master/MODEL_ZOO.md).
Download both in a browser, do not unpack them, and run
  alpharefine checkpoints install super_dimp.pth.tar ARnet_seg_mask_ep0040.pth.tar"""


# ---- places


def checkpoint_dir() -> Path:
    """The folder of the installed checkpoints, absolute.

    It is what ALPHAREFINE_CHECKPOINTS says (a relative path counts from the project root: a tracker's working
    directory is a temporary folder), else `checkpoints/` in the project root.
    """
    return PROJECT / Path(os.environ.get(ENVIRONMENT_VARIABLE) or "checkpoints").expanduser()


def find_checkpoints(profile: str, directory: str | os.PathLike | None = None) -> tuple[Path, Path]:
    """The files of a profile, (base tracker, refiner), after a check of their headers.

    profile: 'vot2020' or 'lite'. directory: None for `checkpoint_dir()`. Raises `CheckpointError` that names
    what is missing or unfit, where it was looked for, and how to get it; InputError for an unknown profile.
    """
    base, refiner = _find(profile, directory, slice(None))
    return base, refiner


def find_refiner_checkpoint(profile: str, directory: str | os.PathLike | None = None) -> Path:
    """The file of a profile's refiner alone; arguments and errors as of `find_checkpoints`."""
    (refiner,) = _find(profile, directory, slice(1, None))
    return refiner


def _find(profile: str, directory: str | os.PathLike | None, which: slice) -> list[Path]:
    folder = _folder(directory)
    slots = [slot for slot in SLOTS if slot.profile == profile][which]
    if not slots:
        raise InputError(f"There is no profile {profile!r}: choose vot2020 or lite.")
    problems = [f"{slot.file_name} {problem}" for slot in slots if (problem := problem_with(slot, folder))]
    if problems:
        cure = WHERE_TO_GET if profile == "vot2020" else (
            "They come with the project: restore its checkpoints/ folder, or let "
            f"{ENVIRONMENT_VARIABLE} name the folder that holds them.")
        found = "; ".join(problems)
        raise CheckpointError(f"The profile {profile} cannot run; in {folder}: {found}.\n{cure}")
    return [folder / slot.file_name for slot in slots]


def installed_profile(directory: str | os.PathLike | None = None) -> str:
    """'vot2020' where both of the authors' checkpoints are installed and fit, else 'lite'. Raises nothing."""
    folder = _folder(directory)
    complete = all(problem_with(slot, folder) is None for slot in SLOTS if slot.profile == "vot2020")
    return "vot2020" if complete else "lite"


def problem_with(slot: Slot, directory: str | os.PathLike | None = None) -> str | None:
    """What keeps a slot's file from being used, as the rest of a sentence ('is missing'), or None.

    Fast: looks at the header only. The file must be whole; the authors' must also say that `install` wrote
    them, and hold exactly their keys and shapes (for the project's own, `load_into` looks at that).
    """
    path = _folder(directory) / slot.file_name
    try:
        if not path.exists():
            return "is missing"
        shapes, metadata = read_header(path)
        if slot.published and (metadata.get("format"), metadata.get("kind")) != (FORMAT, slot.kind):
            return "was not written by `alpharefine checkpoints install`; install it with --force"
        if slot.layout not in (None, _layout(shapes)):
            _check_shapes(shapes, _expected_shapes(slot.kind))
    except (CheckpointError, OSError) as error:
        return f"cannot be used: {error}"
    return None


def _layout(shapes: Shapes) -> str:
    """A digest of keys and shapes, for every start: building a network to compare with takes seconds then."""
    return hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()


def _folder(directory: str | os.PathLike | None) -> Path:
    return checkpoint_dir() if directory is None else Path(directory).absolute()


# ---- fitting a network


def load_into(module: torch.nn.Module, source: str | os.PathLike | Checkpoint,
              what: str | None = None) -> None:
    """Give a network its weights, in place, cast to the network's dtypes.

    source: a file, or what `read_checkpoint` returned. what: the network's name for messages. Raises
    `CheckpointError` unless keys and shapes are exactly the network's; the network is then as it was.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    own = module.state_dict()
    try:
        _check_shapes(_shapes_of(checkpoint.state_dict), _shapes_of(own))
        for key, tensor in checkpoint.state_dict.items():
            if tensor.is_floating_point() != own[key].is_floating_point():
                raise CheckpointError(f"{quote(key)} should be {own[key].dtype}, but is {tensor.dtype}")
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit {what or type(module).__name__}: {error}. "
                              "Use the checkpoint that was made for this network and profile.") from error
    module.load_state_dict(checkpoint.state_dict)


def _shapes_of(state_dict: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state_dict.items()}


def _check_shapes(found: Shapes, expected: Shapes) -> None:
    missing, foreign = expected.keys() - found.keys(), found.keys() - expected.keys()
    for word, keys in (("lacks", missing), ("has the foreign", foreign)):
        if keys:
            names = ", ".join(quote(key) for key in sorted(keys)[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"it {word} {'entry' if len(keys) == 1 else 'entries'} {names}{more}")
    for key, shape in expected.items():
        if found[key] != shape:
            raise CheckpointError(f"{quote(key)} should have the shape {shape}, but has {found[key]}")


@functools.lru_cache(maxsize=None)
def _expected_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of one of the authors' networks, from the network itself, built without its weights."""
    from tracker_ar.models.alpha_refine import build_mask_refiner
    from tracker_ar.models.dimp import build_super_dimp

    build = {"super_dimp": build_super_dimp, "mask_refiner_384": build_mask_refiner}[kind]
    with torch.device("meta"):
        return _shapes_of(build().state_dict())


# ---- writing


def write_checkpoint(path: str | os.PathLike, state_dict: Mapping[str, torch.Tensor], kind: str,
                     metadata: Mapping[str, str] | None = None) -> None:
    """Write weights as safetensors, at once or not at all: a reader never sees half a file.

    kind: the `Slot.kind` that the weights are for; metadata: further text entries for the header.
    """
    path = Path(path)
    entries = {**(metadata or {}), "format": FORMAT, "kind": kind}
    try:
        with replacement(path) as temporary:
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()}
            save_file(tensors, temporary, metadata=entries)
            temporary.chmod(0o644)  # save_file leaves it to its owner alone
    except (OSError, SafetensorError) as error:  # the second when the disk is full
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {path}: {reason}; free some space, or choose another place with "
                              f"{ENVIRONMENT_VARIABLE}") from error


# ---- installing the authors' checkpoints


@dataclass(frozen=True)
class Installed:
    """One installed file: its slot, where it came from, where it is, and whether it had been there before."""

    slot: Slot
    source: Path
    path: Path
    already: bool


def install(paths: Iterable[str | os.PathLike], directory: str | os.PathLike | None = None,
            force: bool = False) -> list[Installed]:
    """Install downloads of the authors' checkpoints: recognise by keys, check, convert, put in place.

    force: replace files that are there. All of `paths` are checked before the first is written. Raises
    `CheckpointError` with cause and cure. Takes about twice the memory of one network's weights.
    """
    folder = _folder(directory)
    plan: dict[Slot, Installed] = {}
    for path in map(Path, paths):
        slot = _recognise(read_checkpoint(path))
        if slot in plan:
            both = f"{plan[slot].source} and {path}"
            raise CheckpointError(f"{both} both hold the {slot.kind} weights: name one of them.")
        target = folder / slot.file_name
        plan[slot] = Installed(slot, path, target, not force and _is_there(slot, target, path))
    for item in plan.values():
        if not item.already:
            origin = {"source": item.source.name, "source_sha256": _sha256(item.source)}
            write_checkpoint(item.path, read_checkpoint(item.source).state_dict, item.slot.kind, origin)
    return list(plan.values())


def _recognise(checkpoint: Checkpoint) -> Slot:
    keys = checkpoint.state_dict.keys()
    slots = [slot for slot in SLOTS if slot.published]
    slot = max(slots, key=lambda slot: len(keys & _expected_shapes(slot.kind).keys()))
    try:
        _check_shapes(_shapes_of(checkpoint.state_dict), _expected_shapes(slot.kind))
    except CheckpointError as error:
        net_type = checkpoint.metadata.get("net_type")
        says = f" (it says {quote(net_type)})" if net_type else ""
        raise CheckpointError(f"{checkpoint.path} is neither of the authors' two checkpoints{says}; "
                              f"held against {slot.published}: {error}.\n{WHERE_TO_GET}") from error
    return slot


def _is_there(slot: Slot, target: Path, source: Path) -> bool:
    """Whether this very source is installed; another file in its place is an error."""
    if not target.exists():
        return False
    sound = problem_with(slot, target.parent) is None
    if sound and read_header(target)[1].get("source_sha256") == _sha256(source):
        return True
    raise CheckpointError(f"{target} is there already and was not made from {source}; "
                          "add --force to replace it.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
