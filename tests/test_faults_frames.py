"""Frames and initial regions of every odd kind, through the server's session and the real tracker, untrained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import trax
from tiny_tracker import BOX, HEIGHT, WIDTH, check, make_tracker, video

from tracker_ar.errors import InputError
from vot_wrapper.server import Session

SIZE = (HEIGHT, WIDTH)


class Talk:
    """Requests to a session, without the pipe."""

    def __init__(self, tracker: object, folder: Path) -> None:
        self.session, self.folder = Session(tracker), folder

    def start(self, image: np.ndarray, region: trax.Region) -> np.ndarray:
        return self._ask(trax.TraxStatus.INITIALIZE, self.write("start.png", image), [(region, {})])[0]

    def frame(self, file: Path) -> tuple[np.ndarray, float]:
        return self._ask(trax.TraxStatus.FRAME, file, None)

    def write(self, name: str, image: np.ndarray) -> Path:
        cv2.imwrite(str(self.folder / name), image)
        return self.folder / name

    def _ask(self, kind: object, file: Path, objects: list | None) -> tuple[np.ndarray, float]:
        image = SimpleNamespace(path=lambda: str(file))
        request = SimpleNamespace(type=kind, image={trax.image.ImageChannel.COLOR: image}, objects=objects)
        (region, properties), = self.session.answer(request)
        return region.array(), float(properties["confidence"])


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    return Talk(make_tracker(), tmp_path)


BOX_REGION = trax.Rectangle.create(*BOX)


# ---- frames


@pytest.mark.parametrize("change", [
    lambda image: image.astype(np.uint16) * 257,
    lambda image: image.mean(axis=2).astype(np.uint8),
    lambda image: np.dstack([image, np.full(SIZE, 128, np.uint8)]),
    lambda image: image.mean(axis=2).astype(np.uint16) * 257,
], ids=["16-bit", "grey", "alpha", "16-bit grey"])
def test_unusual_frames_are_tracked(talk: Talk, change: Callable[[np.ndarray], np.ndarray]) -> None:
    images = video(2)
    talk.start(images[0], BOX_REGION)
    mask, confidence = talk.frame(talk.write("odd.png", change(images[1])))
    assert mask.shape == SIZE and confidence > 0


def test_frames_that_cannot_be_used_repeat_the_last_state(talk: Talk, capsys: pytest.CaptureFixture) -> None:
    images = video(3)
    first = talk.start(images[0], BOX_REGION)
    whole = talk.write("whole.png", images[1]).read_bytes()
    for name, content in (("truncated.png", whole[:40]), ("empty.png", b""), ("text.png", b"no image")):
        (talk.folder / name).write_bytes(content)
    os.mkfifo(talk.folder / "pipe.png")
    (talk.folder / "folder.png").mkdir()
    talk.write("larger.png", np.zeros((HEIGHT, WIDTH + 8, 3), np.uint8))
    talk.write("dot.png", np.zeros((1, 1, 3), np.uint8))
    for name, size in {
        "missing.png": SIZE, "truncated.png": SIZE, "empty.png": SIZE, "text.png": SIZE, "pipe.png": SIZE,
        "folder.png": SIZE, "/dev/zero": SIZE, "larger.png": (HEIGHT, WIDTH + 8), "dot.png": (1, 1),
    }.items():
        mask, confidence = talk.frame(talk.folder / name)
        assert mask.shape == size and confidence == 0, name
        assert np.array_equal(mask[: size[0], :WIDTH], first[: size[0], : size[1]]), name
    said = capsys.readouterr().err
    assert said.count("the last state is repeated") == 9 and said.count("the first one was 160 x 120") == 2
    mask, confidence = talk.frame(talk.write("good.png", images[2]))
    assert mask.shape == SIZE and confidence > 0


def test_a_truncated_jpeg_is_tracked_as_far_as_it_can_be_decoded(talk: Talk) -> None:
    images = video(2)
    talk.start(images[0], BOX_REGION)
    whole = cv2.imencode(".jpg", images[1])[1].tobytes()
    (talk.folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert talk.frame(talk.folder / "cut.jpg")[0].shape == SIZE


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 2), (4320, 7680)], ids=str)
def test_images_of_any_size(talk: Talk, size: tuple[int, int]) -> None:
    """From one pixel to 8K; the target is the middle of the image."""
    height, width = size
    image = np.full((height, width, 3), 90, np.uint8)
    box = (width / 4, height / 4, max(width / 2, 1), max(height / 2, 1))
    assert talk.start(image, trax.Rectangle.create(*box)).shape == size
    file = talk.write("next.png" if width < 5000 else "next.jpg", image)
    assert talk.frame(file)[0].shape == size


def test_a_target_out_of_view_for_long(talk: Talk) -> None:
    """Blank, dark and noisy frames, from which this tracker even learns; then the target is back."""
    tracker, images = make_tracker(), video(2)
    tracker.initialize(images[0], BOX)
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(24):
            fill = random.integers(0, 255, (*SIZE, 3)) if number % 3 == 2 else 255 * (number % 3)
            check(tracker.track(np.broadcast_to(np.asarray(fill, np.uint8), (*SIZE, 3))))
    check(tracker.track(images[1]))
    (target,) = (target.base for target in tracker._targets)
    assert target.memory.features.isfinite().all() and target.filter.isfinite().all()


# ---- initial regions


def mask_region(height: int, width: int, x: int, y: int, value: int = 1) -> trax.Mask:
    return trax.Mask.create(np.full((height, width), value, np.uint8), x=x, y=y)


GOOD = {
    "one pixel": mask_region(1, 1, 80, 60), "last pixel": mask_region(1, 1, WIDTH - 1, HEIGHT - 1),
    "with an offset": mask_region(10, 12, 30, 40), "begins outside": mask_region(30, 30, -10, -5),
    "larger than the image": mask_region(HEIGHT + 40, WIDTH + 50, -20, -20),
    "values of 255": mask_region(9, 9, 5, 5, 255), "box of one pixel": trax.Rectangle.create(80, 60, 1, 1),
    "box of a hundredth": trax.Rectangle.create(80, 60, 0.01, 0.01),
    "long and narrow": trax.Rectangle.create(-5, 60, WIDTH + 10, 0.5),
    "box around the image": trax.Rectangle.create(-WIDTH, -HEIGHT, 3 * WIDTH, 3 * HEIGHT),
    "polygon": trax.Polygon.create([(60.0, 40.0), (90.0, 45.0), (75.0, 70.0)]),
}
EMPTY_AT_FIRST = ("box of a hundredth", "long and narrow")  # they cover no pixel by half
BAD = {
    "empty": mask_region(10, 10, 5, 5, 0), "outside": mask_region(10, 10, WIDTH, 5),
    "far outside": mask_region(3, 3, 2**31 - 100, -(2**31) + 5), "box outside": trax.Rectangle.create(-50, 10, 40, 40),
    "NaN": trax.Rectangle.create(float("nan"), 10, 5, 5), "infinite": trax.Rectangle.create(0, 0, float("inf"), 5),
    "no width": trax.Rectangle.create(10, 10, 0, 5), "negative": trax.Rectangle.create(10, 10, -5, 5),
    "beyond measure": trax.Rectangle.create(0, 0, 1e30, 1e30), "17 images": trax.Rectangle.create(0, 0, 17 * WIDTH, 9),
    "line": trax.Polygon.create([(60.0, 40.0), (90.0, 40.0), (75.0, 40.0)]),
    "NaN corner": trax.Polygon.create([(60.0, float("nan")), (90.0, 45.0), (75.0, 70.0)]),
    "special code 0": trax.Special.create(0), "special code 1": trax.Special.create(1),
}


@pytest.mark.parametrize("kind", GOOD)
def test_odd_initial_regions_are_tracked(kind: str, talk: Talk) -> None:
    images = video(2)
    assert talk.start(images[0], GOOD[kind]).any() == (kind not in EMPTY_AT_FIRST)
    mask, confidence = talk.frame(talk.write("next.png", images[1]))
    assert mask.shape == SIZE and 0 <= confidence <= 1


@pytest.mark.parametrize("kind", BAD)
def test_initial_regions_without_a_target_are_refused(kind: str, talk: Talk) -> None:
    images = video(2)
    talk.start(images[0], BOX_REGION)
    with pytest.raises(InputError):
        talk.start(images[0], BAD[kind])
    mask, confidence = talk.frame(talk.write("next.png", images[1]))  # the target of before
    assert mask.shape == SIZE and confidence > 0
