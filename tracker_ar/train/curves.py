"""What a training writes down: log.jsonl, and curves for TensorBoard where that is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracker_ar.atomic import write_atomically


class Curves:
    """Values by step. Going on from a checkpoint drops what was written after it.

    Files in `folder`: log.jsonl, one line per report; tensorboard/, where the package is installed.

    Args:
        step: of the checkpoint that the training goes on from, or 0.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        if self.path.is_file():
            self._forget_after(step)
        self.writer: Any = _writer(folder / "tensorboard", step)

    def add(self, step: int, minutes: float, values: Mapping[str, float]) -> None:
        """Append one line, and a point to every curve; names that begin with val_ are grouped apart."""
        line = {"step": step, "minutes": round(minutes, 2), **values}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.writer is None:
            return
        for name, value in values.items():
            group = "validation/" + name[4:] if name.startswith("val_") else "training/" + name
            self.writer.add_scalar(group, value, step)

    def close(self) -> None:
        """Write out what is still held back."""
        if self.writer is not None:
            self.writer.close()

    def _forget_after(self, step: int) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        write_atomically(self.path, "".join(line + "\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the last line of a run that was killed while it wrote


def _writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
