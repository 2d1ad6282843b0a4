"""What training asks of a data set: targets, each with one or more annotated frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One annotated frame.

    Attributes:
        image: RGB uint8 H x W x 3.
        box: float64 (4,) x, y, w, h in pixels, 0-based; zeros where the mask turned out to be empty.
        mask: uint8 {0, 1} H x W, or None where the data set has boxes alone.
    """

    image: np.ndarray
    box: np.ndarray
    mask: np.ndarray | None

    @property
    def usable(self) -> bool:
        """Whether there is a target of at least one pixel each way."""
        return bool(min(self.box[2:]) >= 1.0)


class Track(Protocol):
    """One target: in a video, or alone in a still image, which is a track of one frame."""

    @property
    def name(self) -> str:
        """Where it comes from, for messages."""
        ...

    @property
    def visible(self) -> np.ndarray:
        """bool (frames,), what the annotation files say; no image or mask is read for it."""
        ...

    def frame(self, index: int) -> Frame:
        """Read one frame from the disk.

        Raises:
            DataError: an image or a mask is missing or unreadable.
        """
        ...


class Dataset(Protocol):
    """A number of tracks. Making one lists the targets; boxes, images and masks are read when asked for.

    Attributes:
        name: the data set's usual name.
        is_video: False where every track is one still image.
        has_masks: whether frames come with masks.
    """

    name: str
    is_video: bool
    has_masks: bool

    def __len__(self) -> int: ...

    def track(self, index: int) -> Track:
        """The target of this number, 0 to len - 1."""
        ...
