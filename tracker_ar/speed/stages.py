"""The stages of one frame, observed from outside: the runtime itself carries no timing.

While a tracker is observed, its methods are replaced by ones that tell a meter when they begin and end. What
a stage spends is its own: stages inside it are counted for themselves, so that all stages add up to the
whole.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tracker_ar.base import dimp as super_dimp
from tracker_ar.speed.ceilings import wait_for
from tracker_ar.tracker import AlphaRefineTracker

REST = "everything else"
# Where the arithmetic of a stage is one of these, its share of that ceiling is quoted.
ARITHMETIC = {
    "base backbone": "convolution",
    "classification feature": "convolution",
    "target scores": "product",
    "IoU features": "convolution",
    "IoU ascent": "product",
    "filter update": "product",
    "refiner backbone": "convolution",
    "correlation and attention": "product",
    "mask head": "convolution",
}
STAGES = (
    "base crop", "base backbone", "classification feature", "target scores", "localisation", "IoU features",
    "IoU ascent", "filter update", "refiner crop", "refiner backbone", "correlation and attention",
    "mask head", "paste-back and threshold", REST,
)
# Initialisation has some of these and others of its own.
FIRST_FRAME_STAGES = (
    "augmentation", "base crop", "base backbone", "classification feature", "initial filter", "filter update",
    "IoU modulation", "refiner crop", "refiner backbone", "reference kernel", REST,
)


@dataclass(frozen=True)
class Call:
    """The callable `name` of an object or module does the work of `stage`."""

    stage: str
    owner: Any
    name: str


def calls_of(tracker: AlphaRefineTracker) -> list[Call]:
    """What is called in which stage. A stage may take several calls; what lies between stages is 'everything
    else'."""
    base, refiner = tracker.base, tracker.refiner
    base_network, refiner_network = base._network, refiner._network
    return [
        Call(REST, tracker, "initialize"),
        Call(REST, tracker, "track"),
        Call("augmentation", super_dimp, "augment_first_frame"),
        Call("base crop", super_dimp, "sample_patch"),
        Call("base crop", super_dimp, "normalize"),
        Call("base backbone", base_network, "extract_backbone"),
        Call("classification feature", base_network, "classification_features"),
        Call("initial filter", base_network.classifier, "initial_filter"),
        Call("target scores", base_network.classifier, "scores"),
        Call("localisation", super_dimp, "localize"),
        Call("localisation", super_dimp, "keep_inside"),
        Call("IoU modulation", base_network, "target_iou"),
        Call("IoU features", base_network, "iou_features"),
        Call("IoU ascent", base, "_refine_box"),
        Call("filter update", base_network.classifier, "optimize_filter"),
        Call("refiner crop", refiner, "_crop"),
        Call("refiner crop", refiner, "_input"),
        Call("refiner backbone", refiner_network.feature_extractor, "forward"),
        Call("reference kernel", refiner_network.neck, "reference_kernel"),
        Call("correlation and attention", refiner_network.neck, "forward"),
        Call("mask head", refiner_network.refiner, "forward"),
        Call("paste-back and threshold", refiner, "refine"),
    ]


class StageMeter:
    """Divides what `read` counts up - seconds, operations, bytes - among the stages."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._open: list[str] = []
        self._charged = 0.0
        self._spent: Counter[str] = Counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the stage with what is spent in here, less what stages within are charged with."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """What was spent in every stage that ran since the last call."""
        spent, self._spent = dict(self._spent), Counter()
        return spent

    def _charge(self) -> None:
        now = self._read()
        if self._open:
            self._spent[self._open[-1]] += now - self._charged
        self._charged = now


@contextmanager
def observed(tracker: AlphaRefineTracker, meter: StageMeter) -> Iterator[None]:
    """Tell the meter of the tracker's stages in here, operator by operator: CUDA graphs have no stages. Not for two
    trackers at once: they share modules."""
    with ExitStack() as pauses:
        for part in (tracker.base, tracker.refiner):
            pauses.enter_context(part.graphs.paused())
        with watched(calls_of(tracker), meter):
            yield


@contextmanager
def watched(calls: Iterable[Call], meter: StageMeter) -> Iterator[None]:
    """Tell the meter of these calls in here, also where they are another tracker's than ours."""
    with ExitStack() as replacements:
        for call in calls:
            told = _telling(getattr(call.owner, call.name), meter, call.stage)
            replacements.enter_context(replaced(call.owner, call.name, told))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for an attribute of an object or module; afterwards as it was, inherited or its own."""
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own or isinstance(owner, ModuleType):
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds; waits for the GPU first, so that every stage pays for its own launches and work."""

    def read() -> float:
        wait_for(device)
        return time.perf_counter()

    return read


class TrafficCounter(TorchDispatchMode):
    """Counts the bytes of the tensors - weights and activations - that torch's operators take and give.

    An estimate of memory traffic: as if every operator read its inputs and wrote its results once and nothing
    stayed in a cache. Views cost nothing. What NumPy and OpenCV do is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        keywords = keywords or {}
        # In inference mode operators arrive whole that are otherwise split: count those they consist of.
        with self:
            result = function.decompose(*arguments, **keywords)
        if result is not NotImplemented:
            return result
        result = function(*arguments, **keywords)
        if not function.is_view:
            leaves = tree_leaves((arguments, keywords, result))
            self.bytes += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
        return result


def _telling(function: Callable[..., Any], meter: StageMeter, stage: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def told(*arguments: Any, **keywords: Any) -> Any:
        with meter.stage(stage):
            return function(*arguments, **keywords)

    return told
