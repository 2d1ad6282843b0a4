"""Still images with the mask of what stands out: MSRA10K, DUTS, ECSSD, HKU-IS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracker_ar.data.datasets.files import MaskTrack, existing, names_in
from tracker_ar.errors import DataError


@dataclass(frozen=True)
class _Layout:
    """Folders of images and masks, the first of each that exists; the images' suffix; masks are PNG."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    suffix: str = ".jpg"

    def __str__(self) -> str:
        return f"  ROOT/{self.images[0]}/NAME{self.suffix}\n  ROOT/{self.masks[0]}/NAME.png"


_LAYOUTS = {
    # Cheng et al., 2015: image and mask side by side.
    "MSRA10K": _Layout(("Imgs", "MSRA10K_Imgs_GT/Imgs"), ("Imgs", "MSRA10K_Imgs_GT/Imgs")),
    # Wang et al., 2017, the training part.
    "DUTS": _Layout(("DUTS-TR-Image", "DUTS-TR/DUTS-TR-Image"), ("DUTS-TR-Mask", "DUTS-TR/DUTS-TR-Mask")),
    # Yan et al., 2013.
    "ECSSD": _Layout(("images",), ("ground_truth_mask",)),
    # Li and Yu, 2015.
    "HKU-IS": _Layout(("imgs",), ("gt",), ".png"),
}


class Saliency:
    """One of the sets by its name; one track of one frame per image.

    Raises:
        DataError: a folder is missing, or no image has a mask of its name.
    """

    is_video = False
    has_masks = True

    def __init__(self, root: str | Path, name: str) -> None:
        self.name = name
        layout = _LAYOUTS[name]
        self.suffix = layout.suffix
        self.images = existing(root, layout.images, name, str(layout))
        self.masks = existing(root, layout.masks, name, str(layout))
        images = set(names_in(self.images, layout.suffix))
        self.names = [mask for mask in names_in(self.masks, ".png") if mask in images]
        if not self.names:
            raise DataError(f"{name}: no image in {self.images} has a mask. Expected layout:\n{layout}")

    def __len__(self) -> int:
        return len(self.names)

    def track(self, index: int) -> MaskTrack:
        name = self.names[index]
        image, mask = self.images / f"{name}{self.suffix}", self.masks / f"{name}.png"
        return MaskTrack(f"{self.name}/{name}", [image], [mask], np.ones(1, bool))
