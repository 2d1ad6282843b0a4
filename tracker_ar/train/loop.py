"""The training loop: budget, schedule, averaged weights, progress, checkpoints with exact resume."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tracker_ar.checkpoints import write_checkpoint
from tracker_ar.errors import DataError
from tracker_ar.train.recipes import Schedule

_REPORT_EVERY = 50


class Task(Protocol):
    """One network and what it learns from. A batch depends on its step and progress alone.

    `name` is the recipe's; `kind` names the network in the metadata of its weights.
    """

    name: str
    kind: str
    network: nn.Module
    schedule: Schedule

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser; `scale` multiplies the learning rate."""
        ...

    def loss(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        """The loss of the batch of this step, and its parts for the log."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measures on held-out data, with the network in evaluation mode."""
        ...


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or minutes of training time. Exactly one is given."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget that is used up, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60.0 * self.minutes))


class Trainer:
    """Runs a task; everything it writes goes to `folder`.

    Files: checkpoint.pt (to go on from), KIND.safetensors (the averaged weights), log.jsonl.

    Args:
        save_every, validate_every: seconds of training time between checkpoints and between validations.

    Raises:
        DataError: checkpoint.pt in `folder` cannot be read or belongs to something else.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        budget: Budget,
        save_every: float = 300.0,
        validate_every: float = 600.0,
    ) -> None:
        self.task = task
        self.folder = folder
        self.budget = budget
        self.save_every = save_every
        self.validate_every = validate_every
        self.network = task.network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        groups = [{"scale": 1.0, **group} for group in task.parameter_groups()]
        rate = task.schedule.learning_rate
        self.optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=task.schedule.weight_decay)
        self.step = 0
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint_path.is_file():
            self._resume()

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def progress(self) -> float:
        return self.budget.progress(self.step, self.seconds)

    def run(self) -> None:
        """Train until the budget is used up, then validate, save and export."""
        saved = validated = reported = self.seconds
        recent: list[dict[str, float]] = []
        while self.progress < 1.0:
            recent.append(self.train_step())
            if self.step % _REPORT_EVERY == 0:
                self._report(recent, self.seconds - reported)
                recent, reported = [], self.seconds
            if self.seconds - validated > self.validate_every:
                self._validate()
                validated = self.seconds
            if self.seconds - saved > self.save_every:
                self.save()
                saved = self.seconds
        self._validate()
        self.save()

    def train_step(self) -> dict[str, float]:
        """One batch; returns the parts of its loss."""
        started = time.perf_counter()
        progress = self.progress
        self._set_rate(progress)
        self.network.train()
        loss, parts = self.task.loss(self.step, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.task.schedule.clip_norm)
        # A batch whose gradient overflowed must not reach the weights.
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._update_average()
        self.seconds += time.perf_counter() - started
        return {"loss": float(loss.detach()), "norm": float(norm), **parts}

    def _set_rate(self, progress: float) -> None:
        schedule = self.task.schedule
        warmup = min(1.0, (self.step + 1) / schedule.warmup_steps)
        rate = schedule.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.task.schedule.average_decay, (1 + self.step) / (10 + self.step))
        current = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1.0 - decay)
            else:
                value.copy_(current[name])

    def save(self) -> None:
        """Write checkpoint.pt and the averaged weights, each at once or not at all."""
        state = {
            "task": self.task.name,
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = self.checkpoint_path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint_path)
        metadata = {"recipe": self.task.name, "steps": str(self.step), "minutes": f"{self.seconds / 60:.1f}"}
        weights = self.folder / f"{self.task.kind}.safetensors"
        write_checkpoint(weights, half_precision(self.average), self.task.kind, metadata)

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint_path, weights_only=True)
            known = state["task"]
            if known == self.task.name:
                self.network.load_state_dict(state["network"])
                self.average.load_state_dict(state["average"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.step, self.seconds = state["step"], state["seconds"]
        except Exception as error:
            raise DataError(
                f"{self.checkpoint_path}: cannot go on from it ({error}); name another --out folder"
            ) from error
        if known != self.task.name:
            raise DataError(
                f"{self.checkpoint_path}: is of {known}, not of {self.task.name}; name another --out folder"
            )

    def _report(self, recent: list[dict[str, float]], seconds: float) -> None:
        means = {key: sum(parts[key] for parts in recent) / len(recent) for key in recent[0]}
        rate = len(recent) / max(seconds, 1e-9)
        left = self.seconds * (1.0 / max(self.progress, 1e-9) - 1.0) / 60.0
        shown = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        print(
            f"step {self.step}  {100 * self.progress:.1f} %  {rate:.2f} it/s  {left:.0f} min left  {shown}",
            flush=True,
        )
        self._log({"rate": rate, **means})

    def _validate(self) -> None:
        measures = {f"val_{key}": value for key, value in self.task.validate(self.average).items()}
        shown = "  ".join(f"{key} {value:.4f}" for key, value in measures.items())
        print(f"step {self.step}  validation  {shown}", flush=True)
        self._log(measures)

    def _log(self, values: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.seconds / 60, 2), **values}
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def half_precision(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network with its matrices and filters in half precision and the rest as it is.

    Statistics of batch normalisation stay in full precision: they may exceed what half precision holds.
    """
    state = network.state_dict()
    return {
        name: value.half() if value.is_floating_point() and value.dim() > 1 else value
        for name, value in state.items()
    }
