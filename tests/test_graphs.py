"""The way of a frame on a GPU, on the CPU: a stand-in records by calling the function anew on the same memory."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from test_tracker import ALWAYS_FOUND, BOX, SMALL_REFINER, make_tracker, video  # noqa: F401  (a fixture)
from tracker_ar.base.localization import Decision
from tracker_ar.base.memory import SampleMemory
from tracker_ar.base.recorded import Ascent, search
from tracker_ar.base.super_dimp import SuperDiMPTracker
from tracker_ar.models.graphs import Call, Graphs, Steps, alone, graphs_for, together
from tracker_ar.models.inference import move, prepare_for_inference
from tracker_ar.models.iou_net import fold_modulation
from tracker_ar.models.mask_refiner import (
    MASK_REFINER_50, MASK_REFINER_LITE, MaskRefinerConfig, build_mask_refiner
)
from tracker_ar.models.super_dimp import SUPER_DIMP_50, SUPER_DIMP_LITE, SuperDiMPConfig, build_super_dimp
from tracker_ar.multi_target import MultiTargetTracker
from tracker_ar.ops.box_pooling import BoxPooling, Level
from tracker_ar.profiles import LITE, BoxRefinementSettings
from tracker_ar.refine.recorded import segment
from tracker_ar.tracker import CPU, AlphaRefineTracker

META = torch.device("meta")


class StandIn:
    """Records on the CPU, with the contract of a CUDA graph: the first results come from the first replay."""

    def __init__(self, error: RuntimeError | None = None, room: int = 0) -> None:
        """error: of every recording after the first `room`."""
        self.error, self.room = error, room
        self.recorded = self.replayed = 0

    def record(self, function: Callable[[], Any], device: torch.device) -> tuple[Any, Callable[[], None]]:
        if self.error is not None and self.recorded >= self.room:
            raise self.error
        self.recorded += 1
        results = tree_map_only(Tensor, lambda x: torch.full_like(x, torch.nan), function())

        def replay() -> None:
            self.replayed += 1
            for place, value in zip(tree_leaves(results), tree_leaves(function()), strict=True):
                place.copy_(value)

        return results, replay


def doubled(network: nn.Module, pair: dict[str, Tensor], offset: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    value = 2 * pair["x"] if offset is None else 2 * pair["x"] + offset
    return value, {"same": pair["x"]}


class TestGraphs:
    def test_without_a_backend_functions_run_as_they_are(self) -> None:
        graphs, x = Graphs(nn.Identity(), None), torch.ones(2)
        assert not graphs.active
        assert graphs.run(doubled, {"x": x}, None)[1]["same"] is x

    def test_inputs_are_copied_and_results_are_the_callers_own(self) -> None:
        backend = StandIn()
        graphs, x = Graphs(nn.Identity(), backend), torch.arange(3.0)
        first, same = graphs.run(doubled, {"x": x}, torch.tensor(1.0))
        second, _ = graphs.run(doubled, {"x": x + 10}, torch.tensor(2.0))
        assert first.tolist() == [1, 3, 5] and second.tolist() == [22, 24, 26]
        assert same["same"].tolist() == x.tolist() == [0, 1, 2]
        first.zero_(), same["same"].zero_()
        assert graphs.run(doubled, {"x": x}, torch.tensor(0.0))[0].tolist() == [0, 2, 4]
        assert (backend.recorded, backend.replayed) == (1, 3)

    def test_another_shape_dtype_structure_or_function_is_another_recording(self) -> None:
        backend = StandIn()
        graphs, x = Graphs(nn.Identity(), backend), torch.ones(3)
        calls = [
            (doubled, {"x": x}, None), (doubled, {"x": x[:2]}, None), (doubled, {"x": x.double()}, None),
            (doubled, {"x": x}, x), (doubled, {"x": x, "y": x}, None),
            (lambda *inputs: doubled(*inputs), {"x": x}, None),
        ]
        for number, (function, *inputs) in enumerate(calls, 1):
            for _ in range(2):
                assert torch.equal(graphs.run(function, *inputs)[0], doubled(graphs._network, *inputs)[0])
            assert backend.recorded == number
        for side in range(4, 60):  # memory is bounded
            graphs.run(doubled, {"x": torch.ones(side)}, None)
        assert len(graphs._recordings) == 16

    @pytest.mark.parametrize("recorded_in", [torch.no_grad, torch.inference_mode])
    @pytest.mark.parametrize("replayed_in", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_tensors_of_every_mode(self, recorded_in: type, replayed_in: type) -> None:
        graphs = Graphs(nn.Identity(), StandIn())
        for mode in (recorded_in, replayed_in):
            with mode():
                value, _ = graphs.run(doubled, {"x": torch.ones(2)}, None)
                assert value.add_(1).tolist() == [3, 3] and not value.requires_grad

    def test_what_cannot_be_recorded_runs_without_graphs_and_says_so_once(self) -> None:
        graphs = Graphs(nn.Identity(), StandIn(RuntimeError("operation not permitted when stream is capturing\nmore")))
        with pytest.warns(RuntimeWarning, match=r"CUDA graphs cannot be used here \(operation not.*capturing\)"):
            assert graphs.run(doubled, {"x": torch.ones(2)}, None)[0].tolist() == [2, 2]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert graphs.run(doubled, {"x": torch.ones(3)}, None)[0].tolist() == [2, 2, 2]
        assert graphs.active  # crops are still made on the GPU

    def test_a_full_gpu_is_no_reason_to_go_on(self) -> None:
        full, ended = torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("capture was invalidated")
        ended.__context__ = full
        for error in (full, ended):
            with pytest.raises(torch.cuda.OutOfMemoryError, match="CUDA out of memory"):
                Graphs(nn.Identity(), StandIn(error)).run(doubled, {"x": torch.ones(2)}, None)

    def test_paused_and_dropped(self) -> None:
        backend = StandIn()
        graphs = Graphs(nn.Identity(), backend)
        with graphs.paused():
            assert not graphs.active
            graphs.run(doubled, {"x": torch.ones(2)}, None)
        assert graphs.active and backend.recorded == 0
        graphs.run(doubled, {"x": torch.ones(2)}, None)
        graphs.drop()
        assert not graphs.active and not graphs._recordings

    def test_are_for_a_gpu_that_is_to_be_fast(self) -> None:
        network = nn.Identity()
        assert graphs_for(network, torch.device("cuda:1"), fast=True).active
        assert not graphs_for(network, torch.device("cuda"), fast=False).active
        assert not graphs_for(network, CPU, fast=True).active


def increments(graphs: Graphs, start: float, *offsets: float) -> Steps[list[float]]:
    """A target that adds to its number step by step."""
    seen = []
    value = torch.full((1, 2), start)
    for offset in offsets:
        value, _ = yield Call(graphs, doubled, ({"x": value}, torch.full((1, 1), offset)))
        seen.append(float(value[0, 0]))
    return seen


class TestTogether:
    def test_as_if_alone(self) -> None:
        targets = ((1.0, 1, 2, 3), (10.0, 4, 5, 6), (5.0,))
        for backend in (StandIn(), None):
            graphs = Graphs(nn.Identity(), backend)
            expected = [alone(increments(graphs, *target)) for target in targets]
            assert expected == [[3, 8, 19], [24, 53, 112], []]
            assert together([increments(graphs, *target) for target in targets]) == expected
            assert together([increments(graphs, *targets[0])]) == expected[:1]
        assert together([]) == []

    def test_one_launch_where_all_want_the_same_else_one_each(self) -> None:
        backend = StandIn()
        graphs = Graphs(nn.Identity(), backend)
        together([increments(graphs, 1.0, 1, 2), increments(graphs, 2.0, 3)])
        # The first step of both in one batch; only one of them takes a second step.
        assert (backend.recorded, backend.replayed) == (2, 2)
        together([increments(graphs, 1.0, 1), increments(Graphs(nn.Identity(), backend), 2.0, 3)])  # other networks
        assert (backend.recorded, backend.replayed) == (3, 4)
        with graphs.paused():
            together([increments(graphs, 1.0, 1), increments(graphs, 2.0, 3)])
        assert (backend.recorded, backend.replayed) == (3, 4)

    def test_an_error_ends_it(self) -> None:
        def failing(graphs: Graphs) -> Steps[None]:
            yield Call(graphs, doubled, ({"x": torch.ones(1, 2)}, torch.ones(1, 1)))
            raise ValueError("no")

        graphs = Graphs(nn.Identity(), StandIn())
        with pytest.raises(ValueError, match="no"):
            together([increments(graphs, 1.0, 1, 2), failing(graphs)])


def on_stand_in(tracker: AlphaRefineTracker) -> StandIn:
    """Let the CPU go the way of the GPU."""
    backend = StandIn()
    for part in (tracker.base, tracker.refiner):
        part.graphs = Graphs(part._network, backend)
    return backend


class TestTracker:
    def test_finds_the_same(self, make_tracker: Callable[..., AlphaRefineTracker]) -> None:  # noqa: F811
        images = video(5)
        plain, recorded = make_tracker(), make_tracker()
        backend = on_stand_in(recorded)
        for tracker in (plain, recorded):
            tracker.initialize(images[0], BOX)
        assert backend.recorded == 3  # search, ascent, segmentation: none is left to the first frame
        kept = []
        for image in images[1:]:
            expected, found = plain.track(image), recorded.track(image)
            np.testing.assert_allclose(found.box, expected.box, atol=0.05)
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=0.02)
            assert found.score == pytest.approx(expected.score, abs=1e-3)
            kept.append((found, found.probabilities.copy(), recorded.base.scores, recorded.base.scores.clone()))
            recorded.base.correct(expected.box)
        assert backend.recorded == 3 and backend.replayed > 3 * 4
        for found, probabilities, scores, then in kept:  # what was handed out is not overwritten
            assert np.array_equal(found.probabilities, probabilities) and torch.equal(scores, then)

    def test_targets_share_the_recordings_and_nothing_else(
        self, make_tracker: Callable[..., AlphaRefineTracker]  # noqa: F811
    ) -> None:
        images, other = video(3), (20.0, 20.0, 40.0, 30.0)
        alone = []
        for box in (BOX, other):
            tracker = make_tracker()
            on_stand_in(tracker)
            tracker.initialize(images[0], box)
            alone.append([tracker.track(image) for image in images[1:]])
        several = make_tracker()
        backend = on_stand_in(several)
        targets = [copy.copy(several) for _ in range(2)]
        for target, box in zip(targets, (BOX, other)):
            target.initialize(images[0], box)
        for number, image in enumerate(images[1:]):
            for target, expected in zip(targets, alone):
                found = target.track(image)
                assert np.array_equal(found.box, expected[number].box)
                assert np.array_equal(found.probabilities, expected[number].probabilities)
        assert backend.recorded == 3

    def test_several_targets_go_in_one_batch(
        self, make_tracker: Callable[..., AlphaRefineTracker]  # noqa: F811
    ) -> None:
        images, boxes = video(5), [BOX, (20.0, 20.0, 40.0, 30.0), (60.0, 30.0, 30.0, 30.0)]
        prototype = make_tracker()
        expected = [copy.copy(prototype) for _ in boxes]
        for tracker, box in zip(expected, boxes):
            tracker.initialize(images[0], box)
        backend = on_stand_in(prototype)
        targets = MultiTargetTracker(prototype)
        targets.initialize(images[0], boxes[:2])
        assert backend.recorded == 6  # of one and of two targets, none is left to the next frame
        found = [targets.track(images[1], boxes[2:]), *([] for _ in images[2:])]
        assert backend.recorded == 9
        expected[2].initialize(images[1], boxes[2])
        for number in range(1, len(images)):
            if number > 1:
                before = backend.replayed
                found[number - 1] = targets.track(images[number])
                if number == 2:
                    # Search, ascent and segmentation of all three at once; the second look is each target's own.
                    assert 3 <= backend.replayed - before <= 6
            for tracker, result, own in zip(expected[: 2 if number == 1 else 3], found[number - 1], targets._targets):
                alone_found = tracker.track(images[number])
                np.testing.assert_allclose(result.box, alone_found.box, atol=0.05)
                np.testing.assert_allclose(result.probabilities, alone_found.probabilities, atol=0.02)
                assert result.score == pytest.approx(alone_found.score, abs=1e-3)
                own.base.correct(alone_found.box)
        assert backend.recorded == 9

    def test_a_target_that_is_lost_goes_alone(
        self, make_tracker: Callable[..., AlphaRefineTracker], monkeypatch: pytest.MonkeyPatch  # noqa: F811
    ) -> None:
        images = video(3)
        prototype = make_tracker()
        backend = on_stand_in(prototype)
        targets = MultiTargetTracker(prototype)
        targets.initialize(images[0], [BOX, (20.0, 20.0, 40.0, 30.0)])
        lost = targets._targets[1].base
        never = replace(lost._settings.localization, not_found_threshold=np.inf)
        monkeypatch.setattr(lost, "_settings", replace(lost._settings, localization=never))
        before = lost.state.position.clone()
        results = targets.track(images[1])
        assert lost.decision is Decision.NOT_FOUND and torch.allclose(lost.state.position, before, atol=1)
        assert len(results) == 2 and backend.recorded == 6

    def test_full_memory_drops_the_recordings(
        self, make_tracker: Callable[..., AlphaRefineTracker]  # noqa: F811
    ) -> None:
        images = video(3)
        prototype = make_tracker()
        backend = on_stand_in(prototype)
        for part in (prototype.base, prototype.refiner):
            move(part._network, torch.device("cpu:0"))  # stands for the GPU
        targets = MultiTargetTracker(prototype)
        targets.initialize(images[0], [BOX, (20, 20, 30, 30)])
        targets.track(images[1])
        prototype.refiner.graphs._recordings.clear()
        backend.error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        with pytest.warns(RuntimeWarning, match="The GPU is out of memory"):
            assert len(targets.track(images[2])) == 2
        for part in (prototype.base, prototype.refiner):
            assert part.device == CPU and not part.graphs.active and not part.graphs._recordings


    def test_memory_for_one_but_not_for_all(
        self, make_tracker: Callable[..., AlphaRefineTracker]  # noqa: F811
    ) -> None:
        images, prototype = video(2), make_tracker()
        backend = on_stand_in(prototype)
        for part in (prototype.base, prototype.refiner):
            move(part._network, torch.device("cpu:0"))  # stands for the GPU
        backend.error, backend.room = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), 4
        targets = MultiTargetTracker(prototype)
        with pytest.warns(RuntimeWarning, match="The GPU is out of memory"):
            targets.initialize(images[0], [BOX, (20, 20, 30, 30)])
        assert prototype.refiner.device == CPU and not prototype.in_batches and backend.recorded == 4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert all(found.mask.any() for found in targets.track(images[1]))


class NoWaiting(TorchDispatchMode):
    """Refuses what cannot be recorded: reading values, shapes that depend on them, other devices' tensors."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        assert not name.startswith(self.FORBIDDEN), f"{name} waits for the GPU"
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves((arguments, keywords, result)):
            if isinstance(leaf, Tensor):
                assert leaf.device == META, f"{name} takes or makes a tensor of the host"
        return result


@pytest.fixture
def no_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors made of Python's numbers are copied to the device where no dispatch mode sees it."""

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("numbers are copied from the host")

    for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (torch, "from_numpy"), (Tensor, "new_tensor")):
        monkeypatch.setattr(owner, name, refuse)


class TestNothingIsWaitedFor:
    """On the meta device whatever looks at a value fails, and a copy from or to the host cannot hide."""

    @pytest.mark.parametrize("targets", [1, 3])
    @pytest.mark.parametrize("config", [SUPER_DIMP_LITE, SUPER_DIMP_50], ids=["lite", "vot2020"])
    @torch.no_grad()
    def test_search_and_ascent(
        self, config: SuperDiMPConfig, targets: int, request: pytest.FixtureRequest
    ) -> None:
        network = self.prepared(build_super_dimp, config)
        images = torch.empty(targets, 3, 256, 256, device=META)
        filters = torch.empty(targets, config.classification_channels, 4, 4, device=META)
        modulation = tuple(torch.empty(1, width, 1, 1, device=META) for width in config.iou_channels)
        folded = tuple(torch.stack([part] * targets) for part in fold_modulation(network.bb_regressor, modulation))
        ascent, boxes = Ascent(BoxRefinementSettings()), torch.empty(targets, 10, 4, device=META)
        backbone, _, _ = search(network, images, filters)  # also as a warm-up
        ascent(network, backbone, folded, boxes)
        request.getfixturevalue("no_lists")
        with NoWaiting():
            assert search(network, images, filters)[2].shape == (targets, 1, 17, 17)
            assert ascent(network, backbone, folded, boxes).shape == (targets, 10, 5)

    @pytest.mark.parametrize("config", [MASK_REFINER_LITE, MASK_REFINER_50], ids=["lite", "vot2020"])
    @torch.no_grad()
    def test_segmentation(
        self, config: MaskRefinerConfig, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # does not know the meta device
        network = self.prepared(build_mask_refiner, config)
        images = torch.empty(1, 3, 256, 256, device=META)
        side = config.pool_size
        width = config.embedding or network.feature_extractor.channels["layer3"]
        kernel = torch.empty(1, width, side, side, device=META)
        weights = None if config.target_model is None else torch.empty(1, sum(config.target_model) + 1, device=META)
        segment(network, images, kernel, weights)
        request.getfixturevalue("no_lists")
        with NoWaiting():
            probabilities, _, stages, corners, judgement = segment(network, images, kernel, weights)
        assert probabilities.shape == (1, 1, 256, 256)
        assert set(stages) == (set() if config.target_model is None else {"layer1", "layer2", "layer3"})
        assert corners is None or (corners.shape == (1, 4) and judgement.shape == (1, 2))

    @torch.no_grad()
    def test_learning_takes_nothing_that_lies_on_the_host(self) -> None:
        """Not recorded, but on the device: an operator refuses tensors of two devices."""
        network = self.prepared(build_super_dimp, SUPER_DIMP_LITE)
        tracker = SuperDiMPTracker(network, LITE.base, META)
        features = torch.empty(3, SUPER_DIMP_LITE.classification_channels, 16, 16, device=META)
        boxes = torch.empty(3, 4, device=META)
        tracker.memory = SampleMemory(features, boxes, LITE.base.memory)
        tracker.filter = before = torch.empty(1, SUPER_DIMP_LITE.classification_channels, 4, 4, device=META)
        tracker.frame_number = 1 + LITE.base.memory.update_interval
        tracker._learn(features[:1], torch.rand(4), Decision.NORMAL)
        assert tracker.memory.count == 4
        assert tracker.filter is not before and tracker.filter.device == META

    @staticmethod
    def prepared(build: Callable[[Any], nn.Module], config: object) -> nn.Module:
        with META:
            network = build(config)
        return prepare_for_inference(network, META)

    @torch.no_grad()
    def test_it_would_be_noticed(self, no_lists: None) -> None:
        x = torch.empty(3, device=META)
        pooling = BoxPooling([Level(3, 1.0)])
        pooling.load([torch.empty(4, 8, 8, device=META)])
        for wrong in (lambda: x + torch.ones(3), lambda: x.to("cpu"), lambda: x[x > 0], lambda: x.sum().item(),
                      lambda: x.new_tensor([1.0, 2.0]), lambda: torch.tensor([1.0], device=META), lambda: bool(x[0]),
                      lambda: pooling.integrate(torch.empty(2, 4, device=META))):
            with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NoWaiting():
                wrong()
