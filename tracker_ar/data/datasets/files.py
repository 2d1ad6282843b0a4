"""Reading what data sets are made of: folders, text files, images, masks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracker_ar.data.sequence import Frame
from tracker_ar.errors import DataError
from tracker_ar.geometry import box_from_mask
from tracker_ar.images import read_image, read_labels

NO_BOX = np.zeros(4)


@dataclass(frozen=True)
class BoxTrack:
    """A video with a box in every frame: images, `boxes` float64 (frames, 4), `visible` bool (frames,)."""

    name: str
    images: list[Path]
    boxes: np.ndarray
    visible: np.ndarray

    def frame(self, index: int) -> Frame:
        return Frame(read_image(self.images[index], upright=False), self.boxes[index], None)


@dataclass(frozen=True)
class MaskTrack:
    """A video or a still image with label maps.

    The target is where the map equals `label`, or exceeds `above` where `label` is None.
    """

    name: str
    images: list[Path]
    masks: list[Path]
    visible: np.ndarray
    label: int | None = None
    above: int = 127

    def frame(self, index: int) -> Frame:
        image, labels = read_image(self.images[index], upright=False), read_labels(self.masks[index])
        if labels.shape != image.shape[:2]:
            raise DataError(
                f"{self.masks[index]}: is {labels.shape[1]}x{labels.shape[0]}, "
                f"its image {image.shape[1]}x{image.shape[0]}"
            )
        target = labels > self.above if self.label is None else labels == self.label
        return masked_frame(image, target)


def masked_frame(image: np.ndarray, target: np.ndarray) -> Frame:
    """A frame whose box is that of its mask (bool or uint8 H x W)."""
    mask = target.astype(np.uint8)
    return Frame(image, box_from_mask(mask) if mask.any() else NO_BOX, mask)


def existing(root: str | Path, candidates: Iterable[str], dataset: str, layout: str) -> Path:
    """The first of the candidate paths under `root` that exists.

    Raises:
        DataError: names the data set, what is missing and the layout that is expected.
    """
    root = Path(root)
    candidates = list(candidates)
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    wanted = " or ".join(str(root / candidate) for candidate in candidates)
    raise DataError(f"{dataset}: {wanted} not found. Expected layout:\n{layout}")


def names_in(folder: Path, suffix: str = "") -> list[str]:
    """Sorted names in a folder that end in `suffix`, without it; hidden files are left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(suffix) and entry.name[0] != "."]
    return sorted(name[: len(name) - len(suffix)] for name in names)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, stripped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_numbers(path: Path, columns: int) -> np.ndarray:
    """Numbers separated by commas or white space, float64 (rows, columns)."""
    words = " ".join(read_lines(path)).replace(",", " ").split()
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path}: holds something else than numbers ({error})") from error
    if values.size % columns:
        raise DataError(f"{path}: {values.size} numbers cannot be rows of {columns}")
    return values.reshape(-1, columns)


def read_flags(path: Path, count: int) -> np.ndarray:
    """One number per frame, float64 (count,)."""
    flags = read_numbers(path, 1)[:, 0]
    if len(flags) != count:
        raise DataError(f"{path}: has {len(flags)} entries, but the sequence has {count} boxes")
    return flags


def positive(boxes: np.ndarray) -> np.ndarray:
    """bool (frames,): boxes with finite numbers and a size."""
    return np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1)
