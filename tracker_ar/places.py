"""Where the weights, stacks, trackers.ini and documents lie: in a repository, and in an installed package.

A wheel carries what stands at the top of the repository in `tracker_ar/installed/` (`tracker_ar/wheel.py`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tracker_ar.errors import InputError

CHECKPOINTS_VARIABLE = "ALPHAREFINE_CHECKPOINTS"
PACKAGE = Path(__file__).resolve().parent
DOCUMENTS = PACKAGE / "docs"
_DISTRIBUTION = "alpharefine"
_INSTALLED = PACKAGE / "installed"

IN_REPOSITORY = not _INSTALLED.is_dir()
ROOT = PACKAGE.parent if IN_REPOSITORY else _INSTALLED
IMPORTED_FROM = PACKAGE.parent  # the folder to run `python -m tracker_ar...` in, whatever the current one is
STACKS = ROOT / "workspace"
TRACKERS = ROOT / "trackers.ini"
CONSTRAINTS = ROOT / "constraints.txt"


def how_to_install(extra: str = "") -> str:
    """The command that adds what is missing, an extra of the package or what it needs itself."""
    bracket = f"[{extra}]" if extra else ""
    if IN_REPOSITORY:
        return f"pip install -c constraints.txt -e '.{bracket}' in the project's folder"
    return f"pip install '{_DISTRIBUTION}{bracket}'"


def workspace() -> Path:
    """The toolkit workspace of commands that are not told one.

    The current folder where it is one; else the repository's, and for an installed package `workspace` in the current
    folder, since a package folder may be read-only and goes with the next version.
    """
    here = Path.cwd()
    if (here / "config.yaml").is_file():
        return here
    return STACKS if IN_REPOSITORY else here / "workspace"


def expanded(path: str | Path) -> Path:
    """A path that a user gave, `~` and `~name` replaced. Raises InputError for a user who is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: there is no such user; write ./~name for a file that begins with ~.") from error


def checkpoint_dir() -> Path:
    """The folder in which checkpoints are installed, absolute.

    It is what ALPHAREFINE_CHECKPOINTS says (a relative path counts from `ROOT`: a tracker's working directory is a
    temporary folder); else `checkpoints/` there; else, where that may not be written to, a folder of the user's.
    """
    chosen = os.environ.get(CHECKPOINTS_VARIABLE)
    if chosen:
        return ROOT / expanded(chosen)
    shipped = ROOT / "checkpoints"
    return shipped if os.access(shipped, os.W_OK) else user_data() / "checkpoints"


def checkpoint_file(name: str) -> Path:
    """Where the checkpoint of that file name is, or would be installed.

    Those that come with the package stay usable when others are installed in a folder of the user's.
    """
    folder = checkpoint_dir()
    if (folder / name).exists() or os.environ.get(CHECKPOINTS_VARIABLE):
        return folder / name
    places = (folder, ROOT / "checkpoints", user_data() / "checkpoints")
    return next((place / name for place in places if (place / name).exists()), folder / name)


def user_data() -> Path:
    """The user's folder for data of this program; it may not be there yet."""
    home = Path(os.path.expanduser("~"))  # unlike Path.home() it takes a user without one
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or home / ".local" / "share"
    return Path(base, _DISTRIBUTION).absolute()
