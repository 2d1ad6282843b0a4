"""The corner branch of Alpha-Refine: heat maps of the box's two corners, and where they are expected.

"Alpha-Refine: Boosting Tracking Performance by Precise Bounding Box Estimation" (Yan et al. 2021), section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CORNERS = ("tl", "br")  # top left, bottom right
WIDTHS = (256, 128, 64, 32)
SURE_WITHIN = 16.0  # pixels of the crop: heat this close to a corner speaks for it


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """Convolution of the map's own size, batch norm, ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class CornerHead(nn.Module):
    """One tower of convolutions per corner, a softmax over its map, and the mean place under it.

    size: side in pixels of the crop. enlarge: double the map after each of the first four convolutions, so that a cell
    is a pixel (2020); without, cells are `stride` pixels apart, the first one at 0 (2021).
    """

    def __init__(self, channels: int, enlarge: bool, size: int = 256, stride: int = 16) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.size, self.stride = size, 1 if enlarge else stride
        for corner in CORNERS:
            widths = (channels, *WIDTHS)
            for number, (before, after) in enumerate(zip(widths, widths[1:]), 1):
                self.add_module(f"conv{number}_{corner}", conv_norm_relu(before, after))
            self.add_module(f"conv5_{corner}", nn.Conv2d(WIDTHS[-1], 1, 1))

    def heat(self, fused: Tensor, corner: str) -> Tensor:
        """Probabilities of a corner, 'tl' or 'br', (N, h * w) row by row, of the neck's output (N, C, 16, 16)."""
        x = fused
        for number in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"conv{number}_{corner}")(x)
            if number == len(WIDTHS):
                # A 1 x 1 convolution and interpolation can change places; one channel is enlarged faster than 32.
                x = getattr(self, f"conv5_{corner}")(x)
            if self.enlarge:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.softmax(x.flatten(1), dim=1)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """The neck's output (N, C, 16, 16) -> corners (N, 4) x1, y1, x2, y2 in pixels of the crop, not necessarily in
        that order, and (N,) how sure they are: of the less certain corner, how much of its heat lies near it."""
        side = self.size // self.stride
        line = torch.arange(side, dtype=fused.dtype, device=fused.device) * self.stride
        columns, rows = line.repeat(side), line.repeat_interleave(side)
        places, near = [], []
        for corner in CORNERS:
            heat = self.heat(fused, corner)
            x, y = (heat * columns).sum(1, keepdim=True), (heat * rows).sum(1, keepdim=True)
            far = torch.maximum((columns - x).abs(), (rows - y).abs())
            places += [x, y]
            near.append((heat * (far <= SURE_WITHIN)).sum(1))
        return torch.cat(places, dim=1), torch.minimum(*near)
