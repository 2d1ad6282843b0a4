"""The numbers of an evaluation as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracker_ar.errors import EvaluationError


@dataclass(frozen=True)
class MultistartScores:
    """Measures of VOT2020 (Kristan et al., ECCVW 2020), all 0..1, higher is better."""

    eao: float
    accuracy: float
    robustness: float


@dataclass(frozen=True)
class TrackerScores:
    """The scores of one tracker in the three short-term experiments."""

    baseline: MultistartScores
    realtime: MultistartScores
    average_overlap: float


def read_scores(analysis: dict[str, Any], tracker: str) -> TrackerScores:
    """Find a tracker's scores in an analysis file of the toolkit.

    Raises EvaluationError when the stack has other experiments or analyses than VOT2020 short-term.
    """
    row = list(analysis["trackers"]).index(tracker)
    try:
        return TrackerScores(
            _multistart(analysis, "baseline", row),
            _multistart(analysis, "realtime", row),
            _measures(analysis, "unsupervised", "AverageAccuracy", row)[0],
        )
    except (KeyError, StopIteration) as error:
        raise EvaluationError(f"the analysis lacks {error}; the stack must have the experiments and analyses "
                              "of vot2020/shortterm: baseline, realtime and unsupervised") from error


def eao_interval(analysis: dict[str, Any]) -> tuple[int, int]:
    """The sequence lengths over which EAO was averaged."""
    settings = next(settings for settings in analysis["results"]["baseline"]["parameters"]["analyses"]
                    if settings["type"].endswith("EAOScore"))
    return settings["low"], settings["high"]


def format_table(scores: dict[str, TrackerScores]) -> str:
    """A line for every tracker, columns of fixed width."""
    width = max(16, *map(len, scores))
    lines = [
        f"{'':<{width}} | {'baseline':^26} | {'realtime':^26} | unsupervised",
        f"{'tracker':<{width}} | {'EAO':>6} {'accuracy':>8} {'robustness':>10} "
        f"| {'EAO':>6} {'accuracy':>8} {'robustness':>10} | average overlap",
    ]
    lines.append("-" * len(lines[1]))
    for tracker, score in scores.items():
        groups = [f"{part.eao:6.3f} {part.accuracy:8.3f} {part.robustness:10.3f}"
                  for part in (score.baseline, score.realtime)]
        lines.append(f"{tracker:<{width}} | {groups[0]} | {groups[1]} | {score.average_overlap:15.3f}")
    return "\n".join(lines)


def _multistart(analysis: dict[str, Any], experiment: str, row: int) -> MultistartScores:
    eao = _measures(analysis, experiment, "EAOScore", row)[0]
    accuracy, robustness = _measures(analysis, experiment, "AverageAccuracyRobustness", row)[:2]
    return MultistartScores(eao, accuracy, robustness)


def _measures(analysis: dict[str, Any], experiment: str, kind: str, row: int) -> list[float]:
    """The results of the first analysis of a kind: the toolkit lists them in the order of the stack."""
    document = analysis["results"][experiment]
    kinds = [settings["type"].rpartition(".")[2] for settings in document["parameters"]["analyses"]]
    if kind not in kinds:
        raise KeyError(f"{experiment}: {kind}")
    return document["results"][kinds.index(kind)][row]
