"""``alpharefine benchmark speed``: counting, observing and reporting. Nothing here depends on how long things
take."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tracker_ar import cli, zoo
from tracker_ar.errors import DataError, EvaluationError, InputError
from tracker_ar.prediction import Prediction
from tracker_ar.speed import ceilings
from tracker_ar.speed import measure as speed
from tracker_ar.speed.stages import REST, Both, StageMeter, TrafficCounter
from tracker_ar.speed.start import Start, build, measure_start, peak_memory
from tracker_ar.speed.summary import Measurements, Work, format_report, summarize
from tracker_ar.trace import listening
from tracker_ar.tracker import AlphaRefineTracker
from tracker_ar.zoo import build_tracker

LITE = zoo.profile("lite_dimp+lite")

FOUND = replace(LITE.base.localization, not_found_threshold=-1.0)
SMALL = replace(LITE, base=replace(LITE.base, input_size=128, localization=FOUND),
                refiner=replace(LITE.refiner, input_size=128))
TINY_SIZES = ceilings.Sizes(batch=1, channels=4, side=8, rows=16, megabytes=1, repeats=2)
START = Start("lite", "cpu", random_weights=True)
START_FIGURES = {"process": 1.5, "import": 1.0, "build": 0.25, "first initialisation": 0.5,
                 "first frame": 0.1, "peak memory": 400e6}
BOX = [60.0, 40.0, 30.0, 24.0]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "profile", lambda *_: SMALL)


@pytest.fixture
def tracker() -> AlphaRefineTracker:
    return made()


def made(fast: bool = True) -> AlphaRefineTracker:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_tracker(SMALL, "cpu", fast=fast, random_weights=True)


@pytest.fixture(scope="module")
def clip() -> speed.Clip:
    rng = np.random.default_rng(5)
    ground = rng.integers(20, 90, (120, 160, 3), dtype=np.uint8)
    target = rng.integers(150, 255, (24, 30, 3), dtype=np.uint8)
    images = [ground.copy() for _ in range(3)]
    for number, image in enumerate(images):
        image[40:64, 60 + 2 * number : 90 + 2 * number] = target
    return speed.Clip("square", images, BOX)


def counter() -> StageMeter:
    """A meter of something that grows by one whenever it is looked at."""
    ticks = iter(range(10**9))
    return StageMeter(lambda: float(next(ticks)))


class TestMeter:
    def test_a_stage_is_charged_without_those_inside_it(self) -> None:
        now = 0.0
        meter = StageMeter(lambda: now)
        now = 100.0
        with meter.stage("frame"):
            now += 1
            with meter.stage("part"):
                now += 10
                with meter.stage("frame"):
                    now += 5
            now += 2
        now += 50
        assert meter.take() == {"frame": 8, "part": 10}
        assert meter.take() == {}

    def test_a_failure_closes_its_stages(self) -> None:
        meter = counter()
        with pytest.raises(ValueError), meter.stage("a"), meter.stage("b"):
            raise ValueError
        meter.take()
        with meter.stage("c"):
            pass
        assert meter.take().keys() == {"c"}


class TestObserving:
    def test_every_stage_is_seen(self, tracker: AlphaRefineTracker, clip: speed.Clip) -> None:
        first, *frames = speed.staged(tracker, clip, 20, True, counter())
        assert first.keys() == {
            "augmentation", "base backbone", "classification features", "initial filter", "model update",
            "IoU modulation", "refiner backbone", "reference kernel", "refiner crop", "correlation", "target model",
            "mask head", "corner head", "paste back", REST,
        }
        assert len(frames) == 20
        always = {
            "base crop", "base backbone", "classification features", "target scores", "localisation", "IoU features",
            "box refinement", "refiner crop", "refiner backbone", "correlation", "target model", "mask head",
            "corner head", "paste back", REST,
        }
        sometimes = {"model update", "target model update"}
        assert always <= set().union(*frames) <= always | sometimes
        for frame in frames:
            assert always <= frame.keys()

    def test_results_are_those_of_the_unobserved_tracker(self, tracker: AlphaRefineTracker, clip: speed.Clip) -> None:
        def masks() -> list[np.ndarray]:
            tracker.initialize(clip.image(0), clip.region)
            return [tracker.track(image).mask for image in clip.images]

        before = masks()
        with listening(Both((counter(), counter()))), FlopCounterMode(display=False), TrafficCounter():
            seen = masks()
        assert all(np.array_equal(*pair) for pair in zip(before, seen))

    def test_only_the_listeners_own_thread_is_heard(self, tracker: AlphaRefineTracker, clip: speed.Clip) -> None:
        meter = counter()
        with listening(meter):
            other = threading.Thread(target=tracker.initialize, args=(clip.image(0), clip.region))
            other.start()
            other.join()
        tracker.track(clip.image(1))
        assert meter.take() == {}


class TestWork:
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_bytes_of_a_convolution_and_a_product(self, mode: type) -> None:
        convolution = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        images = torch.zeros(1, 2, 4, 5)
        left, right = torch.zeros(6, 7), torch.zeros(7, 8)
        with mode(), TrafficCounter() as traffic:
            convolution(images)
            assert traffic.bytes == 4 * (2 * 20 + 3 * 2 * 9 + 3 * 20)
            left.T.reshape(7, 6)[1:]
            before = traffic.bytes
            left @ right
            left.view(-1)[1:]
        assert traffic.bytes - before == 4 * (6 * 7 + 7 * 8 + 6 * 8)

    def test_operations_of_the_backbones(self, tracker: AlphaRefineTracker, clip: speed.Clip) -> None:
        expected = {}
        for stage, backbone in (("base backbone", tracker.base.runner.network.feature_extractor),
                                ("refiner backbone", tracker.refiner.runner.network.feature_extractor)):
            macs: list[int] = []

            def count(module: nn.Conv2d, inputs: tuple, output: torch.Tensor, macs: list[int] = macs) -> None:
                macs.append(output.numel() * module.weight[0].numel())

            hooks = [module.register_forward_hook(count) for module in backbone.modules()
                     if isinstance(module, nn.Conv2d)]
            tracker.initialize(clip.image(0), clip.region)
            macs.clear()
            tracker.track(clip.image(1))
            for hook in hooks:
                hook.remove()
            expected[stage] = 2 * sum(macs)
        work = speed.count_work(tracker, clip, 1, True)[1]
        assert {stage: work[stage].operations for stage in expected} == expected
        assert all(operations > 0 for operations in expected.values())
        assert work["base crop"].operations == 0 and work["base crop"].bytes > 0
        assert work["box refinement"].operations > 0 and work["target scores"].operations > 0


class TestBaseline:
    def test_computes_the_same_without_preparation(self, small: None, clip: speed.Clip) -> None:
        plain, prepared = build(START, fast=False), build(START)
        norms = [sum(isinstance(module, nn.BatchNorm2d) for module in each.base.runner.network.modules())
                 for each in (plain, prepared, build(replace(START, plain=True)))]
        assert norms[0] == norms[2] > 0 == norms[1]
        for each in (plain, prepared):
            each.initialize(clip.image(0), clip.region)
        for number in (1, 2):
            boxes = [each.track(clip.image(number)).box for each in (plain, prepared)]
            np.testing.assert_allclose(*boxes, atol=0.05)

    def test_trackers_take_turns(self, clip: speed.Clip, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []

        class Named:
            def __init__(self, name: str) -> None:
                self.name, self.boxes = name, []

            def correct(self, index: int, box: np.ndarray) -> None:
                self.boxes.append(box.tolist())

        def timed(run: Iterator[Prediction | None], tracker: Named) -> tuple[float, Prediction | None]:
            order.append(tracker.name)
            mask = np.zeros((2, 2), np.uint8)
            mask[0, : 1 + (tracker.name == "b")] = 1
            return float(len(order)), Prediction(np.full(4, len(order)), mask, 1.0)

        monkeypatch.setattr(speed, "_timed", timed)
        trackers = {name: Named(name) for name in "ab"}
        initialisations, frames, overlaps = speed.time_frames(trackers, clip, 3, False, lambda: None)
        assert order == ["a", "b"] * (speed.INITIALISATIONS - 1) + ["a", "b", "b", "a", "a", "b", "b", "a"]
        assert all(len(times) == speed.INITIALISATIONS for times in initialisations.values())
        assert frames == {"a": [8.0, 9.0, 12.0], "b": [7.0, 10.0, 11.0]}
        assert overlaps == [0.5] * 3
        assert trackers["a"].boxes == [] and trackers["b"].boxes == [[8] * 4, [9] * 4, [12] * 4]


def made_measurements(**changes: object) -> Measurements:
    """Two frames: a backbone of 40 and 60 ms, a filter update of 20 ms in one of them, 10 ms of everything
    else."""
    none = Work(0.0, 0.0)
    values = dict(
        settings={
            "profile": "lite", "checkpoint": None, "random_weights": True, "plain": False, "device": "cpu",
            "threads": 1, "clip": "square", "image_size": [160, 120], "images_in_memory": 3, "frames": 2,
            "load_average_before": 0.0, "machine": {"cpu": "some CPU", "gpu": None},
            "versions": {"torch": "2"},
        },
        initialisations={"lite": [0.3, 0.1, 0.2]},
        frames={"lite": [0.04, 0.06]},
        stages=[
            {"base backbone": 0.4, "everything else": 0.1},
            {"base backbone": 0.04, "everything else": 0.01},
            {"base backbone": 0.06, "model update": 0.02, "everything else": 0.01},
        ],
        work=[
            {"base backbone": Work(8e9, 4e8), "everything else": none},
            {"base backbone": Work(2e9, 1e8), "everything else": none},
            {"base backbone": Work(3e9, 1e8), "model update": Work(4e8, 2e7), "everything else": none},
        ],
        ceilings={"convolution float32": 100e9, "product float32": 80e9, "bandwidth": 10e9},
        start=START_FIGURES,
    )
    return Measurements(**{**values, **changes})


class TestReport:
    def test_end_to_end(self) -> None:
        document = summarize(made_measurements())
        whole = document["end_to_end"]
        assert whole["milliseconds"] == pytest.approx({"median": 50, "p10": 42, "p90": 58})
        assert whole["fps"] == pytest.approx(20)
        assert whole["real_time_at_20_fps"] == pytest.approx(1)
        assert whole["late_at_20_fps"] == 0.5
        assert document["initialisation"]["median"] == pytest.approx(200)
        assert "compared" not in document

    def test_stages(self) -> None:
        document = summarize(made_measurements())
        backbone, update, rest = document["stages"]
        names = [row["stage"] for row in document["stages"]]
        assert names == ["base backbone", "model update", "everything else"]
        assert backbone["milliseconds"]["median"] == pytest.approx(50)
        assert backbone["fraction_of_ceiling"] == pytest.approx(0.5)
        assert backbone["fraction_of_bandwidth"] == pytest.approx((1 / 4 + 1 / 6) / 2)
        assert backbone["macs"] == pytest.approx(1.25e9)
        assert backbone["fraction_of_frame"] == pytest.approx(100 / 140)
        assert update["ran_in"] == 0.5 and update["milliseconds"]["median"] == pytest.approx(20)
        assert update["ceiling"] == "product float32" and update["fraction_of_ceiling"] == pytest.approx(0.25)
        assert rest["fraction_of_ceiling"] is None
        assert sum(row["fraction_of_frame"] for row in document["stages"]) == pytest.approx(1)

    def test_sums_and_initialisation(self) -> None:
        document = summarize(made_measurements())
        convolutions, everything = document["sums"]
        assert convolutions["fraction_of_ceiling"] == pytest.approx(0.5)
        assert everything["milliseconds"]["median"] == pytest.approx(70)
        first = document["initialisation_stages"]
        assert [row["milliseconds"]["median"] for row in first] == pytest.approx([400, 100])
        assert first[0]["fraction_of_ceiling"] == pytest.approx(0.2)

    def test_comparison(self) -> None:
        document = summarize(made_measurements(
            frames={"lite": [0.04, 0.06], "other": [0.08, 0.08]},
            initialisations={"lite": [0.1], "other": [0.4]},
            mask_overlaps=[0.98, 1.0],
        ))
        assert document["compared"]["time_ratio"]["median"] == pytest.approx(0.625)
        assert document["compared"]["initialisation_ratio"] == pytest.approx(0.25)
        report = format_report(document)
        assert "0.625" in report and "1.6 times as fast" in report
        assert "mean IoU 0.9900, lowest 0.9800" in report

    def test_several_targets(self) -> None:
        document = summarize(made_measurements(targets={1: [0.04, 0.06], 4: [0.2, 0.2]}))
        assert document["targets"]["1"]["median"] == pytest.approx(50)
        assert "per frame, targets: 4         200.0 (200.0 to 200.0) ms" in format_report(document)
        assert "targets:" not in format_report(summarize(made_measurements()))

    def test_says_what_weakens_the_numbers(self) -> None:
        quiet = made_measurements()
        settings = {**quiet.settings, "load_average_before": 2.0, "random_weights": False, "plain": True}
        busy = replace(quiet, settings=settings)
        assert "Random weights" in format_report(summarize(quiet))
        assert "Load average" not in format_report(summarize(quiet))
        assert "Load average 2.0" in format_report(summarize(busy))
        assert "Random weights" not in format_report(summarize(busy))
        assert "Plain" in format_report(summarize(busy)) and "Plain" not in format_report(summarize(quiet))

    def test_gpu(self) -> None:
        document = summarize(made_measurements(
            ceilings={"convolution float32": 200e9, "product float32": 80e9,
                      "bandwidth": 10e9},
            start={**START_FIGURES, "peak GPU memory": 123e6},
        ))
        assert document["stages"][0]["fraction_of_ceiling"] == pytest.approx(0.25)
        assert "123 MB on the GPU" in format_report(document)


class TestCeilings:
    def test_of_the_cpu(self) -> None:
        rates = ceilings.measure_ceilings(torch.device("cpu"), TINY_SIZES)
        assert rates.keys() == {"convolution float32", "product float32", "bandwidth"}
        assert all(0 < rate < float("inf") for rate in rates.values())

    def test_the_highest_of_several_counts(self) -> None:
        assert ceilings.fastest({"a": 1.0, "b": 4.0}, {"a": 2.0, "b": 3.0}) == {"a": 2.0, "b": 4.0}


class TestClips:
    def test_runs_back_and_forth(self, clip: speed.Clip) -> None:
        numbers = [next(i for i, image in enumerate(clip.images) if image is clip.image(n)) for n in range(9)]
        assert numbers == [0, 1, 2, 1, 0, 1, 2, 1, 0]

    def test_folder_of_images(self, tmp_path: Path, clip: speed.Clip) -> None:
        for number, image in enumerate(clip.images):
            cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        read = speed.read_clip(str(tmp_path), BOX, 2)
        assert len(read.images) == 2 and np.array_equal(read.images[1], clip.images[1]) and read.region == BOX
        with pytest.raises(InputError, match="--box"):
            speed.read_clip(str(tmp_path), None, 2)
        with pytest.raises(DataError, match="at least 2"):
            speed.read_clip(str(tmp_path), BOX, 1)

    def test_synthetic(self) -> None:
        made = speed.read_clip(None, None, 3)
        assert [image.shape for image in made.images] == [(480, 854, 3)] * 3
        assert made.region.shape == (480, 854) and 1000 < made.region.sum() < 100_000
        assert set(np.unique(made.region)) == {0, 1}


class TestStart:
    def test_in_a_new_process(self, clip: speed.Clip) -> None:
        ballast = np.ones(2**27)  # 1 GiB that the new process does not have
        figures = measure_start(START, clip.images[:2], clip.region, threads=1)
        assert figures.keys() == START_FIGURES.keys()
        assert 0 < figures["build"] < figures["process"] and figures["import"] < figures["process"]
        assert 50e6 < figures["peak memory"] < ballast.nbytes < peak_memory()

    def test_says_why_it_fails(self, tmp_path: Path, clip: speed.Clip) -> None:
        with pytest.raises(EvaluationError, match="CheckpointError"):
            measure_start(Start("lite", "cpu", str(tmp_path)), clip.images[:2], clip.region, threads=1)


def test_several_targets_take_turns(tracker: AlphaRefineTracker, clip: speed.Clip) -> None:
    done = []
    seconds = speed.time_targets(tracker, clip, (1, 3), 2, lambda: done.append(1))
    assert {count: len(times) for count, times in seconds.items()} == {1: 2, 3: 2}
    assert len(done) == 4 and min(map(min, seconds.values())) > 0


def test_several_targets_need_trained_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "speed", "--profile", "lite", "--random-weights", "--targets", "2"]) == 1
    assert "needs trained weights" in capsys.readouterr().err


def test_the_command(
    tmp_path: Path, small: None, clip: speed.Clip, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ceilings, "ON_CPU", TINY_SIZES)
    monkeypatch.setattr(speed, "measure_start", lambda *_: dict(START_FIGURES))
    monkeypatch.setattr(speed, "read_clip", lambda *_: clip)
    out = tmp_path / "deep" / "out"
    options = ["--profile", "lite", "--random-weights", "--device", "cpu", "--frames", "3", "--baseline"]
    assert cli.main(["benchmark", "speed", *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == ["speed.json", "speed.png", "speed.txt"]
    assert (out / "speed.txt").read_text().strip() in printed
    document = json.loads((out / "speed.json").read_text())
    assert document["settings"]["random_weights"] is True and document["settings"]["clip"] == "square"
    assert document["compared"]["with"] == speed.BASELINE
    stages = [row["stage"] for row in document["stages"]]
    assert {"base backbone", "refiner backbone", "mask head"} <= set(stages) and stages[-1] == REST
    assert cv2.imread(str(out / "speed.png")) is not None
