"""COCO 2017 (Lin et al., 2014): still images with the outlines of single objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.data.datasets.files import existing
from tracker_ar.data.datasets.index_cache import cached_index
from tracker_ar.data.sequence import Frame
from tracker_ar.errors import DataError
from tracker_ar.images import read_image

LAYOUT = """  ROOT/annotations/instances_train2017.json
  ROOT/train2017/000000000009.jpg ...            (or ROOT/images/train2017/; val2017 in the same way)"""
_FINER = 4
_SHIFT = 8  # cv2 takes corners as whole numbers of 1/256


@dataclass(frozen=True)
class _Object:
    """One object of one image; `polygons` are float32 (points, 2) in pixels, 0-based and continuous."""

    name: str
    path: Path
    box: np.ndarray
    polygons: list[np.ndarray]

    @property
    def visible(self) -> np.ndarray:
        return np.ones(1, bool)

    def frame(self, index: int) -> Frame:
        image = read_image(self.path, upright=False)  # annotations are made without the tag
        return Frame(image, self.box, fill(self.polygons, image.shape[:2]))


class COCO:
    """The split "train" or "val" of 2017; one track of one frame per object that is not a crowd.

    The annotation file of the training split is half a gigabyte of JSON; what is needed of it is kept as a
    compact index in the user's cache folder.

    Raises:
        DataError: a folder or the annotation file is missing or damaged.
    """

    name = "COCO"
    is_video = False
    has_masks = True

    def __init__(self, root: str | Path, split: str = "train") -> None:
        annotations = existing(root, (f"annotations/instances_{split}2017.json",), self.name, LAYOUT)
        self.folder = existing(root, (f"{split}2017", f"images/{split}2017"), self.name, LAYOUT)
        self.index = cached_index(annotations, build_index)
        if not len(self):
            raise DataError(f"{annotations}: has no object with an outline")

    def __len__(self) -> int:
        return len(self.index["boxes"])

    def track(self, index: int) -> _Object:
        file = str(self.index["files"][self.index["images"][index]])
        first, last = self.index["object_starts"][index : index + 2]
        starts = self.index["polygon_starts"][first : last + 1]
        polygons = [self.index["points"][a:b] for a, b in zip(starts[:-1], starts[1:])]
        box = self.index["boxes"][index].astype(np.float64)
        return _Object(f"{self.name}/{file}/{index}", self.folder / file, box, polygons)


def build_index(path: Path) -> dict[str, np.ndarray]:
    """Read an annotation file into flat arrays: files, and per object its image, box and polygons."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        places = {image["id"]: place for place, image in enumerate(content["images"])}
        kept = [
            note
            for note in content["annotations"]
            if _single(note)
        ]
        outlines = [np.array(part, np.float32) for note in kept for part in note["segmentation"]]
        polygons = [outline.reshape(-1, 2) for outline in outlines]
        lengths = [len(polygon) for polygon in polygons]
        counts = [len(note["segmentation"]) for note in kept]
        return {
            "files": np.array([image["file_name"] for image in content["images"]], dtype=np.str_),
            "images": np.array([places[note["image_id"]] for note in kept], np.int32),
            "boxes": np.array([note["bbox"] for note in kept], np.float32).reshape(-1, 4),
            "object_starts": np.concatenate(([0], np.cumsum(counts))).astype(np.int32),
            "polygon_starts": np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
            "points": np.concatenate(polygons) if polygons else np.zeros((0, 2), np.float32),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a COCO instances file ({error!r})") from error


def _single(note: dict) -> bool:
    """Whether this is one object with outlines, not a crowd, whose mask is run lengths over many."""
    return not note.get("iscrowd", 0) and isinstance(note["segmentation"], list) and min(note["bbox"][2:]) > 0


def fill(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The pixels of which a polygon covers more than half, uint8 {0, 1} of `size` (height, width).

    Args:
        polygons: (points, 2) each, x and y in continuous coordinates: pixel i covers [i, i + 1).
    """
    mask = np.zeros(size, np.uint8)
    for polygon in polygons:
        left, top = np.maximum(np.floor(polygon.min(0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(polygon.max(0)), size[::-1]).astype(int)
        if right <= left or bottom <= top:
            continue
        # cv2 fills the pixels on the edge too, so it is done finer and averaged.
        fine = np.zeros(((bottom - top) * _FINER, (right - left) * _FINER), np.uint8)
        points = ((polygon - [left, top]) * _FINER - 0.5) * (1 << _SHIFT)
        cv2.fillPoly(fine, [np.rint(points).astype(np.int32)], 255, shift=_SHIFT)
        covered = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        mask[top:bottom, left:right] |= covered > 127
    return mask
