"""Folders of sequences in the layout of the VOT toolkit.

A sequence is a folder with ``color/%08d.jpg`` (from 1), ``groundtruth.txt`` (a region a line),
``anchor.value`` (a number a line: 1 start here and run forward, -1 backward, 0 neither) and ``sequence``
(``key=value`` lines).
``list.txt`` beside the sequences names those that belong to the data set.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from tracker_ar.errors import DataError

LIST_NAME = "list.txt"
_MASK = re.compile(r"m\s*-?\d+\s*,\s*-?\d+\s*,\s*(\d+)\s*,\s*(\d+)\s*((?:,\s*\d+\s*)*)")


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
    metadata = _metadata(metadata_file)
    if not metadata.get("fps", "").isdigit() or int(metadata["fps"]) == 0:
        raise DataError(f"{metadata_file}: no whole number 'fps=' above 0; the real-time experiment would take 30")

    pattern = metadata.get("channels.color", "color/%08d.jpg").replace("\\", "/")
    if "%" not in pattern:
        pattern += "/%08d.jpg"
    try:
        pattern % 1
    except (TypeError, ValueError) as error:
        raise DataError(f"{metadata_file}: 'channels.color={pattern}' is no pattern like color/%08d.jpg ({error}); "
                        "write %% for the sign itself") from error
    length = 0
    while (path / (pattern % (length + 1))).is_file():
        length += 1
    if length < 2:
        raise DataError(f"{path}: {length} images {pattern} counted from 1; at least 2 are needed")
    stated = metadata.get("length", "")
    if stated and stated != str(length):
        raise DataError(f"{metadata_file}: length={stated}, but there are {length} images {pattern} in a row")

    truth = path / metadata.get("groundtruth", "groundtruth.txt")
    regions = _lines(truth, length)
    for number, region in enumerate(regions, 1):
        problem = _problem_with(region)
        if problem:
            raise DataError(f"{truth}: line {number} {problem}: {region[:40]!r}")
    _check_anchors(path / "anchor.value", regions)
    has_masks = all(region.startswith("m") or _is_special(region) for region in regions)
    return SequenceInfo(path, length, has_masks)


def read_list(folder: Path) -> list[str]:
    """The names in ``list.txt`` of a folder of sequences; none when there is no such file."""
    file = folder / LIST_NAME
    return [line.strip() for line in _text(file).splitlines() if line.strip()] if file.is_file() else []


def write_list(folder: Path, names: list[str]) -> None:
    """Name the sequences of the data set, each once, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LIST_NAME).write_text("".join(f"{name}\n" for name in dict.fromkeys(names)))


def _lines(file: Path, length: int) -> list[str]:
    if not file.is_file():
        raise DataError(f"{file}: missing; it has the target's region in a line for every image")
    lines = [line.strip() for line in _text(file).splitlines()]
    if not all(lines):
        raise DataError(f"{file}: line {lines.index('') + 1} is blank; take it out")
    if len(lines) != length:
        raise DataError(f"{file}: {len(lines)} lines for {length} images; there must be one for every image")
    return lines


def _metadata(file: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in _text(file).splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _text(file: Path) -> str:
    """As the toolkit will read it, which takes a byte order mark for a letter."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error.reason}); save it in that encoding") from error
    if text.startswith("\ufeff"):
        raise DataError(f"{file}: begins with a byte order mark; save it as UTF-8 without one (BOM)")
    return text


def _problem_with(region: str) -> str:
    """What is wrong with a line of the ground truth, as the rest of a sentence; empty for a region."""
    if region.startswith("m"):
        mask = _MASK.fullmatch(region)
        if mask is None:
            return "is not a mask, m and whole numbers left, top, width, height and runs with commas between"
        width, height = int(mask[1]), int(mask[2])
        missing = width * height - sum(map(int, mask[3].split(",")[1:]))
        # Some writers leave out the zeros behind the last pixel of the target.
        return "" if 0 <= missing < max(width, 1) else "has runs that do not fill its box; was it cut off?"
    try:
        numbers = [float(word) for word in region.split(",")]
    except ValueError:
        return "is not a region: numbers with commas between, x,y,w,h for a box"
    if len(numbers) not in (1, 4) and (len(numbers) < 6 or len(numbers) % 2):
        return f"has {len(numbers)} numbers: a box has 4, x,y,w,h, and a polygon 6, 8 or more"
    return "has a number that is not finite" if any(map(math.isinf, numbers)) else ""


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
