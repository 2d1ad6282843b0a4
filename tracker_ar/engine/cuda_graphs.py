"""CUDA graphs: functions of fixed shape recorded once and replayed with one launch.

On a GPU a frame is over a thousand small operators, and launching them takes longer than computing them. A graph is
launched as a whole, but replays exactly what was recorded: the same kernels on the same memory. So a function that is
to be recorded maps tensors to tensors, looks at no value, makes no tensor from Python numbers other than by filling,
and copies nothing between devices. Several targets go through in one batch.

This has not run on a GPU yet; it is tested with a stand-in for the recording.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from tracker_ar.trace import is_heard

WARM_UPS = 3  # libraries choose and prepare their kernels in the first runs, which must not happen in a recording
MOST_RECORDINGS = 16  # each holds the memory of its intermediate results
Replay = Callable[[], None]


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
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)
        self.replay()
        return tree_map_only(Tensor, torch.clone, self.results)


class Graphs:
    """Runs parts of a frame on one network for all targets at once, recorded where that works.

    What is recorded computes as torch is set to: by default convolutions may use TF32, matrix products may not.
    Another structure, shape or dtype of the inputs is another recording. One call at a time, on one stream.
    """

    def __init__(self, network: nn.Module, backend: Backend) -> None:
        self._network = network
        self._backend = backend
        self._recordings: dict[Any, _Recording] = {}
        self._lock = threading.Lock()
        self._failed = False

    def run(self, part: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `tracker_ar.engine.runner.Runner.run`. Where a part cannot be recorded a RuntimeWarning says so, once,
        and everything runs operator by operator from then on."""
        if not inputs:
            return []
        leaves, structure = _joined(inputs)
        with self._lock, torch.inference_mode(False), torch.no_grad():
            recording = None if self._failed or is_heard() else self._recording(part, leaves, structure)
            if recording is None:
                results = part(self._network, *tree_unflatten(leaves, structure))
            else:
                results = recording(leaves)
        return [_of_target(results, index) for index in range(len(inputs))]

    def _recording(self, part: Callable[..., Any], leaves: list[Tensor | None], structure: Any) -> _Recording | None:
        forms = tuple(None if leaf is None else (leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        key = part, str(structure), forms
        if key not in self._recordings:
            try:
                recording = self._record(part, leaves, structure)
            except RuntimeError as error:
                full = _out_of_memory(error)
                if full is not None:
                    raise full from error
                self._failed = True
                self._recordings.clear()
                reason = str(error).partition("\n")[0]
                warnings.warn(f"CUDA graphs cannot be used here ({reason:.160}): tracking continues without them, "
                              "with the same results, slower.", RuntimeWarning, stacklevel=4)
                return None
            while len(self._recordings) >= MOST_RECORDINGS:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[key] = recording
        return self._recordings[key]

    def _record(self, part: Callable[..., Any], leaves: list[Tensor | None], structure: Any) -> _Recording:
        own = [None if leaf is None else leaf.clone() for leaf in leaves]
        inputs = tree_unflatten(own, structure)
        device = next(leaf.device for leaf in own if leaf is not None)
        results, replay = self._backend.record(lambda: part(self._network, *inputs), device)
        return _Recording(own, results, replay)


def _joined(inputs: Sequence[tuple[Any, ...]]) -> tuple[list[Tensor | None], Any]:
    """The inputs of all targets as those of one batch: leaves and structure."""
    flat, structures = zip(*(tree_flatten(one) for one in inputs))
    leaves = list(flat[0]) if len(flat) == 1 else [
        None if parts[0] is None else torch.cat(parts) for parts in zip(*flat)
    ]
    return leaves, structures[0]


def _of_target(results: Any, index: int) -> Any:
    return tree_map_only(Tensor, lambda value: value[index : index + 1], results)


def _out_of_memory(error: BaseException | None) -> torch.cuda.OutOfMemoryError | None:
    """Ending a recording in which the memory ran out raises another error on top of that one."""
    while error is not None and not isinstance(error, torch.cuda.OutOfMemoryError):
        error = error.__context__
    return error
