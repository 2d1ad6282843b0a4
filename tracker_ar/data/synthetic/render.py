"""The pictures of `Scene.render` for a batch of views at once, in torch: on a GPU, or on a processor.

Drawing a scene (numpy, cheap) and rendering it are apart: `pack` collects what a batch of views shows into a
few tensors, in a worker process if need be, and `render` turns them into pictures on the device they are on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tracker_ar.data.synthetic.scene import Layer, Scene, frame_in_window, layer_bounds, shrunk_size, window_matrix

_BEND_CELLS = 5


@dataclass(frozen=True)
class View:
    """A window of one frame of a scene: `region` (x0, y0, x1, y1), stretched to side x side pixels.

    `border` is OpenCV's mode for what lies beyond the frame: BORDER_REPLICATE or BORDER_CONSTANT (black).
    """

    scene: Scene
    frame: int
    region: tuple[float, float, float, float]
    side: int
    border: int


@dataclass(frozen=True)
class Slot:
    """At most one layer of each view, n in all, padded to one size.

    Attributes:
        views: int64 (n,), which views of the batch.
        pixels: uint8 (n, H, W, 3). alpha: uint8 (n, H, W).
        origin, extent: float32 (n, 2), x and y: where the stored part begins, the size of the whole layer.
        inverse: float32 (n, 3, 3), window to layer coordinates.
        bounds: float32 (n, 4), left, top, right, bottom of the layer in the view.
        rows, columns: int64 (n, h), (n, w), the part of the view that is drawn: all parts are equally large.
        tables: int64 (n, 3, 256), the tone.
        bends: float32 (n, 2, 5, 5), displacements, and cells: float32 (n,), how many of the five count.
        paints, targets, reflects: bool (n,): it has pixels; it is the target; it is a background, which
            goes on mirrored beyond its edge.
    """

    views: Tensor
    pixels: Tensor
    alpha: Tensor
    origin: Tensor
    extent: Tensor
    inverse: Tensor
    bounds: Tensor
    rows: Tensor
    columns: Tensor
    tables: Tensor
    bends: Tensor
    cells: Tensor
    paints: Tensor
    targets: Tensor
    reflects: Tensor

    def to(self, device: torch.device) -> Slot:
        """The slot on a device."""
        tensors = (getattr(self, name) for name in self.__dataclass_fields__)
        return Slot(*(tensor.to(device, non_blocking=True) for tensor in tensors))


@dataclass(frozen=True)
class PackedViews:
    """What N views show, back to front.

    Attributes:
        size: side of the result; views with a smaller side fill its upper left part, and repeat their edge.
        frames: int64 (N, 4), left, top, right, bottom of the video frame in each view.
        black: bool (N,), whether it is black beyond the frame.
    """

    slots: list[Slot]
    size: int
    frames: Tensor
    black: Tensor

    def to(self, device: torch.device) -> PackedViews:
        """The views on a device."""
        slots = [slot.to(device) for slot in self.slots]
        frames, black = self.frames.to(device, non_blocking=True), self.black.to(device, non_blocking=True)
        return PackedViews(slots, self.size, frames, black)


@dataclass(frozen=True)
class _Piece:
    """One layer of one view, on its way into a slot."""

    view: int
    pixels: np.ndarray | None
    alpha: np.ndarray | None
    origin: tuple[int, int]
    extent: tuple[int, int]
    inverse: np.ndarray
    bounds: tuple[float, float, float, float]
    tone: np.ndarray | None
    bend: np.ndarray | None
    is_target: bool

    @property
    def shape(self) -> tuple[int, int]:
        found = self.pixels if self.pixels is not None else self.alpha
        assert found is not None
        return found.shape[0], found.shape[1]


def pack(views: Sequence[View], size: int) -> PackedViews:
    """Collect the layers that the views show; layers are averaged down first where they would alias.

    Args:
        size: side of the pictures, at least that of every view.
    """
    columns: list[list[_Piece]] = []
    frames = []
    for number, view in enumerate(views):
        window = (view.side, view.side)
        to_window = window_matrix(view.region, window)
        frames.append(frame_in_window(to_window, view.scene.frame_size, window))
        pieces = [_piece(number, layer, view, to_window) for layer in view.scene.layers]
        for depth, piece in enumerate(piece for piece in pieces if piece is not None):
            if depth == len(columns):
                columns.append([])
            columns[depth].append(piece)
    black = torch.tensor([view.border == cv2.BORDER_CONSTANT for view in views])
    return PackedViews([_slot(column, size) for column in columns], size, torch.tensor(frames), black)


@torch.no_grad()
def render(packed: PackedViews) -> tuple[Tensor, Tensor]:
    """Draw the views.

    Returns:
        float32 (N, 3, S, S) of whole numbers 0 to 255, RGB, and the visible target, uint8 {0, 1} (N, S, S).
    """
    count, size, device = len(packed.frames), packed.size, packed.frames.device
    canvas = torch.zeros(count, size, size, 3, device=device)
    label = torch.zeros(count, size, size, dtype=torch.bool, device=device)
    for slot in packed.slots:
        pixels, alpha = _drawn(slot)
        opaque = alpha > 127
        place = slot.views[:, None, None], slot.rows[:, :, None], slot.columns[:, None, :]
        # An opaque target marks its pixels, and anything opaque before it takes them away again.
        label[place] = torch.where(opaque, slot.targets[:, None, None], label[place])
        weight = (alpha / 255.0 * slot.paints[:, None, None])[..., None]
        canvas[place] = torch.lerp(canvas[place], pixels, weight).round()
    canvas = canvas.permute(0, 3, 1, 2)
    return _beyond_frames(packed, canvas, label)


def _piece(number: int, layer: Layer, view: View, to_window: np.ndarray) -> _Piece | None:
    """What a view shows of a layer, or None."""
    matrix = to_window @ layer.matrices[view.frame]
    pixels = None if layer.pixels is None else layer.pixels[view.frame]
    alpha = None if layer.alpha is None else layer.alpha[view.frame]
    shape = (pixels if alpha is None else alpha).shape[:2]  # type: ignore[union-attr]
    side = float(view.side)
    bounds = (0.0, 0.0, side, side)
    if alpha is not None:
        left, top, right, bottom = layer_bounds(shape, matrix)
        bounds = np.floor(left), np.floor(top), np.ceil(right), np.ceil(bottom)
        if right <= 0 or bottom <= 0 or left >= side or top >= side:
            return None
    bend = None if layer.bends is None else layer.bends[view.frame]
    height, width = shrunk_size(shape, matrix)
    if (height, width) != shape:
        zoom = np.array([width / shape[1], height / shape[0]])
        matrix = matrix @ np.diag([1 / zoom[0], 1 / zoom[1], 1.0])
        bend = None if bend is None else bend * zoom[:, None, None].astype(np.float32)
        pixels, alpha = (
            None if one is None else cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA)
            for one in (pixels, alpha)
        )
    inverse = np.linalg.inv(matrix)
    origin = (0, 0)
    if bend is None:
        origin, stop = _shown(inverse, side, (height, width), alpha is None)
        rows, columns = slice(origin[1], stop[1]), slice(origin[0], stop[0])
        pixels, alpha = (None if one is None else one[rows, columns] for one in (pixels, alpha))
    tone = layer.tones[view.frame] if layer.tones else None
    return _Piece(
        number, pixels, alpha, origin, (width, height), inverse, bounds, tone, bend, layer.is_target
    )


def _shown(
    inverse: np.ndarray, side: float, shape: tuple[int, int], reflects: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last x and y of the part of a layer that a window shows, also mirrored beyond its edge."""
    limit = np.array(shape[::-1])
    whole = (0, 0), (int(limit[0]), int(limit[1]))
    corners = inverse @ np.array([[0, side, side, 0], [0, 0, side, side], [1, 1, 1, 1.0]])
    if corners[2].min() <= 0:
        return whole
    points = corners[:2] / corners[2]
    first, last = np.floor(points.min(1)).astype(int) - 2, np.ceil(points.max(1)).astype(int) + 2
    start, stop = np.clip(first, 0, limit - 1), np.clip(last, 1, limit)
    if reflects:
        if (-first >= limit).any() or (last >= 2 * limit).any():
            return whole
        start = np.where(last > limit, np.minimum(start, np.maximum(0, 2 * limit - last - 2)), start)
        stop = np.where(first < 0, np.maximum(stop, np.minimum(limit, 2 - first)), stop)
    return (int(start[0]), int(start[1])), (int(stop[0]), int(stop[1]))


def _slot(pieces: list[_Piece], size: int) -> Slot:
    count = len(pieces)
    height, width = (max(piece.shape[axis] for piece in pieces) for axis in range(2))
    pixels = np.zeros((count, height, width, 3), np.uint8)
    alpha = np.zeros((count, height, width), np.uint8)
    drawn = [_places([(piece.bounds[axis], piece.bounds[axis + 2]) for piece in pieces], size) for axis in (1, 0)]
    tables = np.tile(np.arange(256), (count, 3, 1))
    bends = np.zeros((count, 2, _BEND_CELLS, _BEND_CELLS), np.float32)
    cells = np.full(count, _BEND_CELLS, np.float32)
    for number, piece in enumerate(pieces):
        rows, columns = piece.shape
        alpha[number, :rows, :columns] = 255 if piece.alpha is None else piece.alpha
        if piece.pixels is not None:
            pixels[number, :rows, :columns] = piece.pixels
        if piece.tone is not None:
            tables[number] = piece.tone[0].T
        if piece.bend is not None:
            cells[number] = side = piece.bend.shape[-1]
            bends[number] = np.pad(piece.bend, ((0, 0), *[(0, _BEND_CELLS - side)] * 2), mode="edge")
    return Slot(
        views=torch.tensor([piece.view for piece in pieces]),
        pixels=torch.from_numpy(pixels),
        alpha=torch.from_numpy(alpha),
        origin=torch.tensor([piece.origin for piece in pieces], dtype=torch.float32),
        extent=torch.tensor([piece.extent for piece in pieces], dtype=torch.float32),
        inverse=torch.from_numpy(np.stack([piece.inverse for piece in pieces]).astype(np.float32)),
        bounds=torch.tensor([piece.bounds for piece in pieces], dtype=torch.float32),
        rows=torch.from_numpy(drawn[0]),
        columns=torch.from_numpy(drawn[1]),
        tables=torch.from_numpy(tables),
        bends=torch.from_numpy(bends),
        cells=torch.from_numpy(cells),
        paints=torch.tensor([piece.pixels is not None for piece in pieces]),
        targets=torch.tensor([piece.is_target for piece in pieces]),
        reflects=torch.tensor([piece.alpha is None for piece in pieces]),
    )


def _places(ranges: list[tuple[float, float]], size: int) -> np.ndarray:
    """Equally many places along one axis that hold every range (start, stop), as far as it is in the view."""
    starts, stops = np.clip(np.array(ranges), 0, size).astype(np.int64).T
    length = max(1, int((stops - starts).max()))
    return np.minimum(starts, size - length)[:, None] + np.arange(length)


def _drawn(slot: Slot) -> tuple[Tensor, Tensor]:
    """Pixels (n, h, w, 3) and alpha (n, h, w) of what a slot draws, whole numbers 0 to 255."""
    points, outside = _layer_points(slot)
    count, height, width = slot.alpha.shape
    stored = points.new_tensor([width, height])
    extent, origin = (value[:, None, None] for value in (slot.extent, slot.origin))
    # The edge repeats, or a background goes on mirrored about its outermost pixels.
    clamped = torch.minimum(points.clamp(min=0.5), extent - 0.5)
    period = (2.0 * (extent - 1.0)).clamp(min=1.0)
    folded = (points - 0.5).remainder(period)
    mirrored = torch.minimum(folded, period - folded) + 0.5
    inside = torch.where(slot.reflects[:, None, None, None], mirrored, clamped)
    grid = (inside - origin) / stored * 2.0 - 1.0
    stored_pixels = slot.pixels.permute(0, 3, 1, 2).float()
    pixels = F.grid_sample(stored_pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    whole = pixels.round().long().clamp(0, 255).flatten(2)
    toned = slot.tables.gather(2, whole).unflatten(2, pixels.shape[2:]).float().permute(0, 2, 3, 1)
    grid = (points - origin) / stored * 2.0 - 1.0
    alpha = F.grid_sample(
        slot.alpha[:, None].float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )[:, 0].round()
    alpha = torch.where(slot.reflects[:, None, None], 255.0, alpha.masked_fill(outside, 0.0))
    return toned, alpha


def _layer_points(slot: Slot) -> tuple[Tensor, Tensor]:
    """Layer coordinates (n, h, w, 2) of the drawn pixels, bent; and where the layer does not reach."""
    x, y = torch.broadcast_tensors(slot.columns[:, None, :] + 0.5, slot.rows[:, :, None] + 0.5)
    homogeneous = torch.stack((x, y, torch.ones_like(x)), -1)
    mapped = homogeneous.flatten(1, 2) @ slot.inverse.transpose(1, 2)
    points = (mapped[..., :2] / mapped[..., 2:]).unflatten(1, x.shape[1:])
    left, top, right, bottom = (slot.bounds[:, index, None, None] for index in range(4))
    outside = (x < left) | (x > right) | (y < top) | (y > bottom)
    if not slot.bends.any():
        return points, outside
    extent = slot.extent[:, None, None]
    share = (points / extent).clamp(0.0, 1.0)
    grid = share * slot.cells[:, None, None, None] / _BEND_CELLS * 2.0 - 1.0
    shift = F.grid_sample(slot.bends, grid, mode="bicubic", padding_mode="border", align_corners=False)
    bent = slot.bends.flatten(1).any(1)[:, None, None]
    # A bent layer ends where the straight one does.
    outside = outside | bent & ((points < 0) | (points > extent)).any(-1)
    return points + shift.permute(0, 2, 3, 1) * bent[..., None], outside


def _beyond_frames(packed: PackedViews, canvas: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat the edge of the video frame, or blacken what is beyond it; no target there."""
    places = torch.arange(packed.size, device=canvas.device)
    left, top, right, bottom = packed.frames[:, :, None].unbind(1)
    rows, columns = places.clamp(top, bottom - 1), places.clamp(left, right - 1)
    views = torch.arange(len(canvas), device=canvas.device)[:, None, None]
    inside = (rows == places)[:, :, None] & (columns == places)[:, None, :]
    canvas = canvas.permute(0, 2, 3, 1)[views, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    shown = inside | ~packed.black[:, None, None]
    return canvas * shown[:, None], (label & inside).to(torch.uint8)
