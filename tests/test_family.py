"""What holds for every tracker of the zoo, in its own engine on a small network: contract, bad input, repeatability."""

from __future__ import annotations

from pathlib import Path

import cv2
import family_table
import numpy as np
import pytest
from small_trackers import make_small, small_tracker
from trace_notes import Notes

from tracker_ar import Prediction, zoo
from tracker_ar.errors import InputError
from tracker_ar.trace import listening
from tracker_ar.tracker import AlphaRefineTracker

HEIGHT, WIDTH = 96, 128
BOX, OTHER, THIRD = (50.0, 30.0, 30.0, 24.0), (15.5, 20.0, 24.0, 40.25), (80.0, 60.0, 40.0, 30.0)
# Of files or another OpenCV; `tests/test_opencv_trackers.py` has stand-ins for them.
BASES = [name for name in zoo.BASES if not zoo.lacks(name) or zoo.BASES[name].kinds]
BEHIND = ["static+vot2020", "static+lite", "static+ar34", "static+ar18", "static+ar_base"]
TOGETHER = ["dimp50+ar_base", "siamrpn+++ar34", "eco+lite"]
NAMES = [*BASES, *BEHIND, *TOGETHER]
DRAWS_ANYHOW = "mil"  # OpenCV's, which cannot be seeded
REPEATABLE = pytest.mark.parametrize("name", [name for name in NAMES if name != DRAWS_ANYHOW])
ANY = pytest.mark.parametrize("name", [name for name in NAMES if name not in TOGETHER])


def video(frames: int = 4) -> list[np.ndarray]:
    """A bright textured target that moves by two pixels a frame over a dark textured ground."""
    random = np.random.default_rng(5)
    ground = np.kron(random.integers(20, 90, (HEIGHT // 4, WIDTH // 4, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    target = random.integers(150, 255, (24, 30, 3), np.uint8)
    images = [ground.copy() for _ in range(frames)]
    for frame, image in enumerate(images):
        image[30:54, 50 + 2 * frame : 80 + 2 * frame] = target
    return images


def run(tracker: AlphaRefineTracker, images: list[np.ndarray], region: object = BOX) -> list[Prediction]:
    tracker.initialize(images[0], region)
    return [tracker.track(image) for image in images[1:]]


def check(prediction: Prediction) -> None:
    """What holds for every prediction."""
    assert prediction.mask.shape == (HEIGHT, WIDTH) and prediction.mask.dtype == np.uint8
    assert prediction.mask.flags.c_contiguous and set(np.unique(prediction.mask)) <= {0, 1}
    assert prediction.box.shape == (4,) and prediction.box.dtype == np.float64
    assert np.isfinite(prediction.box).all() and min(prediction.box[2:]) > 0
    assert isinstance(prediction.score, float) and 0.0 <= prediction.score <= 1.0


def same(one: Prediction, other: Prediction, mask: bool = True) -> bool:
    """Bit for bit."""
    probabilities = [np.float32(0) if each.probabilities is None else each.probabilities for each in (one, other)]
    return (np.array_equal(one.box, other.box) and one.score == other.score and np.array_equal(*probabilities)
            and (not mask or np.array_equal(one.mask, other.mask)))


def all_same(some: list[Prediction], others: list[Prediction]) -> bool:
    return all(same(*pair) for pair in zip(some, others, strict=True))


@REPEATABLE
def test_runs_are_bit_identical_and_leave_engines_as_they_were(name: str) -> None:
    images = video(5)
    first = run(small_tracker(name), images)
    for prediction in first:
        check(prediction)
    assert all_same(first, run(small_tracker(name), images))
    assert all_same(first, run(make_small(name), images))


@REPEATABLE
def test_bad_input_changes_nothing(name: str) -> None:
    images = video(5)
    expected = run(small_tracker(name), images)
    tracker = small_tracker(name)
    with pytest.raises(InputError, match="before initialize"):
        tracker.track(images[0])
    tracker.initialize(images[0], BOX)
    bad_frames = [images[0][:-1], np.zeros((0, 0, 3), np.uint8), np.full((HEIGHT, WIDTH, 3), np.nan), None]
    bad_regions = [np.zeros((HEIGHT, WIDTH), np.uint8), (WIDTH, 10, 20, 20), (10, 10, 0, 20), (10, np.nan, 5, 20)]
    for image, frame, region, wanted in zip(images[1:], bad_frames, bad_regions, expected, strict=True):
        wrongs = (
            (tracker.track, frame), (tracker.initialize, image, region), (tracker.add, image, region),
            (tracker.correct, 0, (1, 2, 0, 4)),
        )
        for call, *given in wrongs:
            with pytest.raises(InputError):
                call(*given)
        assert same(tracker.track(image), wanted)


@ANY
@pytest.mark.parametrize("region", [
    (60, 40, 1, 1), (-20, -10, 40, 30), (0, 0, WIDTH, HEIGHT), (WIDTH - 1, HEIGHT - 1, 60, 60),
], ids=str)
def test_odd_targets_are_tracked(name: str, region: tuple[float, ...]) -> None:
    """OpenCV's may say that they cannot."""
    images, tracker = video(3), small_tracker(name)
    try:
        tracker.initialize(images[0], region)
    except InputError as error:
        assert zoo.BASES[zoo.parts_of(name)[0]].engine.endswith(":opencv_tracker") and "cannot follow" in str(error)
        return
    for image in images[1:]:
        check(tracker.track(image))


@REPEATABLE
def test_grey_and_rgba_frames(name: str) -> None:
    images = video(2)
    grey = [image[:, :, 0] for image in images]
    repeated = run(small_tracker(name), [image[:, :, None].repeat(3, 2) for image in grey])
    assert all_same(run(small_tracker(name), grey), repeated)
    transparent = [np.dstack([image, image[:, :, :1]]) for image in images]
    assert all_same(run(small_tracker(name), transparent), run(small_tracker(name), images))


@ANY
def test_uniform_frames(name: str) -> None:
    tracker, uniform = small_tracker(name), [np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (127, 0, 255)]
    for images in (uniform[:2], [video(1)[0], *uniform[1:]]):
        for prediction in run(tracker, images):
            check(prediction)


@REPEATABLE
def test_each_of_several_is_tracked_as_if_alone(name: str) -> None:
    images = video(3)
    several = small_tracker(name)
    several.initialize(images[0], [BOX, OTHER])
    found = [several.track(images[1])]
    several.add(images[1], THIRD)
    found += [several.track(image) for image in images[2:]]
    for index, (region, first) in enumerate(((BOX, 0), (OTHER, 0), (THIRD, 1))):
        alone = run(small_tracker(name), images[first:], region)
        together = [frame[index] for frame in found[first:]]
        assert all(same(*pair, mask=False) for pair in zip(alone, together, strict=True))
    several.remove(0)
    assert len(several.track(images[2])) == 2


@ANY
def test_stages_have_names(name: str) -> None:
    images, tracker = video(2), small_tracker(name)
    tracker.initialize(images[0], BOX)
    with listening(notes := Notes()):
        tracker.track(images[1])
    base, refiner = zoo.parts_of(name)
    if base != "static":
        assert {"base backbone", "base tracker"} & set(notes.stages)
    if refiner:
        assert {"refiner crop", "refiner backbone", "correlation", "mask head", "paste back"} <= set(notes.stages)
    named = {stage for stage in notes.stages if stage in family_table.REFINING}
    assert bool(named) == bool(refiner)


@pytest.mark.parametrize("name", [name for name in NAMES if zoo.BASES[zoo.parts_of(name)[0]].kinds])
def test_a_correction_moves_the_target(name: str) -> None:
    """Search goes on from the corrected box, which is elsewhere and half as large."""
    image = video(1)[0]
    moved, left = small_tracker(name), small_tracker(name)
    for tracker in (moved, left):
        tracker.initialize(image, BOX)
    moved.correct(0, (90, 60, 15, 12))
    found, stayed = moved.track(image), left.track(image)
    assert np.abs(found.box - stayed.box).max() > 5
    moved.correct(0, (90, 60, 15, 12))
    check(moved.track(image))


def test_the_table_of_all_runs_a_tracker_through_trax_and_track(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "color").mkdir()
    for number, image in enumerate(video(3), 1):
        cv2.imwrite(str(tmp_path / f"color/{number:08d}.png"), image)
    (tmp_path / "groundtruth.txt").write_text(",".join(map(str, BOX)))
    assert family_table.main(["static", "--sequence", str(tmp_path), "--threads", "1"]) == 0
    heading, columns, row = capsys.readouterr().out.splitlines()
    assert "3 frames, 128 x 96" in heading and row.startswith("static | ") and row.endswith(" | identical")
    assert len(row.split(" | ")) == len(columns.split(" | "))
    assert {zoo.parts_of(name)[0] for name in family_table.everything()} == set(zoo.BASES)


def test_the_table_tells_runs_that_differ() -> None:
    one, other = (family_table.States([np.zeros((2, 2))] * 3, ["1.000000"] * 3) for _ in range(2))
    assert one.differ_from(other) is None
    other.confidences[2] = "0.999999"
    assert one.differ_from(other) == 3
    other.masks[1] = np.ones((2, 2))
    assert one.differ_from(other) == 2


def test_every_tracker_of_the_zoo_is_tested_or_needs_what_is_not_here() -> None:
    assert {zoo.parts_of(name)[1] for name in NAMES} == {"", *zoo.REFINERS}
    assert set(zoo.BASES) - set(BASES) <= {"csrt", "kcf", "nanotrack", "vittrack"}
