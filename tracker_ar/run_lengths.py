"""Masks as run lengths: lines of the VOT layout and COCO RLE."""

from __future__ import annotations

import numpy as np


def encode_mask_line(mask: np.ndarray) -> str:
    """A mask (H, W) as a line of ``groundtruth.txt``: ``m`` left, top, width, height, then run lengths.

    Runs cover the box around the mask row by row and start with zeros. An empty mask has an empty box.
    """
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return "m0,0,0,0,0"
    top, left = rows.min(), columns.min()
    inside = np.asarray(mask[top:rows.max() + 1, left:columns.max() + 1]) != 0
    changes = np.flatnonzero(np.diff(inside.ravel(), prepend=False, append=~inside[-1, -1]))
    runs = np.diff(changes, prepend=0)
    return "m" + ",".join(str(n) for n in (left, top, inside.shape[1], inside.shape[0], *runs))


def coco_rle(mask: np.ndarray) -> dict[str, list[int]]:
    """A mask (H, W) in uncompressed COCO RLE, which `frPyObjects` of pycocotools reads.

    'size' is [H, W]; 'counts' are the lengths of runs down the columns, left to right, beginning with
    background (0 when the first pixel is target).
    """
    flat = (mask != 0).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat.size and flat[0] else counts}
