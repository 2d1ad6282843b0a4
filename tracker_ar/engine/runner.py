"""The one place that decides how a network is executed: as it was trained, prepared for inference, or recorded.

An engine hands over parts of a frame: functions `part(network, *inputs)` of fixed shapes that map tensors to tensors,
look at no value and copy nothing between devices. Whatever changes from frame to frame or from target to target is an
input. The first dimension of every tensor, of the inputs and of what is returned, is that of targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tracker_ar.engine.cuda_graphs import CudaBackend, Graphs
from tracker_ar.engine.inference import prepare_for_inference


class Runner:
    """A network, where it is, and how it runs there.

    fast: prepare the network for inference (`prepare_for_inference`), and record its parts on a GPU; False runs it
    layer by layer as it is trained. In float32, whatever torch's default is.
    """

    def __init__(self, network: nn.Module, device: torch.device, fast: bool = True) -> None:
        self.network: Any = prepare_for_inference(network.float(), device, fast)
        self.device = device
        recorded = fast and device.type == "cuda"
        self._graphs: Graphs | None = Graphs(self.network, CudaBackend()) if recorded else None

    def run(self, part: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> list[Any]:
        """`part(network, *one)` for every one of `inputs`, of one target each.

        Inputs: tensors on the runner's device, None, tuples and dictionaries of them. On a GPU all targets go through
        in one batch. On a CPU they go one by one, which is as fast there. Raises torch.cuda.OutOfMemoryError for a full
        GPU.
        """
        if self._graphs is None:
            return [part(self.network, *one) for one in inputs]
        return self._graphs.run(part, inputs)

    def move_to(self, device: torch.device) -> None:
        """Move the network; what targets hold stays where it is, so that they must be started again."""
        self._graphs = None
        self.network.to(device)
        self.device = device
