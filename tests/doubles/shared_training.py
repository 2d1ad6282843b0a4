"""A training that torchrun starts: a network without batch norm, and the refiner.

Arguments: the data folder, the folder for results.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_data import SCENE_REFINER

from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.training_samples import SyntheticSource
from tracker_ar.train.batches import TensorBatch
from tracker_ar.train.distribution import Share, joined
from tracker_ar.train.loop import Budget, Place, Trainer
from tracker_ar.train.recipes import Schedule
from tracker_ar.train.refiner import RefinerTask

QUICK = Schedule(learning_rate=1e-2, weight_decay=0.01, warmup_steps=2)
REFINER = replace(SCENE_REFINER, schedule=QUICK, batch_size=4)


@dataclass(frozen=True)
class Points(TensorBatch):
    inputs: Tensor
    outputs: Tensor


class Regression:
    """Fits random numbers; a sample depends on its step and number alone."""

    name = kind = "regression"
    half = None
    schedule = QUICK

    def __init__(self, share: Share) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        self.indices = share.indices(4)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def train_mode(self) -> None:
        self.network.train()

    def batch(self, step: int, progress: float) -> Points:
        drawn = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))[list(self.indices)]
        return Points(drawn[:, :6], drawn[:, 6:])

    def loss(self, batch: Points) -> tuple[Tensor, dict[str, float]]:
        return (self.network(batch.inputs) - batch.outputs).square().mean(), {}

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"size": float(sum(value.abs().sum() for value in network.parameters()))}


def refiner(data: Path, share: Share) -> RefinerTask:
    """The small refiner on tiny crops."""
    sources = [SyntheticSource(SceneSampler(ImageLibrary(data, split))) for split in ("train", "validation")]
    return RefinerTask(REFINER, *sources, share=share)


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    with joined("cpu") as (share, device):
        for task, steps, workers in ((Regression(share), 6, 0), (refiner(data, share), 2, 1)):
            trainer = Trainer(task, out / task.name, Budget(steps=steps), Place(device, share, workers))
            while trainer.progress < 1.0:
                trainer.train_step()
            trainer.save()
            torch.save(dict(task.network.named_parameters()), out / f"{task.name}-{share.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
