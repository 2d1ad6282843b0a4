"""Convolutions as tracking runs them on a CPU: weights laid out once, and what follows done in the same pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracker_ar.ops.winograd import WinogradConvolution, pays

# Multiply-accumulates up to which a 1 x 1 convolution is faster as a matrix product, and any other one left to torch.
LARGEST_PRODUCT, LARGEST_PLAIN = 2_000_000, 2_500_000
# With fewer channels torch's own way is the slower one all the same.
FEWEST_PLAIN_CHANNELS = 8


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

    Of four ways the one that is fastest for the size of the maps: the fused operators that torch's own compiler calls,
    Winograd's algorithm, a matrix product, torch's plain convolution. Weights are laid out for single images of the first
    one's size; any other batch goes the plain way, since a layout can be many times slower for another size.
    """

    def __init__(self, convolution: nn.Conv2d, rectify: bool, highest: float | None = None) -> None:
        """rectify: whether a rectifier follows that is to be done here; highest: the value it ends at, if any."""
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in vars(convolution).items() if not name.startswith("_")})
        self.weight, self.bias = convolution.weight, convolution.bias
        self.rectify, self.highest = rectify, highest
        self._made_for: torch.Size | None = None
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
        if self._made_for is None and len(x) == 1:
            self._made_for, self._run = x.shape, self._fastest(x)
        run = self._run if x.shape == self._made_for else self._plainly
        return run(x, added, rectify or self.rectify)

    def _fastest(self, x: Tensor) -> Callable[[Tensor, Tensor | None, bool], Tensor]:
        """The way for maps of the shape of `x`; what it needs is laid out here.

        A call of torch's fused operator takes some 50 to 90 microseconds beside its arithmetic: much for a small map.
        """
        rows, columns = (-(-side // stride) for side, stride in zip(x.shape[2:], self.stride))
        work = self.weight.numel() * rows * columns
        if self.kernel_size == (1, 1):
            if work <= LARGEST_PRODUCT and self.padding == (0, 0) and self.groups == 1:
                self._matrix = self.weight.flatten(1).T.contiguous()
                return self._as_product
        elif work <= LARGEST_PLAIN and self.in_channels >= FEWEST_PLAIN_CHANNELS:
            return self._plainly
        elif self._is_common_3x3() and pays(self.weight, x.shape[2:]):
            self._winograd = WinogradConvolution(self.weight, x.shape[2:])
            return self._by_winograd
        return self._fusing(x)

    def _is_common_3x3(self) -> bool:
        ones = self.padding == self.stride == self.dilation == (1, 1)
        return ones and self.groups == 1 and self.kernel_size == (3, 3)

    def _fusing(self, x: Tensor) -> Callable[[Tensor, Tensor | None, bool], Tensor]:
        shape = self.padding, self.stride, self.dilation, self.groups
        self._packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *shape, list(x.shape))
        return self._fused

    def _plainly(self, x: Tensor, added: Tensor | None, rectify: bool) -> Tensor:
        return self._finished(super().forward(x), added, rectify)

    def _as_product(self, x: Tensor, added: Tensor | None, rectify: bool) -> Tensor:
        """Of one cell each."""
        cells = x[0, :, :: self.stride[0], :: self.stride[1]].permute(1, 2, 0)
        rows = cells.reshape(-1, self.in_channels)
        result = rows @ self._matrix if self.bias is None else torch.addmm(self.bias, rows, self._matrix)
        return self._finished(result.view(1, *cells.shape[:2], -1).permute(0, 3, 1, 2), added, rectify)

    def _by_winograd(self, x: Tensor, added: Tensor | None, rectify: bool) -> Tensor:
        result = self._winograd(x)
        return self._finished(result.clone() if self.bias is None else result + self.bias[:, None, None], added, rectify)

    def _fused(self, x: Tensor, added: Tensor | None, rectify: bool) -> Tensor:
        """By the operators that torch's own compiler calls."""
        run = torch.ops.mkldnn._convolution_pointwise
        shape = self.padding, self.stride, self.dilation, self.groups
        # Each of the two operators has its own word for nothing.
        if added is None:
            if rectify and self.highest is not None:
                return run(x, self._packed, self.bias, *shape, "hardtanh", [0.0, self.highest], "")
            return run(x, self._packed, self.bias, *shape, "relu" if rectify else "none", [], "")
        return run.binary(x, added, self._packed, self.bias, *shape, "add", 1.0, "relu" if rectify else None, [], "")


    def _finished(self, result: Tensor, added: Tensor | None, rectify: bool) -> Tensor:
        if added is not None:
            result.add_(added)
        if rectify and self.highest is not None:
            return result.clamp_(0.0, self.highest)
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
        fused = PackedConvolution(convolution, rectify=False)._fusing(x)
        result = convolution(x)
        pairs = (
            (fused(x, added, True), F.relu(result + added)), (fused(x, added, False), result + added),
            (fused(x, None, False), result),
            (PackedConvolution(convolution, rectify=False, highest=0.1)._fusing(x)(x, None, True), result.clamp(0.0, 0.1)),
        )
        return all(torch.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in pairs)
    except (RuntimeError, AttributeError, TypeError):
        return False
