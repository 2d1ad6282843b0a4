"""The refiner of `lite`: its backbone, box branch and judge, its crops, pool and training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_data import make_folder

import tracker_ar.train.pooled_refiner as pooled_refiner
from tracker_ar.commands import train as command
from tracker_ar.data.datasets.youtube_vos import YouTubeVOS
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.target_crops import CropSource, MixedCrops, Role, SceneCrops, VideoCrops, place_without, wrong_box
from tracker_ar.engine.runner import Runner
from tracker_ar.errors import DataError
from tracker_ar.frame import Frame
from tracker_ar.geometry import box_from_mask, box_iou
from tracker_ar.models.alpha_refine import LEVELS, MASK_REFINER_LITE, box_masks, build_mask_refiner
from tracker_ar.models.edge_head import EdgeHead
from tracker_ar.models.efficientnet_lite import STAGES, EfficientNetLite
from tracker_ar.refine.refiner import SegmentingRefiner
from tracker_ar.train.feature_pool import PoolSettings
from tracker_ar.train.loop import Budget, Trainer
from tracker_ar.train.losses import box_loss, box_overlap, judgement_loss
from tracker_ar.train.pooled_refiner import PooledRefinerTask, Start
from tracker_ar.train.pretrained import load_published, scale_to_unit
from tracker_ar.train.recipes import RECIPES, Schedule
from tracker_ar.weights.store import load_into
from tracker_ar.zoo import profile

LAYERS = tuple(LEVELS.values())
IMAGENET = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the published file."""
    generator = torch.Generator().manual_seed(3)
    tensors: dict[str, Tensor] = {}

    def unit(convolution: str, norm: str, shape: tuple[int, ...]) -> None:
        spread = (2.0 / np.prod(shape[1:])) ** 0.5
        tensors[f"{convolution}.weight"] = spread * torch.randn(*shape, generator=generator)
        tensors[f"{norm}.weight"] = 0.8 + 0.4 * torch.rand(shape[0], generator=generator)
        tensors[f"{norm}.bias"] = 0.2 * torch.randn(shape[0], generator=generator)
        tensors[f"{norm}.running_mean"] = 0.2 * torch.randn(shape[0], generator=generator)
        tensors[f"{norm}.running_var"] = 0.8 + 0.4 * torch.rand(shape[0], generator=generator)
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(0)

    unit("_conv_stem", "_bn0", (32, 3, 3, 3))
    width, block = 32, 0
    for groups in STAGES.values():
        for kernel, _, channels, count in groups:
            for _ in range(count):
                prefix, hidden = f"_blocks.{block}.", width * (6 if block else 1)
                if block:
                    unit(f"{prefix}_expand_conv", f"{prefix}_bn0", (hidden, width, 1, 1))
                unit(f"{prefix}_depthwise_conv", f"{prefix}_bn1", (hidden, 1, kernel, kernel))
                unit(f"{prefix}_project_conv", f"{prefix}_bn2", (channels, hidden, 1, 1))
                width, block = channels, block + 1
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    torch.save(tensors, path)
    return path


def as_published(tensors: dict[str, Tensor], images: Tensor) -> Tensor:
    """The published network up to stride 32: images (value - 127) / 128, more padding at the right and bottom."""
    def unit(x: Tensor, convolution: str, norm: str, stride: int = 1, groups: int = 1, relu: bool = True) -> Tensor:
        weight = tensors[f"{convolution}.weight"]
        lacking = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        before, after = lacking // 2, lacking - lacking // 2
        x = F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=stride, groups=groups)
        values = (tensors[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *values, eps=1e-3)
        return F.relu6(x) if relu else x

    x, block = unit(images, "_conv_stem", "_bn0", 2), 0
    for groups in STAGES.values():
        for _, first_stride, _, count in groups:
            for position in range(count):
                prefix, stride = f"_blocks.{block}.", first_stride if position == 0 else 1
                hidden = unit(x, f"{prefix}_expand_conv", f"{prefix}_bn0") if block else x
                hidden = unit(hidden, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride, hidden.shape[1])
                result = unit(hidden, f"{prefix}_project_conv", f"{prefix}_bn2", relu=False)
                x = x + result if position else result
                block += 1
    return x


class TestBackbone:
    @torch.no_grad()
    def test_computes_what_the_published_network_does(self, published: Path) -> None:
        network = EfficientNetLite().eval()
        load_published(network, published)
        # Beyond the border the one continues with 127, the other with the mean of ImageNet: here both are the same.
        mean = (IMAGENET[0] * 255 - 127) / 128
        images = torch.zeros(1, 3, 128, 128)
        values = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
        images[..., 16:112, 16:112] = values
        images += mean
        ours = network(((images * 128 + 127) / 255 - IMAGENET[0]) / IMAGENET[1], ("layer4",))["layer4"]
        tensors = torch.load(published, weights_only=True)
        # With mirrored images it is as good.
        shifted = dict(tensors)
        offset = tensors["_conv_stem.weight"].sum((2, 3)) @ mean.flatten()
        shifted["_bn0.running_mean"] = tensors["_bn0.running_mean"] - offset
        theirs = as_published(shifted, (images - mean).flip(3)).flip(3)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.std()))

    @torch.no_grad()
    def test_goes_on_where_it_was_left_and_keeps_its_function_at_unit_size(self, published: Path) -> None:
        network = EfficientNetLite().eval()
        load_published(network, published)
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
        before = network(images, LAYERS)
        again = network.go_on(before["layer2"], "layer2", ("layer3", "layer4"))
        for name, value in again.items():
            torch.testing.assert_close(value, before[name])
        scale_to_unit(network)
        for name, value in network(images, LAYERS).items():
            factor = float(before[name].std() / value.std())
            assert factor > 1.5
            torch.testing.assert_close(value * factor, before[name], rtol=1e-3, atol=1e-3 * float(before[name].std()))

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
        with pytest.raises(DataError, match="not the published weights"):
            load_published(EfficientNetLite(), tmp_path / "other.pth")


class TestBoxes:
    def test_the_box_branch_learns_the_extent_of_what_it_sees(self) -> None:
        torch.manual_seed(0)
        head = EdgeHead(4, hidden=16)
        optimizer = torch.optim.Adam(head.parameters(), 5e-3)
        generator = torch.Generator().manual_seed(1)

        def batch() -> tuple[Tensor, Tensor]:
            start, extent = (4 + 20 * torch.rand(16, 2, generator=generator) for _ in range(2))
            corners = 4 * torch.cat((start, start + extent), 1)
            boxes = torch.cat((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
            shown = F.avg_pool2d(box_masks(boxes, (192, 192)), 4)
            return shown.expand(-1, 4, -1, -1), corners

        for _ in range(60):
            seen, corners = batch()
            loss = box_loss(head(seen), corners, 192)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seen, corners = batch()
        assert box_overlap(head(seen), corners).mean() > 0.8

    def test_losses_of_boxes_and_judgement(self) -> None:
        boxes = torch.tensor([[10.0, 10.0, 50.0, 30.0], [0.0, 0.0, 20.0, 20.0]])
        apart = torch.tensor([[100.0, 100.0, 120.0, 120.0], [10.0, 0.0, 30.0, 20.0]])
        assert box_loss(boxes, boxes, 128) == pytest.approx(0.0, abs=1e-6)
        assert box_loss(apart[:1], boxes[:1], 128) > box_loss(apart[1:], boxes[1:], 128) > 0.5
        torch.testing.assert_close(box_overlap(boxes, apart), torch.tensor([0.0, 1 / 3]))
        present, overlaps = torch.tensor([True, False]), torch.tensor([0.9, 0.8])
        right = torch.tensor([[4.0, 2.2], [-4.0, -6.0]])
        assert judgement_loss(right, present, overlaps) < 0.2 < judgement_loss(-right, present, overlaps)

    @torch.no_grad()
    def test_from_a_box_the_network_first_segments_the_reference(self) -> None:
        torch.manual_seed(0)
        network = build_mask_refiner(MASK_REFINER_LITE).eval()
        images, box = torch.randn(2, 3, 96, 96), torch.tensor([[24.0, 24.0, 48.0, 48.0]]).expand(2, 4)
        stages = network.feature_extractor(images, LAYERS)
        first = network.first_masks(stages, box)
        assert first.shape == (2, 1, 96, 96) and not (first * (1 - box_masks(box, (96, 96)))).any()
        target = network.learn(images, box)
        torch.testing.assert_close(target.weights, network.learn(images, box, first).weights, rtol=1e-4, atol=1e-5)
        found = network.segment(target, images)
        assert found.logits.shape == (2, 1, 96, 96)
        assert found.corners.shape == (2, 4) and found.judgement.shape == (2, 2)

    def test_a_refinement_has_a_box_and_a_judgement(self) -> None:
        torch.manual_seed(0)
        settings = profile("lite").refiner
        refiner = SegmentingRefiner(Runner(build_mask_refiner(settings.network), torch.device("cpu")), settings)
        frame = Frame(np.random.default_rng(2).integers(0, 255, (90, 120, 3), dtype=np.uint8))
        target = refiner.start(frame, np.array([40.0, 30, 30, 24]))
        (found,) = refiner.refine(frame, [target], [np.array([42.0, 31, 30, 24])], [True])
        # An untrained branch points at the middle of the crop, with the least box.
        assert abs(found.box[:2] - [57, 43]).max() < 12
        assert 0 < found.presence < 1 and 0 < found.quality < 1


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with two objects each that move; `clip13` is one that the checksum holds out."""
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(1)
    videos = {}
    for name in ("clip0", HELD_OUT):
        backdrop = cv2.GaussianBlur(rng.integers(0, 256, (100, 150, 3), dtype=np.uint8), (0, 0), 3)
        for part in ("JPEGImages", "Annotations"):
            (root / part / name).mkdir(parents=True)
        for n in range(8):
            pixels, labels = backdrop.copy(), np.zeros((100, 150), np.uint8)
            cv2.ellipse(labels, (30 + 2 * n, 40), (14, 9), 0, 0, 360, 1, -1)
            cv2.rectangle(labels, (100, 50 + n), (120, 80 + n), 2, -1)
            pixels[labels == 1], pixels[labels == 2] = (200, 30, 40), (20, 180, 220)
            cv2.imwrite(str(root / "JPEGImages" / name / f"{n:05d}.jpg"), pixels)
            cv2.imwrite(str(root / "Annotations" / name / f"{n:05d}.png"), labels)
        frames = [f"{n:05d}" for n in range(8)]
        videos[name] = {"objects": {"1": {"frames": frames}, "2": {"frames": frames}}}
    (root / "meta.json").write_text(json.dumps({"videos": videos}), encoding="utf-8")
    return root


HELD_OUT = "davis_elephant"


class TestCrops:
    def test_clips_are_held_out_by_name_unless_they_share_a_scene(self, clips: Path, tmp_path: Path) -> None:
        names = [{video for video, *_ in YouTubeVOS(clips, split=split).objects} for split in ("train", "validation")]
        assert names == [{"clip0"}, {HELD_OUT}]
        meta = json.loads((clips / "meta.json").read_text())
        meta["videos"][HELD_OUT]["scene_shared_with"] = "another"
        for part in ("JPEGImages", "Annotations"):
            (tmp_path / part).mkdir()
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        assert len(YouTubeVOS(tmp_path, split="train")) == 4

    @pytest.mark.parametrize("kind", ["videos", "scenes"])
    def test_boxes_fit_masks_and_other_places_show_no_target(self, kind: str, clips: Path, folder: Path) -> None:
        source: CropSource = VideoCrops(YouTubeVOS(clips), stayed=True)
        if kind == "scenes":
            source = SceneCrops(SceneSampler(ImageLibrary(folder)))
        roles = set()
        for seed in range(6):
            found = source.crops(np.random.default_rng(seed), 96)
            again = source.crops(np.random.default_rng(seed), 96)
            assert all((getattr(found, name) == getattr(again, name)).all() for name in ("pixels", "masks", "boxes"))
            roles |= set(found.roles.tolist())
            for mask, box, role in zip(found.masks, found.boxes, found.roles):
                if role == Role.ABSENT:
                    assert not mask.any() and not box.any()
                elif box[:2].min() > 1 and (box[:2] + box[2:]).max() < 95:
                    assert box_iou(box_from_mask(mask), box) > 0.75
                if role == Role.REFERENCE:
                    np.testing.assert_allclose(box, [24, 24, 48, 48], atol=4.0)
        assert roles >= {Role.REFERENCE, Role.SEARCH, Role.ABSENT}

    def test_wrong_boxes_are_wrong_by_a_lot_but_not_more(self) -> None:
        rng, box = np.random.default_rng(0), np.array([50.0, 60.0, 40.0, 20.0])
        boxes = np.array([wrong_box(box, rng) for _ in range(500)])
        shifts = (boxes[:, :2] + boxes[:, 2:] / 2 - box[:2] - box[2:] / 2) / box[2:]
        assert 0.35 < np.abs(shifts).max() <= 0.4 + 1e-9
        areas = np.sqrt(boxes[:, 2:].prod(1) / box[2:].prod())
        assert areas.min() < 0.7 and areas.max() > 1.5

    def test_there_may_be_no_room_without_the_target(self) -> None:
        assert place_without(np.ones((40, 40), np.uint8), np.array([0.0, 0, 40, 40]), np.random.default_rng(0)) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def task(
    published: Path, clips: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PooledRefinerTask:
    return make_task(published, clips, folder, tmp_path / "pool", monkeypatch)


def make_task(
    published: Path, clips: Path, folder: Path, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> PooledRefinerTask:
    monkeypatch.setattr(pooled_refiner, "_VALIDATION_TARGETS", 5)
    recipe = replace(
        RECIPES["lite-refiner"], batch_size=4, network=replace(MASK_REFINER_LITE, input_size=64),
        schedule=Schedule(learning_rate=1e-3, weight_decay=0.01, warmup_steps=2),
        pool=PoolSettings(shards=2, targets=3, first=1, steps=2), frozen_share=0.5,
    )
    scenes = SceneCrops(SceneSampler(ImageLibrary(folder)))
    source = MixedCrops((VideoCrops(YouTubeVOS(clips), stayed=True), scenes), (0.5, 0.5))
    return PooledRefinerTask(recipe, source, source, pool, backbone=published)


class TestTraining:
    def test_the_command_trains_shows_and_checks(
        self, published: Path, clips: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(pooled_refiner, "_VALIDATION_TARGETS", 5)
        recipe = replace(
            RECIPES["lite-refiner"], batch_size=2, pool=PoolSettings(shards=1, targets=2, first=1),
            network=replace(MASK_REFINER_LITE, input_size=64),
        )
        monkeypatch.setitem(command.RECIPES, "lite-refiner", recipe)
        parser = argparse.ArgumentParser()
        command.configure(parser)
        common = ["lite-refiner", "--data", str(folder), "--dataset", f"clips={clips}", "--backbone", str(published)]
        common += ["--device", "cpu", "--pool", str(tmp_path / "pool")]
        weights, sheet = tmp_path / "out" / "lite_mask_refiner.safetensors", tmp_path / "sheet.png"
        for more in (
            ["--out", str(tmp_path / "out"), "--steps", "1"], ["--show", str(sheet)], ["--check", str(weights)],
        ):
            assert command.run(parser.parse_args(common + more)) == 0
        load_into(build_mask_refiner(MASK_REFINER_LITE), weights)
        picture = cv2.imread(str(sheet))
        assert all((picture == colour).all(2).sum() > 100 for colour in ((0, 220, 255), (120, 255, 0)))
        assert "iou_from_box" in capsys.readouterr().out

    def test_a_pool_is_kept_and_refuses_other_contents(self, task: PooledRefinerTask) -> None:
        task.pool.grow(1)
        rows = [(0, 0), (0, 2)]
        before = task.pool.gather(rows)

        def fail(images: Tensor) -> dict[str, Tensor]:
            raise AssertionError("computed anew")

        again = replace(task.pool, extract=fail, targets=[], _shards=[], _ends=[])
        again.grow(1)
        after = again.gather(rows)
        assert all(torch.equal(value, after.stages[name]) for name, value in before.stages.items())
        assert torch.equal(before.masks, after.masks) and torch.equal(before.boxes, after.boxes)
        with pytest.raises(DataError, match="not another"):
            replace(task.pool, name="another", targets=[], _shards=[], _ends=[]).grow(1)

    def test_resume_is_exact_across_growth_and_thaw(
        self, published: Path, clips: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tasks = [make_task(published, clips, folder, tmp_path / "pool", monkeypatch) for _ in range(2)]
        first = Trainer(tasks[0], tmp_path, Budget(steps=4))
        backbone = [value.clone() for value in first.network.feature_extractor.state_dict().values()]
        for _ in range(2):
            first.train_step()
        assert all(map(torch.equal, backbone, first.network.feature_extractor.state_dict().values()))
        first.save()
        expected = [first.train_step() for _ in range(2)]
        second = Trainer(tasks[1], tmp_path, Budget(steps=4))
        assert [second.train_step() for _ in range(2)] == expected
        changed = {
            name.split(".")[0]
            for (name, new), old in zip(second.network.feature_extractor.state_dict().items(), backbone)
            if not torch.equal(new, old)
        }
        assert changed == {"layer3", "layer4"}
        assert not any("running" in name for name in changed)

    def test_every_trained_parameter_is_reached_and_validation_measures(self, task: PooledRefinerTask) -> None:
        task.parameter_groups()
        task.train_mode()
        batch = task.batch(0, 1.0)
        batch = replace(batch, present=torch.tensor([True] * 3 + [False]), starts=torch.tensor([0, 1, 2, 0]))
        task.loss(batch)[0].backward()
        parameters = task.network.named_parameters()
        assert [name for name, value in parameters if value.requires_grad and value.grad is None] == []
        task.network.eval()
        measures = task.validate(task.network)
        assert {"iou", "iou_from_box", "box_iou", "given", "moved", "stayed", "first", "auc"} <= set(measures)
        assert all(0 <= value <= 1 for value in measures.values())

    def test_pairs_start_and_end_in_every_way(self, task: PooledRefinerTask) -> None:
        batches = [task.batch(step, 0.0) for step in range(12)]
        starts = torch.cat([batch.starts for batch in batches])
        assert set(starts.tolist()) == {Start.MASK, Start.BOX, Start.SELF}
        assert not torch.cat([batch.present for batch in batches]).all()
        for batch in batches:
            own = batch.starts == Start.SELF
            assert torch.equal(batch.searches.masks[own], batch.references.masks[own])
