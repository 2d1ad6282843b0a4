"""Weights that a backbone starts from: of one of our networks, or trained on ImageNet."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tracker_ar.errors import DataError

_PREFIX = "feature_extractor."


def load_backbone(network: nn.Module, path: Path) -> None:
    """Load what the backbone has of a file into it, in place.

    Args:
        network: the backbone.
        path: safetensors, or a state dict by torch.save: of a network of ours, whose backbone is taken, or of
            a ResNet with the usual names (conv1, bn1, layer1 ...), as torchvision publishes them.

    Raises:
        DataError: the file cannot be read, or a layer is missing or of another shape.
    """
    tensors = _read(path)
    if any(name.startswith(_PREFIX) for name in tensors):
        tensors = {name[len(_PREFIX) :]: value for name, value in tensors.items() if name.startswith(_PREFIX)}
    wanted = network.state_dict()
    # How many batches the statistics rest on matters to nobody, and old files do not say it.
    for name in wanted:
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, wanted[name])
    try:
        network.load_state_dict({name: tensors[name].to(wanted[name].dtype) for name in wanted})
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{path}: its backbone does not fit this network's ({error})") from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path}: not readable as safetensors or as a state dict ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: is not a state dict, a mapping of names to tensors")
    return state
