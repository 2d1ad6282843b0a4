"""Frames with the targets painted over them, and where the tags of the targets stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from video_fixtures import MovingBox, picture

from tracker_ar.geometry import mask_from_box
from tracker_ar.tracker import Prediction
from tracker_ar.video import overlay

SIZE = HEIGHT, WIDTH = 200, 300
TAG = 20, 60  # height, width
GREY = 200  # no outline is so bright
ELSEWHERE = (120.0, 90.0, 30.0, 20.0)
NOWHERE = np.zeros(SIZE, np.uint8)

Tags = Callable[[Sequence[Prediction]], list[np.ndarray]]


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> Tags:
    """Paints, with tags of one size; where each is, (HEIGHT, WIDTH) bool. Fails if one is not seen whole."""
    monkeypatch.setattr(overlay, "_plate", lambda text, *_: np.full((*TAG, 3), GREY + int(text.split()[0]), np.uint8))

    def paint(predictions: Sequence[Prediction]) -> list[np.ndarray]:
        painted = overlay.paint(np.full((*SIZE, 3), 90, np.uint8), predictions)
        found = [(painted == GREY + number).all(axis=2) for number in range(1, len(predictions) + 1)]
        assert [place.sum() for place in found] == [TAG[0] * TAG[1]] * len(predictions)
        return found

    return paint


def prediction(mask: np.ndarray, box: Sequence[float] = ELSEWHERE) -> Prediction:
    return Prediction(np.array(box), mask, 0.5)


def touches(tag: np.ndarray, mask: np.ndarray) -> bool:
    """Whether at most a few pixels lie between."""
    return bool(mask[cv2.dilate(tag.astype(np.uint8), np.ones((7, 7))) > 0].any())


def test_painting_marks_the_mask_leaves_the_rest_and_the_input() -> None:
    image = picture(0)
    tracker = MovingBox()
    tracker.initialize(image, [(30, 28, 20, 12)])
    painted = overlay.paint(image, tracker.track(image))
    assert np.array_equal(image, picture(0))
    changed = (painted != image).any(axis=2)
    assert changed[30:38, 34:50].all()
    assert not changed[44:].any() and not changed[28:, :28].any()  # the label is above the box


@pytest.mark.parametrize("place", [
    (120, 80, 60, 40), (0, 0, 60, 40), (250, 0, 50, 60), (0, 170, 80, 30), (260, 150, 40, 50), (296, 90, 4, 4),
    (100, 0, 30, HEIGHT), (240, 0, 60, HEIGHT), (0, 60, WIDTH, 40), (0, 0, WIDTH, 60),
])
def test_a_tag_stands_beside_its_mask_and_in_the_image(tags: Tags, place: tuple[int, ...]) -> None:
    mask = mask_from_box(place, SIZE)
    tag, = tags([prediction(mask)])
    assert touches(tag, mask) and not mask[tag].any()


def test_a_tag_follows_the_slope_of_its_mask(tags: Tags) -> None:
    mask = cv2.line(NOWHERE.copy(), (60, 180), (240, 30), 1, 9)
    tag, = tags([prediction(mask)])
    assert touches(tag, mask) and not mask[tag].any()


def test_a_tag_stands_at_the_largest_part(tags: Tags) -> None:
    largest = mask_from_box((150, 100, 60, 40), SIZE)
    tag, = tags([prediction(largest | mask_from_box((10, 10, 4, 4), SIZE))])
    assert touches(tag, largest)


@pytest.mark.parametrize("box", [ELSEWHERE, (-20.0, -20.0, 40.0, 40.0), (280.0, 190.0, 60.0, 60.0)])
def test_a_tag_stands_at_the_box_where_the_mask_is_empty(tags: Tags, box: tuple[float, ...]) -> None:
    tag, = tags([prediction(NOWHERE, box)])
    assert touches(tag, mask_from_box(box, SIZE))


def test_tags_keep_clear_of_each_other_and_of_masks(tags: Tags) -> None:
    side_by_side = [mask_from_box((120 + 30 * number, 80, 20, 50), SIZE) for number in range(2)]
    below = mask_from_box((120, 140, 50, 30), SIZE)
    masks = [*side_by_side, below]
    for tag, own in zip(tags([prediction(mask) for mask in masks]), masks):
        assert touches(tag, own) and not sum(masks)[tag].any()
    tags([prediction(NOWHERE) for _ in range(3)])
    tags([prediction(np.ones(SIZE, np.uint8)), prediction(NOWHERE, (0, 0, 9, 30))])


def test_a_note_stays_free(tags: Tags) -> None:
    image = np.full((*SIZE, 3), 90, np.uint8)
    painted = overlay.paint(image, [prediction(NOWHERE, (0.0, 10.0, 20.0, 20.0))], "7 not usable")
    assert (painted[: TAG[0], : TAG[1]] == GREY + 7).all() and (painted == GREY + 1).all(axis=2).any()


def test_an_image_smaller_than_the_tag() -> None:
    image, mask = np.full((9, 11, 3), 90, np.uint8), np.ones((9, 11), np.uint8)
    assert overlay.paint(image, [prediction(mask)]).shape == image.shape
