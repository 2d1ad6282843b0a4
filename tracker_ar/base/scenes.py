"""Scenes: parts of an image that RT-MDNet's convolutions see at once, in which the target is a square of fixed size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracker_ar.models.mdnet import FEATURES, RECEPTIVE_FIELD, SMALLEST_SCENE, MDNet, pooled_features
from tracker_ar.ops.roi_align import roi_samples
from tracker_ar.trace import note, stage


@dataclass(frozen=True)
class SceneSettings:
    """RT-MDNet's values (`external/RT_MDNet/options.py`)."""

    object_size: int = 107  # pixels of the scene that the target's sides become
    padding: float = 1.2  # sides of a box that are looked at
    # Ours: narrower targets count as so wide, which bounds the size of scenes.
    largest_aspect_ratio: float = 16.0


@dataclass(frozen=True)
class Scene:
    """corner: (x, y) in image pixels; zoom: scene pixels per image pixel, (2,) float64; padding: see `SceneSettings`;
    features: (1, 512, h, w)."""

    corner: np.ndarray
    zoom: np.ndarray
    padding: float
    features: Tensor

    def pooled(self, boxes: np.ndarray) -> Tensor:
        """(N, 4) float32 boxes x, y, w, h in image pixels -> (N, 4608) features."""
        if len(boxes) == 0:
            return self.features.new_empty(0, FEATURES)
        edges = scene_edges(boxes, self.corner, self.zoom, self.padding)
        return pooled_features(self.features, torch.from_numpy(edges).to(self.features.device))


def scene_edges(boxes: np.ndarray, corner: np.ndarray, zoom: np.ndarray, padding: float) -> np.ndarray:
    """(N, 4) float32 x1, y1, x2, y2 in pixels of the scene, the latter two less the receptive field, of padded boxes
    (N, 4) float32 x, y, w, h in image pixels. corner, zoom: see `Scene`."""
    # Rounded to float32 after every step, as the authors' are.
    edges = boxes.copy()
    edges[:, :2] -= corner
    edges[:, 2:] += edges[:, :2]
    margins = (edges[:, 2:] - edges[:, :2]) * (padding - 1) / 2
    edges[:, :2] -= margins
    edges[:, 2:] += margins
    edges[:, :2] *= zoom
    edges[:, 2:] = np.maximum(edges[:, :2] + 1, edges[:, 2:] * zoom - RECEPTIVE_FIELD)
    return edges


def object_sides(box: np.ndarray, settings: SceneSettings) -> np.ndarray:
    """(width, height) of a box x, y, w, h as scenes count it, float64 image pixels: at least 1, and not too narrow."""
    return np.maximum(box[2:], max(1.0, box[2:].max() / settings.largest_aspect_ratio)).astype(np.float64)


def around(boxes: np.ndarray, settings: SceneSettings) -> np.ndarray:
    """(4,) float32 x, y, w, h of the smallest part of the image that holds all boxes, (N, 4), N > 0, with padding."""
    near = boxes[:, :2] - boxes[:, 2:] * (settings.padding - 1) / 2
    far = boxes[:, :2] + boxes[:, 2:] * (settings.padding + 1) / 2
    corner = near.min(axis=0)
    return np.concatenate((corner, far.max(axis=0) - corner))


def scene_around(
    network: MDNet, pixels: Tensor, boxes: np.ndarray, target: np.ndarray, settings: SceneSettings,
    shift: tuple[float, float] = (0, 0), zoom: float = 1.0,
) -> Scene:
    """A scene that holds all of `boxes`, (N, 4), in which `target`, (4,), is a square.

    pixels: (1, 3, H, W) float32 RGB 0..255. shift: of the scene, (right, down) in image pixels; zoom: beyond what makes
    the target a square of the given size.
    """
    window = around(boxes, settings)
    sides = object_sides(target, settings)
    size = np.trunc(window[2:] * (settings.object_size / sides)) * zoom
    window[:2] += np.array(shift, dtype=np.float32)
    return scene_of(network, pixels, window, size, settings.object_size * zoom / sides, settings)


def scene_of(
    network: MDNet, pixels: Tensor, window: np.ndarray, size: np.ndarray, zoom: np.ndarray, settings: SceneSettings
) -> Scene:
    """window: (4,) x, y, w, h in image pixels; size: (width, height) of the scene, truncated; zoom: see `Scene`."""
    columns, rows = np.maximum(size.astype(np.int64), SMALLEST_SCENE).tolist()
    edges = np.concatenate((window[:2], window[2:] + window[:2]))
    note("scene", (window, (columns, rows)))
    with stage("base crop"):
        crop = roi_samples(pixels, torch.from_numpy(edges).float()[None].to(pixels.device), (rows, columns)) - 128
    with stage("base backbone"):
        return Scene(window[:2], zoom, settings.padding, network.scene_features(crop))
