"""Boxes, masks and crops: properties that must hold for any input, and refusal of what makes no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker_ar.crops import (
    MAX_BOX_TO_IMAGE,
    normalize,
    normalized_pixels,
    paste_back,
    refiner_crop,
    sample_patch,
    to_tensor,
)
from tracker_ar.errors import InputError
from tracker_ar.frame import as_rgb_image
from tracker_ar.geometry import box_from_mask, box_iou, checked_box, clip_box, mask_from_box, pad_mask

HEIGHT, WIDTH = 60, 90
IMAGE = np.random.default_rng(0).integers(1, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)

coordinates = st.floats(-300, 300, allow_nan=False, width=32)
lengths = st.floats(0.125, 400, allow_nan=False, width=32)
boxes = st.tuples(coordinates, coordinates, lengths, lengths)
image_sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))
unusable_boxes = pytest.mark.parametrize(
    "box",
    [
        [0, 0, 0, 5],
        [0, 0, 5, -1],
        [float("nan"), 0, 5, 5],
        [0, 0, float("inf"), 5],
        [0, 0, 5],
        [[0, 0, 5, 5]],
        ["a", 0, 5, 5],
        None,
    ],
)


@st.composite
def whole_boxes_inside(draw: st.DrawFn) -> list[int]:
    x, y = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    return [x, y, draw(st.integers(1, WIDTH - x)), draw(st.integers(1, HEIGHT - y))]


@given(boxes, image_sizes)
def test_clipped_box_is_inside_and_stays(box: tuple[float, ...], image_size: tuple[int, int]) -> None:
    clipped = clip_box(box, image_size)
    assert clipped.dtype == np.float64 and clipped.shape == (4,)
    limits = np.array(image_size[::-1])
    assert (clipped[:2] >= 0).all() and (clipped[2:] > 0).all()
    assert (clipped[:2] + clipped[2:] <= limits + 1e-9).all()
    np.testing.assert_allclose(clip_box(clipped, image_size), clipped, rtol=0, atol=1e-9)


@given(boxes)
def test_clipped_box_that_reaches_a_border_keeps_ten_pixels(box: tuple[float, ...]) -> None:
    clipped = clip_box(box, (HEIGHT, WIDTH))
    for start, length, limit, kept in zip(box[:2], box[2:], (WIDTH, HEIGHT), clipped[2:], strict=True):
        if start <= 0 or start + length >= limit:
            assert kept >= 10 - 1e-9


def test_small_box_inside_is_not_enlarged() -> None:
    assert clip_box([30, 30, 2, 3], (HEIGHT, WIDTH)).tolist() == [30, 30, 2, 3]


def test_clipping_in_a_tiny_image_spans_the_image() -> None:
    assert clip_box([-3, 2, 40, 1], (5, 8)).tolist() == [0, 0, 8, 5]


@pytest.mark.parametrize("box", [[np.nan, 0, 5, 5], [20, 20, -8, 5], [0, 0, np.inf, 5], [1, 2, 3]])
def test_clip_refuses_what_has_no_place(box: list[float]) -> None:
    with pytest.raises(InputError):
        clip_box(box, (HEIGHT, WIDTH))


@unusable_boxes
def test_unusable_boxes_are_refused(box: object) -> None:
    calls = (
        checked_box,
        lambda value: mask_from_box(value, (HEIGHT, WIDTH)),
        lambda value: refiner_crop(IMAGE, value),
        lambda value: box_iou(value, [0, 0, 1, 1]),
    )
    for call in calls:
        with pytest.raises(InputError):
            call(box)


@given(whole_boxes_inside())
def test_mask_of_a_whole_box_gives_the_box_back(box: list[int]) -> None:
    mask = mask_from_box(box, (HEIGHT, WIDTH))
    assert mask.dtype == np.uint8 and mask.flags.c_contiguous and mask.sum() == box[2] * box[3]
    assert box_from_mask(mask).tolist() == box


@given(boxes)
def test_mask_of_any_box_lies_within_rounding_of_it(box: tuple[float, ...]) -> None:
    mask = mask_from_box(box, (HEIGHT, WIDTH))
    assert mask.shape == (HEIGHT, WIDTH)
    if mask.any():
        x, y, width, height = box_from_mask(mask)
        assert x >= box[0] - 0.5 and y >= box[1] - 0.5
        assert x + width <= box[0] + box[2] + 0.5 and y + height <= box[1] + box[3] + 0.5


def test_mask_of_a_box_outside_is_empty() -> None:
    for box in ([-50, 10, 20, 20], [10, -50, 20, 20], [WIDTH, 10, 20, 20], [10, HEIGHT + 5, 5, 5]):
        assert not mask_from_box(box, (HEIGHT, WIDTH)).any()


@given(image_sizes, image_sizes)
def test_padded_mask_keeps_the_common_part(shape: tuple[int, int], image_size: tuple[int, int]) -> None:
    padded = pad_mask(np.full(shape, 255, dtype=np.uint8)[:, ::-1], image_size)
    assert padded.shape == image_size and padded.dtype == np.uint8 and padded.flags.c_contiguous
    height, width = min(shape[0], image_size[0]), min(shape[1], image_size[1])
    assert padded[:height, :width].all() and padded.sum() == height * width


@pytest.mark.parametrize("mask", [np.zeros((2, 3, 1)), np.zeros(4), [[0, 1]], None])
def test_masks_of_other_kinds_are_refused(mask: object) -> None:
    with pytest.raises(InputError, match="H x W"):
        pad_mask(mask, (HEIGHT, WIDTH))
    with pytest.raises(InputError, match="H x W"):
        box_from_mask(mask)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_bounded(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    overlap = box_iou(first, second)
    assert 0 <= overlap <= 1 + 1e-9 and overlap == pytest.approx(box_iou(second, first))
    assert box_iou(first, first) == pytest.approx(1)


def test_overlap_of_known_boxes() -> None:
    assert box_iou([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
    assert box_iou([0, 0, 10, 10], [10, 0, 10, 10]) == 0


@given(
    st.tuples(coordinates, coordinates),
    st.floats(1, 500),
    st.sampled_from(["replicate", "inside", "inside_major"]),
    st.sampled_from([None, 1.5]),
)
@settings(deadline=None)
def test_search_regions(position: tuple[float, float], size: float, mode: str, max_change: float | None) -> None:
    region = sample_patch(IMAGE, position, size, 32, mode, max_change)
    assert region.patch.shape == (1, 3, 32, 32)
    assert IMAGE.min() <= region.patch.min() and region.patch.max() <= IMAGE.max()
    top, left, bottom, right = region.coords.tolist()
    assert bottom - top == right - left >= 2
    # Large regions are thinned by this stride, which bounds what rounding can change.
    stride = max(int(size / 32), 1)
    if mode == "replicate":
        assert abs((bottom - top) - size) <= 1.5 * stride + 1
        for near, far, centre in ((top, bottom, position[0]), (left, right, position[1])):
            assert abs((near + far - 1) / 2 - centre) <= 2 * stride
    elif max_change is None and mode == "inside":
        assert top >= 0 and left >= 0 and bottom <= HEIGHT and right <= WIDTH
    if mode != "replicate":
        for near, far, limit in ((top, bottom, HEIGHT), (left, right, WIDTH)):
            # What sticks out does so on both sides, up to the rounding of the thinned image's size.
            overhang = max(-near, 0), max(far - limit, 0)
            assert abs(overhang[0] - overhang[1]) <= 2 * stride


def test_search_region_at_its_own_size_is_the_image() -> None:
    region = sample_patch(IMAGE, (30, 40), 21, 21)
    assert region.coords.tolist() == [20, 30, 41, 51]
    assert torch.equal(region.patch, to_tensor(IMAGE[20:41, 30:51]))


def test_search_region_beyond_a_border_repeats_it() -> None:
    region = sample_patch(IMAGE, (-200, 45), 11, 11)
    assert torch.equal(region.patch, to_tensor(IMAGE[:1, 40:51]).expand(1, 3, 11, 11))
    region = sample_patch(IMAGE, (500, 500), 11, 11)
    assert torch.equal(region.patch, to_tensor(IMAGE[-1:, -1:]).expand(1, 3, 11, 11))


def test_search_region_many_times_the_image() -> None:
    region = sample_patch(IMAGE, (30, 40), 1e5, 32)
    assert region.patch.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "position, size", [((np.nan, 3), 20), ((3, 3), 0), ((3, 3), -5), ((3, np.inf), 20), ((3, 3), np.nan)]
)
def test_meaningless_search_regions_are_refused(position: tuple[float, float], size: float) -> None:
    with pytest.raises(InputError, match="search region"):
        sample_patch(IMAGE, position, size, 32)


def test_unknown_border_mode_is_refused() -> None:
    with pytest.raises(InputError, match="outside"):
        sample_patch(IMAGE, (3, 3), 20, 32, "outside")


@given(boxes)
@settings(deadline=None)
def test_pasting_a_full_map_marks_exactly_the_window(box: tuple[float, ...]) -> None:
    crop = refiner_crop(IMAGE, box, size=32)
    assert crop.pixels.shape == (32, 32, 3) and crop.pixels.dtype == np.uint8
    left, top, right, bottom = crop.window
    expected = np.zeros((HEIGHT, WIDTH), np.float32)
    expected[max(top, 0):max(bottom, 0), max(left, 0):max(right, 0)] = 1
    pasted = paste_back(np.ones((32, 32), np.float32), crop, (HEIGHT, WIDTH))
    assert pasted.dtype == np.float32 and np.array_equal(pasted, expected)
    for near, far, start, length in ((left, right, box[0], box[2]), (top, bottom, box[1], box[3])):
        assert 2 * length <= far - near < 2 * length + 1
        assert abs((near + far) / 2 - (start + length / 2)) <= 0.51


@given(st.integers(2, 20), st.integers(2, 20), st.integers(10, 60), st.integers(10, 35))
@settings(deadline=None)
def test_box_in_crop_pastes_back_to_the_box(width: int, height: int, x: int, y: int) -> None:
    crop = refiner_crop(IMAGE, [x, y, width, height], size=240)
    # Pixel centres lie half a pixel from the crop's corner, box coordinates start at the first centre.
    near = np.rint(crop.box_in_crop[:2] + 0.5).astype(int)
    far = np.rint(crop.box_in_crop[:2] + crop.box_in_crop[2:] + 0.5).astype(int)
    inside = np.zeros((240, 240), np.float32)
    inside[near[1] : far[1], near[0] : far[0]] = 1
    found = box_from_mask(paste_back(inside, crop, (HEIGHT, WIDTH)) > 0.5)
    assert np.abs(found - np.array([x, y, width, height])).max() <= 1


def test_refiner_crop_outside_the_image_is_black_and_pastes_nothing() -> None:
    for box in ([-500, 10, 20, 20], [10, -500, 20, 20], [500, 10, 20, 20], [10, 500, 20, 20]):
        crop = refiner_crop(IMAGE, box, size=32)
        assert not crop.pixels.any()
        assert not paste_back(np.ones((32, 32), np.float32), crop, (HEIGHT, WIDTH)).any()


def test_refiner_crop_blackens_the_last_row_and_column() -> None:
    whole = refiner_crop(IMAGE, [0, 0, WIDTH, HEIGHT], factor=1.0, size=HEIGHT * WIDTH // 30)
    assert whole.window == (0, 0, WIDTH, HEIGHT)
    assert not whole.pixels[-1].any() and not whole.pixels[:, -1].any()
    assert whole.pixels[0].any() and whole.pixels[:, 0].any()


def test_box_far_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="larger than the image"):
        refiner_crop(IMAGE, [0, 0, MAX_BOX_TO_IMAGE * WIDTH + 1, 10])


def test_one_pixel_target() -> None:
    crop = refiner_crop(IMAGE, [5, 5, 1, 1])
    assert crop.window == (4, 4, 6, 6) and crop.pixels.shape == (384, 384, 3)


def test_accepted_images() -> None:
    assert np.shares_memory(as_rgb_image(IMAGE), IMAGE)
    grey = IMAGE[..., 0]
    for image in (grey, grey[..., None]):
        assert np.array_equal(as_rgb_image(image), np.stack([grey] * 3, axis=2))
    assert np.array_equal(as_rgb_image(np.dstack([IMAGE, grey])), IMAGE)
    for dtype in (np.int64, np.uint16, np.float64):
        converted = as_rgb_image(IMAGE.astype(dtype))
        assert converted.dtype == np.uint8 and np.array_equal(converted, IMAGE)
    mirrored = as_rgb_image(IMAGE[:, ::-1, ::-1])
    assert mirrored.flags.c_contiguous and np.array_equal(mirrored, IMAGE[:, ::-1, ::-1])
    assert not as_rgb_image(np.zeros((4, 5, 3))).any()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(5, np.uint8),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.full((4, 5, 3), np.nan),
        np.full((4, 5, 3), -1),
        np.full((4, 5, 3), 300, np.uint16),
        np.full((4, 5, 3), 0.5),
        np.zeros((4, 5, 3), bool),
        np.zeros((4, 5, 3), complex),
        None,
        "frame.jpg",
        [[1, 2], [3]],
    ],
)
def test_refused_images(image: object) -> None:
    with pytest.raises(InputError):
        as_rgb_image(image)


def test_normalisation() -> None:
    patch = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
    torch.testing.assert_close(normalize(patch), torch.zeros(1, 3, 1, 1), rtol=0, atol=1e-6)
    white = normalize(torch.full((1, 3, 1, 1), 255.0)).flatten().tolist()
    assert white == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-6)


def test_read_only_images_are_fine(recwarn: pytest.WarningsRecorder) -> None:
    image = IMAGE.copy()
    image.flags.writeable = False
    sample_patch(image, (30, 40), 21, 21)
    refiner_crop(image, [5, 5, 10, 10])
    assert not recwarn.list


def test_normalized_pixels_are_the_normalized_image() -> None:
    image = np.random.default_rng(3).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    pixels = normalized_pixels(image)
    assert torch.equal(pixels, normalize(to_tensor(image)))
    assert pixels.is_contiguous(memory_format=torch.channels_last)
