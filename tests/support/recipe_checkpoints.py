"""The authors' checkpoints as `alpharefine checkpoints install` writes them, with the recipe's weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from recipe import MASK_REFINER, weights
from recorded import key_shapes

from tracker_ar import zoo
from tracker_ar.places import ROOT
from tracker_ar.weights.slots import Slot
from tracker_ar.weights.store import write_checkpoint

RECIPES = {"mask_refiner_384": MASK_REFINER}  # where the recipe has another name


def write_recipe_checkpoints(folder: Path, names: Iterable[str]) -> None:
    """Put what these trackers need into `folder`, less what is there already; the project's own weights as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for slot in {slot.kind: slot for name in names for slot in zoo.slots_of(name)}.values():
        file = folder / slot.file_name
        if file.exists():
            continue
        if slot.published is None:
            shutil.copyfile(ROOT / "checkpoints" / slot.file_name, file)
        else:
            write_checkpoint(file, _state_dict(slot), slot.kind)


def _state_dict(slot: Slot) -> dict[str, torch.Tensor]:
    net = RECIPES.get(slot.kind, slot.kind)
    return {key: torch.from_numpy(array) for key, array in weights(net, key_shapes(net))}
