"""A folder of annotated images, held in memory, and the things that can be cut out of it.

Layout of the folder::

    index.json            a list of {"name", "source", ...}, one entry per image
    images/NAME.jpg       the image (also .png)
    masks/NAME.png        optional; 0 background, 1..N objects, 255 ignore
    regions/NAME.png      optional; a partition of the image into regions (not objects)
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from tracker_ar.errors import DataError
from tracker_ar.images import read_image, read_labels

IGNORE = 255
MIN_AREA = 400
MAX_SHARE = 0.6
VALIDATION_SHARE = 20


@dataclass(frozen=True)
class Cutout:
    """One annotated thing: the index of its image, its value in the map, its box x0, y0, x1, y1, its area."""

    image: int
    label: int
    box: tuple[int, int, int, int]
    area: int


@dataclass(frozen=True)
class AnnotatedImage:
    """`pixels` is RGB uint8 H x W x 3; `labels` and `regions` are uint8/uint16 H x W maps or None."""

    name: str
    source: str
    pixels: np.ndarray
    labels: np.ndarray | None
    regions: np.ndarray | None


class ImageLibrary:
    """All images of one split of a data folder.

    Args:
        folder: the data folder (layout above).
        split: "train" or "validation"; an image belongs to validation by a checksum of its name, about
            one in twenty.
        limit: read at most this many images (for tests).

    Raises:
        DataError: the folder, its index or an image is missing or unreadable, or nothing can be cut out.
    """

    def __init__(self, folder: str | Path, split: str = "train", limit: int | None = None) -> None:
        self.folder = Path(folder)
        entries = [entry for entry in read_index(self.folder) if in_split(entry["name"], split)]
        self.images = [self._read(entry) for entry in entries[:limit]]
        self.objects: dict[str, list[Cutout]] = {}
        self.regions: list[Cutout] = []
        for index, image in enumerate(self.images):
            if image.labels is not None:
                self.objects.setdefault(image.source, []).extend(_cutouts(index, image.labels))
            if image.regions is not None:
                self.regions.extend(_cutouts(index, image.regions))
        self.objects = {source: found for source, found in self.objects.items() if found}
        if not self.objects:
            raise DataError(
                f"{self.folder}: no object of at least {MIN_AREA} pixels in the {split} images; "
                "training needs masks/NAME.png with values 1..N for some images"
            )
        weights = np.sqrt([len(found) for found in self.objects.values()])
        self._sources = list(self.objects)
        self._source_weights = weights / weights.sum()

    def _read(self, entry: dict) -> AnnotatedImage:
        name = entry["name"]
        paths = [self.folder / "images" / f"{name}{suffix}" for suffix in (".jpg", ".png")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise DataError(f"{paths[0]}: missing, but listed in index.json")
        pixels = read_image(path, upright=False)
        shape = pixels.shape[:2]
        return AnnotatedImage(
            name=name,
            source=str(entry.get("source", "unknown")),
            pixels=pixels,
            labels=_read_map(self.folder / "masks" / f"{name}.png", shape),
            regions=_read_map(self.folder / "regions" / f"{name}.png", shape),
        )

    def draw_object(self, rng: np.random.Generator) -> Cutout:
        """A random annotated object; sources are weighted by the square root of their size."""
        source = self._sources[rng.choice(len(self._sources), p=self._source_weights)]
        found = self.objects[source]
        return found[rng.integers(len(found))]

    def draw_region(self, rng: np.random.Generator) -> Cutout | None:
        """A random region of a partition, or None where the folder has no partitions."""
        return self.regions[rng.integers(len(self.regions))] if self.regions else None

    def draw_image(self, rng: np.random.Generator) -> AnnotatedImage:
        """A random image."""
        return self.images[rng.integers(len(self.images))]

    def mask_of(self, cutout: Cutout, of_regions: bool = False) -> np.ndarray:
        """The cutout's own mask, uint8 {0, 1}, the size of its image."""
        image = self.images[cutout.image]
        labels = image.regions if of_regions else image.labels
        assert labels is not None
        return (labels == cutout.label).astype(np.uint8)


def in_split(name: str, split: str) -> bool:
    """Whether the image of this name belongs to the split "train" or "validation"."""
    held_out = zlib.crc32(name.encode()) % VALIDATION_SHARE == 0
    return held_out == (split == "validation")


def read_index(folder: Path) -> list[dict]:
    """The entries of a data folder's index. Raises DataError where it is missing or damaged."""
    path = folder / "index.json"
    if not path.is_file():
        raise DataError(f"{path}: not found; --data must name a folder with index.json, images/ and masks/")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        names = [entry["name"] for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f'{path}: not a JSON list of objects with a "name" ({error})') from error
    if not names:
        raise DataError(f"{path}: the list is empty; it must name at least one image")
    return entries


def _read_map(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    if not path.is_file():
        return None
    labels = read_labels(path)
    if labels.shape != shape:
        raise DataError(f"{path}: is {labels.shape[1]}x{labels.shape[0]}, its image {shape[1]}x{shape[0]}")
    return labels


def _cutouts(index: int, labels: np.ndarray) -> list[Cutout]:
    counts = np.bincount(labels.ravel())
    found = []
    for label, slices in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if slices is None or label == IGNORE and labels.dtype == np.uint8:
            continue
        area = int(counts[label])
        if MIN_AREA <= area <= MAX_SHARE * labels.size:
            rows, columns = slices
            found.append(Cutout(index, label, (columns.start, rows.start, columns.stop, rows.stop), area))
    return found
