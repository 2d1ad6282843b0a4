"""Which clips of a folder of videos are learned from, and which are held out to choose by."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tracker_ar.data.datasets.youtube_vos import YouTubeVOS
from tracker_ar.errors import DataError

CLIP_VALIDATION_SHARE = 4


def open_clips(root: str | Path, split: str) -> YouTubeVOS:
    """The clips of one split, in the layout of YouTube-VOS.

    Args:
        split: "train" or "validation"; a clip belongs to validation by a checksum of its name, about one in four. A
            clip whose entry in meta.json says `scene_shared_with` is never held out.

    Raises:
        DataError: the folder is not in that layout, or holds no clip of the split.
    """
    clips = YouTubeVOS(root)
    entries = json.loads((clips.folder / "meta.json").read_text(encoding="utf-8"))["videos"]
    return subset(clips, lambda name: held_out(name, entries[name]) == (split == "validation"))


def held_out(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a clip is for validation; `entry` is its own of meta.json."""
    return not entry.get("scene_shared_with") and zlib.crc32(name.encode()) % CLIP_VALIDATION_SHARE == 0


def subset(clips: YouTubeVOS, keep: Callable[[str], bool]) -> YouTubeVOS:
    """The clips whose names are to be kept.

    Raises:
        DataError: there is none.
    """
    chosen = copy.copy(clips)
    chosen.objects = [entry for entry in clips.objects if keep(entry[0])]
    if not chosen.objects:
        raise DataError(f"{clips.folder}: no clip of the kind that is asked for")
    return chosen


def by_collection(clips: YouTubeVOS) -> list[YouTubeVOS]:
    """The clips parted by the beginning of their names up to the first underscore, as in davis_bear."""
    collections = sorted({_collection(video) for video, _, _ in clips.objects})
    return [subset(clips, partial(_belongs, one)) for one in collections]


def _collection(name: str) -> str:
    return name.split("_")[0]


def _belongs(collection: str, name: str) -> bool:
    return _collection(name) == collection
