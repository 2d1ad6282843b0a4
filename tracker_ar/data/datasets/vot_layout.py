"""Folders of sequences in the layout of the VOT toolkit.

A sequence is a folder with ``color/%08d.jpg`` (from 1), ``groundtruth.txt`` (a region a line),
``anchor.value`` (a number a line: 1 start here and run forward, -1 backward, 0 neither) and ``sequence``
(``key=value`` lines).
``list.txt`` beside the sequences names those that belong to the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


from tracker_ar.errors import DataError

LIST_NAME = "list.txt"


@dataclass(frozen=True)
class SequenceInfo:
    """What a valid sequence folder holds."""

    path: Path
    length: int
    has_masks: bool


def inspect_sequence(path: Path) -> SequenceInfo:
    """Check one sequence folder. Raises DataError naming the file and what is wrong with it."""
    metadata_file = path / "sequence"
    if not metadata_file.is_file():
        raise DataError(f"{path}: no file 'sequence'; a VOT-layout folder has one with name, fps and length")
    metadata = dict(line.split("=", 1) for line in metadata_file.read_text().splitlines() if "=" in line)
    if not metadata.get("fps", "").strip().isdigit():
        raise DataError(f"{metadata_file}: no whole number 'fps='; the real-time experiment would take 30")

    pattern = metadata.get("channels.color", "color/%08d.jpg").strip()
    if "%" not in pattern:
        pattern += "/%08d.jpg"
    length = 0
    while (path / (pattern % (length + 1))).is_file():
        length += 1
    if length < 2:
        raise DataError(f"{path}: {length} images {pattern} counted from 1; at least 2 are needed")
    stated = metadata.get("length", "").strip()
    if stated and stated != str(length):
        raise DataError(f"{metadata_file}: length={stated}, but there are {length} images {pattern} in a row")

    regions = _lines(path / metadata.get("groundtruth", "groundtruth.txt").strip(), length)
    _check_anchors(path / "anchor.value", regions)
    has_masks = all(region.startswith("m") or _is_special(region) for region in regions)
    return SequenceInfo(path, length, has_masks)


def read_list(folder: Path) -> list[str]:
    """The names in ``list.txt`` of a folder of sequences; none when there is no such file."""
    file = folder / LIST_NAME
    return [line.strip() for line in file.read_text().splitlines() if line.strip()] if file.is_file() else []


def write_list(folder: Path, names: list[str]) -> None:
    """Name the sequences of the data set, each once, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIST_NAME).write_text("".join(f"{name}\n" for name in dict.fromkeys(names)))


def _lines(file: Path, length: int) -> list[str]:
    if not file.is_file():
        raise DataError(f"{file}: missing; it has the target's region in a line for every image")
    lines = [line.strip() for line in file.read_text().splitlines()]
    if len(lines) != length or not all(lines):
        raise DataError(f"{file}: {len([line for line in lines if line])} lines for {length} images; "
                        "there must be one for every image")
    return lines


def _check_anchors(file: Path, regions: list[str]) -> None:
    if not file.is_file():
        raise DataError(f"{file}: missing; a line for every image says where runs start: 1 for the "
                        "first, -1 for the last, 0 for the others will do")
    try:
        anchors = [float(line) for line in _lines(file, len(regions))]
    except ValueError as error:
        raise DataError(f"{file}: not a number ({error}); 1 forward, -1 backward, 0 no anchor") from error
    starts = [frame for frame, anchor in enumerate(anchors) if anchor]
    if not starts:
        raise DataError(f"{file}: no anchor; mark the first frame with 1, and the last with -1")
    for frame in starts:
        if _is_special(regions[frame]) or regions[frame].startswith("m0,0,0,0"):
            raise DataError(f"{file}: the anchor at image {frame + 1} has no target to start from")


def _is_special(region: str) -> bool:
    """One number stands for 'unknown' or 'not visible', as four NaN do."""
    return "," not in region or "nan" in region.lower()
