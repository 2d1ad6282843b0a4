"""Backbone features of many crops, computed once and kept on the disk, so that a frozen backbone costs nothing.

The pool grows while the training goes on, one shard after another; what a shard holds depends on its number and the
seed alone. Files are mapped into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tracker_ar.atomic import replacement
from tracker_ar.data.target_crops import CropSource, Role, TargetCrops
from tracker_ar.errors import DataError

Extract = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class PoolSettings:
    """shards: how many there are in the end, of `targets` targets each; `first` of them before the first step, another
    one every `steps` steps."""

    shards: int = 5
    targets: int = 250
    first: int = 2
    steps: int = 200

    def available(self, step: int) -> int:
        """How many shards a step draws from."""
        return min(self.shards, self.first + step // self.steps)


@dataclass(frozen=True)
class CropFeatures:
    """n crops: `stages` {layer: float32 (n, C, h, w)}, masks uint8 (n, S, S), boxes float32 (n, 4) x, y, w, h."""

    stages: dict[str, Tensor]
    masks: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class PooledTarget:
    """Rows of a shard that show one target."""

    shard: int
    rows: Mapping[Role, np.ndarray]


@dataclass
class _Shard:
    stages: dict[str, np.ndarray]
    masks: np.ndarray
    boxes: np.ndarray


@dataclass
class FeaturePool:
    """Crops of a source and their features.

    folder: where shards are kept; name: of what they hold, a shard of another name is refused. extract: features of
    images uint8 (n, S, S, 3).
    """

    folder: Path
    name: str
    source: CropSource
    extract: Extract
    targets_per_shard: int
    size: int
    seed: int
    targets: list[PooledTarget] = field(default_factory=list)
    _shards: list[_Shard] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)

    def grow(self, shards: int) -> None:
        """Have at least so many shards, made now where they are not on the disk."""
        while len(self._shards) < shards:
            number = len(self._shards)
            path = self.folder / f"shard_{number:03}.npz"
            if not path.is_file():
                self._make(number, path)
            self._open(number, path)

    def among(self, shards: int) -> int:
        """How many targets the first shards hold."""
        return self._ends[shards - 1]

    def gather(self, rows: list[tuple[int, int]]) -> CropFeatures:
        """Crops by shard and row."""
        chosen = [(self._shards[shard], row) for shard, row in rows]
        stages = {
            name: torch.from_numpy(np.stack([shard.stages[name][row] for shard, row in chosen])).permute(0, 3, 1, 2)
            for name in chosen[0][0].stages
        }
        side = self.size * self.size
        masks = np.stack([np.unpackbits(shard.masks[row], count=side) for shard, row in chosen])
        boxes = np.stack([shard.boxes[row] for shard, row in chosen])
        return CropFeatures(
            {name: value.float() for name, value in stages.items()},
            torch.from_numpy(masks).view(-1, self.size, self.size), torch.from_numpy(boxes),
        )

    def examples(self, count: int) -> list[TargetCrops]:
        """The first targets of the first shard, made anew."""
        return [self._crops(0, index) for index in range(count)]

    def _crops(self, number: int, index: int) -> TargetCrops:
        return self.source.crops(np.random.default_rng((self.seed, number, index)), self.size)

    def _make(self, number: int, path: Path) -> None:
        stages: dict[str, list[np.ndarray]] = {}
        crops: list[TargetCrops] = []
        for index in range(self.targets_per_shard):
            found = self._crops(number, index)
            crops.append(found)
            for name, value in self.extract(torch.from_numpy(found.pixels)).items():
                stages.setdefault(name, []).append(value.permute(0, 2, 3, 1).half().numpy())
        for name, parts in stages.items():
            with replacement(self._stage_path(number, name)) as temporary, temporary.open("wb") as file:
                np.save(file, np.concatenate(parts))
        masks = np.concatenate([np.packbits(one.masks.reshape(len(one.masks), -1), axis=1) for one in crops])
        # Last, since it makes the shard complete.
        with replacement(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file, name=self.name, layers=list(stages), masks=masks,
                boxes=np.concatenate([one.boxes for one in crops]),
                roles=np.concatenate([one.roles for one in crops]), counts=[len(one.roles) for one in crops],
            )

    def _open(self, number: int, path: Path) -> None:
        try:
            with np.load(path) as file:
                content = {name: file[name] for name in file.files}
            if str(content["name"]) != self.name:
                raise ValueError(f"it holds {content['name']}, not {self.name}")
            stages = {
                str(name): np.load(self._stage_path(number, str(name)), mmap_mode="r") for name in content["layers"]
            }
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path}: not a shard of this training's pool ({error}); name another --out folder"
            ) from error
        self._shards.append(_Shard(stages, content["masks"], content["boxes"]))
        start = 0
        for count in content["counts"].tolist():
            roles = content["roles"][start : start + count]
            rows = {role: start + np.flatnonzero(roles == role) for role in Role}
            self.targets.append(PooledTarget(number, rows))
            start += count
        self._ends.append(len(self.targets))

    def _stage_path(self, number: int, name: str) -> Path:
        return self.folder / f"shard_{number:03}_{name}.npy"
