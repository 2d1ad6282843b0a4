"""`alpharefine explain`: one frame of a real tracker, stage by stage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_trackers import small_tracker

from tracker_ar import build_tracker, cli
from tracker_ar.errors import InputError
from tracker_ar.explain import panels
from tracker_ar.explain.observe import Explanation, explain_frame, start
from tracker_ar.explain.pages import _overview, describe, write_explanation
from tracker_ar.refine import refiner
from tracker_ar.refine.box_refiner import BoxRefiner

HEIGHT, WIDTH, FRAMES = 96, 128, 4
NAME = "lite_dimp+lite"  # has every stage: the box of `lite` comes from its refiner
STAGES = ["1_frame", "2_score_map", "3_boxes_before", "4_boxes_after", "5_target_cells", "6_correlation",
          "7_mask_probability", "8_result"]
WITHOUT_BOXES = [stage for stage in STAGES if "boxes" not in stage]


def picture(frame: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc that moves over noise, RGB, and its mask."""
    image = np.random.default_rng(0).integers(40, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (50 + 4 * frame, 44), 16, 1, -1)
    image[mask > 0] = (230, 190, 60)
    return image, mask


@pytest.fixture(scope="module")
def explained() -> tuple[Explanation, object, np.ndarray]:
    """The last frame explained, the reference, and the mask of the same frame from a plain run."""
    plain, observed = build_tracker(NAME, "cpu"), build_tracker(NAME, "cpu")
    image, mask = picture(0)
    reference = start(observed, image, mask)
    plain.initialize(image, mask)
    for tracker in (plain, observed):
        for frame in range(1, FRAMES - 1):
            tracker.track(picture(frame)[0])
    last = picture(FRAMES - 1)[0]
    return explain_frame(observed, last), reference, plain.track(last).mask


def test_explaining_changes_nothing(explained: tuple) -> None:
    explanation, _, mask = explained
    np.testing.assert_array_equal(explanation.prediction.mask, mask)


def test_stages_belong_together(explained: tuple) -> None:
    explanation, _, _ = explained
    ascent, box = explanation.ascent, explanation.prediction.box
    assert ascent.start.shape == ascent.end.shape == (10, 4) and not np.array_equal(ascent.start, ascent.end)
    top, left, bottom, right = explanation.region.coords.tolist()
    side = explanation.region.patch.shape[-1]
    zoom = np.array([side / (right - left), side / (bottom - top)] * 2)
    inside = (box - [left, top, 0, 0]) * zoom
    assert (np.abs(ascent.end - inside).max(axis=1) < 0.15 * side).any()
    assert explanation.correlation.shape == (36, 12, 12)
    np.testing.assert_array_equal(explanation.refinement.mask, explanation.prediction.mask)


def test_the_crop_shown_is_the_one_that_was_used(explained: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a second pass was taken: the mask must have been pasted back from it."""
    tracker = build_tracker(NAME, "cpu")
    image, mask = picture(0)
    start(tracker, image, mask)
    used = []
    paste = refiner.paste_back
    monkeypatch.setattr(refiner, "paste_back", lambda *given: used.append(given[1]) or paste(*given))
    monkeypatch.setattr(refiner, "is_due", lambda *_: True)
    monkeypatch.setattr(refiner, "is_better", lambda *_: True)
    explanation = explain_frame(tracker, picture(1)[0])
    assert len(used) == 2 and used[0].window != used[1].window
    assert explanation.crop is used[1]
    monkeypatch.setattr(refiner, "is_better", lambda *_: False)
    tracker = build_tracker(NAME, "cpu")
    start(tracker, image, mask)
    used.clear()
    assert explain_frame(tracker, picture(1)[0]).crop is used[0]


def test_score_map_is_bright_at_the_target(explained: tuple) -> None:
    explanation, _, _ = explained
    top, left, bottom, right = explanation.region.coords.tolist()
    center = np.array([50 + 4 * (FRAMES - 1) - left, 44 - top]) / np.array([right - left, bottom - top])
    before = panels.search_region(explanation).astype(int)
    after = panels.score_map(explanation).astype(int)
    y, x = np.unravel_index((after - before).sum(axis=2).argmax(), before.shape[:2])
    assert np.abs(np.array([x, y]) / panels.SIDE - center).max() < 0.15


def test_probability_is_outlined_at_the_threshold(explained: tuple) -> None:
    explanation, _, _ = explained
    shown = panels.mask_probability(explanation)
    left, top, right, bottom = explanation.crop.window
    white = np.argwhere((shown == 255).all(axis=2)) / panels.SIDE * [bottom - top, right - left] + [top, left]
    rows, columns = np.nonzero(explanation.prediction.mask)
    assert white.min(axis=0) == pytest.approx([rows.min(), columns.min()], abs=2)
    assert white.max(axis=0) == pytest.approx([rows.max(), columns.max()], abs=2)


def test_frame_without_a_target(explained: tuple, tmp_path: Path) -> None:
    explanation, reference, _ = explained
    lost = dataclasses.replace(explanation, ascent=None, decision="not_found")
    names = [file.stem for file in write_explanation(tmp_path, lost, reference, 7)]
    assert names == [*WITHOUT_BOXES, "overview", "numbers"]
    assert "none refined: the target was not found" in describe(lost, 7)


@pytest.mark.parametrize(("name", "masks"), [
    ("super_dimp+vot2020", True), ("dimp50+ar34", True), ("dimp18+ar18", False), ("prdimp50+ar_base", True),
    ("prdimp18+lite", True)])
def test_the_dimp_family_with_any_refiner(name: str, masks: bool, tmp_path: Path) -> None:
    tracker = small_tracker(name)
    if not masks:
        tracker.refiner = BoxRefiner(tracker.refiner.runner, dataclasses.replace(tracker.refiner.settings, masks=False))
    image, mask = picture(0)
    reference = start(tracker, image, mask)
    explanation = explain_frame(tracker, picture(1)[0])
    written = [file.stem for file in write_explanation(tmp_path, explanation, reference, 1)]
    assert written == [stage for stage in STAGES if masks or "mask" not in stage] + ["overview", "numbers"]
    assert "none: the refiner gives a box" in describe(explanation, 1) or masks


@pytest.mark.parametrize(("name", "cause"), [
    ("atom+ar34", "no stages that can be shown"), ("siamrpn+++ar34", "no stages"), ("eco+lite", "no stages"),
    ("static+lite", "no stages"), ("dimp50", "has no refiner")])
def test_others_are_refused(name: str, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        start(small_tracker(name), *picture(0))


def test_pictures_of_a_row_align_at_the_top() -> None:
    shapes = [(40, 40), (40, 80), (80, 40), (40, 50)]
    shown = {str(number): ("caption" + "\n" * (number % 2), np.full((*shape, 3), (255, 0, 255), np.uint8))
             for number, shape in enumerate(shapes)}
    page = cv2.imdecode(np.frombuffer(_overview(shown, 1), np.uint8), cv2.IMREAD_COLOR)
    columns = np.array_split((page == (255, 0, 255)).all(axis=2), len(shapes), axis=1)
    assert np.ptp([column.any(axis=1).argmax() for column in columns]) <= 1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "disc"
    folder.mkdir()
    for frame in range(FRAMES):
        cv2.imwrite(str(folder / f"{frame + 1}.png"), picture(frame)[0][..., ::-1])
    return folder


@pytest.mark.parametrize(("name", "stages", "boxes"), [(NAME, STAGES, 10), ("lite", WITHOUT_BOXES, 0)])
def test_command(
    name: str, stages: list[str], boxes: int, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    words = ["explain", str(source), "--box", "34,28,32,32", "--tracker", name, "--device", "cpu"]
    assert cli.main([*words, "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert f"frame {FRAMES}\n" in output and output.count("->") == boxes
    assert (out / "numbers.txt").read_text().strip() in output
    assert sorted(file.stem for file in out.glob("*.png")) == sorted([*stages, "overview"])
    for file in out.glob("*.png"):
        assert cv2.imread(str(file)).std() > 5


@pytest.mark.parametrize(("words", "cause"), [
    (["--frame", "1"], "--frame 1 is not after --start 1"),
    (["--start", "4", "--frame", "9"], "there is no frame after frame 4"),
    (["--start", "9", "--frame", "12"], "none to start with"),
    (["--box", "500,500,10,10"], "outside the image"),
])
def test_bad_input(source: Path, capsys: pytest.CaptureFixture[str], words: list[str], cause: str) -> None:
    box = [] if "--box" in words else ["--box", "34,28,32,32"]
    assert cli.main(["explain", str(source), *box, *words]) == 1
    assert cause in capsys.readouterr().err
