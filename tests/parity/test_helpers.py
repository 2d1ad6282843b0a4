"""Clipping and conversion of boxes and masks against the authors' system: equal, not close."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from relative_boxes import from_relative, to_relative

from tracker_ar.errors import InputError
from tracker_ar.geometry import box_from_mask, clip_box, mask_from_box, pad_mask

HELPERS = json.loads((Path(__file__).parent / "data" / "helpers.json").read_text())


@pytest.mark.parametrize("corners, expected", HELPERS["bbox_clip"])
def test_clip_box(corners: list[float], expected: list[float]) -> None:
    x1, y1, x2, y2 = corners
    x, y, width, height = clip_box([x1, y1, x2 - x1, y2 - y1], (240, 320))
    assert [x, y, x + width, y + height] == expected


@pytest.mark.parametrize("box, rows, area", HELPERS["mask_from_rect"])
def test_mask_from_box(box: list[float], rows: list[int], area: int) -> None:
    mask = mask_from_box(box, (12, 20))
    assert mask.sum() == area and np.nonzero(mask)[0].tolist() == rows


@pytest.mark.parametrize("box", HELPERS["rect_from_mask"])
def test_box_from_mask(box: list[int]) -> None:
    x, y, width, height = box
    mask = np.zeros((12, 20), np.uint8)
    mask[y, x + width // 2] = mask[y + height - 1, x] = mask[y + height // 2, x + width - 1] = 1
    assert box_from_mask(mask).tolist() == box


def test_empty_mask_is_refused_with_a_clear_error() -> None:
    assert HELPERS["rect_from_mask_empty"].startswith("ValueError")
    with pytest.raises(InputError, match="no pixel"):
        box_from_mask(np.zeros((12, 20), np.uint8))


@pytest.mark.parametrize("shape, width_height, full_shape, area", HELPERS["make_full_size"])
def test_pad_mask(shape: list[int], width_height: list[int], full_shape: list[int], area: int) -> None:
    padded = pad_mask(np.ones(shape, np.uint8), (width_height[1], width_height[0]))
    assert list(padded.shape) == full_shape and padded.sum() == area


def test_relative_box_space() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [1.5, 2.5, 60.0, 15.0]])
    size = torch.tensor([30.0, 40.0])
    relative = to_relative(boxes, size)
    # To the last bit of float32: 1 / 30 and logarithms round differently from build to build.
    torch.testing.assert_close(relative, torch.tensor(HELPERS["rect_to_rel"]), rtol=2e-7, atol=0)
    back = from_relative(relative, size)
    torch.testing.assert_close(back, torch.tensor(HELPERS["rel_to_rect"]), rtol=2e-6, atol=0)
