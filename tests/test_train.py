"""Training: losses, labels, the loop, exact resume, the command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_data import SCENE_REFINER, SMALL_NETWORK, make_folder

import tracker_ar.train.base as base_module
import tracker_ar.train.refiner as refiner_module
from tracker_ar.commands import train as command
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.training_samples import SyntheticSource
from tracker_ar.errors import DataError
from tracker_ar.models.alpha_refine import build_mask_refiner
from tracker_ar.models.dimp import SUPER_DIMP_LITE, build_dimp
from tracker_ar.train.base import BaseTask
from tracker_ar.train.labels import box_proposals, gaussian_labels
from tracker_ar.train.loop import Budget, Task, Trainer
from tracker_ar.train.losses import hinge_score_loss, kl_box_loss, mask_loss
from tracker_ar.train.recipes import RECIPES, Schedule
from tracker_ar.train.refiner import RefinerTask
from tracker_ar.weights.store import load_into

QUICK = Schedule(learning_rate=1e-3, weight_decay=0.01, warmup_steps=2)
REFINER = replace(SCENE_REFINER, schedule=QUICK, batch_size=2)
BASE = replace(
    RECIPES["lite-base"],
    schedule=QUICK,
    batch_size=2,
    train_frames=1,
    test_frames=1,
    image_size=128,
    proposals=16,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def sources(folder: Path) -> tuple[SyntheticSource, SyntheticSource]:
    return tuple(SyntheticSource(SceneSampler(ImageLibrary(folder, split))) for split in ("train", "validation"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def little_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refiner_module, "_VALIDATION_PAIRS", 2)
    monkeypatch.setattr(refiner_module, "_VALIDATION_BATCH", 2)
    monkeypatch.setattr(base_module, "_VALIDATION_BATCHES", 1)


def test_mask_loss_prefers_the_right_mask() -> None:
    masks = torch.zeros(2, 1, 8, 8)
    masks[:, :, 2:6, 2:6] = 1
    right, wrong = 20 * masks - 10, 10 - 20 * masks
    assert mask_loss(right, masks) < 1e-3
    assert mask_loss(torch.zeros_like(masks), masks) > 1.0
    assert mask_loss(wrong, masks) > 10


def test_hinge_ignores_negative_background_only() -> None:
    labels = torch.tensor([0.0, 0.0, 1.0, 0.5])
    assert hinge_score_loss(torch.tensor([-3.0, 0.0, 1.0, 0.5]), labels) == 0
    assert hinge_score_loss(torch.tensor([2.0, 0.0, 1.0, 0.5]), labels) == 1
    assert hinge_score_loss(torch.tensor([0.0, 0.0, -1.0, 0.5]), labels) == 1


def test_labels_peak_at_the_centre() -> None:
    boxes = torch.tensor([[112.0, 48.0, 32.0, 32.0], [0.0, 0.0, 256.0, 256.0]])
    labels = gaussian_labels(boxes, image_size=256, feature_size=16, sigma=0.8)
    assert labels.shape == (2, 17, 17)
    assert labels[0, 4, 8] == 1 and labels[1, 8, 8] == 1
    assert labels[0, 4, 9] == pytest.approx(float(torch.tensor(-0.5 / 0.64).exp()))


def test_proposals_carry_their_densities() -> None:
    boxes = torch.tensor([[10.0, 20.0, 40.0, 30.0]])
    proposals, drawn, target = box_proposals(boxes, 40_000, torch.Generator().manual_seed(0))
    assert proposals.shape == (1, 40_000, 4)
    assert (target / drawn).mean() == pytest.approx(1.0, abs=0.03)
    centre = (proposals[0, :, :2] + proposals[0, :, 2:] / 2).mean(0)
    torch.testing.assert_close(centre, torch.tensor([30.0, 35.0]), atol=0.3, rtol=0)
    log_density = target.clamp(min=1e-30).log()
    perfect = kl_box_loss(log_density, drawn, target)
    worse = kl_box_loss(log_density * 0.5, drawn, target)
    flat = kl_box_loss(torch.zeros_like(target), drawn, target)
    assert perfect < worse < flat


def make_task(kind: str, sources: tuple[SyntheticSource, SyntheticSource]) -> Task:
    if kind == "refiner":
        return RefinerTask(REFINER, *sources)
    return BaseTask(BASE, *sources)


@pytest.mark.parametrize("kind", ["refiner", "base"])
def test_resume_repeats_the_next_losses_exactly(kind: str, sources, tmp_path: Path) -> None:
    first = Trainer(make_task(kind, sources), tmp_path, Budget(steps=5))
    for _ in range(2):
        first.train_step()
    first.save()
    expected = [first.train_step() for _ in range(2)]
    second = Trainer(make_task(kind, sources), tmp_path, Budget(steps=5))
    assert second.step == 2
    assert [second.train_step() for _ in range(2)] == expected
    for one, other in zip(first.average.state_dict().values(), second.average.state_dict().values()):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["refiner", "base"])
def test_a_repeated_batch_is_learned(kind: str, sources, tmp_path: Path, monkeypatch) -> None:
    task = make_task(kind, sources)
    make = task.batch
    monkeypatch.setattr(task, "batch", lambda step, progress: make(0, progress))
    trainer = Trainer(task, tmp_path, Budget(steps=1000))
    losses = [trainer.train_step()["loss"] for _ in range(16)]
    assert sum(losses[-3:]) / 3 < 0.85 * losses[0]


def test_checkpoints_that_do_not_fit_are_refused(sources, tmp_path: Path) -> None:
    trainer = Trainer(make_task("refiner", sources), tmp_path, Budget(steps=5))
    trainer.save()
    with pytest.raises(DataError, match="lite-base"):
        Trainer(make_task("base", sources), tmp_path, Budget(steps=5))
    trainer.checkpoint_path.write_bytes(b"PK broken")
    with pytest.raises(DataError, match="cannot continue"):
        Trainer(make_task("refiner", sources), tmp_path, Budget(steps=5))


def test_base_starts_from_the_refiners_backbone(sources, tmp_path: Path) -> None:
    refiner = make_task("refiner", sources)
    Trainer(refiner, tmp_path, Budget(steps=5)).save()
    weights = tmp_path / "small_mask_refiner.safetensors"
    base = replace(BASE, network=replace(SUPER_DIMP_LITE, depths=SMALL_NETWORK.depths[:3], width=SMALL_NETWORK.width))
    task = BaseTask(base, *sources, backbone=weights)
    ours = task.network.feature_extractor.state_dict()["layer3.0.conv1.weight"]
    theirs = refiner.network.feature_extractor.state_dict()["layer3.0.conv1.weight"]
    torch.testing.assert_close(ours, theirs.half().float(), atol=0, rtol=0)
    weights.write_bytes(b"broken")
    with pytest.raises(DataError, match="not readable"):
        BaseTask(BASE, *sources, backbone=weights)


def test_budget_counts_steps_or_minutes() -> None:
    assert Budget(steps=4).progress(1, 1e9) == 0.25
    assert Budget(minutes=2).progress(10**9, 30) == 0.25
    assert Budget(steps=4).progress(9, 0) == 1.0


@pytest.mark.parametrize("name", ["scene-refiner", "lite-base"])
def test_command_trains_and_exports_weights_that_load(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.RECIPES, name, REFINER if name == "scene-refiner" else BASE)
    parser = argparse.ArgumentParser()
    command.configure(parser)
    args = parser.parse_args([name, "--data", str(folder), "--out", str(tmp_path), "--steps", "1"])
    assert command.run(args) == 0
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any(key.startswith("val_") for line in log for key in line)
    if name == "scene-refiner":
        load_into(build_mask_refiner(SMALL_NETWORK), tmp_path / "small_mask_refiner.safetensors")
    else:
        load_into(build_dimp(SUPER_DIMP_LITE), tmp_path / "lite_super_dimp.safetensors")
