"""A GPU that runs out of memory. 'cpu:0' stands for the GPU: another device to torch, which computes the same."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny_tracker import BOX, CPU, OTHER, check, make_tracker, same, video

from tracker_ar import zoo
from tracker_ar.engine import runner as module
from tracker_ar.errors import InputError
from tracker_ar.tracker import AlphaRefineTracker

GPU = torch.device("cpu:0")
FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSome advice")
SAYS = r"The GPU is out of memory \(CUDA out of memory\. Tried to allocate 2\.00 GiB\.\).*CPU.*--device cpu"


def on_gpu(monkeypatch: pytest.MonkeyPatch, calls: int, error: Exception = FULL) -> AlphaRefineTracker:
    """A tracker on the 'GPU', whose base network raises `error` there after `calls` uses."""
    tracker = make_tracker(device=GPU)
    runner = tracker.base.runner
    extract, left = runner.network.extract_backbone, [calls]

    def extract_or_fail(patches: torch.Tensor) -> object:
        left[0] -= 1
        if left[0] < 0 and runner.device == GPU:
            raise error
        return extract(patches)

    monkeypatch.setattr(runner.network, "extract_backbone", extract_or_fail)
    return tracker


def test_full_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    images, expected, tracker = video(2), make_tracker(), on_gpu(monkeypatch, calls=0)
    expected.initialize(images[0], BOX)
    with pytest.warns(RuntimeWarning, match=SAYS):
        tracker.initialize(images[0], BOX)
    assert tracker.base.runner.device == tracker.refiner.runner.device == CPU
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(tracker.track(images[1]), expected.track(images[1]))


def test_full_while_tracking_goes_on_at_the_last_place(monkeypatch: pytest.MonkeyPatch) -> None:
    full_while_tracking(monkeypatch, targets=1)


def test_all_targets_go_with_their_shared_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    full_while_tracking(monkeypatch, targets=2)


def full_while_tracking(monkeypatch: pytest.MonkeyPatch, targets: int) -> None:
    images, boxes = video(4), [BOX, OTHER][:targets]
    # Each target is learned, then all are tracked once for the warm-up, and again in the first frame.
    tracker, expected = on_gpu(monkeypatch, calls=3 * targets), make_tracker()
    tracker.initialize(images[0], boxes)
    last = tracker.track(images[1])
    with pytest.warns(RuntimeWarning, match=SAYS) as said:
        found = tracker.track(images[2])
    assert len(said) == 1
    expected.initialize(images[0], boxes)
    for index, prediction in enumerate(last):
        check(prediction)
        expected.correct(index, prediction.box)
    for image in images[2:]:
        assert all(same(*pair) for pair in zip(found, expected.track(image), strict=True))
        found = tracker.track(images[3])
    assert len(tracker.track(images[3])) == targets and isinstance(tracker.add(images[3], OTHER).score, float)


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("CUDA error: an illegal memory access")])
def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tracker = on_gpu(monkeypatch, calls=0, error=error)
    with pytest.raises(type(error), match=str(error)):
        tracker.initialize(video(1)[0], BOX)
    assert tracker.base.runner.device == GPU


def test_a_full_main_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = make_tracker()
    monkeypatch.setattr(tracker.base, "start", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")))
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        tracker.initialize(video(1)[0], BOX)


def test_full_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = module.Runner

    def full(network: torch.nn.Module, device: torch.device, fast: bool) -> object:
        if device == GPU:
            raise FULL
        return runner(network, device, fast)

    monkeypatch.setattr(module, "Runner", full)
    with pytest.warns(RuntimeWarning, match=SAYS):
        tracker = zoo.build_tracker("lite", "cpu:0")
    assert tracker.base.runner.device == CPU


def test_no_gpu() -> None:
    with pytest.raises(InputError, match="'abacus' cannot be used"):
        zoo.build_tracker("lite", "abacus")
