"""Convolutions as tracking runs them on a CPU: pre-packed weights, and what follows fused into the same pass."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolve(convolution: nn.Conv2d, norm: nn.Module | None, x: Tensor, added: Tensor | None = None) -> Tensor:
    """relu(norm(convolution(x)) + added), the unit of which residual blocks are made."""
    if isinstance(convolution, PackedConvolution):
        return convolution(x, added, relu=True)
    result = convolution(x)
    if norm is not None:
        result = norm(result)
    return F.relu(result if added is None else result.add_(added), inplace=True)


def convolve_part(
    convolution: nn.Conv2d, channels: slice, x: Tensor, added: Tensor | None = None, relu: bool = False
) -> Tensor:
    """What some of the input channels bring to a convolution, plus `added`; the bias comes with the first of them."""
    if isinstance(convolution, PackedConvolution):
        return convolution.part(channels)(x, added, relu)
    bias = convolution.bias if channels.start == 0 else None
    result = F.conv2d(x, convolution.weight[:, channels], bias, padding=convolution.padding)
    result = result if added is None else result + added
    return F.relu(result) if relu else result


class PackedConvolution(nn.Conv2d):
    """Takes the place of a convolution with folded batch norm, in float32 on a CPU, without gradients.

    It calls the operators of torch's own compiler, with pre-packed weights and a fused ReLU. Weights are packed for
    single images of the first one's size; any other batch goes through the plain operator, since a layout can be many
    times slower for another size.
    """

    def __init__(self, convolution: nn.Conv2d, relu: bool, highest: float | None = None) -> None:
        """relu: whether a ReLU follows that is to be done here; highest: the value that it ends at (6 for ReLU6)."""
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in vars(convolution).items() if not name.startswith("_")})
        self.weight, self.bias = convolution.weight, convolution.bias
        self.relu, self.highest = relu, highest
        self._packed: tuple[torch.Size, Tensor] | None = None
        self._parts: dict[tuple[int, int], PackedConvolution] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles pack their weights anew: packed ones cannot be copied."""
        return {**self.__dict__, "_packed": None, "_parts": {}}

    def part(self, channels: slice) -> PackedConvolution:
        """The convolution of some input channels alone, without ReLU; with the bias if they are the first."""
        key = channels.start, channels.stop
        if key not in self._parts:
            bias = self.bias is not None and channels.start == 0
            names = "kernel_size", "stride", "padding", "dilation"
            shape: dict[str, Any] = {name: getattr(self, name) for name in names}
            count = channels.stop - channels.start
            some = nn.Conv2d(count, self.out_channels, bias=bias, device="meta", **shape)
            some.weight = nn.Parameter(self.weight[:, channels].contiguous(memory_format=torch.channels_last), False)
            some.bias = self.bias if bias else None
            self._parts[key] = PackedConvolution(some, relu=False)
        return self._parts[key]

    def forward(self, x: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
        """(N, C, H, W) -> (N, O, H', W'); `added` has the shape of the result."""
        relu = relu or self.relu
        if self._packed is None and len(x) == 1:
            shape = self.padding, self.stride, self.dilation, self.groups
            packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *shape, list(x.shape))
            self._packed = x.shape, packed
        if self._packed is not None and self._packed[0] == x.shape:
            return self._fused(x, self._packed[1], added, relu)
        result = super().forward(x)
        if added is not None:
            result.add_(added)
        if relu and self.highest is not None:
            return result.clamp_(0.0, self.highest)
        return result.relu_() if relu else result

    def _fused(self, x: Tensor, packed: Tensor, added: Tensor | None, relu: bool) -> Tensor:
        run = torch.ops.mkldnn._convolution_pointwise
        shape = self.padding, self.stride, self.dilation, self.groups
        # Each of the two operators has its own word for nothing.
        if added is None:
            if relu and self.highest is not None:
                return run(x, packed, self.bias, *shape, "hardtanh", [0.0, self.highest], "")
            return run(x, packed, self.bias, *shape, "relu" if relu else "none", [], "")
        return run.binary(x, added, packed, self.bias, *shape, "add", 1.0, "relu" if relu else None, [], "")


def can_pack(convolution: nn.Conv2d) -> bool:
    """Whether `PackedConvolution` can take its place."""
    weight = convolution.weight
    return (
        type(convolution) is nn.Conv2d and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str) and weight.dtype == torch.float32 and weight.device.type == "cpu"
        and _packing_works()
    )


@lru_cache(maxsize=1)
def _packing_works() -> bool:
    """These operators are no promise of torch's: they are tried out, and done without where they fail."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False)
    x, added = (torch.rand(1, 8, 6, 6, generator=generator).to(memory_format=torch.channels_last) for _ in range(2))
    try:
        fused = PackedConvolution(convolution, relu=False)
        result = convolution(x)
        pairs = (
            (fused(x, added, True), F.relu(result + added)), (fused(x, added, False), result + added),
            (fused(x), result),
            (PackedConvolution(convolution, relu=True, highest=0.1)(x), result.clamp(0.0, 0.1)),
        )
        return all(torch.allclose(found, wanted, rtol=1e-4, atol=1e-4) for found, wanted in pairs)
    except (RuntimeError, AttributeError, TypeError):
        return False
