"""What a report shows, as plain data: measures, curves, times of a workspace's experiments."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Measure:
    """A column: a number that the toolkit computes for a tracker, or for a tracker on one sequence."""

    name: str
    short: str
    higher_is_better: bool


@dataclass(frozen=True)
class Plot:
    """Curves of all trackers. x and every curve (n,); interval: where on x the score averages."""

    title: str
    x_label: str
    y_label: str
    x: np.ndarray
    curves: dict[str, np.ndarray]
    interval: tuple[int, int] | None = None


@dataclass
class ExperimentResults:
    """Everything of one experiment of the stack. Trackers are named by their reference.

    fps: the rate at which each sequence would run live. scores: of trackers with results on all
    sequences. times: seconds for every frame but the first of every run, by tracker and sequence; in a
    real-time experiment 0 where the toolkit skipped the frame. points: (robustness, accuracy).
    """

    name: str
    realtime: bool
    fps: dict[str, float]
    measures: list[Measure] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    sequence_measures: list[Measure] = field(default_factory=list)
    sequence_scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)
    points: dict[str, tuple[float, float]] = field(default_factory=dict)
    times: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @property
    def sequences(self) -> list[str]:
        """Names in the order of the data set."""
        return list(self.fps)

    def times_of(self, tracker: str) -> np.ndarray:
        """(n,) seconds, over all sequences."""
        parts = [times for (name, _), times in self.times.items() if name == tracker]
        return np.concatenate(parts) if parts else np.empty(0)

    def late_fraction(self, tracker: str) -> float | None:
        """Fraction of the frames that took longer than the sequence's 1 / fps; None without times."""
        late = total = 0
        for (name, sequence), times in self.times.items():
            if name == tracker:
                late += int((times > 1 / self.fps[sequence]).sum())
                total += times.size
        return late / total if total else None


@dataclass
class Results:
    """A workspace as the report shows it.

    workspace: the name of its folder. trackers: references, in the order shown, with their labels. profiles:
    by tracker, empty where its results name none. notes: what is missing or cannot be read, in words.
    """

    workspace: str
    title: str
    trackers: dict[str, str]
    profiles: dict[str, str]
    experiments: list[ExperimentResults]
    notes: list[str]

    def timed(self) -> ExperimentResults | None:
        """The experiment that shows the speed best: not real-time, as that one skips frames."""
        timed = [experiment for experiment in self.experiments if experiment.times]
        return min(timed, key=lambda experiment: experiment.realtime, default=None)
