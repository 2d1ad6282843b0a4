"""Files that are replaced in one step: a reader, or a stop at the wrong moment, never meets half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacement(file: Path) -> Iterator[Path]:
    """Give a path beside `file` to write to, and put what was written in the place of `file` at the end.

    The folder is made if it is missing. When anything fails, `file` stays as it was, nothing is left beside it
    and the error passes through; OSError where the folder or the file cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a whole file, see `replacement`."""
    with replacement(file) as temporary:
        temporary.write_bytes(content)
