"""Reproducible weights and inputs, from names and shapes alone, for comparing with recorded reference
outputs.

Every array comes from a Philox stream seeded with the CRC-32 of its name, shaped so that all networks give
activations that are neither dead nor saturated. The reference outputs in data/ were recorded with exactly
these weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

SUPER_DIMP = "super_dimp"
MASK_REFINER = "ar_mask384"
DIMPS = ("dimp18", "dimp50", "prdimp18", "prdimp50")
CORNER_REFINERS = ("ar34", "ar18")
FAMILY = (*DIMPS, "atom", *CORNER_REFINERS, "ar_base", "ar_selector", "siamrpn", "rtmdnet", "eco")
# Whose residual blocks have two convolutions.
BASIC_BLOCKS = {"atom", "dimp18", "prdimp18", "ar34", "ar18", "eco"}

_SQRT2 = math.sqrt(2.0)
_BOX_GAIN = {"bb_regressor.iou_predictor.weight": 3.0}  # boxes climb in pixels
_RELATIVE_BOX_GAIN = {"bb_regressor.iou_predictor.weight": 28.0}
_NECK_GAIN = {
    "neck.channel_attention.fc1.weight": 0.05,
    "neck.spatial_attention.theta.weight": 0.5,
    "neck.spatial_attention.phi.0.weight": 0.5,
}
_CORNER_GAIN = {"neck.channel_attention.fc1.weight": 0.05, "mask_head.post2.weight": 1.2}
_CONV_GAIN: dict[str, dict[str, float]] = {
    SUPER_DIMP: _RELATIVE_BOX_GAIN,
    MASK_REFINER: _NECK_GAIN,
    "atom": _BOX_GAIN,
    "dimp18": _BOX_GAIN,
    "dimp50": _BOX_GAIN,
    "prdimp18": _RELATIVE_BOX_GAIN,
    "prdimp50": _RELATIVE_BOX_GAIN,
    "ar34": _CORNER_GAIN | {f"corner_head.conv5_{corner}.weight": 1.0 for corner in ("tl", "br")},
    "ar18": _CORNER_GAIN | {f"corner_head.conv5_{corner}.weight": 1.5 for corner in ("tl", "br")},
    "ar_base": _NECK_GAIN | _CORNER_GAIN | {"bbox_head.fc.0.weight": 0.1}
    | {f"corner_head.conv5_{corner}.weight": 2.5 for corner in ("tl", "br")},
    "siamrpn": {"backbone.conv1.weight": 0.014},
}
_BIAS_MEAN: dict[str, dict[str, float]] = {
    MASK_REFINER: {"neck.channel_attention.fc2.bias": -4.0},
    "ar34": {"neck.channel_attention.fc2.bias": -1.0},
    "ar18": {"neck.channel_attention.fc2.bias": -1.0},
    "ar_base": {"neck.channel_attention.fc2.bias": -4.0, "bbox_head.fc.0.bias": 0.1},
    "rtmdnet": {"branches.0.1.bias": -8.0},
}
# Chosen so that the two corners do not come out exchanged.
_CORNER_SALT = {"ar34": 1, "ar18": 1, "ar_base": 30}
_IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)


def weights(net: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    """(key, array) for every key of a network's state_dict, in the order given."""
    for key, shape in shapes.items():
        yield key, weight(net, key, tuple(shape))


def weight(net: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of one state_dict key: int64 for counters, float32 otherwise."""
    owner, _, kind = key.rpartition(".")
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if owner.startswith("classifier.filter_optimizer"):
        return _optimizer_start(net, key)
    salt = f"#{_CORNER_SALT[net]}" if net in _CORNER_SALT and key.startswith("corner_head.") else ""
    noise = _noise(zlib.crc32(f"{net}/{key}{salt}".encode("ascii")), shape)
    spread = noise.clip(-2, 2)
    if kind == "running_mean":
        return np.float32(0.02) * noise
    if kind == "running_var":
        return np.float32(1) + np.float32(0.20) * spread
    if kind == "weight" and len(shape) == 1:
        last = ".bn2" if net in BASIC_BLOCKS else ".bn3"
        gain = 0.5 if owner.endswith(last) else 0.7 if owner.endswith(".downsample.1") else 1.0
        return np.float32(gain) * (np.float32(1) + np.float32(0.10) * spread)
    if kind == "bias":
        return np.float32(_BIAS_MEAN.get(net, {}).get(key, 0.0)) + np.float32(0.02) * noise
    if kind.endswith("_weight"):
        return np.float32(1) + np.float32(0.5) * noise
    return _zero_mean(noise, _CONV_GAIN.get(net, {}).get(key, _SQRT2))


def net_input(seed: int, size: int) -> np.ndarray:
    """float32 (1, 3, size, size): an ImageNet-normalised image of random 16 x 16 colour blocks."""
    cells = -(-size // 16)
    stream = np.random.Generator(np.random.Philox(key=seed))
    colours = stream.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    image = np.kron(colours, np.ones((16, 16, 1), np.uint8))[:size, :size]
    normalised = (image.astype(np.float32) / np.float32(255) - _IMAGE_MEAN) / _IMAGE_STD
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def _noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape, dtype=np.float32)


def _zero_mean(noise: np.ndarray, gain: float) -> np.ndarray:
    fan_in = math.prod(noise.shape[1:])
    mean = noise.reshape(len(noise), fan_in).mean(axis=1, dtype=np.float64)
    # A mean on a coarse grid does not depend on the order in which a numpy build sums.
    mean = (np.rint(mean * 2.0**16) / 2.0**16).astype(np.float32)
    centred = noise - mean.reshape(-1, *[1] * (noise.ndim - 1))
    return np.float32(gain * math.sqrt(1.0 / fan_in)) * centred


def _optimizer_start(net: str, key: str) -> np.ndarray:
    """The values that training starts from, in the published configuration of the target filter."""
    newton = net.startswith("prdimp")
    area, cells = (6.0, 22) if net == SUPER_DIMP else (5, 18)
    distance = (np.arange(100, dtype=np.float32) * np.float32(0.1)).astype(np.float64)
    gaussian = np.exp(-0.5 * (distance / ((1 / 4) / area * cells)) ** 2)
    values = {
        "log_step_length": np.array([math.log(1.0 if newton else 0.9)]),
        "filter_reg": np.array([0.05 if newton else 0.1]),
        "label_map_predictor.weight": (gaussian - gaussian.min()).reshape(1, -1, 1, 1),
        "target_mask_predictor.0.weight": (3.0 * np.tanh(2.0 - distance)).reshape(1, -1, 1, 1),
        "spatial_weight_predictor.weight": np.ones((1, 100, 1, 1)),
    }
    return values[key.removeprefix("classifier.filter_optimizer.")].astype(np.float32)
