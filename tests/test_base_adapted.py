"""Other people's trackers as base trackers, and the refiner behind them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from video_fixtures import BOX, picture, write_video

import tracker_ar
from tracker_ar.base.adapted import AdaptedTracker
from tracker_ar.base.opencv import OpenCVConventions, opencv_tracker
from tracker_ar.errors import InputError
from tracker_ar.examples import csrt, own_tracker
from tracker_ar.frame import Frame
from tracker_ar.prediction import BaseResult

IMAGE = np.zeros((60, 80, 3), np.uint8)
FRAME = Frame(IMAGE)
START = np.array([10.0, 12, 20, 16])
NEXT = [11.0, 13.0, 21.0, 17.0]


class Scripted:
    """A tracker that answers what it was told to."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        self.box = box

    def update(self, image: np.ndarray) -> object:
        return self.answers.pop(0)


class Adapted:
    """One target of an `AdaptedTracker` whose object answers what it was told to."""

    def __init__(self, *answers: object) -> None:
        self.engine = AdaptedTracker(lambda: Scripted(*answers))
        self.target = self.engine.start(FRAME, START)

    def track(self) -> BaseResult:
        (found,) = self.engine.track(FRAME, [self.target])
        return found


@pytest.mark.parametrize(("answer", "score"), [
    (NEXT, None), (tuple(NEXT), None), (np.array(NEXT), None),
    ((True, NEXT), None), ((np.True_, tuple(NEXT)), None),
    ((NEXT, 0.25), 0.25), ((0.25, NEXT), 0.25), ((np.array(NEXT), np.float32(7)), 1.0), ((NEXT, 0), 0.0),
])
def test_all_common_answers_are_understood(answer: object, score: float | None) -> None:
    found = Adapted(answer).track()
    assert found.box.tolist() == NEXT and found.box.dtype == np.float64
    assert found.score == score


@pytest.mark.parametrize("lost", [
    (False, NEXT), (False, (0, 0, 0, 0)), (0, 0, 0, 0), (10, 10, -5, 5), (np.nan, 1, 2, 3),
    (np.full(4, np.inf), 0.9),
])
def test_a_lost_target_stays_where_it_was(lost: object) -> None:
    tracker = Adapted(NEXT, lost, lost, START)
    tracker.track()
    for _ in range(2):
        found = tracker.track()
        assert found.box.tolist() == NEXT and found.score == 0.0
    assert tracker.track().box.tolist() == START.tolist()


@pytest.mark.parametrize("answer", [None, 5, "box", (1, 2, 3), (True, None), {"x": 1}, (NEXT, "sure"), (NEXT, NEXT)])
def test_other_answers_are_refused_with_what_is_wanted(answer: object) -> None:
    with pytest.raises(InputError, match="should be a box x, y, w, h"):
        Adapted(answer).track()


def test_every_target_gets_a_tracker_of_its_own() -> None:
    made = []
    tracker = AdaptedTracker(lambda: made.append(Scripted(NEXT)) or made[-1])
    targets = [tracker.start(FRAME, START + offset) for offset in range(2)]
    assert len(tracker.track(FRAME, targets)) == 2
    assert [one.box.tolist() for one in made] == [START.tolist(), (START + 1).tolist()]


def test_corrections_reach_those_that_take_them() -> None:
    corrected = []
    able = Scripted(NEXT)
    able.correct = lambda box: corrected.append(box.tolist())
    tracker = AdaptedTracker(lambda: able)
    tracker.correct(tracker.start(FRAME, START), START + 2)
    assert corrected == [(START + 2).tolist()]
    unable = Adapted((False, NEXT))
    unable.engine.correct(unable.target, START + 2)
    assert unable.track().box.tolist() == START.tolist()


def test_trackers_of_opencv_get_bgr_images_and_whole_pixels_in_the_image() -> None:
    seen = []
    fake = SimpleNamespace(
        init=lambda *given: seen.append(given), update=lambda image: (seen.append(image), (0, 0, 1, 1))
    )
    tracker = OpenCVConventions(fake)
    red = IMAGE + np.array([255, 0, 0], np.uint8)
    tracker.init(red, np.array([-5.4, 14.6, 20, 20]))
    tracker.update(red)
    assert seen[0][0][0, 0].tolist() == seen[1][0, 0].tolist() == [0, 0, 255]
    assert seen[0][1] == (0, 15, 15, 20) and all(type(value) is int for value in seen[0][1])


def test_trackers_that_are_not_installed_name_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "TrackerCSRT", raising=False)
    with pytest.raises(InputError, match=rf"no CSRT.*opencv-contrib-python=={cv2.__version__}"):
        opencv_tracker("csrt")
    with pytest.raises(InputError, match="no OpenCV tracker 'goturn'"):
        opencv_tracker("goturn")


@pytest.mark.skipif(not hasattr(cv2, "TrackerKCF"), reason="needs opencv-contrib-python")
@pytest.mark.parametrize("name", ["csrt", "kcf"])
def test_trackers_of_opencv_follow_a_textured_square(name: str) -> None:
    texture = np.random.default_rng(1).integers(0, 255, (20, 20, 3), np.uint8)

    def image(frame: int) -> np.ndarray:
        ground = np.full((120, 160, 3), 90, np.uint8)
        ground[30:50, 30 + frame:50 + frame] = cv2.GaussianBlur(texture, (0, 0), 1)
        return ground

    tracker = opencv_tracker(name)
    target = tracker.start(Frame(image(0)), np.array([30.0, 30, 20, 20]))
    for frame in range(1, 9):
        (found,) = tracker.track(Frame(image(frame)), [target])
    assert np.abs(found.box[:2] - [38, 30]).max() <= 3


# ---- the refiner


def large(frame: int) -> np.ndarray:
    return cv2.resize(picture(frame), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)


def test_a_refiner_of_one_call_makes_masks_from_boxes() -> None:
    refiner = tracker_ar.build_refiner("lite")
    target = refiner.start(Frame(large(0)), 4 * np.array(BOX))
    loose = 4 * np.array(BOX) + [0, -6, 12, 12]  # of the next frame, eight pixels to the right
    (found,) = refiner.refine(Frame(large(1)), [target], [loose], learn=[True])
    true = np.zeros(large(1).shape[:2], bool)
    true[48:80, 48:96] = True
    overlap = (true & (found.mask > 0)).sum() / (true | (found.mask > 0)).sum()
    assert overlap > 0.8
    assert np.abs(found.box - [48, 48, 48, 32]).max() <= 4


def test_without_a_score_of_the_base_tracker_that_of_the_refiner_stands() -> None:
    box = (48, 48, 48, 32)
    told = [(True, box), (box, 0.125), (False, box)]
    tracker = tracker_ar.build_tracker("lite", base=AdaptedTracker(lambda: Scripted(*told)))
    tracker.initialize(large(0), 4 * np.array(BOX))
    scores = [tracker.track(large(1)).score for _ in told]
    assert 0.5 < scores[0] <= 1 and scores[1:] == [0.125, 0.0]


# ---- the examples


def overlaps(follow, frames: int = 6) -> list[float]:
    """Of the masks of an example with the moving rectangle."""
    found = []
    for number, (_, one) in enumerate(follow(large(0), map(large, range(1, frames)), 4 * np.array(BOX)), 1):
        true = np.zeros(large(0).shape[:2], bool)
        true[48:80, 40 + 8 * number : 88 + 8 * number] = True
        found.append((true & (one.mask > 0)).sum() / (true | (one.mask > 0)).sum())
    assert len(found) == frames - 1
    return found


def test_the_example_with_csrt(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(cv2, "TrackerCSRT"):  # another of OpenCV's trackers takes its place
        monkeypatch.setattr(cv2, "TrackerCSRT", cv2.TrackerMIL, raising=False)
    assert min(overlaps(csrt.follow)) > 0.6


def test_the_example_with_a_tracker_of_ones_own() -> None:
    assert min(overlaps(own_tracker.follow)) > 0.6


def test_an_example_from_the_command_line(tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.avi")
    out = tmp_path / "overlay.mp4"
    command = [sys.executable, "-m", "tracker_ar.examples.own_tracker", str(source), "10,12,12,8", str(out)]
    root = Path(__file__).resolve().parents[1]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    again = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert again.returncode == 1 and "is there already" in again.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.avi", "overlay.mp4"]
