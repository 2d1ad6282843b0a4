"""``alpharefine benchmark accuracy``: reading, measuring and reporting, with stand-ins for the trackers."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tracker_ar import zoo
from tracker_ar.commands import benchmark as benchmark_command
from tracker_ar.data.datasets.vot_layout import inspect_sequence, write_list
from tracker_ar.errors import DataError
from tracker_ar.evaluate import scores as accuracy
from tracker_ar.frame import Frame
from tracker_ar.geometry import box_from_mask, mask_from_box
from tracker_ar.prediction import BaseResult, Prediction, Refinement
from tracker_ar.run_lengths import encode_mask_line

LITE = zoo.profile("lite")

HEIGHT, WIDTH, LENGTH = 48, 64, 8
SPEED = 2


def true_mask(frame: int) -> np.ndarray:
    """A square of 20 pixels that moves 2 pixels per frame to the right."""
    return mask_from_box([10 + SPEED * frame, 14, 20, 20], (HEIGHT, WIDTH))


def write_sequence(folder: Path, masks: bool = True, lines: dict[int, str] | None = None) -> Path:
    """A sequence whose image n is n grey levels bright; `lines` replaces annotations of single frames."""
    (folder / "color").mkdir(parents=True)
    truth = []
    for frame in range(LENGTH):
        image = np.full((HEIGHT, WIDTH), 20 * frame, np.uint8)
        cv2.imwrite(str(folder / "color" / f"{frame + 1:08d}.jpg"), image)
        box = box_from_mask(true_mask(frame))
        truth.append(encode_mask_line(true_mask(frame)) if masks else ",".join(map(str, box)))
        truth[-1] = (lines or {}).get(frame, truth[-1])
    (folder / "groundtruth.txt").write_text("\n".join(truth) + "\n")
    (folder / "anchor.value").write_text("\n".join(["1", *["0"] * (LENGTH - 2), "-1"]) + "\n")
    (folder / "sequence").write_text(f"fps=20\nname={folder.name}\n")
    return folder


class Perfect:
    """Knows the answer: the brightness of the image tells the frame."""

    profile = LITE

    def initialize(self, image: np.ndarray, region) -> None:
        self.region = region

    def track(self, image: np.ndarray) -> Prediction:
        mask = true_mask(round(image.mean() / 20))
        return Prediction(box_from_mask(mask), mask, 1.0)


class Blind(Perfect):
    """Right boxes, empty masks."""

    def track(self, image: np.ndarray) -> Prediction:
        right = super().track(image)
        return Prediction(right.box, np.zeros_like(right.mask), 1.0)


def measures(tracker: accuracy.Tracker, folder: Path) -> accuracy.Measures:
    frames = []
    score = accuracy.measure("it", tracker, inspect_sequence(folder), lambda: frames.append(1))
    assert score.frames == len(frames) == LENGTH
    return score.measures


def test_a_perfect_tracker(tmp_path: Path) -> None:
    tracker = Perfect()
    best = pytest.approx(20 / 21)
    found = measures(tracker, write_sequence(tmp_path / "masks"))
    assert found == accuracy.Measures(1, 1, 0, 1, 1, 0, best, 1, 1, 1, 1, best)
    np.testing.assert_array_equal(tracker.region, true_mask(0))


def test_box_sequences_start_from_the_box_and_have_no_measures_of_masks(tmp_path: Path) -> None:
    tracker = Perfect()
    found = measures(tracker, write_sequence(tmp_path / "boxes", masks=False))
    np.testing.assert_array_equal(tracker.region, [10, 14, 20, 20])
    assert math.isnan(found.j) and math.isnan(found.f_decay)
    assert found.success == pytest.approx(20 / 21)


def test_the_static_box_by_hand(tmp_path: Path) -> None:
    found = measures(accuracy.comparison_tracker("static", OWN), write_sequence(tmp_path / "masks"))
    shifts = np.minimum(SPEED * np.arange(LENGTH), 20)
    overlaps = (20 - shifts) / (20 + shifts)
    assert found.j == pytest.approx(overlaps[1:-1].mean())
    assert found.j_recall == pytest.approx((overlaps[1:-1] > 0.5).mean())
    assert found.j_decay > 0.2
    assert found.precision == 1
    near = np.linspace(0, 0.5, 51)[:, None] >= shifts / 20 - 1e-9
    assert found.normalised_precision_at_20 == pytest.approx((shifts / 20 <= 0.2).mean())
    assert found.normalised_precision_auc == pytest.approx(near.mean())
    assert found.success == pytest.approx(np.mean([(overlaps > t).mean() for t in np.linspace(0, 1, 21)]))
    assert found.tracked == pytest.approx((overlaps[1:] > 0.1).mean())


def test_the_reported_box_counts_where_the_mask_is_empty(tmp_path: Path) -> None:
    found = measures(Blind(), write_sequence(tmp_path / "masks"))
    assert found.j == found.f == 0
    assert found.success == found.reported_success == pytest.approx(20 / 21)


def test_an_absent_target_asks_for_an_empty_mask_and_no_box(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "masks", lines={3: "m0,0,0,0,0"})
    assert measures(Perfect(), folder).j == pytest.approx(5 / 6)  # says that it is there
    assert measures(Perfect(), folder).success == pytest.approx(20 / 21)
    assert measures(Blind(), folder).j == pytest.approx(1 / 6)


@pytest.mark.parametrize("masks", [True, False])
def test_frames_without_annotation_are_left_out(tmp_path: Path, masks: bool) -> None:
    folder = write_sequence(tmp_path / "it", masks, lines={2: "0", 3: "nan,nan,nan,nan"})
    found = measures(Perfect(), folder)
    assert found.success == pytest.approx(20 / 21)
    assert found.j == 1 if masks else math.isnan(found.j)


def test_polygons_become_boxes(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "boxes", masks=False, lines={0: "10,14,30,14,30,34,10,34"})
    tracker = Perfect()
    measures(tracker, folder)
    np.testing.assert_allclose(tracker.region, [10, 14, 20, 20])


def test_masks_that_reach_the_border_and_beyond_are_cut_at_the_image(tmp_path: Path) -> None:
    # 6 columns from column 60, of which 4 are in the image, and 4 rows from row 46, of which 2 are
    info = inspect_sequence(write_sequence(tmp_path / "it", lines={1: "m60,46,6,4,0,24"}))
    masks = [truth.mask for _, truth in accuracy.read_frames(info)]
    assert masks[1].shape == (HEIGHT, WIDTH) and masks[1].sum() == 8 and masks[1][46:, 60:].all()
    assert np.array_equal(masks[2], true_mask(2))


def test_bad_sequences_are_named(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "broken")
    (folder / "color" / "00000004.jpg").write_text("a web page")
    with pytest.raises(DataError, match="00000004.jpg: damaged, or not an image"):
        measures(Perfect(), folder)
    late = write_sequence(tmp_path / "late", lines={0: "0"})
    (late / "anchor.value").write_text("0\n0\n1\n" + "0\n" * (LENGTH - 3))
    with pytest.raises(DataError, match="late: the first frame has no target"):
        measures(Perfect(), late)


def test_sequences_are_found_singly_in_folders_and_by_lists(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_sequence(tmp_path / "all" / name)

    def names(*folders: Path) -> list[str]:
        return [info.path.name for info in accuracy.find_sequences(folders)]

    assert names(tmp_path / "all" / "b") == ["b"]
    assert names(tmp_path / "all") == ["a", "b", "c"]
    assert names(tmp_path / "all" / "c", tmp_path / "all") == ["c", "a", "b"]
    write_list(tmp_path / "all", ["c", "a"])
    assert names(tmp_path / "all") == ["c", "a"]
    with pytest.raises(DataError, match="nor a folder of them"):
        names(tmp_path)
    write_sequence(tmp_path / "other" / "a")
    with pytest.raises(DataError, match="two different sequences are called a"):
        names(tmp_path / "all", tmp_path / "other")


OWN = SimpleNamespace(refiner=None, profile=LITE)


class Always:
    """A base tracker that says what it was told to."""

    def __init__(self, *answers: BaseResult) -> None:
        self.answers = list(answers)

    def start(self, frame: Frame, box: np.ndarray) -> None:
        self.started = box.tolist()

    def track(self, frame: Frame, targets: list) -> list[BaseResult]:
        return [self.answers.pop(0)]

    def correct(self, target: None, box: np.ndarray) -> None: ...


@pytest.mark.parametrize("name", ["csrt", "csrt+refiner"])
def test_another_base_tracker_alone_and_with_the_refiner(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    box = np.array([12.0, 14, 20, 20])
    base = Always(BaseResult(box, None), BaseResult(box, 0.25))
    refiner = SimpleNamespace(
        start=lambda frame, region: region,
        refine=lambda frame, targets, boxes, learn: [Refinement(boxes[0], true_mask(2), 0.5)],
    )
    monkeypatch.setattr(accuracy, "opencv_tracker", {"csrt": base}.get)
    tracker = accuracy.comparison_tracker(name, SimpleNamespace(refiner=refiner, profile=LITE))
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    tracker.initialize(image, true_mask(0))
    assert base.started == box_from_mask(true_mask(0)).tolist()
    refined = name.endswith("refiner")
    for score in (0.5 if refined else 1.0, 0.25):
        prediction = tracker.track(image)
        assert prediction.box.tolist() == box.tolist() and prediction.score == score
        assert np.array_equal(prediction.mask, true_mask(2 if refined else 1))



@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command with `Perfect` or another stand-in for the tracker, on `tmp_path / 'data'`."""
    weights = [tmp_path / name for name in ("base.safetensors", "refiner.safetensors")]
    for file in weights:
        file.write_bytes(file.name.encode())

    def run(*arguments: str, tracker: accuracy.Tracker | None = None) -> int:
        monkeypatch.setattr(benchmark_command, "build_tracker", lambda *_, fast: tracker or Perfect())
        monkeypatch.setattr(benchmark_command, "weight_files", lambda *_: weights)
        parser = argparse.ArgumentParser()
        benchmark_command.configure(parser)
        fixed = ["accuracy", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--profile", "lite"]
        return benchmark_command.run(parser.parse_args([*fixed, *arguments]))

    return run


def test_the_command_end_to_end(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sequence(tmp_path / "data" / "with-masks")
    write_sequence(tmp_path / "data" / "with-boxes", masks=False)
    assert command("--compare", "static") == 0

    out = tmp_path / "out"
    printed = capsys.readouterr().out
    assert (out / "summary.txt").read_text() in printed
    assert "mean of 1, masks" in printed and "mean of 2 " in printed

    results = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["complete"] and results["profile"] == "lite"
    assert len(results["checkpoints"]["base.safetensors"]) == 64
    means = results["means"]
    assert list(means) == ["masks", "boxes", "all"]
    assert means["masks"]["AlphaRefine lite"]["j"] == means["all"]["AlphaRefine lite"]["j"] == 1
    assert means["boxes"]["AlphaRefine lite"]["j"] is None
    assert 0.2 < means["all"]["static"]["success"] < means["all"]["AlphaRefine lite"]["success"]
    assert [len(curve) for curve in results["sequences"][0]["curves"].values()] == [21, 51, 51]

    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["sequence"] for row in rows] == ["with-boxes"] * 2 + ["with-masks"] * 2
    assert [row["tracker"] for row in rows] == ["AlphaRefine lite", "static"] * 2
    assert rows[0]["j"] == "" and float(rows[2]["j"]) == 1

    for name in ("success", "precision", "normalised_precision", "region_similarity"):
        picture = cv2.imread(str(out / f"{name}.png"))
        assert picture.shape[0] > 400 and picture.std() > 5
    assert not list(out.glob(".*"))


class StoppedAt(Perfect):
    """Ctrl-C in a frame, counted over all sequences."""

    def __init__(self, frame: int) -> None:
        self.left = frame

    def track(self, image: np.ndarray) -> Prediction:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().track(image)


def test_a_stop_keeps_the_sequences_that_are_done(command, tmp_path: Path, capsys) -> None:
    for name in ("a", "b", "c"):
        write_sequence(tmp_path / "data" / name)
    assert command("--compare", "static", tracker=StoppedAt(LENGTH + 2)) == 130
    assert "1 of 3 sequences are done" in capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not results["complete"]
    assert [(row["sequence"], row["tracker"]) for row in results["sequences"]] == [
        ("a", "AlphaRefine lite"), ("a", "static")]
    assert (tmp_path / "out" / "region_similarity.png").is_file()


def test_a_stop_in_the_first_sequence_leaves_nothing(command, tmp_path: Path, capsys) -> None:
    write_sequence(tmp_path / "data" / "a")
    assert command(tracker=StoppedAt(2)) == 130
    assert "0 of 1 sequences are done" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_box_sequences_alone_have_no_plot_of_masks(command, tmp_path: Path) -> None:
    write_sequence(tmp_path / "data" / "a", masks=False)
    assert command() == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "results.json", "results.csv", "summary.txt",
        "success.png", "precision.png", "normalised_precision.png"}
