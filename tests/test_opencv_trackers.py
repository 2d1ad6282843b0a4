"""OpenCV's trackers as base trackers: conventions, scores, and what is said where something is missing or wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from tracker_ar.base.opencv import OPENCV_TRACKERS, OpenCVConventions, opencv_tracker
from tracker_ar.errors import InputError
from tracker_ar.frame import Frame
from tracker_ar.zoo import BASES

START = np.array([30.0, 30, 20, 20])
NANO, VIT = ([model.published for model in OPENCV_TRACKERS[name].models] for name in ("nanotrack", "vittrack"))
TEXTURE = np.random.default_rng(1).integers(0, 255, (20, 20, 3), np.uint8)


def image(number: int) -> Frame:
    ground = np.full((120, 160, 3), 90, np.uint8)
    ground[30:50, 30 + number : 50 + number] = cv2.GaussianBlur(TEXTURE, (0, 0), 1)
    return Frame(ground)


class Fake:
    """Stands in for a tracker of `cv2`: made of parameters, finds what it is told."""

    made: list[Any] = []
    answer: Any = True, (31, 32, 20, 20)
    score = 0.5

    @classmethod
    def create(cls, parameters: Any = None) -> Fake:
        cls.made.append(parameters)
        return cls()

    def init(self, image: np.ndarray, box: tuple[int, ...]) -> None:
        self.box = box

    def update(self, image: np.ndarray) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def getTrackingScore(self) -> float:
        return self.score


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    kind = type("TrackerFake", (Fake,), {"made": []})
    for name in ("Nano", "Vit", "MIL"):
        monkeypatch.setattr(cv2, f"Tracker{name}", kind, raising=False)
        monkeypatch.setattr(cv2, f"Tracker{name}_Params", SimpleNamespace, raising=False)
    return kind


@pytest.mark.parametrize(("answer", "score", "box", "reported"), [
    ((True, (31, 32, 20, 20)), 0.5, [31, 32, 20, 20], 0.5),
    ((True, (31, 32, 20, 20)), -1.0, [31, 32, 20, 20], None),  # knows none
    ((False, (31, 32, 20, 20)), 0.1, START.tolist(), 0.0),
    (cv2.error("failed"), 0.9, START.tolist(), 0.0),
])
def test_boxes_and_scores(
    fake: type[Fake], answer: Any, score: float, box: list[float], reported: float | None
) -> None:
    fake.answer, fake.score = answer, score
    engine = opencv_tracker("mil")
    target = engine.start(image(0), START)
    (found,) = engine.track(image(1), [target])
    assert found.box.tolist() == box and found.score == reported
    engine.correct(target, START + 7)  # cannot be told
    assert target.box.tolist() == box


@pytest.mark.parametrize("names", [NANO, [f"v2_{name}" for name in NANO], [*NANO, "old_nanotrack_head.onnx"]])
def test_models_are_found_by_their_names_or_ones_that_contain_them(
    fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(tmp_path))
    assert BASES["nanotrack"].lacks() == []
    opencv_tracker("nanotrack").start(image(0), START)
    assert len(fake.made) == 2  # one to try the files, one for the target
    assert [fake.made[1].backbone, fake.made[1].neckhead] == [str(tmp_path / name) for name in names[:2]]


@pytest.mark.parametrize(("tracker", "there", "says"), [
    ("nanotrack", {NANO[0]: b"x"}, rf"needs the file {NANO[1]}.*SiamTrackers/tree/master/NanoTrack/models/nanotrackv2"),
    ("vittrack", {}, rf"needs the file {VIT[0]}.*opencv_zoo.*ALPHAREFINE_CHECKPOINTS"),
    ("vittrack", {"a_vittrack.onnx": b"", "vittrack.onnx": b""}, f"Which of a_vittrack.onnx, vittrack.onnx .*{VIT[0]}"),
    ("vittrack", {VIT[0]: b""}, "is not what VitTrack needs"),
    ("vittrack", {VIT[0]: b"version https://git-lfs.github.com/spec/v1\noid sha256:29"}, "is not what VitTrack needs"),
    ("nanotrack", {name: b"\0garbage" * 99 for name in NANO}, "are not what NanoTrack v2 needs .*Download"),
])
def test_files_that_are_missing_or_wrong_name_cause_and_fix(
    tracker: str, there: dict[str, bytes], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, content in there.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){says}"):
        opencv_tracker(tracker, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_missing_models_are_listed(tmp_path: Path) -> None:
    (tmp_path / NANO[0]).touch()
    assert BASES["nanotrack"].lacks(tmp_path) == NANO[1:]
    assert BASES["vittrack"].lacks(tmp_path) == VIT and BASES["mil"].lacks(tmp_path) == []


def test_networks_that_are_others_are_found_out(fake: type[Fake], tmp_path: Path) -> None:
    (tmp_path / VIT[0]).touch()
    fake.answer = cv2.error("OpenCV(5.0.0) /net.cpp:1: error: (-204) input 'template' is not found in function 'f'\n")
    with pytest.raises(InputError, match=r"not what VitTrack needs \(\(-204\) input 'template' is not found\)"):
        opencv_tracker("vittrack", tmp_path)


@pytest.mark.parametrize(("name", "fix"), [
    ("csrt", f"opencv-contrib-python=={cv2.__version__}"), ("kcf", "opencv-contrib-python"),
    ("vittrack", "opencv-python>=4.9"), ("nanotrack", "opencv-python>=4.7"),
])
def test_trackers_that_are_not_installed_name_the_fix(name: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, f"Tracker{OPENCV_TRACKERS[name].module}", raising=False)
    with pytest.raises(InputError, match=f"OpenCV {cv2.__version__} as installed has no .*{fix}"):
        opencv_tracker(name)


def test_unknown_names_and_targets_that_opencv_refuses() -> None:
    with pytest.raises(InputError, match="no OpenCV tracker 'goturn' here: choose one of csrt, kcf, mil"):
        opencv_tracker("goturn")
    with pytest.raises(InputError, match="TrackerMIL cannot follow a target of 3 x 20 pixels here .*10 pixels"):
        opencv_tracker("mil").start(image(0), np.array([30.0, 30, 3, 20]))
    refusing = SimpleNamespace(init=lambda *given: (_ for _ in ()).throw(cv2.error("too small")))
    with pytest.raises(InputError, match=r"20 x 20 pixels here \(too small\)"):
        OpenCVConventions(refusing).init(image(0).pixels, START)


@pytest.mark.parametrize(("name", "within"), [("csrt", 3), ("kcf", 3), ("mil", 40)])  # MIL draws at random
def test_trackers_follow_a_textured_square(name: str, within: float) -> None:
    if not hasattr(cv2, f"Tracker{OPENCV_TRACKERS[name].module}"):
        pytest.skip("needs opencv-contrib-python")
    engine = opencv_tracker(name)
    targets = [engine.start(image(0), START)]
    for number in range(1, 5):
        (found,) = engine.track(image(number), targets)
    assert np.abs(found.box[:2] - [34, 30]).max() <= within and found.score is None
