"""CUDA graphs: functions of fixed shape recorded once and replayed with one launch.

On a GPU a frame is over a thousand small operators, and launching them takes longer than computing them. A graph is
launched as a whole, but replays exactly what was recorded: the same kernels on the same memory. So a function that is
to be recorded maps tensors to tensors, looks at no value, makes no tensor from Python numbers other than by filling,
and copies nothing between devices. Whatever changes from frame to frame or from target to target is an input.

Several targets go through a network in one batch: what follows a target is a generator of `Call`s, so that `together`
can let all targets come to the same place and launch once for all of them.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from tracker_ar.engine.precision import tf32_allowed

WARM_UPS = 3  # libraries choose and prepare their kernels in the first runs, which must not happen in a recording
MOST_RECORDINGS = 16  # each holds the memory of its intermediate results
Replay = Callable[[], None]
Result = TypeVar("Result")


class Backend(Protocol):
    """What records."""

    def record(self, function: Callable[[], Any], device: torch.device) -> tuple[Any, Replay]:
        """What `function` returned, and what computes it anew into the same memory from the same inputs."""


class CudaBackend:
    """Records with `torch.cuda.graph`."""

    def record(self, function: Callable[[], Any], device: torch.device) -> tuple[Any, Replay]:
        """See `Backend`. Raises RuntimeError where the function cannot be recorded, also for a full memory."""
        # The stream is set again at the end, also where a recording fails and leaves its own behind.
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
            # One stream for both: some libraries prepare themselves anew for every stream.
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    function()
            torch.cuda.current_stream(device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # What other threads of the program do with the GPU meanwhile is no error.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                results = function()
        return results, graph.replay


@dataclass(frozen=True)
class _Recording:
    """inputs: leaves of the arguments, where a replay reads them. results: where it writes."""

    inputs: list[Tensor | None]
    results: Any
    replay: Replay

    def __call__(self, inputs: list[Tensor | None]) -> Any:
        for own, given in zip(self.inputs, inputs):
            if own is not None:
                own.copy_(given, non_blocking=True)
        self.replay()
        return tree_map_only(Tensor, torch.clone, self.results)


class Graphs:
    """Runs functions on one network, recorded where there is a backend, as they are where there is none.

    Convolutions of what is recorded may use TF32, as they do in torch by default; matrix products - correlations,
    attention, boxes, filters - are float32 proper. Not half precision: in the backbones of `lite` its rounding alone
    moved masks four times as far. Targets that share the network share this object. One call at a time, on one stream.
    """

    def __init__(self, network: nn.Module, backend: Backend | None) -> None:
        self._network = network
        self._backend = backend
        self._recordings: dict[Any, _Recording] = {}
        self._lock = threading.RLock()
        self._failed = self._paused = False

    @property
    def active(self) -> bool:
        """Whether this is for a GPU that is to be fast: where not, everything else stays as on a CPU, too."""
        return self._backend is not None and not self._paused

    def run(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """`function(network, *inputs)`.

        inputs: tensors, None, and tuples and dictionaries of them; of the first call's device. Another structure,
        shape or dtype is another recording. What is returned, likewise nested, is the caller's own. Where a function
        cannot be recorded a RuntimeWarning says so, once, and all run operator by operator from then on. Raises
        torch.cuda.OutOfMemoryError for a full GPU.
        """
        if not self.active:
            return self._plainly(function, inputs)
        with self._lock, torch.inference_mode(False), torch.no_grad():
            recording, leaves = self._recording(function, inputs)
            return self._plainly(function, inputs) if recording is None else recording(leaves)

    def drop(self) -> None:
        """Give the memory of all recordings back, for good: what follows runs operator by operator."""
        with self._lock:
            self._recordings.clear()
            self._backend = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Operator by operator in here, so that one can look at what happens inside."""
        self._paused, before = True, self._paused
        try:
            yield
        finally:
            self._paused = before

    def _plainly(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        if self._backend is None:
            return function(self._network, *inputs)
        with tf32_allowed(convolutions=True, products=False):
            return function(self._network, *inputs)

    def _recording(
        self, function: Callable[..., Any], inputs: tuple[Any, ...]
    ) -> tuple[_Recording | None, list[Tensor | None]]:
        leaves, structure = tree_flatten(inputs)
        if self._failed:
            return None, leaves
        forms = tuple(None if leaf is None else (leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        key = function, str(structure), forms
        if key not in self._recordings:
            try:
                recording = self._record(function, leaves, structure)
            except RuntimeError as error:
                full = _out_of_memory(error)
                if full is not None:
                    raise full
                self._failed = True
                self._recordings.clear()
                reason = str(error).partition("\n")[0]
                warnings.warn(f"CUDA graphs cannot be used here ({reason:.160}): tracking goes on without them, "
                              "with the same results, slower.", RuntimeWarning, stacklevel=4)
                return None, leaves
            while len(self._recordings) >= MOST_RECORDINGS:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[key] = recording
        return self._recordings[key], leaves

    def _record(self, function: Callable[..., Any], leaves: list[Tensor | None], structure: Any) -> _Recording:
        assert self._backend is not None
        own = [None if leaf is None else leaf.clone() for leaf in leaves]
        inputs = tree_unflatten(own, structure)
        device = next(leaf.device for leaf in own if leaf is not None)
        results, replay = self._backend.record(lambda: self._plainly(function, inputs), device)
        return _Recording(own, results, replay)


@dataclass(frozen=True)
class Call:
    """`function(network, *inputs)` of one target, to be run by `graphs`; the first dimension of every tensor, of the inputs
    and of what is returned, is that of targets."""

    graphs: Graphs
    function: Callable[..., Any]
    inputs: tuple[Any, ...]

    def __call__(self) -> Any:
        """What it returns."""
        return self.graphs.run(self.function, *self.inputs)

    def joins(self, other: Call) -> bool:
        """Whether both can be run as one, on a GPU that is to be fast: targets that share a network differ in nothing
        but numbers."""
        return self.graphs.active and self.graphs is other.graphs and self.function == other.function


Steps = Generator[Call, Any, Result]


@torch.no_grad()
def alone(steps: Steps[Result]) -> Result:
    """What the steps of one target return in the end."""
    try:
        call = next(steps)
        while True:
            call = steps.send(call())
    except StopIteration as end:
        return end.value


@torch.no_grad()
def together(targets: Sequence[Steps[Result]]) -> list[Result]:
    """What the steps of several targets return. Where all of them want the same, it is run once, in one batch: with
    fewer, that would be another recording for every number of them."""
    results: dict[int, Result] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(targets)))
    while answers:
        calls: dict[int, Call] = {}
        for index, answer in answers.items():
            try:
                calls[index] = targets[index].send(answer)
            except StopIteration as end:
                results[index] = end.value
        answers = dict(zip(calls, _answered(list(calls.values()), len(targets))))
    return [results[index] for index in range(len(targets))]


def _answered(calls: list[Call], targets: int) -> list[Any]:
    if len(calls) < max(targets, 2) or not all(calls[0].joins(call) for call in calls):
        return [call() for call in calls]
    leaves, structures = zip(*(tree_flatten(call.inputs) for call in calls))
    joined = [None if parts[0] is None else torch.cat(parts) for parts in zip(*leaves)]
    found = replace(calls[0], inputs=tree_unflatten(joined, structures[0]))()
    return [tree_map_only(Tensor, lambda value: value[index : index + 1], found) for index in range(len(calls))]


def _out_of_memory(error: BaseException | None) -> torch.cuda.OutOfMemoryError | None:
    """Ending a recording in which the memory ran out raises another error on top of that one."""
    while error is not None and not isinstance(error, torch.cuda.OutOfMemoryError):
        error = error.__context__
    return error


def graphs_for(network: nn.Module, device: torch.device, fast: bool) -> Graphs:
    """With CUDA graphs on a GPU, if it is to be fast."""
    return Graphs(network, CudaBackend() if fast and device.type == "cuda" else None)
