"""Compact indices of large annotation files, kept between runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from tracker_ar.atomic import replacement

_VERSION = 1


def cache_folder() -> Path:
    """ALPHAREFINE_CACHE, else `alpharefine` in the user's cache folder."""
    chosen = os.environ.get("ALPHAREFINE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alpharefine"


def cached_index(
    source: Path, build: Callable[[Path], dict[str, np.ndarray]], folder: Path | None = None
) -> dict[str, np.ndarray]:
    """`build(source)`, or what it gave for a file of the same path, size and time.

    A cache that is damaged is made anew, and one that cannot be written is done without.
    """
    state = source.stat()
    key = f"{_VERSION} {source.resolve()} {state.st_size} {state.st_mtime_ns}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = (folder or cache_folder()) / f"{source.stem}-{digest}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        pass
    index = build(source)
    with contextlib.suppress(OSError), replacement(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **cast("dict[str, Any]", index))
    return index
