"""DAVIS 2016 (Perazzi et al.) and DAVIS 2017 (Pont-Tuset et al.): videos with a mask in every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracker_ar.data.datasets.files import MaskTrack, existing, names_in, read_lines
from tracker_ar.errors import DataError
from tracker_ar.images import read_labels

LAYOUT = """  ROOT/JPEGImages/480p/VIDEO/00000.jpg ...
  ROOT/Annotations/480p/VIDEO/00000.png ...
  ROOT/ImageSets/2017/train.txt                  (2016: ImageSets/2016 or ImageSets/480p)"""
_VOID = 255


class DAVIS:
    """One track per video (2016: its foreground) or per object (2017).

    Args:
        root: the data set's folder; the package of 2017 also holds the videos of 2016.
        split: "train", "val" or "trainval".
        year: 2016 or 2017.

    Raises:
        DataError: a folder, a list or a video of the list is missing.
    """

    is_video = True
    has_masks = True

    def __init__(self, root: str | Path, split: str = "train", year: int = 2017) -> None:
        self.name = f"DAVIS {year}"
        lists = (f"ImageSets/{year}", "ImageSets/480p") if year == 2016 else (f"ImageSets/{year}",)
        self.images = existing(root, ("JPEGImages/480p",), self.name, LAYOUT)
        self.masks = existing(root, ("Annotations/480p",), self.name, LAYOUT)
        listed = existing(root, [f"{folder}/{split}.txt" for folder in lists], self.name, LAYOUT)
        self.targets: list[tuple[str, int | None]] = []
        for video in _videos(listed):
            self.targets += [(video, label) for label in (self._labels(video) if year == 2017 else [None])]

    def _labels(self, video: str) -> list[int]:
        """Every object is in the first frame: that is how a tracker is started."""
        first = names_in(existing(self.masks, (video,), self.name, LAYOUT), ".png")[:1]
        if not first:
            raise DataError(f"{self.masks / video}: holds no PNG masks")
        values = np.unique(read_labels(self.masks / video / f"{first[0]}.png"))
        return [int(value) for value in values if value not in (0, _VOID)]

    def __len__(self) -> int:
        return len(self.targets)

    def track(self, index: int) -> MaskTrack:
        video, label = self.targets[index]
        frames = names_in(existing(self.images, (video,), self.name, LAYOUT), ".jpg")
        images = [self.images / video / f"{frame}.jpg" for frame in frames]
        masks = [self.masks / video / f"{frame}.png" for frame in frames]
        visible = np.ones(len(frames), bool)
        return MaskTrack(f"{self.name}/{video}/{label or 'all'}", images, masks, visible, label, above=0)


def _videos(path: Path) -> list[str]:
    """Names one a line, or pairs of paths of every frame, as the package of 2016 has them."""
    names = [line.split()[0] for line in read_lines(path)]
    videos = [Path(name).parent.name if "/" in name else name for name in names]
    return list(dict.fromkeys(videos))
