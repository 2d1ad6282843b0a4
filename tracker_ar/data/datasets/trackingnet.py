"""TrackingNet (Müller et al., 2018): 30,132 training videos in twelve parts, with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tracker_ar.data.datasets.files import BoxTrack, existing, names_in, positive, read_numbers
from tracker_ar.errors import DataError

LAYOUT = """  ROOT/TRAIN_0/anno/VIDEO.txt
  ROOT/TRAIN_0/frames/VIDEO/0.jpg, 1.jpg ...      (TRAIN_0 to TRAIN_11, unzipped)"""


class TrackingNet:
    """The training parts of these numbers, 0 to 11.

    Raises:
        DataError: a part is missing or holds no annotations.
    """

    name = "TrackingNet"
    is_video = True
    has_masks = False

    def __init__(self, root: str | Path, parts: Sequence[int] = tuple(range(12))) -> None:
        self.videos: list[tuple[Path, str]] = []
        for part in parts:
            annotations = existing(root, (f"TRAIN_{part}/anno",), self.name, LAYOUT)
            existing(root, (f"TRAIN_{part}/frames",), self.name, LAYOUT)
            self.videos += [(annotations.parent, name) for name in names_in(annotations, ".txt")]
        if not self.videos:
            raise DataError(f"{self.name}: no annotation in {root}. Expected layout:\n{LAYOUT}")

    def __len__(self) -> int:
        return len(self.videos)

    def track(self, index: int) -> BoxTrack:
        part, name = self.videos[index]
        boxes = read_numbers(part / "anno" / f"{name}.txt", 4)
        images = [part / "frames" / name / f"{number}.jpg" for number in range(len(boxes))]
        return BoxTrack(f"{self.name}/{part.name}/{name}", images, boxes, positive(boxes))
