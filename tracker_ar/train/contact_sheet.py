"""Pictures of batches: what a network is shown, with what it is to find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from tracker_ar.data.target_crops import TargetCrops
from tracker_ar.errors import DataError
from tracker_ar.train.batches import PairBatch, SequenceBatch

_CELL = 160
_COLUMNS = 8
_OUTLINE = (255, 220, 0)
_BOX = (0, 255, 120)


def write_sheet(batches: list[PairBatch | SequenceBatch], path: Path) -> None:
    """Write a PNG: reference and search crops side by side, or the frames of a sequence in a row.

    Masks are outlined yellow, boxes drawn green. A reference mask of all ones is not outlined.

    Raises:
        DataError: the file cannot be written.
    """
    _write([sample for batch in batches for sample in _samples(batch)], path)


def write_crop_sheet(targets: Sequence[TargetCrops], path: Path) -> None:
    """Write a PNG: one row per target, outlined and boxed as in `write_sheet`.

    Raises:
        DataError: the file cannot be written.
    """
    samples = []
    for crops in targets:
        parts = [torch.from_numpy(part) for part in (crops.pixels, crops.masks, crops.boxes)]
        samples.append([_cell(image, mask, box if mask.any() else None) for image, mask, box in zip(*parts)])
    longest = max(map(len, samples))
    blank = np.zeros_like(samples[0][0])
    _write([sample + [blank] * (longest - len(sample)) for sample in samples], path)


def _write(samples: list[list[np.ndarray]], path: Path) -> None:
    per_row = max(1, _COLUMNS // len(samples[0]))
    strips = [np.hstack(cells) for cells in samples]
    blank = np.zeros_like(strips[0])
    strips += [blank] * (-len(strips) % per_row)
    rows = [np.hstack(strips[start : start + per_row]) for start in range(0, len(strips), per_row)]
    written, code = cv2.imencode(".png", np.vstack(rows)[:, :, ::-1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(code.tobytes())
    except OSError as error:
        raise DataError(f"cannot write the picture {path}: {error.strerror or error}") from error


def _samples(batch: PairBatch | SequenceBatch) -> list[list[np.ndarray]]:
    if isinstance(batch, PairBatch):
        return [
            [
                _cell(batch.references[number], batch.reference_masks[number], batch.boxes[number]),
                _cell(batch.searches[number], batch.masks[number], None),
            ]
            for number in range(len(batch.boxes))
        ]
    frames, count = batch.boxes.shape[:2]
    images = batch.images.unflatten(0, (frames, count))
    return [
        [_cell(images[frame, number], None, batch.boxes[frame, number]) for frame in range(frames)]
        for number in range(count)
    ]


def _cell(image: Tensor, mask: Tensor | None, box: Tensor | None) -> np.ndarray:
    pixels = cv2.resize(image.numpy(), (_CELL, _CELL), interpolation=cv2.INTER_AREA)
    if mask is not None and not mask.all():
        known = cv2.resize(mask.numpy(), (_CELL, _CELL), interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(known, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outlines, -1, _OUTLINE, 1)
    if box is not None:
        x, y, w, h = (box.numpy() * _CELL / image.shape[0]).round().astype(int)
        cv2.rectangle(pixels, (x, y), (x + w, y + h), _BOX, 1)
    return cv2.copyMakeBorder(pixels, 2, 2, 2, 2, cv2.BORDER_CONSTANT)
