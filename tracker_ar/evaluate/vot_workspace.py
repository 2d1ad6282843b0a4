"""``alpharefine sequences``: what the workspace is evaluated on."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from tracker_ar.data.datasets.vot_layout import LIST_NAME, SequenceInfo, inspect_sequence, read_list, write_list
from tracker_ar.data.synthetic.procedural import write_synthetic_sequences
from tracker_ar.errors import DataError, EvaluationError
from tracker_ar.evaluate.workspace_config import CONFIG_NAME, data_set, sequences_folder, write_config
from tracker_ar.places import STACKS, TRACKERS, workspace


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alpharefine sequences``."""
    parser.description = "Make, link or list the sequences that the VOT toolkit evaluates on."
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", help="render the project's own sequences, the same every time")
    link = actions.add_parser("link", help="add every VOT-layout sequence of a folder")
    link.add_argument("folder", type=Path, help="a folder of sequence folders")
    link.add_argument("--masks-only", action="store_true", help="leave out sequences annotated with boxes")
    link.add_argument("--only", action="store_true", help="evaluate on these alone: replace the list")
    listing = actions.add_parser("list", help="say what the workspace is evaluated on")
    for action in (make, link, listing):
        action.add_argument("--workspace", type=Path, default=workspace(), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action. Raises DataError for folders that are not in the VOT layout."""
    folder = sequences_folder(args.workspace)
    if args.action == "make":
        make_sequences(folder)
    elif args.action == "link":
        link_sequences(args.folder, folder, masks_only=args.masks_only, replace=args.only)
    for info in listed_sequences(folder):
        kind = "masks" if info.has_masks else "boxes (a mask tracker scores low on them)"
        print(f"{info.path.name:<28} {info.length:>5} images, {kind}")
    return 0


def prepare_workspace(folder: Path, sequences: Path | None = None) -> None:
    """Make sure that a workspace has a configuration and valid sequences.

    A new one gets the stack for short videos and the project's trackers. ``sequences`` replaces the list of
    sequences; a workspace that has none gets those that the project renders itself.
    """
    if not (folder / CONFIG_NAME).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        stack = STACKS / "short-videos.yaml"
        (folder / stack.name).write_bytes(stack.read_bytes())
        write_config(folder, [TRACKERS], stack.name)
    used = sequences_folder(folder)
    if sequences is not None:
        if used.resolve() != (folder / "sequences").resolve():
            raise EvaluationError(f"{folder / CONFIG_NAME} shares the sequences in {used} with others, so --sequences "
                                  "would change theirs: choose another --workspace")
        link_sequences(sequences, used, masks_only=True, replace=True)
    elif not (used / LIST_NAME).is_file() and data_set(folder) is None:
        make_sequences(used)
    names = [info.path.name for info in listed_sequences(used)]
    foreign = next((path for path in map(str, (used / name for name in names)) if not path.isascii()), None)
    if foreign:
        raise EvaluationError(f"{foreign}: TraX cannot send paths with letters beyond ASCII; rename the "
                              "sequence or choose a --workspace in a folder with a plain name")


def make_sequences(folder: Path) -> None:
    """Render the project's own sequences into a workspace's folder of sequences and add them to its list."""
    names = write_synthetic_sequences(folder)
    write_list(folder, read_list(folder) + names)


def link_sequences(source: Path, folder: Path, masks_only: bool = False, replace: bool = False) -> list[str]:
    """Link every sequence of ``source`` into ``folder``, or copy it where links are impossible.

    All are checked before the first is linked. The list is extended, or with ``replace`` becomes these names,
    which are returned.
    Raises DataError when a sequence is not valid, when none is found, or when a name is taken by another one.
    """
    candidates = sorted(path.parent for path in source.glob("*/groundtruth*.txt"))
    infos = [inspect_sequence(path) for path in dict.fromkeys(candidates)]
    infos = [info for info in infos if info.has_masks or not masks_only]
    if not infos:
        raise DataError(f"{source}: no folder in it holds a VOT-layout sequence{' with masks' * masks_only}")
    for info in infos:
        target = folder / info.path.name
        if target.exists() and target.resolve() != info.path.resolve() and not _is_copy(target, info.path):
            raise DataError(f"{target}: another sequence has this name; remove or rename one of the two")
    folder.mkdir(parents=True, exist_ok=True)
    for info in infos:
        _link_or_copy(info.path.resolve(), folder / info.path.name)
    names = [info.path.name for info in infos]
    write_list(folder, names if replace else read_list(folder) + names)
    return names


def listed_sequences(folder: Path) -> list[SequenceInfo]:
    """The sequences that the toolkit will use, checked. Raises DataError when one is missing or damaged."""
    names = read_list(folder)
    for name in names:
        if not (folder / name).is_dir():
            raise DataError(f"{folder / LIST_NAME} names {name}, which is not there (a broken link?); "
                            "link it again or take its line out")
    return [inspect_sequence(folder / name) for name in names]


def _link_or_copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.unlink(missing_ok=True)  # a link whose target has gone
    try:
        os.symlink(source, target, target_is_directory=True)
    except OSError:
        # Windows without the right to make links, or a file system that has none.
        shutil.copytree(source, target)


def _is_copy(target: Path, source: Path) -> bool:
    truths = [path / "groundtruth.txt" for path in (target, source)]
    return all(truth.is_file() for truth in truths) and truths[0].read_bytes() == truths[1].read_bytes()
