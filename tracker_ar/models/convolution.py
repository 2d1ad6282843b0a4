"""Convolutions as tracking runs them on a CPU: weights laid out once, and what follows done in the same pass."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracker_ar.ops.winograd import WinogradConvolution, pays


def convolve(convolution: nn.Conv2d, norm: nn.Module | None, x: Tensor, added: Tensor | None = None) -> Tensor:
    """relu(norm(convolution(x)) + added), the unit of which residual blocks are made."""
    if isinstance(convolution, PackedConvolution):
        return convolution(x, added, rectify=True)
    result = convolution(x)
    if norm is not None:
        result = norm(result)
    return F.relu(result if added is None else result.add_(added), inplace=True)


def convolve_part(
    convolution: nn.Conv2d, channels: slice, x: Tensor, added: Tensor | None = None, rectify: bool = False
) -> Tensor:
    """What some of the input channels bring to a convolution, plus `added`; the bias comes with the first of them."""
    if isinstance(convolution, PackedConvolution):
        return convolution.part(channels)(x, added, rectify)
    bias = convolution.bias if channels.start == 0 else None
    result = F.conv2d(x, convolution.weight[:, channels], bias, padding=convolution.padding)
    result = result if added is None else result + added
    return F.relu(result) if rectify else result


class PackedConvolution(nn.Conv2d):
    """Takes the place of a convolution with folded batch norm, in float32 on a CPU, without gradients.

    The operators are those that torch's own compiler calls, or Winograd's algorithm where that is faster. Weights are
    laid out for single images of the first one's size; any other batch goes the plain way, since a layout can be many
    times slower for another size.
    """

    def __init__(self, convolution: nn.Conv2d, rectify: bool) -> None:
        """rectify: whether a rectifier follows that is to be done here."""
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in vars(convolution).items() if not name.startswith("_")})
        self.weight, self.bias = convolution.weight, convolution.bias
        self.rectify = rectify
        self._packed: Tensor | None = None
        self._made_for: torch.Size | None = None
        self._winograd: WinogradConvolution | None = None
        self._parts: dict[tuple[int, int], PackedConvolution] = {}

    def part(self, channels: slice) -> PackedConvolution:
        """The convolution of some input channels alone, without rectifier; with the bias if they are the first."""
        key = channels.start, channels.stop
        if key not in self._parts:
            bias = self.bias is not None and channels.start == 0
            some = nn.Conv2d(channels.stop - channels.start, self.out_channels, self.kernel_size, self.stride,
                             self.padding, self.dilation, bias=bias, device="meta")
            some.weight = nn.Parameter(self.weight[:, channels].contiguous(memory_format=torch.channels_last), False)
            some.bias = self.bias if bias else None
            self._parts[key] = PackedConvolution(some, rectify=False)
        return self._parts[key]

    def forward(self, x: Tensor, added: Tensor | None = None, rectify: bool = False) -> Tensor:
        """(N, C, H, W) -> (N, O, H', W'); `added` has the shape of the result."""
        rectify = rectify or self.rectify
        shape = self.padding, self.stride, self.dilation, self.groups
        if self._made_for is None and len(x) == 1:
            self._made_for = x.shape
            if shape == ((1, 1), (1, 1), (1, 1), 1) and self.kernel_size == (3, 3) and pays(self.weight, x.shape[2:]):
                self._winograd = WinogradConvolution(self.weight, x.shape[2:])
            else:
                self._packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *shape, list(x.shape))
        if x.shape != self._made_for:
            return _finished(super().forward(x), added, rectify)
        if self._winograd is not None:
            result = self._winograd(x)
            return _finished(result.clone() if self.bias is None else result + self.bias[:, None, None], added, rectify)
        run = torch.ops.mkldnn._convolution_pointwise
        # Each of the two operators has its own word for nothing.
        if added is None:
            return run(x, self._packed, self.bias, *shape, "relu" if rectify else "none", [], "")
        return run.binary(x, added, self._packed, self.bias, *shape, "add", 1.0, "relu" if rectify else None, [], "")


def _finished(result: Tensor, added: Tensor | None, rectify: bool) -> Tensor:
    if added is not None:
        result.add_(added)
    return result.relu_() if rectify else result


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
        packed = PackedConvolution(convolution, rectify=False)
        result = convolution(x)
        pairs = (
            (packed(x, added, rectify=True), F.relu(result + added)), (packed(x, added), result + added),
            (packed(x), result),
        )
        return all(torch.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in pairs)
    except (RuntimeError, AttributeError, TypeError):
        return False
