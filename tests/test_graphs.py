"""The way of a frame on a GPU, on the CPU: a stand-in records by calling the function anew on the same memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tracker import BOX, OTHER, make_tracker, video
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tracker_ar.base.dimp import search
from tracker_ar.base.overlap import climb
from tracker_ar.base.settings import BoxRefinementSettings
from tracker_ar.engine.cuda_graphs import MOST_RECORDINGS, Graphs
from tracker_ar.engine.inference import prepare_for_inference
from tracker_ar.engine.runner import Runner
from tracker_ar.models.alpha_refine import MASK_REFINER_50, MASK_REFINER_LITE, MaskRefinerConfig, build_mask_refiner
from tracker_ar.models.dimp import SUPER_DIMP_50, SUPER_DIMP_LITE, DiMPConfig, build_dimp
from tracker_ar.models.iou_net import fold_modulation
from tracker_ar.ops.box_pooling import BoxPooling, Level
from tracker_ar.refine.refiner import segment
from tracker_ar.speed.stages import StageMeter
from tracker_ar.trace import listening
from tracker_ar.tracker import AlphaRefineTracker

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


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_all_targets_go_in_one_recording_and_results_are_their_own() -> None:
    backend = StandIn()
    graphs = Graphs(nn.Identity(), backend)
    inputs = [({"x": row(1, 2)}, row(1, 1)), ({"x": row(5, 6)}, row(0, 0))]
    (first, same), (second, _) = graphs.run(doubled, inputs)
    assert first.tolist() == [[3, 5]] and second.tolist() == [[10, 12]] and same["same"].tolist() == [[1, 2]]
    first.zero_(), same["same"].zero_()
    again = graphs.run(doubled, inputs)
    assert again[0][0].tolist() == [[3, 5]] and inputs[0][0]["x"].tolist() == [[1, 2]]
    assert (backend.recorded, backend.replayed) == (1, 2)
    assert graphs.run(doubled, []) == []


def test_another_shape_dtype_structure_or_function_is_another_recording() -> None:
    backend = StandIn()
    graphs, x = Graphs(nn.Identity(), backend), torch.ones(1, 3)
    calls = [
        (doubled, [({"x": x}, None)]), (doubled, [({"x": x[:, :2]}, None)]), (doubled, [({"x": x.double()}, None)]),
        (doubled, [({"x": x}, x)]), (doubled, [({"x": x, "y": x}, None)]), (doubled, [({"x": x}, None)] * 2),
        (partial(doubled), [({"x": x}, None)]),
    ]
    for number, (part, inputs) in enumerate(calls, 1):
        for _ in range(2):
            assert torch.equal(graphs.run(part, inputs)[0][0], doubled(nn.Identity(), *inputs[0])[0])
        assert backend.recorded == number
    for side in range(4, 60):  # memory is bounded
        graphs.run(doubled, [({"x": torch.ones(1, side)}, None)])
    assert len(graphs._recordings) == MOST_RECORDINGS


@pytest.mark.parametrize("recorded_in", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("replayed_in", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_tensors_of_every_mode(recorded_in: type, replayed_in: type) -> None:
    graphs = Graphs(nn.Identity(), StandIn())
    for mode in (recorded_in, replayed_in):
        with mode():
            ((value, _),) = graphs.run(doubled, [({"x": torch.ones(1, 2)}, None)])
            assert value.add_(1).tolist() == [[3, 3]] and not value.requires_grad


def test_what_cannot_be_recorded_runs_without_graphs_and_says_so_once() -> None:
    graphs = Graphs(nn.Identity(), StandIn(RuntimeError("operation not permitted when stream is capturing\nmore")))
    with pytest.warns(RuntimeWarning, match=r"CUDA graphs cannot be used here \(operation not.*capturing\)"):
        assert graphs.run(doubled, [({"x": row(1, 1)}, None)])[0][0].tolist() == [[2, 2]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graphs.run(doubled, [({"x": row(1, 1)}, None)])[0][0].tolist() == [[2, 2]]


def test_a_full_gpu_is_no_reason_to_go_on() -> None:
    full, ended = torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("capture was invalidated")
    ended.__context__ = full
    for error in (full, ended):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            Graphs(nn.Identity(), StandIn(error)).run(doubled, [({"x": row(1)}, None)])


def test_graphs_are_for_a_gpu_that_is_to_be_fast() -> None:
    for device, fast in (("cpu", True), ("meta", True), ("cpu", False)):
        assert Runner(nn.Identity(), torch.device(device), fast)._graphs is None


def on_stand_in(tracker: AlphaRefineTracker) -> StandIn:
    """Let the CPU go the way of the GPU."""
    backend = StandIn()
    for part in (tracker.base, tracker.refiner):
        part.runner._graphs = Graphs(part.runner.network, backend)
    return backend


@pytest.mark.parametrize("boxes", [[BOX], [BOX, OTHER]], ids=["one", "two"])
def test_a_tracker_finds_the_same(boxes: list) -> None:
    images = video(5)
    plain, recorded = make_tracker(), make_tracker()
    backend = on_stand_in(recorded)
    for tracker in (plain, recorded):
        tracker.initialize(images[0], boxes)
    kept = []
    for image in images[1:]:
        for index, (expected, found) in enumerate(zip(plain.track(image), recorded.track(image), strict=True)):
            np.testing.assert_allclose(found.box, expected.box, atol=0.05)
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=0.02)
            assert found.score == pytest.approx(expected.score, abs=1e-3)
            kept.append((found.probabilities, found.probabilities.copy()))
            recorded.correct(index, expected.box)
    assert backend.replayed >= 3 * 4  # search, ascent and segmentation of all targets at once
    assert all(np.array_equal(*pair) for pair in kept)  # what was handed out is not overwritten


def test_nothing_is_replayed_while_somebody_listens() -> None:
    tracker, images = make_tracker(), video(3)
    backend = on_stand_in(tracker)
    tracker.initialize(images[0], BOX)
    tracker.track(images[1])
    replayed, meter = backend.replayed, StageMeter(lambda: 0.0)
    with listening(meter):
        tracker.track(images[2])
    assert backend.replayed == replayed and {"base backbone", "mask head"} <= meter.take().keys()


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


def prepared(build: Callable[[Any], nn.Module], config: object) -> nn.Module:
    with META:
        network = build(config)
    return prepare_for_inference(network, META)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("config", [SUPER_DIMP_LITE, SUPER_DIMP_50], ids=["lite", "vot2020"])
@torch.no_grad()
def test_search_and_ascent_wait_for_nothing(config: DiMPConfig, targets: int, request: pytest.FixtureRequest) -> None:
    """On the meta device whatever looks at a value fails, and a copy from or to the host cannot hide."""
    network = prepared(build_dimp, config)
    images = torch.empty(targets, 3, 256, 256, device=META)
    filters = torch.empty(targets, config.classification_channels, 4, 4, device=META)
    modulation = tuple(torch.empty(1, width, 1, 1, device=META) for width in config.iou_channels)
    folded = tuple(torch.stack([part] * targets) for part in fold_modulation(network.bb_regressor, modulation))
    boxes = torch.empty(targets, 10, 4, device=META)
    ascent = partial(climb, BoxRefinementSettings())
    backbone, _, _ = search(network, images, filters)  # also as a warm-up
    ascent(network, backbone, folded, boxes)
    request.getfixturevalue("no_lists")
    with NoWaiting():
        assert search(network, images, filters)[2].shape == (targets, 1, 17, 17)
        assert [part.shape for part in ascent(network, backbone, folded, boxes)] == [(targets, 10, 4), (targets, 10)]


@pytest.mark.parametrize("config", [MASK_REFINER_LITE, MASK_REFINER_50], ids=["lite", "vot2020"])
@torch.no_grad()
def test_segmentation_waits_for_nothing(
    config: MaskRefinerConfig, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # does not know the meta device
    network = prepared(build_mask_refiner, config)
    images = torch.empty(1, 3, 256, 256, device=META)
    side = config.pool_size
    width = config.embedding or network.feature_extractor.channels["layer3"]
    kernel = torch.empty(1, width, side, side, device=META)
    weights = None if config.target_model is None else torch.empty(1, sum(config.target_model) + 1, device=META)
    segment(network, images, kernel, weights)
    request.getfixturevalue("no_lists")
    with NoWaiting():
        probabilities, stages, corners, judgement = segment(network, images, kernel, weights)
    assert probabilities.shape == (1, 1, 256, 256)
    assert set(stages) == (set() if config.target_model is None else {"layer1", "layer2", "layer3"})
    assert corners is None or (corners.shape == (1, 4) and judgement.shape == (1, 2))


@torch.no_grad()
def test_it_would_be_noticed(no_lists: None) -> None:
    x = torch.empty(3, device=META)
    pooling = BoxPooling([Level(3, 1.0)])
    pooling.load([torch.empty(4, 8, 8, device=META)])
    for wrong in (lambda: x + torch.ones(3), lambda: x.to("cpu"), lambda: x[x > 0], lambda: x.sum().item(),
                  lambda: x.new_tensor([1.0, 2.0]), lambda: torch.tensor([1.0], device=META), lambda: bool(x[0]),
                  lambda: pooling.integrate(torch.empty(2, 4, device=META))):
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NoWaiting():
            wrong()
