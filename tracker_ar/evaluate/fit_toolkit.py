"""Whether the VOT toolkit that is installed can do what it is needed for; without importing it."""

from __future__ import annotations

import atexit
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tracker_ar.errors import EvaluationError
from tracker_ar.places import how_to_install

PACKAGES = ("vot-toolkit", "attributee", "vot-trax")


def require_toolkit() -> None:
    """Raises EvaluationError with cause and fix where the toolkit is missing or of a version that is known to fail."""
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            cause = f"This needs the VOT toolkit, and {name} is not installed"
            raise EvaluationError(f"{cause}: {how_to_install()}") from None
        unfit = why_unfit(name, version)
        if unfit:
            raise EvaluationError(f"{name} {version} is installed. {unfit[0]} {unfit[1]}")
    give_numba_a_cache()


def why_unfit(name: str, version: str) -> tuple[str, str] | None:
    """(cause, fix) for versions that were seen to fail."""
    number = tuple(int(digits) for digits in re.findall(r"\d+", version)[:3])
    if name == "vot-toolkit" and (0, 8) <= number <= (0, 9, 0):
        return ("vot-toolkit 0.8.0 to 0.9.0 cannot run the VOT2020 protocol: its multistart experiments end "
                "with 'ObjectQuery.state must be a Region'.",
                "pip install vot-toolkit==0.7.4 attributee==0.1.9 vot-trax==4.0.2")
    if name == "attributee" and number == (0, 1, 10) and sys.version_info >= (3, 11):
        return ("With it the toolkit cannot be imported on Python 3.11 and later: 'dataclass_transform() "
                "takes 0 positional arguments'.", "pip install attributee==0.1.9")
    if name == "vot-trax" and number < (4,):
        return ("The TraX server needs vot-trax 4: a state is a list of objects with properties there.",
                "pip install vot-trax==4.0.2")
    return None


def give_numba_a_cache() -> None:
    """Let numba, which the toolkit uses, keep its compiled functions in a temporary folder where it has no other.

    In a read-only installation of a user without a home the toolkit could not be imported. To be called before it is.
    """
    spec = importlib.util.find_spec("vot")
    if spec is None or spec.origin is None or os.environ.get("NUMBA_CACHE_DIR"):
        return
    beside = Path(spec.origin).parent / "region" / "__pycache__"
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "numba"
    if not (_can_be_written(beside) or _can_be_written(user)):
        # Not a name that others know: numba unpickles what it finds.
        folder = tempfile.mkdtemp(prefix="alpharefine-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["NUMBA_CACHE_DIR"] = folder


def _can_be_written(folder: Path) -> bool:
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return there is not None and os.access(there, os.W_OK)
