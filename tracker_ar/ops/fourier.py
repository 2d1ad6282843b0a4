"""Real maps as Fourier series with complex coefficients.

Of a real map half the coefficients say everything: a series is (..., 2 R + 1, C + 1) complex64, for the frequencies -R
to R of rows and 0 to C of columns. The highest frequency of an even number of rows or columns counts at both ends, so
twice, as in the published trackers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def series(maps: Tensor) -> Tensor:
    """Discrete Fourier transform of (..., h, w) float32, not divided by h w: (..., 2 (h // 2) + 1, w // 2 + 1)."""
    coefficients = torch.fft.rfft2(maps)
    rows = maps.shape[-2]
    reach = rows // 2
    return torch.cat((coefficients[..., rows - reach :, :], coefficients[..., : reach + 1, :]), dim=-2)


def sample(coefficients: Tensor, size: tuple[int, int]) -> Tensor:
    """Values of a series on a grid of `size` (rows, columns) over one period: (..., rows, columns) float32.

    The grid has at least as many rows and columns as the series has frequencies, of both signs.
    """
    reach, columns = coefficients.shape[-2] // 2, coefficients.shape[-1]
    spectrum = coefficients.new_zeros(*coefficients.shape[:-2], size[0], size[1] // 2 + 1)
    spectrum[..., : reach + 1, :columns] = coefficients[..., reach:, :]
    spectrum[..., size[0] - reach :, :columns] = coefficients[..., :reach, :]
    return torch.fft.irfft2(spectrum, s=size, norm="forward")


def frequencies(rows: int, device: torch.device | None = None) -> Tensor:
    """(rows,) float32: -R to R for the 2 R + 1 rows of a series; the last R + 1 are those of its columns."""
    return torch.arange(rows, dtype=torch.float32, device=device) - rows // 2


def shift(coefficients: Tensor, offset: Tensor) -> Tensor:
    """The series (N, C, ...) of functions moved so that what was at `offset` is at the origin.

    offset: (2,) or (N, 2) float32, rows and columns, where 2 pi is the period.
    """
    rows = frequencies(coefficients.shape[-2], coefficients.device)
    columns = torch.arange(coefficients.shape[-1], dtype=torch.float32, device=coefficients.device)
    offset = offset.to(coefficients.device)[..., None, None, None]
    down, across = offset.unbind(-4)
    return coefficients * _turned(down * rows[:, None]) * _turned(across * columns)


def add(fine: Tensor, coarse: Tensor) -> Tensor:
    """The sum of two series of which the first has at least the frequencies of the second."""
    total = fine.clone()
    skipped = (fine.shape[-2] - coarse.shape[-2]) // 2
    total[..., skipped : skipped + coarse.shape[-2], : coarse.shape[-1]] += coarse
    return total


def inner_product(first: Tensor, second: Tensor) -> Tensor:
    """Of two series of real functions, over all frequencies (Parseval): a float32 scalar."""
    whole = torch.dot(_numbers(first), _numbers(second))
    return 2 * whole - torch.dot(_numbers(first[..., 0]), _numbers(second[..., 0]))


def mirrored_columns(coefficients: Tensor, count: int) -> Tensor:
    """The series with `count` columns of negative frequencies before it: those of a real function."""
    return torch.cat((coefficients[..., 1 : count + 1].flip((-2, -1)).conj(), coefficients), dim=-1)


def bicubic_kernel(cells: int, a: float) -> Tensor:
    """(cells,) complex64: the series of the cubic spline with parameter `a` that interpolates samples in the middle of
    `cells` cells (an odd number), divided by their number (C-COT, Danelljan et al. 2016, section 3.2).

    In float32, as published: at low frequencies rounding changes it by up to 0.5 %, and the filters with it.
    """
    k = frequencies(cells)
    f = k / cells
    pi = math.pi
    spline = (
        6 * (1 - torch.cos(2 * pi * f)) + 3 * a * (1 - torch.cos(4 * pi * f))
        - (6 + 8 * a) * pi * f * torch.sin(2 * pi * f) - 2 * a * pi * f * torch.sin(4 * pi * f)
    ) / (4 * pi**4 * f**4)
    spline[cells // 2] = 1
    return spline / cells * _turned(-pi / cells * k)


def gaussian_kernel(cells: int, sigma: float) -> Tensor:
    """(cells,) float32: the series of a Gaussian of height 1 at the origin; `sigma` in cells, an odd number of them."""
    k = frequencies(cells)
    return math.sqrt(2 * math.pi) * sigma / cells * torch.exp(-2 * (math.pi * sigma * k / cells) ** 2)


def _turned(angle: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(angle), angle)


def _numbers(values: Tensor) -> Tensor:
    return torch.view_as_real(values.resolve_conj()).reshape(-1)
