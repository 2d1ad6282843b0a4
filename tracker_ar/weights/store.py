"""Where checkpoints lie, whether they fit, and how a user's downloads of the authors' files are installed."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracker_ar import places
from tracker_ar.atomic import replacement
from tracker_ar.errors import CheckpointError
from tracker_ar.weights.header import read_header
from tracker_ar.weights.pickle_values import quote
from tracker_ar.weights.slots import SLOTS, Shapes, Slot, where_to_get

# torch is imported where it is needed: what is installed can be said without it.
if TYPE_CHECKING:
    import torch

    from tracker_ar.weights.containers import Checkpoint

ENVIRONMENT_VARIABLE = places.CHECKPOINTS_VARIABLE
FORMAT = "alpharefine-1"


# ---- places


def checkpoint_dir() -> Path:
    """The folder of the installed checkpoints, absolute.

    See `places.checkpoint_dir`, also on ALPHAREFINE_CHECKPOINTS.
    """
    return places.checkpoint_dir()


def find_checkpoints(
    slots: Iterable[Slot], what: str, directory: str | os.PathLike[str] | None = None
) -> list[Path]:
    """The installed files of some slots, after a check of their headers.

    what: the tracker's name for messages. directory: None for `checkpoint_dir()`. Raises `CheckpointError` that names
    what is missing or unfit, where it was looked for, and how to get it.
    """
    folder = _folder(directory)
    slots = list(slots)
    problems = {slot: problem for slot in slots if (problem := problem_with(slot, folder))}
    if problems:
        found = "; ".join(f"{slot.file_name} {problem}" for slot, problem in problems.items())
        raise CheckpointError(f"{what} cannot run; in {folder}: {found}.\n{where_to_get(problems)}")
    return [_file(directory, slot.file_name) for slot in slots]


def problem_with(slot: Slot, directory: str | os.PathLike[str] | None = None) -> str | None:
    """What keeps a slot's file from being used, as the rest of a sentence ('is missing'), or None.

    Fast: looks at the header only, without torch. The file must be whole; the authors' must also say that `install`
    wrote them, and hold the keys and shapes that the tracker needs (for the project's own, `load_into` looks at that).
    """
    path = _file(directory, slot.file_name)
    try:
        if not path.exists():
            return "is missing"
        shapes, metadata = read_header(path)
        if slot.published and (metadata.get("format"), metadata.get("kind")) != (FORMAT, slot.kind):
            return "was not written by `alpharefine checkpoints install`; install it with --force"
        if slot.layout not in (None, slot.layout_of(shapes)):
            expected = _expected_shapes(slot)
            if expected:
                _check_shapes(shapes, expected, slot)
            return "cannot be used: its keys or shapes are not those of the published file"
    except (CheckpointError, OSError) as error:
        return f"cannot be used: {error}"
    return None


def _folder(directory: str | os.PathLike | None) -> Path:
    return checkpoint_dir() if directory is None else Path(directory).absolute()


def _file(directory: str | os.PathLike | None, name: str) -> Path:
    return places.checkpoint_file(name) if directory is None else Path(directory).absolute() / name


# ---- fitting a network


def load_into(module: torch.nn.Module, source: str | os.PathLike[str] | Checkpoint, what: str | None = None,
              slot: Slot | None = None) -> None:
    """Give a network its weights, in place, cast to the network's dtypes.

    source: a file, or what `read_checkpoint` returned. what: the network's name for messages. slot: which keys may be
    lacking (the network's own values stay) or be there without use. Raises `CheckpointError` unless all others, and
    their shapes, are exactly the network's; the network is then as it was.
    """
    from tracker_ar.weights.containers import Checkpoint, read_checkpoint

    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    own = module.state_dict()
    try:
        _check_shapes(_shapes_of(checkpoint.state_dict), _shapes_of(own), slot)
        fitting = {key: tensor for key, tensor in checkpoint.state_dict.items()
                   if key in own and own[key].shape == tensor.shape}
        for key, tensor in fitting.items():
            if tensor.is_floating_point() != own[key].is_floating_point():
                raise CheckpointError(f"{quote(key)} should be {own[key].dtype}, but is {tensor.dtype}")
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit {what or type(module).__name__}: {error}. "
                              "Use the checkpoint of this network.") from error
    module.load_state_dict({**own, **fitting})


def _shapes_of(state_dict: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state_dict.items()}


def _check_shapes(found: Shapes, expected: Shapes, slot: Slot | None = None) -> None:
    if slot is not None:
        found = {key: shape for key, shape in found.items() if slot.is_needed(key)}
        expected = {key: shape for key, shape in expected.items() if slot.is_needed(key)}
    missing, foreign = expected.keys() - found.keys(), found.keys() - expected.keys()
    for word, keys in (("lacks", missing), ("has the foreign", foreign)):
        if keys:
            names = ", ".join(quote(key) for key in sorted(keys)[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"it {word} {'entry' if len(keys) == 1 else 'entries'} {names}{more}")
    for key, shape in expected.items():
        if found[key] != shape:
            raise CheckpointError(f"{quote(key)} should have the shape {shape}, but has {found[key]}")


@functools.cache
def _expected_shapes(slot: Slot) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a network, from the network itself; none where there is no such network (yet)."""
    from torch.overrides import TorchFunctionMode

    class WithoutDraws(TorchFunctionMode):
        """Leaves out the random numbers, and so the time and memory that they take. (On the device 'meta' torch loads
        its compiler first, which takes seconds.)"""

        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            draws = getattr(function, "__name__", "").endswith(("normal_", "uniform_"))
            return [*args, *kwargs.values()][0] if draws else function(*args, **kwargs)

    try:
        with WithoutDraws():
            return _shapes_of(slot.build().state_dict())
    except (ModuleNotFoundError, AttributeError):
        return {}


# ---- writing


def write_checkpoint(path: str | os.PathLike, state_dict: Mapping[str, torch.Tensor], kind: str,
                     metadata: Mapping[str, str] | None = None) -> None:
    """Write weights as safetensors, at once or not at all: a reader never sees half a file.

    kind: the `Slot.kind` that the weights are for; metadata: further text entries for the header.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

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
    """Install downloads of the authors' checkpoints: recognise by keys and shapes, check, convert, put in place.

    force: replace files that are there. All of `paths` are checked before the first is written. Raises
    `CheckpointError` with cause and fix. Takes about twice the memory of one network's weights.
    """
    from tracker_ar.weights.containers import read_checkpoint

    folder = _folder(directory)
    plan: dict[Slot, Installed] = {}
    for path in map(Path, paths):
        slot = recognise(read_checkpoint(path))
        if slot in plan:
            both = f"{plan[slot].source} and {path}"
            raise CheckpointError(f"{both} both hold the {slot.kind} weights: name one of them.")
        target = folder / slot.file_name
        plan[slot] = Installed(slot, path, target, not force and _is_there(slot, target, path))
    for slot, item in plan.items():
        if not item.already:
            origin = {"source": item.source.name, "source_sha256": _sha256(item.source)}
            read = read_checkpoint(item.source).state_dict
            write_checkpoint(item.path, {slot.prefix + key: value for key, value in read.items()}, slot.kind, origin)
    return list(plan.values())


def recognise(checkpoint: Checkpoint) -> Slot:
    """Which of the published files this is, by its keys and shapes.

    Those of SuperDiMP and DiMP-50 are the same, and told apart by what the file says of its training, else by its name.
    Raises `CheckpointError` that says what does not fit.
    """
    shapes = _shapes_of(checkpoint.state_dict)
    published = [slot for slot in SLOTS if slot.published]
    fit = [slot for slot in published if slot.layout_of(_with_prefix(shapes, slot)) == slot.layout]
    if not fit:
        raise CheckpointError(_what_does_not_fit(checkpoint, shapes, published))
    name = checkpoint.path.name.lower()
    for told in ([slot for slot in fit if slot.actor == checkpoint.metadata.get("actor_type", "")],
                 [slot for slot in fit if name.startswith(slot.kind)], fit):
        if len(told) == 1:
            return told[0]
    names = " and ".join(str(slot.published) for slot in fit)
    raise CheckpointError(f"{checkpoint.path} has the keys of {names}, and nothing in it says which it is; give it the "
                          "published name again.")


def _with_prefix(shapes: Shapes, slot: Slot) -> Shapes:
    return {slot.prefix + key: shape for key, shape in shapes.items()} if slot.prefix else shapes


def _what_does_not_fit(checkpoint: Checkpoint, shapes: Shapes, slots: list[Slot]) -> str:
    """Held against the published file with which it has the most in common."""
    def common(slot: Slot) -> int:
        return len(set(_with_prefix(shapes, slot).items()) & set(_expected_shapes(slot).items()))

    nearest = max(slots, key=common)
    net_type = checkpoint.metadata.get("net_type")
    says = f" (it says {quote(net_type)})" if net_type else ""
    message = f"{checkpoint.path} is none of the published checkpoints{says}"
    if common(nearest) > 0:
        try:
            _check_shapes(_with_prefix(shapes, nearest), _expected_shapes(nearest), nearest)
        except CheckpointError as error:
            return f"{message}; held against {nearest.published}: {error}.\n{where_to_get([nearest])}"
    known = ", ".join(str(slot.published) for slot in slots)
    return f"{message}. Known are {known}; see `alpharefine checkpoints list`."


def _is_there(slot: Slot, target: Path, source: Path) -> bool:
    """Whether this very source is installed; another file in its place is an error."""
    if not target.exists():
        return False
    sound = problem_with(slot, target.parent) is None
    if sound and read_header(target)[1].get("source_sha256") == _sha256(source):
        return True
    raise CheckpointError(f"{target} is there already and does not come from {source}; "
                          "add --force to replace it.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
