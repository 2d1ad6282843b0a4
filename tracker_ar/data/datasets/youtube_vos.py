"""YouTube-VOS (Xu et al., 2018), versions 2018 and 2019: videos with masks of objects every fifth frame."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from tracker_ar.data.datasets.files import MaskTrack, existing, read_lines
from tracker_ar.errors import DataError

LAYOUT = """  ROOT/train/meta.json                           (ROOT may also be the folder train itself)
  ROOT/train/JPEGImages/VIDEO/00000.jpg ...
  ROOT/train/Annotations/VIDEO/00000.png ...     (palette images, one value per object)"""


_HELD_OUT = 10


def _split_of(name: str, video: dict) -> str:
    held_out = zlib.crc32(name.encode()) % _HELD_OUT == 0 and not video.get("scene_shared_with")
    return "validation" if held_out else "train"


class YouTubeVOS:
    """One track per object of the training set.

    Args:
        root: the data set's folder, of the version 2018 or 2019.
        only: a file that names the videos to keep, one a line.
        split: "train" or "validation": one video in ten is held out by a checksum of its name, but none of which
            meta.json says that an evaluation video shows the same scene ("scene_shared_with"). None keeps all.

    Raises:
        DataError: the folder or meta.json is missing or damaged.
    """

    name = "YouTube-VOS"
    is_video = True
    has_masks = True

    def __init__(self, root: str | Path, only: str | Path | None = None, split: str | None = None) -> None:
        meta = existing(root, ("train/meta.json", "meta.json"), self.name, LAYOUT)
        self.folder = meta.parent
        for part in ("JPEGImages", "Annotations"):
            existing(self.folder, (part,), self.name, LAYOUT)
        kept = None if only is None else set(read_lines(Path(only)))
        try:
            videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
            self.objects = [
                (video, int(number), list(entry["frames"]))
                for video in sorted(videos)
                if (kept is None or video in kept) and (split is None or split == _split_of(video, videos[video]))
                for number, entry in sorted(videos[video]["objects"].items())
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            layout = '{"videos": {VIDEO: {"objects": {NUMBER: {"frames": [...]}}}}}'
            raise DataError(f"{meta}: is not {layout} ({error!r})") from error
        if not self.objects:
            raise DataError(f"{meta}: names no object" + ("" if only is None else f" of a video in {only}"))

    def __len__(self) -> int:
        return len(self.objects)

    def track(self, index: int) -> MaskTrack:
        video, number, frames = self.objects[index]
        images = [self.folder / "JPEGImages" / video / f"{frame}.jpg" for frame in frames]
        masks = [self.folder / "Annotations" / video / f"{frame}.png" for frame in frames]
        # meta.json lists the frames in which the object is annotated.
        return MaskTrack(f"{self.name}/{video}/{number}", images, masks, np.ones(len(frames), bool), number)
