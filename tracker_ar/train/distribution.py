"""One training in several processes, as `torchrun` starts them: on several GPUs, machines or processors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from tracker_ar.errors import InputError

# The first process validates and saves alone while the others wait for it.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process computes: number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    def indices(self, batch_size: int) -> range:
        """The samples of a batch that fall to this process; all processes get equally many.

        Raises:
            InputError: the batch cannot be divided.
        """
        if batch_size % self.count:
            raise InputError(
                f"a batch of {batch_size} cannot be shared by {self.count} processes: choose --batch, "
                f"for example {self.count * max(1, batch_size // self.count)}"
            )
        return range(self.rank, batch_size, self.count)

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


@contextmanager
def joined(device: str) -> Iterator[tuple[Share, torch.device]]:
    """Join the other processes where `torchrun` started this one.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N". With several processes on one
            machine each takes the GPU of its local rank.

    Yields:
        This process's share and its device.

    Raises:
        InputError: the device cannot be used, or there are more processes than GPUs on this machine.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = _device(device, local if count > 1 else None)
    if count == 1:
        yield Share(), place
        return
    # Tensors travel as the device needs it; what is read from a checkpoint travels between processors.
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Share(dist.get_rank(), dist.get_world_size()), place
    finally:
        dist.destroy_process_group()


def from_leader(value: Any, share: Share) -> Any:
    """What the first process has, in all of them."""
    if share.count == 1:
        return value
    boxed = [value if share.leads else None]
    dist.broadcast_object_list(boxed, src=0, device=torch.device("cpu"))
    return boxed[0]


def _device(name: str, local_rank: int | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None and local_rank is not None:
            device = torch.device("cuda", local_rank)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the device {name!r} cannot be used ({error}): use --device cpu, or no more processes than GPUs"
        ) from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
