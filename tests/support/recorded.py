"""The recorded reference outputs, and how close is close enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipe import weights
from torch import Tensor, nn

DATA = Path(__file__).parents[1] / "parity" / "data"
# Ten times the rounding of the reference itself (fp32 against fp64): another order of summation, nothing
# more.
MARGIN = 10.0


def find(name: str) -> Path:
    """A file of the challenge entry, or of the other systems."""
    return DATA / name if (DATA / name).exists() else DATA / "family" / name


def read_json(name: str) -> Any:
    return json.loads(find(name).read_text())


def key_shapes(net: str) -> dict[str, tuple[int, ...]]:
    """{state_dict key: shape} of the authors' checkpoint."""
    return {row["key"]: tuple(row["shape"]) for row in read_json(f"keys_{net}.json")["keys"]}


def load_recipe(module: nn.Module, net: str) -> nn.Module:
    """The module with the recorded weights of `net`, ready for inference."""
    module.load_state_dict({key: torch.from_numpy(array) for key, array in weights(net, key_shapes(net))})
    return module.eval().requires_grad_(False)


class Reference:
    """One file of reference outputs with the rounding error of each array."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = find(f"{name}.npz")
        self.arrays = np.load(path)
        self.rounding = json.loads((path.parent / "fp32_vs_fp64.json").read_text())
        if name in self.rounding:
            self.rounding = {f"{name}/{key}": row for key, row in self.rounding[name].items()}

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def errors(self, key: str, actual: Tensor) -> dict[str, tuple[float, float]]:
        """{measure: (error, tolerance)} of an output against the recorded one, sampled where it is long."""
        values = actual.detach().double().numpy()
        if f"{key}.sub" in self.arrays:
            assert values.shape == tuple(self.arrays[f"{key}.shape"])
            samples = (np.arange(1024) * values.size) // 1024
            values, expected = values.reshape(-1)[samples], self.arrays[f"{key}.sub"]
        else:
            expected = self.arrays[key]
        assert values.shape == expected.shape
        expected = expected.astype(np.float64)
        difference = np.abs(values - expected)
        largest, norm = np.abs(expected).max(), np.linalg.norm(expected)
        measured = (difference.max(), difference.max() / largest, np.linalg.norm(difference) / norm)
        allowed = [MARGIN * value for value in self.rounding[f"{self.name}/{key}"]]
        return dict(zip(("max", "max_rel", "l2_rel"), zip(measured, allowed)))

    def check(self, key: str, actual: Tensor) -> None:
        errors = self.errors(key, actual)
        bad = {measure: pair for measure, pair in errors.items() if not pair[0] <= pair[1]}
        assert not bad, f"{self.name}/{key}: (error, tolerance) {bad}"
