"""A GPU that runs out of memory: the tracker goes on on the CPU, and says so."""

from __future__ import annotations

import warnings

import torch


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
        f"The GPU is out of memory ({reason:.120}): tracking continues on the CPU, slower. End what else uses the "
        "GPU, or choose device='cpu' (--device cpu) from the start.",
        RuntimeWarning, stacklevel=4,
    )
