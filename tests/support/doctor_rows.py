"""Rows of the doctor by name, and a folder of checkpoints for it to look at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from tracker_ar import zoo
from tracker_ar.doctor.report import Row
from tracker_ar.weights.store import write_checkpoint


def named(found: Iterable[Row], name: str) -> Row:
    return {row.name: row for row in found}[name]


def write_lite(folder: Path) -> None:
    for slot in zoo.slots_of("lite"):
        write_checkpoint(folder / slot.file_name, {"weight": torch.ones(3)}, slot.kind)
