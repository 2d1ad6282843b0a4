"""The training loop: budget, precision, averaged weights, progress, checkpoints with exact resume."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tracker_ar.atomic import replacement
from tracker_ar.errors import DataError
from tracker_ar.interrupts import Interruption, ended_at_once, interruptible
from tracker_ar.train.curves import Curves
from tracker_ar.train.distribution import Share, from_leader
from tracker_ar.train.loading import Request, batches, lost_workers_named
from tracker_ar.train.recipes import Schedule
from tracker_ar.weights.store import write_checkpoint

_REPORT_EVERY = 50


class Batch(Protocol):
    """What a task learns from in one step."""

    def to(self, device: torch.device) -> Any:
        """The batch on a device, where it may still have to be made."""
        ...


class Task(Protocol):
    """One network and what it learns from. A batch depends on its step and progress alone.

    `name` is the recipe's; `kind` names the network in the metadata of its weights. `half` is the type of the
    convolutions, or None for single precision.
    """

    name: str
    kind: str
    schedule: Schedule
    half: torch.dtype | None

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser; `scale` multiplies the learning rate."""
        ...

    def train_mode(self) -> None:
        """Put the network into training mode."""
        ...

    def batch(self, step: int, progress: float) -> Batch:
        """This process's part of the batch of a step, on the processor; may run in a worker process."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch on the network's device, and its parts for the log."""
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


@dataclass(frozen=True)
class Place:
    """Where a training runs: its device, this process's part of it, worker processes that make batches."""

    device: torch.device = torch.device("cpu")
    share: Share = Share()
    workers: int = 0


class _Loss(nn.Module):
    """The loss as a module, because that is what DistributedDataParallel wraps."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self.task = task

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        return self.task.loss(batch)


class Trainer:
    """Runs a task; everything it writes goes to `folder`.

    Files: checkpoint.pt (to go on from), KIND.safetensors (the averaged weights), log.jsonl, tensorboard/.

    Args:
        place: several processes compute equal parts of every batch and average their gradients; the first of
            them validates and writes.
        save_every, validate_every: seconds of training time between checkpoints and between validations.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        budget: Budget,
        place: Place = Place(),
        save_every: float = 300.0,
        validate_every: float = 600.0,
    ) -> None:
        self.task = task
        self.folder = folder
        self.budget = budget
        self.place = place
        self.save_every = save_every
        self.validate_every = validate_every
        # torch does not declare this form of `to`.
        self.network = task.network.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        groups = [{"scale": 1.0, **group} for group in task.parameter_groups()]
        rate = task.schedule.learning_rate
        self.optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=task.schedule.weight_decay)
        # Gradients in half precision underflow unless the loss is scaled; bfloat16 has the range of float32.
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=task.half == torch.float16)
        self.step = 0
        self.seconds = 0.0
        self._resume()
        self._start = self.step
        self.loss: nn.Module = _Loss(task)
        if place.share.count > 1:
            # Channels-last gradients of 1 x 1 filters have two equal layouts, which costs nothing.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            self.loss = DistributedDataParallel(self.loss)
        self._batches: Iterator[Batch] | None = None
        self._curves: Curves | None = None

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def progress(self) -> float:
        return self.budget.progress(self.step, self.seconds)

    def run(self) -> None:
        """Train until the budget is used up, then validate, save and export.

        Ctrl-C and SIGTERM end a training in one process after the step: it is saved, and KeyboardInterrupt raised.
        Several processes end at once: some may wait in vain for others, and what they have is not one state.
        """
        with interruptible() if self.place.share.count == 1 else ended_at_once() as interruption, lost_workers_named():
            try:
                self._train(interruption)
            finally:
                self._batches = None
                if self._curves is not None:
                    self._curves.close()

    def _train(self, interruption: Interruption) -> None:
        saved = validated = reported = self.seconds
        recent: list[dict[str, float]] = []
        while self.progress < 1.0:
            recent.append(self.train_step())
            if interruption.asked:
                self.save()
                raise KeyboardInterrupt
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
        """One batch; returns the parts of its loss in this process."""
        started = time.perf_counter()
        rate = self.task.schedule.rate(self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.task.train_mode()
        loss, parts = self.loss(self._next_batch())
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.task.schedule.clip_norm)
        # A batch whose gradient overflowed must not reach the weights.
        if torch.isfinite(norm):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self._update_average()
        self.seconds += time.perf_counter() - started
        if self.budget.minutes is not None:
            # All processes must stop at the same step.
            self.seconds = from_leader(self.seconds, self.place.share)
        return {"loss": float(loss.detach()), "norm": float(norm), **parts}

    def _next_batch(self) -> Any:
        if self._batches is None:
            pin = self.place.device.type == "cuda"
            self._batches = batches(self.task.batch, self._requests, self.place.workers, pin)
        return next(self._batches).to(self.place.device)

    def _requests(self) -> Iterator[Request]:
        """Steps from the present one on. With minutes the progress is that of the moment of the request."""
        step = self.step
        while (progress := self.budget.progress(step, self.seconds)) < 1.0:
            yield step, progress
            step += 1

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
        if not self.place.share.leads:
            return
        state = {
            "task": self.task.name,
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        try:
            with replacement(self.checkpoint_path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:  # the second when the disk is full
            raise DataError(
                f"cannot write {self.checkpoint_path}: {_reason(error)}; the earlier checkpoint is intact. "
                "Free some space and run the same command again to continue from it"
            ) from error
        metadata = {"recipe": self.task.name, "steps": str(self.step), "minutes": f"{self.seconds / 60:.1f}"}
        weights = self.folder / f"{self.task.kind}.safetensors"
        write_checkpoint(weights, half_precision(self.average), self.task.kind, metadata)

    def _resume(self) -> None:
        """Go on from the checkpoint that the first process finds, if there is one."""
        share, state = self.place.share, None
        try:
            if share.leads and self.checkpoint_path.is_file():
                state = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
        except Exception as error:
            state = error
        state = from_leader(state, share)
        if state is None:
            return
        try:
            if isinstance(state, Exception):
                raise state
            if state["task"] == self.task.name:
                self._restore(state)
                return
            known = state["task"]
        except Exception as error:
            raise DataError(
                f"{self.checkpoint_path}: cannot continue from it ({error}); name another --out folder"
            ) from error
        raise DataError(
            f"{self.checkpoint_path}: is of {known}, not of {self.task.name}; name another --out folder"
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        # Checkpoints of earlier versions have none.
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def _report(self, recent: list[dict[str, float]], seconds: float) -> None:
        if not self.place.share.leads:
            return
        means = {key: sum(parts[key] for parts in recent) / len(recent) for key in recent[0]}
        rate = len(recent) / max(seconds, 1e-9)
        left = self.seconds * (1.0 / max(self.progress, 1e-9) - 1.0) / 60.0
        shown = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        print(
            f"step {self.step}  {100 * self.progress:.1f} %  {rate:.2f} it/s  {left:.0f} min left  {shown}",
            flush=True,
        )
        self._log({"rate": rate, "learning_rate": self.optimizer.param_groups[0]["lr"], **means})

    def _validate(self) -> None:
        if not self.place.share.leads:
            return
        measures = {f"val_{key}": value for key, value in self.task.validate(self.average).items()}
        shown = "  ".join(f"{key} {value:.4f}" for key, value in measures.items())
        print(f"step {self.step}  validation  {shown}", flush=True)
        self._log(measures)

    def _log(self, values: dict[str, float]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._curves is None:
            self._curves = Curves(self.folder, self._start)
        self._curves.add(self.step, self.seconds / 60, values)


def _reason(error: BaseException) -> str:
    """What the system said, or that of torch, which hides the first behind an assertion of its own."""
    if isinstance(error.__context__, OSError):
        error = error.__context__
    return getattr(error, "strerror", None) or f"the disk may be full ({str(error).splitlines()[0]})"


def half_precision(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network with its matrices and filters in half precision and the rest as it is.

    Statistics of batch normalisation stay in full precision: they may exceed what half precision holds.
    """
    state = network.state_dict()
    return {
        name: value.half() if value.is_floating_point() and value.dim() > 1 else value
        for name, value in state.items()
    }
