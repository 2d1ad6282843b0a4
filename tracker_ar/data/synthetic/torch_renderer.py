"""What `tracker_ar.data.synthetic.samples.take` makes of shots, for a batch at once, in torch.

Light, resolution, defocus and motion blur, noise, JPEG's loss, on a GPU or on a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tracker_ar.data.synthetic.photometry import NOISE, Degradation, motion_kernel
from tracker_ar.data.synthetic.render import PackedViews, pack, render
from tracker_ar.data.synthetic.samples import Shot

# The quantisation tables of the JPEG standard (ITU-T T.81, annex K): luminance and chrominance.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
)
# Red, green, blue of the file are blue, green, red of the picture, because OpenCV counts the other way round.
_TO_YCC = ((0.114, 0.587, 0.299), (0.5, -0.331264, -0.168736), (-0.081312, -0.418688, 0.5))
_BLOCK = 8


@dataclass(frozen=True)
class PackedShots:
    """N shots as tensors.

    Attributes:
        views: what they show; `sides`: float32 (N,), the side of every view.
        tables: int64 (N, 3, 256), the light.
        kernels: float32 (N, k, k), blur; a single 1 leaves a picture as it is.
        noise: float32 (N, 3), top, left and factor of a window of the noise field.
        quality: int64 (N,), of JPEG; 0 for none.
        grey, mirrored: bool (N,).
    """

    views: PackedViews
    sides: Tensor
    tables: Tensor
    kernels: Tensor
    noise: Tensor
    quality: Tensor
    grey: Tensor
    mirrored: Tensor

    def to(self, device: torch.device) -> PackedShots:
        """The shots on a device."""
        values = (getattr(self, name).to(device) for name in self.__dataclass_fields__)
        return PackedShots(*values)


def pack_shots(shots: Sequence[Shot], size: int) -> PackedShots:
    """Collect a batch of shots that are enlarged to `size`."""
    degradations = [shot.degradation for shot in shots]
    return PackedShots(
        views=pack([shot.view for shot in shots], size),
        sides=torch.tensor([float(shot.view.side) for shot in shots]),
        tables=torch.from_numpy(np.stack([shot.tone[0].T for shot in shots]).astype(np.int64)),
        kernels=torch.from_numpy(_kernels(degradations)),
        noise=torch.tensor([change.noise or (0, 0, 0.0) for change in degradations], dtype=torch.float32),
        quality=torch.tensor([change.quality or 0 for change in degradations]),
        grey=torch.tensor([shot.grey for shot in shots]),
        mirrored=torch.tensor([shot.mirrored for shot in shots]),
    )


@torch.no_grad()
def take_shots(packed: PackedShots) -> tuple[Tensor, Tensor]:
    """The pictures, RGB uint8 (N, S, S, 3), and the target's masks, uint8 {0, 1} (N, S, S)."""
    pixels, masks = render(packed.views)
    pixels = packed.tables.gather(2, pixels.long().flatten(2)).unflatten(2, pixels.shape[2:]).float()
    pixels = _noisy(_blurred(pixels, packed.kernels), packed)
    lossy = packed.quality > 0
    if lossy.any():
        pixels[lossy] = compressed(pixels[lossy], packed.quality[lossy])
    pixels, masks = _enlarged(pixels, masks, packed.sides)
    luminance = (pixels * pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    pixels = torch.where(packed.grey[:, None, None, None], luminance, pixels)
    pixels = torch.where(packed.mirrored[:, None, None, None], pixels.flip(3), pixels)
    masks = torch.where(packed.mirrored[:, None, None], masks.flip(2), masks)
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous(), masks


def compressed(pixels: Tensor, quality: Tensor) -> Tensor:
    """What JPEG with halved chrominance leaves of float (N, 3, H, W), 0 to 255; quality int (N,), from 1."""
    count, _, height, width = pixels.shape
    step = 2 * _BLOCK
    padded = F.pad(pixels, (0, -width % step, 0, -height % step), mode="replicate")
    to_ycc = pixels.new_tensor(_TO_YCC)
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, padded)
    # libjpeg's rule for the tables of a quality.
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = torch.tensor((_LUMINANCE, _CHROMINANCE), device=pixels.device).view(2, 1, _BLOCK, _BLOCK)
    tables = ((tables * scale.view(1, -1, 1, 1) + 50) // 100).clamp(1, 255).float()
    luminance = _quantised(ycc[:, :1] - 128.0, tables[0]) + 128.0
    coarse = _quantised(F.avg_pool2d(ycc[:, 1:], 2), tables[1])
    chrominance = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    back = torch.linalg.inv(to_ycc)
    found = torch.einsum("ij,njhw->nihw", back, torch.cat((luminance, chrominance), 1))
    return found[:, :, :height, :width].round().clamp(0, 255)


def _quantised(planes: Tensor, tables: Tensor) -> Tensor:
    """Round the cosine coefficients of 8 x 8 blocks to multiples: planes (N, C, H, W), tables (N, 8, 8)."""
    numbers = torch.arange(_BLOCK, dtype=torch.float64)
    basis = torch.cos((2 * numbers + 1) * numbers[:, None] * torch.pi / (2 * _BLOCK)) * 0.5
    basis[0] *= 0.5**0.5
    basis = basis.to(planes.device, planes.dtype)
    blocks = planes.unflatten(3, (-1, _BLOCK)).unflatten(2, (-1, _BLOCK)).transpose(3, 4)
    table = tables[:, None, None, None]
    coefficients = (basis @ blocks @ basis.T / table).round() * table
    return (basis.T @ coefficients @ basis).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _blurred(pixels: Tensor, kernels: Tensor) -> Tensor:
    reach = kernels.shape[-1] // 2
    blurry = kernels[:, reach, reach] < 1.0
    if reach == 0 or not blurry.any():
        return pixels
    chosen = F.pad(pixels[blurry], [reach] * 4, mode="reflect")
    weights = kernels[blurry].repeat_interleave(3, 0)[:, None]
    groups = chosen.flatten(0, 1)[None]
    found = F.conv2d(groups, weights, groups=groups.shape[1])[0].unflatten(0, (-1, 3))
    pixels[blurry] = found.round()
    return pixels


def _noisy(pixels: Tensor, packed: PackedShots) -> Tensor:
    noisy = packed.noise[:, 2] > 0
    if not noisy.any():
        return pixels
    field = torch.from_numpy(NOISE).to(pixels.device)
    places = torch.arange(pixels.shape[-1], device=pixels.device)
    top, left, factor = packed.noise[noisy].unbind(1)
    rows = (top.long()[:, None] + places) % len(field)
    columns = (left.long()[:, None] + places) % len(field)
    windows = field[rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2) * factor.view(-1, 1, 1, 1)
    pixels[noisy] = (pixels[noisy] + windows.trunc()).clamp(0, 255)
    return pixels


def _enlarged(pixels: Tensor, masks: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch the upper left part of every picture, `sides` wide, over the whole of it."""
    size = pixels.shape[-1]
    small = sides < size
    if not small.any():
        return pixels, masks
    side = sides[small][:, None]
    middles = (torch.arange(size, device=pixels.device) + 0.5) * side / size
    inside = torch.minimum(middles.clamp(min=0.5), side - 0.5) / size * 2.0 - 1.0
    grid = torch.stack((inside[:, None, :].expand(-1, size, -1), inside[:, :, None].expand(-1, -1, size)), -1)
    both = torch.cat((pixels[small], masks[small][:, None] * 255.0), 1)
    stretched = F.grid_sample(both, grid, mode="bilinear", padding_mode="border", align_corners=False).round()
    pixels[small] = stretched[:, :3]
    masks[small] = (stretched[:, 3] > 127).to(masks.dtype)
    return pixels, masks


def _kernels(degradations: Sequence[Degradation]) -> np.ndarray:
    """Blurs as kernels of one odd size, float32 (N, k, k)."""
    single = [_kernel(change) for change in degradations]
    size = max(len(kernel) for kernel in single)
    size += 1 - size % 2
    kernels = np.zeros((len(single), size, size), np.float32)
    for kernel, place in zip(single, kernels):
        # cv2 centres a kernel of even size on the pixel after its middle.
        start = size // 2 - len(kernel) // 2
        place[start : start + len(kernel), start : start + len(kernel)] = kernel
    return kernels


def _kernel(change: Degradation) -> np.ndarray:
    if change.motion is not None:
        return motion_kernel(*change.motion)
    if change.defocus is None:
        return np.ones((1, 1), np.float32)
    # The size that OpenCV gives to a Gaussian over bytes.
    size = round(change.defocus * 6 + 1) | 1
    line = cv2.getGaussianKernel(size, change.defocus, cv2.CV_32F)
    return line @ line.T
