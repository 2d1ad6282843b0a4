"""A GPU that runs out of memory: the tracker goes on on the CPU, and says so."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

Result = TypeVar("Result")


@runtime_checkable
class Movable(Protocol):
    """A part with networks."""

    def move_to(self, device: torch.device) -> None: ...


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it says that a GPU has no memory left, also where a library below torch said so first."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return "CUDA out of memory" in str(error) or "CUDA error: out of memory" in str(error) \
        or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)


def announce(error: RuntimeError) -> None:
    """Tell the user, on stderr unless warnings are handled otherwise."""
    reason = str(error).partition("\n")[0]
    warnings.warn(
        f"The GPU is out of memory ({reason:.120}): tracking goes on on the CPU, slower. End what else uses the "
        "GPU, or choose device='cpu' (--device cpu) from the start.",
        RuntimeWarning, stacklevel=3,
    )


def on_cpu_when_full(method: Callable[..., Result]) -> Callable[..., Result]:
    """Makes a method run again on the CPU when the GPU runs out of memory in it.

    Its object must have `move_to_cpu() -> bool`: False where that is no help, because it is there already.
    """

    @functools.wraps(method)
    def run(self: Any, *arguments: Any, **more: Any) -> Result:
        try:
            return method(self, *arguments, **more)
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self.move_to_cpu():
                raise
            announce(error)
        return method(self, *arguments, **more)

    return run
