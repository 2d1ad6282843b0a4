"""A tiny data folder in the layout of `tracker_ar.data.synthetic.library`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.data.synthetic.library import in_split
from tracker_ar.models.alpha_refine import MaskRefinerConfig
from tracker_ar.train.recipes import RefinerRecipe, Schedule

SIZE = (120, 160)
# A refiner without box branch, learned from scenes alone.
SMALL_NETWORK = MaskRefinerConfig(
    block="basic", depths=(1, 1, 1, 1), width=16, num_classes=None, input_size=64, pool_size=4, head_channels=16,
    transform_channels=16, target_model=(8, 8, 8),
)
SCENE_REFINER = RefinerRecipe(
    "scene-refiner", Schedule(learning_rate=1e-3, weight_decay=0.02), batch_size=16, sizes=((0.0, 64),),
    network=SMALL_NETWORK, kind="small_mask_refiner",
)


def make_folder(folder: Path, count: int = 8) -> Path:
    """Images of one ellipse and one rectangle each on noise; two of them are held out."""
    rng = np.random.default_rng(5)
    for part in ("images", "masks", "regions"):
        (folder / part).mkdir(parents=True)
    names = [name for name in (f"image{i}" for i in range(400)) if in_split(name, "train")][: count - 2]
    names += [name for name in (f"image{i}" for i in range(400)) if in_split(name, "validation")][:2]
    for name in names:
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), (0, 0), 3)
        labels = np.zeros(SIZE, np.uint8)
        cv2.ellipse(labels, (45, 60), (30, 20), 0, 0, 360, 1, -1)
        cv2.rectangle(labels, (100, 30), (140, 90), 2, -1)
        pixels[labels == 1] = rng.integers(0, 256, 3)
        pixels[labels == 2] = rng.integers(0, 256, 3)
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), pixels)
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), labels)
        quarters = np.tile(1 + np.arange(SIZE[1]) // 40, (SIZE[0], 1)).astype(np.uint8)
        cv2.imwrite(str(folder / "regions" / f"{name}.png"), quarters)
    entries = [{"name": name, "source": "made"} for name in names]
    (folder / "index.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder
