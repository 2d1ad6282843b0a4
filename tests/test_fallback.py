"""A GPU that runs out of memory. 'cpu:0' stands for the GPU: another device to torch, which computes the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from test_tracker import BOX, check, make_tracker, video  # noqa: F401  (a fixture)
from tracker_ar import tracker as tracker_module
from tracker_ar.errors import InputError
from tracker_ar.engine.inference import move
from tracker_ar.multi_target import MultiTargetTracker
from tracker_ar.tracker import CPU, AlphaRefineTracker, build_tracker

GPU = torch.device("cpu:0")
FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSome advice")
SAYS = r"The GPU is out of memory \(CUDA out of memory\. Tried to allocate 2\.00 GiB\.\).*CPU.*--device cpu"


def fill(monkeypatch: pytest.MonkeyPatch, tracker: AlphaRefineTracker, calls: int, error: Exception = FULL) -> None:
    """The base tracker's network, put on the 'GPU', raises `error` there after `calls` uses."""
    network = tracker.base._network
    for part in (tracker.base, tracker.refiner):
        move(part._network, GPU)
    extract, left = network.extract_backbone, [calls]

    def extract_or_fail(patches: torch.Tensor) -> object:
        left[0] -= 1
        if left[0] < 0 and network.device == GPU:
            raise error
        return extract(patches)

    monkeypatch.setattr(network, "extract_backbone", extract_or_fail)


def same(one: object, other: object) -> bool:
    return np.array_equal(one.mask, other.mask) and np.array_equal(one.box, other.box) and one.score == other.score


def test_full_at_the_start(make_tracker: Callable, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    images = video(2)
    expected, tracker = make_tracker(), make_tracker()
    expected.initialize(images[0], BOX)
    fill(monkeypatch, tracker, calls=0)
    with pytest.warns(RuntimeWarning, match=SAYS):
        tracker.initialize(images[0], BOX)
    assert tracker.base.device == tracker.refiner.device == CPU
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(tracker.track(images[1]), expected.track(images[1]))


def test_full_while_tracking_goes_on_at_the_last_place(
    make_tracker: Callable, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    images = video(4)
    tracker, expected = make_tracker(), make_tracker()
    fill(monkeypatch, tracker, calls=2)
    tracker.initialize(images[0], BOX)
    last = tracker.track(images[1])
    with pytest.warns(RuntimeWarning, match=SAYS):
        found = tracker.track(images[2])
    check(found)
    expected.initialize(images[0], BOX)
    expected.base.correct(last.box)
    assert same(found, expected.track(images[2]))
    assert same(tracker.track(images[3]), expected.track(images[3]))


def test_all_targets_go_with_their_shared_networks(
    make_tracker: Callable, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    images = video(3)
    prototype = make_tracker()
    targets = MultiTargetTracker(prototype)
    fill(monkeypatch, prototype, calls=3)
    targets.initialize(images[0], [BOX, (20, 20, 30, 30)])
    with pytest.warns(RuntimeWarning, match=SAYS) as said:
        for prediction in targets.track(images[1]):  # the second target fails
            check(prediction)
    assert len(said) == 1
    learned = [target._learned_on for target in targets._targets]
    assert learned == [GPU, CPU]
    for prediction in targets.track(images[2], [(70, 50, 20, 20)]):  # the first one follows, a new one begins there
        check(prediction)
    assert [target._learned_on for target in targets._targets] == [CPU] * 3


def test_other_errors_and_a_full_main_memory_pass(
    make_tracker: Callable, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    images = video(2)
    for error in (RuntimeError("shapes differ"), InputError("no image")):
        tracker = make_tracker()
        fill(monkeypatch, tracker, calls=0, error=error)
        with pytest.raises(type(error)):
            tracker.initialize(images[0], BOX)
        assert tracker.refiner.device == GPU
    tracker = make_tracker()

    def full(patches: torch.Tensor) -> None:
        raise FULL

    monkeypatch.setattr(tracker.base._network, "extract_backbone", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        tracker.initialize(images[0], BOX)


@pytest.mark.parametrize("message", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling x"])
def test_libraries_that_say_so_in_their_own_words(
    make_tracker: Callable, monkeypatch: pytest.MonkeyPatch, message: str  # noqa: F811
) -> None:
    tracker = make_tracker()
    fill(monkeypatch, tracker, calls=0, error=RuntimeError(message))
    with pytest.warns(RuntimeWarning, match="out of memory"):
        tracker.initialize(video(1)[0], BOX)


def test_full_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    load = tracker_module._load_refiner

    def load_or_fail(settings: object, path: object, device: torch.device, fast: bool) -> object:
        if device == GPU:
            raise FULL
        return load(settings, path, device, fast)

    monkeypatch.setattr(tracker_module, "_load_refiner", load_or_fail)
    with pytest.warns(RuntimeWarning, match=SAYS):
        assert build_tracker("lite", device="cpu:0").refiner.device == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    with pytest.raises(InputError, match="'cuda' cannot be used.*use 'auto' or 'cpu'"):
        build_tracker("lite", device="cuda")
    assert build_tracker("lite").refiner.device == CPU
