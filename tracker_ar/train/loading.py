"""Batches made ahead in worker processes. A batch depends on its step alone, so any of them may make it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from tracker_ar.errors import AlphaRefineError, DataError

Request = tuple[int, float]  # the step and the share of the training that is done, 0 to 1
_AHEAD = 2
_SIGNAL_SECONDS = 0.5


class _Batches(Dataset):
    """Makes the batch of a request; an error on purpose comes back as a value, without the worker's stack."""

    def __init__(self, make: Callable[[int, float], Any]) -> None:
        self.make = make

    def __getitem__(self, request: Request) -> Any:
        try:
            return self.make(*request)
        except AlphaRefineError as error:
            return error


def batches(
    make: Callable[[int, float], Any], requests: Callable[[], Iterator[Request]], workers: int, pin: bool
) -> Iterator[Any]:
    """The batches of the requests, in order.

    Args:
        make: gives the batch of a step and a progress, on the processor.
        requests: starts the requests; with workers it is asked ahead by two batches per worker.
        workers: processes; 0 makes every batch in this one when it is asked for.
        pin: hold batches in page-locked memory, for a GPU.

    Raises:
        AlphaRefineError: what `make` raised.
    """
    loader = DataLoader(
        _Batches(make),
        batch_size=None,
        sampler=_Requests(requests),
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin,
        prefetch_factor=_AHEAD if workers else None,
        worker_init_fn=_prepare_worker if workers else None,
        # A generator of its own: a loader takes a number from it, and training must not notice.
        generator=torch.Generator(),
    )
    if workers:
        # Here, not in the workers: a forked process cannot end threads of OpenCV's that it does not have, and
        # would wait for them forever.
        cv2.setNumThreads(1)
    for batch in loader:
        if isinstance(batch, AlphaRefineError):
            raise batch
        yield batch


@contextlib.contextmanager
def lost_workers_named() -> Iterator[None]:
    """Within the block a worker process that ends raises a DataError; it may do so at any moment."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        lost: Exception = error
    except (EOFError, ConnectionError) as error:
        lost = error
    else:
        return
    # The signal of its end may still be on its way, and raises wherever it finds the program.
    with contextlib.suppress(RuntimeError):
        time.sleep(_SIGNAL_SECONDS)
    raise DataError(f"A worker process ended ({lost}). If memory ran out, use fewer --workers.") from lost


class _Requests:
    def __init__(self, start: Callable[[], Iterator[Request]]) -> None:
        self.start = start

    def __iter__(self) -> Iterator[Request]:
        return self.start()


def _unchanged(batch: Any) -> Any:
    return batch


def _prepare_worker(_: int) -> None:
    if cv2.getNumThreads() != 1:  # started afresh, not forked
        cv2.setNumThreads(1)
