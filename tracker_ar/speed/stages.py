"""What every stage of a frame spends, told by the stages themselves: see `tracker_ar.trace`.

What a stage spends is its own: stages inside it are counted for themselves, so that all stages add up to the whole.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tracker_ar.speed.ceilings import wait_for
from tracker_ar.trace import Listener

REST = "everything else"
# Where the arithmetic of a stage is one of these, its fraction of that ceiling is quoted.
ARITHMETIC = {
    "base backbone": "convolution",
    "classification features": "convolution",
    "target scores": "product",
    "IoU features": "convolution",
    "box refinement": "product",
    "model update": "product",
    "refiner backbone": "convolution",
    "correlation": "product",
    "corner head": "convolution",
    "mask head": "convolution",
}


class StageMeter:
    """A listener that divides what `read` counts up - seconds, operations, bytes - among the stages."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._open: list[str] = []
        self._charged = 0.0
        self._spent: defaultdict[str, float] = defaultdict(float)

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

    def note(self, name: str, value: Any) -> None:
        """Results cost nothing."""

    def take(self) -> dict[str, float]:
        """What was spent in every stage that ran since the last call."""
        spent, self._spent = dict(self._spent), defaultdict(float)
        return spent

    def _charge(self) -> None:
        now = self._read()
        if self._open:
            self._spent[self._open[-1]] += now - self._charged
        self._charged = now


class Both:
    """Several listeners as one."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Entered and left by all."""
        with ExitStack() as stack:
            for listener in self._listeners:
                stack.enter_context(listener.stage(name))
            yield

    def note(self, name: str, value: Any) -> None:
        """Told to all."""
        for listener in self._listeners:
            listener.note(name, value)


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
