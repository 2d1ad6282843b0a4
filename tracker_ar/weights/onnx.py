"""ONNX files of OpenCV's trackers, which users bring and which lie beside the checkpoints as they are."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from tracker_ar import places


@dataclass(frozen=True)
class Model:
    """An ONNX file. published: its name; pattern: of other names under which users may keep it."""

    published: str
    pattern: str

    def candidates(self, directory: str | PathLike[str] | None = None) -> list[Path]:
        """The files that may be meant; one that is named as published is the only one. directory: None for the folder
        of the checkpoints."""
        folder = places.checkpoint_dir() if directory is None else Path(directory).absolute()
        exact = folder / self.published
        return [exact] if exact.is_file() else sorted(path for path in folder.glob(self.pattern) if path.is_file())


NANOTRACK = (
    Model("nanotrack_backbone_sim.onnx", "*nanotrack*backbone*.onnx"),
    Model("nanotrack_head_sim.onnx", "*nanotrack*head*.onnx"),
)
VITTRACK = (Model("object_tracking_vittrack_2023sep.onnx", "*vittrack*.onnx"),)
