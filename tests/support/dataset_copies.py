"""Miniature copies of the published data sets, in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (48, 64)


def picture(path: Path, number: int = 0) -> None:
    """A 64 x 48 image with a bright rectangle at (8 + number, 10), 20 x 16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*SIZE, 3), 40, np.uint8)
    pixels[10:26, 8 + number : 28 + number] = (30, 200, 90)
    cv2.imwrite(str(path), pixels)


def label_map(number: int = 0) -> np.ndarray:
    """1 where `picture` has its rectangle, 2 in a corner."""
    labels = np.zeros(SIZE, np.uint8)
    labels[10:26, 8 + number : 28 + number] = 1
    labels[40:46, 50:60] = 2
    return labels


def palette_mask(path: Path, labels: np.ndarray) -> None:
    """A palette PNG: its values are indices, its colours mean nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels, mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [7] * 759)
    image.save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def got10k(root: Path, frames: int = 6) -> Path:
    names = [f"GOT-10k_Train_{number:06d}" for number in (1, 2, 3)]
    text(root / "train" / "list.txt", *names)
    for name in names:
        folder = root / "train" / name
        for number in range(frames):
            picture(folder / f"{number + 1:08d}.jpg", number)
        text(folder / "groundtruth.txt", *(f"{9 + n}.0000,11.0000,20.0000,16.0000" for n in range(frames)))
        text(folder / "absence.label", *("1" if n == 2 else "0" for n in range(frames)))
        text(folder / "cover.label", *("0" if n == 3 else "8" for n in range(frames)))
    return root


def lasot(root: Path, frames: int = 6) -> Path:
    for category, number in (("airplane", 1), ("airplane", 2), ("zebra", 10), ("zebra", 1)):
        folder = root / category / f"{category}-{number}"
        for n in range(frames):
            picture(folder / "img" / f"{n + 1:08d}.jpg", n)
        text(folder / "groundtruth.txt", *(f"{9 + n},11,20,16" for n in range(frames)))
        text(folder / "full_occlusion.txt", ",".join("1" if n == 1 else "0" for n in range(frames)))
        text(folder / "out_of_view.txt", ",".join("1" if n == 4 else "0" for n in range(frames)))
    return root


def trackingnet(root: Path, frames: int = 4) -> Path:
    for part in range(4):
        folder = root / f"TRAIN_{part}"
        for n in range(frames):
            picture(folder / "frames" / f"video{part}_0" / f"{n}.jpg", n)
        text(folder / "anno" / f"video{part}_0.txt", *(f"{8 + n}.0,10.0,20.0,16.0" for n in range(frames)))
    return root


def youtube_vos(root: Path, frames: int = 5) -> Path:
    names = [f"{5 * n:05d}" for n in range(frames)]
    for n, name in enumerate(names):
        picture(root / "train" / "JPEGImages" / "abc" / f"{name}.jpg", n)
        palette_mask(root / "train" / "Annotations" / "abc" / f"{name}.png", label_map(n))
    objects = {"1": {"category": "box", "frames": names}, "2": {"category": "box", "frames": names[2:]}}
    text(root / "train" / "meta.json", json.dumps({"videos": {"abc": {"objects": objects}}}))
    return root


def davis(root: Path, frames: int = 4, year: int = 2017) -> Path:
    for n in range(frames):
        picture(root / "JPEGImages" / "480p" / "bear" / f"{n:05d}.jpg", n)
        labels = label_map(n)
        labels[0, :5] = 255 if year == 2017 else 0
        mask = root / "Annotations" / "480p" / "bear" / f"{n:05d}.png"
        if year == 2017:
            palette_mask(mask, labels)
        else:
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(mask), (labels == 1).astype(np.uint8) * 255)
    pairs = (f"/JPEGImages/480p/bear/{n:05d}.jpg /Annotations/480p/bear/{n:05d}.png" for n in range(frames))
    if year == 2017:
        text(root / "ImageSets" / "2017" / "train.txt", "bear")
    else:
        text(root / "ImageSets" / "480p" / "train.txt", *pairs)
    return root


def saliency(root: Path, name: str) -> Path:
    images, masks, suffix = {
        "MSRA10K": ("MSRA10K_Imgs_GT/Imgs", "MSRA10K_Imgs_GT/Imgs", ".jpg"),
        "DUTS": ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", ".jpg"),
        "ECSSD": ("images", "ground_truth_mask", ".jpg"),
        "HKU-IS": ("imgs", "gt", ".png"),
    }[name]
    for n in range(3):
        picture(root / images / f"{n:04d}{suffix}", n)
        mask = root / masks / f"{n:04d}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), (label_map(n) == 1).astype(np.uint8) * 255)
    return root


def coco(root: Path, split: str = "train") -> Path:
    images, notes = [], []
    for n in range(3):
        file = f"{n + 9:012d}.jpg"
        picture(root / f"{split}2017" / file, n)
        images.append({"id": n + 9, "file_name": file, "width": 64, "height": 48})
        left, right = 8 + n, 28 + n
        outline = [left, 10, right, 10, right, 26, left, 26]
        note = {"image_id": n + 9, "bbox": [left, 10, 20, 16], "iscrowd": 0, "category_id": 1}
        notes.append({"id": n, "segmentation": [outline], **note})
    crowd = {"counts": [0, 64 * 48], "size": [48, 64]}
    notes.append({"id": 99, "segmentation": crowd, "image_id": 9, "bbox": [0, 0, 64, 48], "iscrowd": 1})
    content = json.dumps({"images": images, "annotations": notes})
    text(root / "annotations" / f"instances_{split}2017.json", content)
    return root


def all_sets(root: Path) -> Path:
    """Every set under its usual name."""
    got10k(root / "GOT-10k")
    lasot(root / "LaSOT")
    trackingnet(root / "TrackingNet")
    youtube_vos(root / "YouTube-VOS")
    davis(root / "DAVIS")
    for name in ("MSRA10K", "DUTS", "ECSSD", "HKU-IS"):
        saliency(root / name, name)
    coco(root / "COCO")
    coco(root / "COCO", "val")
    return root
