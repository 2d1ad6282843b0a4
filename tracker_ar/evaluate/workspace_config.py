"""The `config.yaml` of a workspace: read and written with a YAML library, since paths may hold any letter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tracker_ar.errors import EvaluationError
from tracker_ar.places import expanded

CONFIG_NAME = "config.yaml"
EXAMPLE = "registry:\n  - trackers.ini\nstack: short-videos.yaml"


def read_config(folder: Path) -> dict[str, Any]:
    """What a workspace says: at least a `stack`, a name or a mapping.

    Raises EvaluationError naming the file and what is wrong with it.
    """
    file = folder / CONFIG_NAME
    try:
        config = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # as the toolkit does
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}. Fix it after the example:\n{EXAMPLE}") from error
    if not isinstance(config, dict) or not isinstance(config.get("stack"), (str, dict)):
        raise EvaluationError(f"{file} does not name a stack of experiments. Fix it after the example:\n{EXAMPLE}")
    if not isinstance(config.get("sequences", ""), str):
        raise EvaluationError(f"{file}: `sequences` is not a path, but {config['sequences']!r}")
    return config


def write_config(folder: Path, registry: Sequence[Path], stack: str) -> None:
    """Make the configuration of a new workspace. registry: `trackers.ini` files."""
    config = {"registry": [str(path) for path in registry], "stack": stack}
    text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")


def sequences_folder(folder: Path) -> Path:
    """Where the sequences of a workspace are; it may name a folder that others share."""
    config = read_config(folder) if (folder / CONFIG_NAME).is_file() else {}
    return folder / expanded(config.get("sequences", "sequences"))


def data_set(folder: Path) -> str | None:
    """The data set that the stack names, which the toolkit downloads where there are no sequences; None without one.

    Raises EvaluationError for a stack that is not there or is not YAML.
    """
    from vot.stack import resolve_stack

    named = read_config(folder)["stack"]
    if isinstance(named, str):
        file = resolve_stack(named, str(folder))
        if file is None:
            raise EvaluationError(f"{folder / CONFIG_NAME}: the stack {named} is not there: neither "
                                  f"{folder / named} nor a stack of the toolkit has this name (vot2020/shortterm is "
                                  "the challenge's)")
        try:
            named = yaml.safe_load(Path(file).read_text(encoding="utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise EvaluationError(f"the stack {file} cannot be read: {error}") from error
    return (named.get("dataset") or None) if isinstance(named, dict) else None
