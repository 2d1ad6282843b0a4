"""How trainings run: workers, several processes, interruptions, curves, precision, what is refused."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import dataset_copies as copies
import numpy as np
import pytest
import torch
from doubles.shared_training import Regression, refiner
from torch import nn
from training_data import SCENE_REFINER, SMALL_NETWORK, make_folder

import tracker_ar.train.base as base_module
import tracker_ar.train.refiner as refiner_module
from tracker_ar.commands import train as command
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.training_samples import MixedPairs, MixedSequences, SyntheticSource
from tracker_ar.errors import DataError, InputError
from tracker_ar.models.dimp import SUPER_DIMP_LITE, build_dimp
from tracker_ar.train.backbone import load_backbone
from tracker_ar.train.base import BaseTask
from tracker_ar.train.curves import Curves
from tracker_ar.train.distribution import Share, joined
from tracker_ar.train.loop import Budget, Place, Trainer
from tracker_ar.train.recipes import RECIPES, RefinerRecipe, Schedule
from tracker_ar.train.refiner import RefinerTask
from tracker_ar.train.rendered import RenderedSource
from tracker_ar.train.supply import supply

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "tests" / "doubles" / "shared_training.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copies.all_sets(tmp_path_factory.mktemp("sets"))
    copies.got10k(root / "GOT-10k", frames=24)
    copies.lasot(root / "LaSOT", frames=24)
    copies.trackingnet(root / "TrackingNet", frames=24)
    (root / "GOT-10k" / "train").rename(root / "GOT-10k" / "val")
    copies.got10k(root / "GOT-10k", frames=24)
    return root


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ALPHAREFINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(refiner_module, "_VALIDATION_PAIRS", 2)
    monkeypatch.setattr(refiner_module, "_VALIDATION_BATCH", 2)
    monkeypatch.setattr(base_module, "_VALIDATION_BATCHES", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    return all(torch.equal(one, other) for one, other in pairs)


def test_two_processes_train_as_one(folder: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/support")))}
    done = subprocess.run(
        [*launcher, str(PROGRAM), str(folder), str(tmp_path)],
        capture_output=True, text=True, timeout=600, env={**environment, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    # Without batch norm the result is that of one process with the whole batch, up to rounding.
    alone = Trainer(Regression(Share()), tmp_path / "alone", Budget(steps=6))
    for _ in range(6):
        alone.train_step()
    shared = torch.load(tmp_path / "regression-0.pt")
    for name, value in alone.network.named_parameters():
        torch.testing.assert_close(shared[name], value, atol=1e-6, rtol=1e-5)
    # With it the processes still keep the same weights.
    first, second = (torch.load(tmp_path / f"scene-refiner-{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    # What two processes saved, one goes on from.
    on = Trainer(refiner(folder, Share()), tmp_path / "scene-refiner", Budget(steps=3))
    assert on.step == 2
    assert all(torch.equal(value, first[name]) for name, value in on.network.named_parameters())


def test_torch_renders_what_a_training_sees(folder: Path, tmp_path: Path) -> None:
    sampler = SceneSampler(ImageLibrary(folder))
    small = {
        "scene-refiner": {},
        "lite-base": {"image_size": 64, "train_frames": 1, "test_frames": 1, "proposals": 8},
    }
    for full, kind in ((SCENE_REFINER, RefinerTask), (RECIPES["lite-base"], BaseTask)):
        recipe = replace(full, batch_size=2, **small[full.name])
        parts = []
        for source in (SyntheticSource(sampler), RenderedSource(sampler)):
            trainer = Trainer(kind(recipe, source, source), tmp_path / "none", Budget(steps=2))
            parts.append(trainer.train_step())
        assert parts[0]["loss"] == pytest.approx(parts[1]["loss"], rel=0.1)
    # Packed batches come through a worker process.
    recipe = replace(SCENE_REFINER, batch_size=2)
    task = RefinerTask(recipe, source, source)
    assert Trainer(task, tmp_path / "none", Budget(steps=2), Place(workers=1)).train_step()["loss"] > 0


def test_processes_divide_every_batch(folder: Path) -> None:
    whole = refiner(folder, Share()).batch(3, 0.0)
    parts = [refiner(folder, Share(rank, 2)).batch(3, 0.0) for rank in range(2)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.searches, whole.searches[rank::2]) and len(part.searches) == 2
    with pytest.raises(InputError, match="batch of 4 cannot be shared by 3 processes(.|\n)*--batch"):
        Share(0, 3).indices(4)


def test_workers_make_the_same_batches(folder: Path, tmp_path: Path) -> None:
    trainers = [
        Trainer(refiner(folder, Share()), tmp_path / str(workers), Budget(steps=4), Place(workers=workers))
        for workers in (0, 2)
    ]
    for _ in range(3):
        assert trainers[0].train_step() == trainers[1].train_step()
    assert same(trainers[0].network, trainers[1].network)
    trainers[1].save()
    resumed = Trainer(refiner(folder, Share()), tmp_path / "2", Budget(steps=4), Place(workers=1))
    assert resumed.train_step() == trainers[0].train_step()


class Failing(Regression):
    def batch(self, step: int, progress: float):
        if step == 1:
            raise DataError("image.jpg: missing")
        return super().batch(step, progress)


class Dying(Regression):
    def batch(self, step: int, progress: float):
        if step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(step, progress)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("task", "message"),
    [(Failing, "^image.jpg: missing$"), (Dying, "worker process ended(.|\n)*fewer --workers")],
)
def test_what_fails_in_a_worker_is_said(task: type[Regression], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        Trainer(task(Share()), tmp_path, Budget(steps=9), Place(workers=1)).run()


class Interrupted(Regression):
    def loss(self, batch):
        result = super().loss(batch)
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return result


def test_an_interrupted_training_finishes_its_step_and_goes_on_exactly(tmp_path: Path) -> None:
    through = Trainer(Regression(Share()), tmp_path / "through", Budget(steps=5))
    through.run()
    with pytest.raises(KeyboardInterrupt):
        Trainer(Interrupted(Share()), tmp_path / "stopped", Budget(steps=5)).run()
    on = Trainer(Regression(Share()), tmp_path / "stopped", Budget(steps=5))
    assert on.step == 3
    on.run()
    assert same(on.network, through.network) and same(on.average, through.average)


class Overflowing(Regression):
    half = torch.float16

    def batch(self, step: int, progress: float):
        batch = super().batch(step, progress)
        return replace(batch, outputs=batch.outputs * float("inf")) if step == 2 else batch


def test_scaled_gradients_change_nothing_and_overflows_are_passed_over(tmp_path: Path) -> None:
    plain, scaled = Overflowing(Share()), Overflowing(Share())
    plain.half = None
    tasks = enumerate((plain, scaled))
    trainers = [Trainer(task, tmp_path / str(number), Budget(steps=6)) for number, task in tasks]
    for step in range(4):
        before = [value.clone() for value in scaled.network.parameters()]
        parts = [trainer.train_step() for trainer in trainers]
        if step == 2:
            assert not math.isfinite(parts[1]["norm"])
            assert all(map(torch.equal, before, scaled.network.parameters()))
        for one, other in zip(plain.network.parameters(), scaled.network.parameters()):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert trainers[1].scaler.get_scale() == 2.0**15  # halved once
    trainers[1].save()
    assert Trainer(scaled, tmp_path / "1", Budget(steps=6)).scaler.get_scale() == 2.0**15


def test_minutes_stop_between_steps(tmp_path: Path) -> None:
    trainer = Trainer(Regression(Share()), tmp_path, Budget(minutes=1e-4), Place(workers=1))
    trainer.run()
    assert trainer.step >= 1 and trainer.progress == 1.0


def test_going_on_drops_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 0)
    for step in (50, 100, 150):
        curves.add(step, 1.0, {"loss": 1.0 / step, "val_iou": 0.5})
    curves.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 2')  # killed while writing
    Curves(tmp_path, 100).add(120, 1.5, {"loss": 0.0})
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [50, 100, 120]


def test_curves_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    curves = Curves(tmp_path, 0)
    for step in (50, 100):
        curves.add(step, 1.0, {"loss": 1.0 / step, "val_iou": 0.5})
    curves.close()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [50, 100]
    assert events.Scalars("validation/iou")[0].value == 0.5


def test_curves_do_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    curves = Curves(tmp_path, 0)
    curves.add(50, 1.0, {"loss": 1.0})
    curves.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_rates_follow_the_schedule() -> None:
    cosine = Schedule(learning_rate=2.0, weight_decay=0.0, warmup_steps=4)
    assert cosine.rate(0, 0.0) == 0.5 and cosine.rate(100, 0.5) == pytest.approx(1.0)
    assert cosine.rate(100, 1.0) == pytest.approx(0.0)
    steps = RECIPES["vot2020-base"].schedule
    rates = [steps.rate(epoch, epoch / 50) for epoch in range(50)]
    expected = [1e-3 * 0.2 ** (epoch // 15) for epoch in range(50)]
    np.testing.assert_allclose(rates, expected)


def test_the_published_recipes_train_what_the_authors_trained() -> None:
    recipe = RECIPES["vot2020-base"]
    task = BaseTask(replace(recipe, batch_size=2), None, None)
    groups = task.parameter_groups()
    rates = [group["scale"] * task.schedule.rate(0, 0.0) for group in groups]
    np.testing.assert_allclose(rates, [5e-5, 5e-4, 5e-5, 1e-3, 2e-5])
    trained = {name for name, value in task.network.named_parameters() if value.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(trained)
    assert not any(name.startswith("feature_extractor.layer2") for name in trained)
    assert any(name.startswith("feature_extractor.layer3") for name in trained)
    task.train_mode()
    backbone = task.network.feature_extractor
    assert not backbone.layer2.training and not backbone.bn1.training and backbone.layer3.training
    assert math.isinf(recipe.schedule.clip_norm) and recipe.schedule.samples == 2_000_000


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"lite-refiner", "lite-classifier"}))
def test_every_trained_parameter_is_reached_by_the_loss(name: str, folder: Path) -> None:
    # Processes that share a training wait for the gradient of every one.
    network = RECIPES[name].network
    if network.block == "bottleneck":  # the same parts, smaller
        network = replace(network, block="basic", depths=(1,) * 4, width=16)
    recipe = replace(RECIPES[name], batch_size=2, data=None, network=network)
    source = SyntheticSource(SceneSampler(ImageLibrary(folder)))
    if isinstance(recipe, RefinerRecipe):
        task = RefinerTask(replace(recipe, sizes=((0.0, 64),)), source, source)
    else:
        task = BaseTask(replace(recipe, image_size=64, train_frames=1, test_frames=1), source, source)
    task.train_mode()
    task.loss(task.batch(0, 0.0))[0].backward()
    without = [key for key, value in task.network.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []


def test_vot2020_takes_the_published_mixtures(sets: Path) -> None:
    base = RECIPES["vot2020-base"]
    small = replace(base, image_size=64)
    train, validation, summary = supply(small, sets, {})
    assert isinstance(train, MixedSequences) and "LaSOT 25% (2 targets), GOT-10k 25%" in summary
    for source in (train, validation):
        sequence = source.sequence(np.random.default_rng(0), small.geometry)
        assert sequence.images.shape == (6, 64, 64, 3)
    train, validation, summary = supply(RECIPES["vot2020-refiner"], sets, {})
    assert isinstance(train, MixedPairs) and "MSRA10K 8%" in summary
    assert train.pair(np.random.default_rng(0), 64).mask.any()
    assert validation.pair(np.random.default_rng(0), 64).mask.any()


@pytest.mark.parametrize("name", ["vot2020-base", "vot2020-refiner"])
def test_command_trains_vot2020_from_data_sets(name: str, sets: Path, tmp_path: Path, monkeypatch) -> None:
    small = {
        "vot2020-base": {
            "network": SUPER_DIMP_LITE, "image_size": 128, "train_frames": 1, "test_frames": 1, "proposals": 8
        },
        "vot2020-refiner": {"network": SMALL_NETWORK, "sizes": ((0.0, 64),)},
    }[name]
    monkeypatch.setitem(command.RECIPES, name, replace(RECIPES[name], **small))
    out = tmp_path / "out"
    arguments = [name, "--data", str(sets), "--out", str(out), "--steps", "1", "--batch", "2"]
    assert command.run(parsed(arguments + ["--device", "cpu", "--dataset", f"coco={sets / 'COCO'}"])) == 0
    weights = {"vot2020-base": "super_dimp", "vot2020-refiner": "mask_refiner_384"}[name]
    assert (out / f"{weights}.safetensors").is_file() and (out / "checkpoint.pt").is_file()


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ([], InputError, "how long to train lite-refiner"),
        (["--steps", "0"], InputError, "--steps must be positive"),
        (["--steps", "1", "--workers", "-1"], InputError, "--workers"),
        (["--steps", "1", "--precision", "float16"], InputError, "float16 needs a GPU"),
        (["--steps", "1", "--device", "tpu7"], InputError, "'tpu7' cannot be used"),
        (["--steps", "1", "--dataset", "lasot"], InputError, "NAME=FOLDER"),
        (["--steps", "1", "--show", "sheet.png"], InputError, "--out FOLDER to train, or --show"),
    ],
)
def test_command_refuses_what_cannot_be(
    extra: list[str], error: type[Exception], message: str, folder: Path, tmp_path: Path
) -> None:
    arguments = ["lite-refiner", "--data", str(folder), "--out", str(tmp_path / "out"), *extra]
    with pytest.raises(error, match=message):
        command.run(parsed(["--device", "cpu", *arguments]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["scene-refiner", "vot2020-base"])
def test_batches_can_be_looked_at(name: str, folder: Path, sets: Path, tmp_path: Path, monkeypatch) -> None:
    pairs = name == "scene-refiner"
    small = SCENE_REFINER if pairs else replace(RECIPES[name], image_size=64, network=SUPER_DIMP_LITE)
    monkeypatch.setitem(command.RECIPES, name, small)
    data = folder if pairs else sets
    sheet = tmp_path / "new" / "sheet.png"
    shown = ["--show", str(sheet), "--batch", "32", "--device", "cpu"]
    assert command.run(parsed([name, "--data", str(data), *shown])) == 0
    picture = cv2.imread(str(sheet))
    assert picture.shape == ((164 * 8, 164 * 8, 3) if pairs else (164 * 32, 164 * 6, 3))
    # Yellow outlines and green boxes are in it.
    colours = [(0, 220, 255), (120, 255, 0)] if pairs else [(120, 255, 0)]
    assert all((picture == colour).all(2).sum() > 100 for colour in colours)


def test_a_process_alone_joins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as (share, device):
        assert share == Share() and share.leads and device.type == "cpu"
        assert not torch.distributed.is_initialized()


def test_backbones_start_from_published_weights(tmp_path: Path) -> None:
    ours = build_dimp(SUPER_DIMP_LITE).feature_extractor
    published = build_dimp(SUPER_DIMP_LITE).feature_extractor.state_dict()
    old = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    torch.save({**old, "fc.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    load_backbone(ours, tmp_path / "resnet.pth")
    assert torch.equal(ours.layer3[0].conv1.weight, published["layer3.0.conv1.weight"])
    del old["layer2.0.conv1.weight"]
    torch.save(old, tmp_path / "resnet.pth")
    with pytest.raises(DataError, match="layer2.0.conv1.weight"):
        load_backbone(ours, tmp_path / "resnet.pth")
    torch.save([1], tmp_path / "resnet.pth")
    with pytest.raises(DataError, match="not a state dict"):
        load_backbone(ours, tmp_path / "resnet.pth")
