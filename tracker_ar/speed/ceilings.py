"""What a machine can do at best, measured: large convolutions, matrix products and copies.

A stage of the tracker is judged by its fraction of these rates, which carries over between machines, as times do
not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """How large the measured operations are: `channels` of a square 3 x 3 convolution over `batch` maps of
    `side` x `side` cells, rows of square matrices, megabytes to copy; `repeats` of each, of which the fastest
    counts."""

    batch: int
    channels: int
    side: int
    rows: int
    megabytes: int
    repeats: int


ON_CPU = Sizes(batch=1, channels=256, side=88, rows=1536, megabytes=256, repeats=8)
ON_GPU = Sizes(batch=16, channels=256, side=128, rows=8192, megabytes=2048, repeats=20)


def measure_ceilings(device: torch.device, sizes: Sizes | None = None) -> dict[str, float]:
    """Rates in FLOP/s, a multiplication and an addition being two, and for 'bandwidth' in bytes/s read and
    written.

    'convolution float32', 'product float32' and 'bandwidth'; on a GPU also 'half' (float16) in place of 'float32'.
    With the threads that torch uses at the moment, and TF32 where torch is set to it.
    """
    sizes = sizes or (ON_GPU if device.type == "cuda" else ON_CPU)
    rates: dict[str, float] = {}
    precisions = ("float32", "half") if device.type == "cuda" else ("float32",)
    with torch.inference_mode():
        for precision in precisions:
            dtype = torch.float16 if precision == "half" else torch.float32
            rates[f"convolution {precision}"] = _convolution_rate(device, dtype, sizes)
            rates[f"product {precision}"] = _product_rate(device, dtype, sizes)
        rates["bandwidth"] = _copy_rate(device, sizes)
    return rates


def fastest(*runs: dict[str, float]) -> dict[str, float]:
    """Of several measurements the highest rates: what slows a ceiling down is never the ceiling."""
    return {name: max(run[name] for run in runs) for name in runs[0]}


def wait_for(device: torch.device) -> None:
    """Until everything that was launched is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _convolution_rate(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> float:
    """The better of both memory layouts."""
    images = torch.randn(sizes.batch, sizes.channels, sizes.side, sizes.side, device=device, dtype=dtype)
    weight = torch.randn(sizes.channels, sizes.channels, 3, 3, device=device, dtype=dtype)
    operations = 2 * 9 * images.numel() * sizes.channels
    seconds = []
    for layout in (torch.contiguous_format, torch.channels_last):
        convolve = partial(F.conv2d, images.to(memory_format=layout), weight.to(memory_format=layout), padding=1)
        seconds.append(_fastest_run(convolve, device, sizes.repeats))
    return operations / min(seconds)


def _product_rate(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> float:
    left, right = (torch.randn(sizes.rows, sizes.rows, device=device, dtype=dtype) for _ in range(2))
    return 2 * sizes.rows**3 / _fastest_run(lambda: left @ right, device, sizes.repeats)


def _copy_rate(device: torch.device, sizes: Sizes) -> float:
    source = torch.ones(sizes.megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest_run(lambda: target.copy_(source), device, sizes.repeats)


def _fastest_run(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs, after one that prepares."""
    work()
    seconds = []
    for _ in range(repeats):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
