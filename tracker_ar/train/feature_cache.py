"""Features of a frozen backbone, computed once and kept on the disk: training then sees many times more samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from tracker_ar.atomic import replacement
from tracker_ar.crops import normalize
from tracker_ar.data.synthetic.photometry import apply_tone, degrade, draw_degradation, to_grey, tone_table
from tracker_ar.data.synthetic.samples import BaseSequence
from tracker_ar.data.training_samples import SequenceGeometry, SequenceSource
from tracker_ar.errors import DataError

_REPORT_EVERY = 100


@dataclass(frozen=True)
class Variation:
    """What changes the crops of a sequence before their features are computed; values are probabilities.

    grey, dark: of whole sequences. degraded: of single crops that are blurred, lose resolution or are compressed.
    """

    grey: float = 0.12
    dark: float = 0.1
    degraded: float = 0.0

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Images uint8 (n, S, S, 3), changed."""
        grey, dark = rng.random() < self.grey, rng.random() < self.dark
        night = np.clip(255.0 * rng.uniform(0.25, 0.7) * (np.arange(256) / 255.0) ** rng.uniform(1.0, 1.8), 0, 255)
        changed = []
        for pixels in images:
            if self.degraded:
                pixels = self._worse(pixels, rng)
            pixels = to_grey(pixels) if grey else pixels
            pixels = cv2.LUT(pixels, night.astype(np.uint8)) if dark else pixels
            changed.append(pixels)
        return np.stack(changed)

    def _worse(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pixels = apply_tone(np.ascontiguousarray(pixels), tone_table(rng, 0.5 * rng.random()))
        if rng.random() >= self.degraded:
            return pixels
        side = len(pixels)
        if rng.random() < 0.5:
            small = int(side * rng.uniform(0.2, 0.8))
            pixels = cv2.resize(pixels, (small, small), interpolation=cv2.INTER_AREA)
            return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
        return degrade(pixels, draw_degradation(side, rng))


@dataclass(frozen=True)
class CachedSequences:
    """features: float16 (n, f, C, h, w), mapped from the disk. boxes: float32 (n, f, 4) x, y, w, h in pixels of the
    search regions."""

    features: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


def cached_sequences(
    path: Path,
    source: SequenceSource,
    count: int,
    geometry: SequenceGeometry,
    vary: Variation,
    features_of: Callable[[Tensor], Tensor],
    seed: int,
) -> CachedSequences:
    """Features of `count` sequences of a source, from the files beside `path` where they are.

    Args:
        path: a file name without suffix; PATH.npy holds the features, PATH.boxes.npy the boxes.
        features_of: from normalised images (1, 3, S, S) to features (1, C, h, w).

    Raises:
        DataError: the files cannot be written, or are of another number of sequences or of another geometry.
    """
    files = path.with_name(f"{path.name}.npy"), path.with_name(f"{path.name}.boxes.npy")
    if not files[1].is_file():
        try:
            _compute(files, source, count, geometry, vary, features_of, seed)
        except OSError as error:
            raise DataError(f"cannot write {files[0]}: {error.strerror or error}; free some space") from error
    features, boxes = np.load(files[0], mmap_mode="r"), np.load(files[1])
    if boxes.shape != (count, sum(geometry.frames), 4) or len(features) != count:
        raise DataError(f"{files[0]}: holds other sequences than are asked for; name another folder, or delete it")
    return CachedSequences(features, boxes)


def _compute(
    files: tuple[Path, Path],
    source: SequenceSource,
    count: int,
    geometry: SequenceGeometry,
    vary: Variation,
    features_of: Callable[[Tensor], Tensor],
    seed: int,
) -> None:
    all_features: np.memmap | None = None
    all_boxes = []
    with replacement(files[0]) as temporary:
        for index in range(count):
            rng = np.random.default_rng((seed, index))
            sequence: BaseSequence = source.sequence(rng, geometry)
            images = torch.from_numpy(vary(sequence.images, rng)).permute(0, 3, 1, 2).float()
            features = np.stack([features_of(normalize(one[None]))[0].half().numpy() for one in images])
            if all_features is None:
                shape = (count, *features.shape)
                all_features = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
            all_features[index] = features
            all_boxes.append(sequence.boxes)
            if (index + 1) % _REPORT_EVERY == 0:
                print(f"{files[0].stem}: features of {index + 1} of {count} sequences", flush=True)
        assert all_features is not None
        all_features.flush()
    with replacement(files[1]) as temporary, open(temporary, "wb") as file:
        np.save(file, np.stack(all_boxes).astype(np.float32))
