"""3 x 3 convolutions with a quarter of the multiplications: "Fast Algorithms for Convolutional Neural Networks" (Lavin
and Gray 2016), section 4.1, here with tiles of 4 x 4 results, F(4 x 4, 3 x 3).

Tiles of 6 x 6 cells and filters are transformed so that convolving becomes 36 matrix products over the channels, which a
CPU's matrix library computes as fast as a direct convolution does its own, larger arithmetic. Transforming costs passes
over the memory: it pays where there are many channels. Results differ from the direct ones by rounding, about 1e-5 of
the largest value.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

TILE, READ = 4, 6  # cells that a tile gives along each axis, and that it reads
# With few channels the passes over the memory cost more than they save; with few tiles the transformed filters do, which
# are four times as large as the filters and have to be read for every map.
FEWEST_CHANNELS, FEWEST_TILES = 128, 36

# The transforms for the points 0, 1, -1, 2, -2 and infinity, along one axis.
OF_TILE = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)
OF_FILTER = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)
OF_RESULT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def pays(weight: Tensor, size: torch.Size) -> bool:
    """Whether it is faster than a direct convolution with the filters (O, C, 3, 3) over a map of `size` (H, W)."""
    tiles = -(-size[0] // TILE) * -(-size[1] // TILE)
    return min(weight.shape[:2]) >= FEWEST_CHANNELS and tiles >= FEWEST_TILES


class WinogradConvolution:
    """A 3 x 3 convolution of stride 1 with zero padding of one, of single float32 images of one size."""

    def __init__(self, weight: Tensor, size: torch.Size) -> None:
        """weight: (O, C, 3, 3); size: (H, W) of the maps."""
        self._size = size
        self._tiles = -(-size[0] // TILE), -(-size[1] // TILE)
        filters = weight.detach().permute(2, 3, 1, 0).reshape(9, -1).double()
        transformed = (_both_axes(OF_FILTER) @ filters).to(weight.dtype)
        self._filters = transformed.view(READ * READ, weight.shape[1], weight.shape[0])
        self._of_tile, self._of_result = (_both_axes(matrix).to(weight.dtype) for matrix in (OF_TILE, OF_RESULT))
        # Of channels, columns and rows, as `F.pad` takes them.
        self._padding = [0, 0, *(side for cells, tiles in zip(size[::-1], self._tiles[::-1])
                                 for side in (1, TILE * tiles + 1 - cells))]

    def __call__(self, x: Tensor) -> Tensor:
        """(1, C, H, W) -> (1, O, H, W), without bias; the channels are innermost, but cells may lie apart."""
        (height, width), (down, across) = self._size, self._tiles
        padded = F.pad(x[0].permute(1, 2, 0), self._padding).contiguous()
        row, cell, _ = padded.stride()
        overlapping = padded.as_strided((READ, READ, down, across, cell), (row, cell, TILE * row, TILE * cell, 1))
        tiles = (self._of_tile @ overlapping.reshape(READ * READ, -1)).view(READ * READ, down * across, -1)
        products = torch.bmm(tiles, self._filters)
        results = (self._of_result @ products.flatten(1)).view(TILE, TILE, down, across, -1)
        whole = results.permute(2, 0, 3, 1, 4).reshape(TILE * down, TILE * across, -1)
        return whole[:height, :width].permute(2, 0, 1)[None]


@lru_cache(maxsize=None)
def _both_axes(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """The transform of both axes of a square at once, on squares laid out row by row; float64."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one)
