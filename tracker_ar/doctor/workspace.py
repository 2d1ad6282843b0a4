"""The workspace of the VOT toolkit: configuration, stack, trackers and sequences; nothing is downloaded."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker_ar import places
from tracker_ar.doctor.report import Row, failed, ok, warning
from tracker_ar.errors import DataError, EvaluationError
from tracker_ar.evaluate import workspace_config

if TYPE_CHECKING:
    from vot.tracker import Tracker

WRITTEN_FOLDERS = (".", "sequences", "results", "logs", "cache", "analysis", "reports")


def workspace(folder: Path) -> Iterator[Row]:
    """Everything but the trackers. folder: absolute, the toolkit's workspace."""
    config, row = read_config(folder)
    yield row
    if config is None:
        return
    data_set, row = _stack(folder, config)
    yield row
    yield from _sequences(folder, workspace_config.sequences_folder(folder), data_set)
    yield _writable(folder)


def read_config(folder: Path) -> tuple[dict[str, Any] | None, Row]:
    """What config.yaml says, None when it cannot be used, and a row about it."""
    file = folder / workspace_config.CONFIG_NAME
    if not file.is_file():
        # An installed package has none until the first evaluation.
        row = failed if places.IN_REPOSITORY or folder != places.workspace() else warning
        return None, row("workspace", f"{folder} is none", f"There is no {file}.",
                         f"alpharefine evaluate --workspace {folder} makes one, or name another with --workspace.")
    try:
        return workspace_config.read_config(folder), ok("workspace", str(folder))
    except EvaluationError as error:
        return None, failed("workspace", f"{file} cannot be used", str(error),
                            f"Correct it after the example:\n{workspace_config.EXAMPLE}")


def _stack(folder: Path, config: dict[str, Any]) -> tuple[str | None, Row]:
    """The data set that the stack names, if any, and a row about the stack."""
    import vot.analysis  # noqa: F401  (registers the kinds of analyses that a stack may name)
    import vot.experiment  # noqa: F401
    from vot.stack import Stack, resolve_stack

    name = config["stack"]
    if isinstance(name, dict):
        stack, found = Stack(**name), "written in config.yaml"
    else:
        file = resolve_stack(name, str(folder))
        if file is None:
            return None, failed("stack", f"{name} is not there",
                                f"Neither {folder / name} nor a stack of the toolkit has this name.",
                                "Correct `stack` in config.yaml; `vot initialize --help` explains the "
                                "toolkit's stacks, vot2020/shortterm is the challenge's.")
        try:
            stack, found = Stack.read(file), str(file)
        except Exception as error:  # the toolkit raises all kinds for a wrong entry
            return None, failed("stack", f"{file} cannot be read", f"{type(error).__name__}: {error}",
                                "Compare it with workspace/short-videos.yaml of the project.")
    experiments = ", ".join(experiment.identifier for experiment in stack)
    return stack.dataset, ok("stack", f"{found}: {experiments}")


# ---- sequences


def _sequences(folder: Path, sequences: Path, data_set: str | None) -> Iterator[Row]:
    from tracker_ar.data.datasets.vot_layout import LIST_NAME, read_list
    from tracker_ar.evaluate.vot_toolkit import load_workspace
    from tracker_ar.evaluate.vot_workspace import listed_sequences

    yield _plain_paths(sequences, read_list(sequences))
    if not (sequences / LIST_NAME).is_file():
        if data_set:
            yield warning("sequences", f"none yet in {sequences}",
                          f"The stack names the data set {data_set}.",
                          "The first `vot evaluate` downloads it; it takes a while and several GB.")
        else:
            yield warning("sequences", f"none yet in {sequences}", "No sequences were rendered or linked.",
                          f"alpharefine sequences make --workspace {folder}\n(`alpharefine evaluate` does it "
                          "by itself)")
        return
    try:
        infos = listed_sequences(sequences)
        load_workspace(folder)
    except DataError as error:
        yield failed("sequences", f"those in {sequences} cannot be used", str(error),
                     "Fix or remove what the cause names; alpharefine sequences --help says how to render and "
                     "link them.")
        return
    except EvaluationError as error:
        yield failed("sequences", f"the toolkit cannot read {sequences}", str(error),
                     f"alpharefine sequences make --workspace {folder}")
        return
    boxes = [info.path.name for info in infos if not info.has_masks]
    found = f"{len(infos)} with {sum(info.length for info in infos)} images, listed and valid"
    if boxes:
        yield warning("sequences", found,
                      f"Annotated with boxes, on which masks score low: {', '.join(boxes[:5])}",
                      "alpharefine sequences link --masks-only --only DIR")
    else:
        yield ok("sequences", found)


def _plain_paths(sequences: Path, names: list[str]) -> Row:
    paths = [str(sequences), *(str(sequences / name) for name in names)]
    foreign = next((path for path in paths if not path.isascii()), None)
    if foreign is None:
        return ok("paths", "ASCII, as TraX needs them")
    return failed("paths", foreign,
                  "TraX cannot send paths with letters beyond ASCII: the session ends without a word.",
                  "Rename the sequence, or choose a --workspace in a folder with a plain name.")


def _writable(folder: Path) -> Row:
    for path in (folder / name for name in WRITTEN_FOLDERS):
        if not path.is_dir():
            continue
        try:
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(b"trial")
        except OSError as error:
            return failed("writing", f"cannot write into {path}", str(error.strerror or error),
                          f"Take the folder over (chown, chmod u+w {path}), free space on the disk, or "
                          "choose another --workspace.")
    return ok("writing", f"possible; {shutil.disk_usage(folder).free / 2**30:.0f} GiB free")


# ---- trackers


@dataclass(frozen=True)
class Launch:
    """How the toolkit starts a tracker. timeout: seconds that it grants an answer."""

    command: tuple[str, ...]
    environment: dict[str, str]
    timeout: float


def find_tracker(folder: Path, identifier: str) -> tuple[Launch | None, Row]:
    """How the toolkit would start a tracker from a workspace, None when it cannot, and a row about it.

    A folder without a configuration counts as one with the project's `trackers.ini`.
    """
    from vot import config as toolkit_config
    from vot.tracker import Registry
    from vot.utilities import normalize_path

    settings, _ = read_config(folder)
    named = settings.get("registry") or [] if settings else [str(places.TRACKERS)]
    named = named.split(",") if isinstance(named, str) else list(named)
    name = f"tracker {identifier}"
    try:
        files = [normalize_path(path, str(folder)) for path in named]
        files += [normalize_path(path, ".") for path in toolkit_config.registry]
        registry = Registry(files, root=str(folder))
    except Exception as error:  # a registry is read by several parsers
        return None, failed(name, "the registry cannot be read", f"{type(error).__name__}: {error}",
                            f"Fix {', '.join(map(str, named))}; compare it with the project's trackers.ini.")
    if identifier not in registry:
        known = ", ".join(registry.identifiers()) or "none"
        return None, failed(name, "not registered",
                            f"{', '.join(map(str, named)) or 'No registry'} knows: {known}",
                            "Choose one of them with --tracker, or correct `registry` in config.yaml.")
    return _launch(name, registry[identifier])


def _launch(name: str, tracker: Tracker) -> tuple[Launch | None, Row]:
    try:
        runtime = tracker.runtime()
        # The toolkit offers no other way to see the command that it makes from an entry.
        command, environment = runtime._command, dict(runtime._envvars)
        socket, timeout = runtime._socket, float(runtime._timeout)
    except Exception as error:  # a misspelt key is a TypeError, an unknown protocol a TrackerException
        return None, failed(name, f"its entry in {tracker.source} cannot be used",
                            f"{type(error).__name__}: {error}",
                            "The keys are label, protocol, command, paths, python, timeout, linkpaths, "
                            "socket, restart, env_NAME, arg_NAME, meta_NAME, version, tags, storage; "
                            "protocol is trax or traxpython.")
    words = shlex.split(command)
    if shutil.which(words[0]) is None:
        return None, failed(name, f"cannot be started: {command}",
                            f"There is no program {words[0]}. (The toolkit takes the command apart at "
                            "spaces, also at those in the path of the interpreter.)",
                            "Correct `command` or `python` in the registry, or move the environment to a "
                            "path without spaces.")
    if socket:
        return None, failed(name, "asks for a socket",
                            "`socket` is set; the doctor speaks through pipes only.",
                            f"Take `socket` out of {tracker.source}; a tracker on this machine does not need "
                            "it.")
    return Launch(tuple(words), environment, timeout), ok(name, command)
