"""The results of an accuracy benchmark as tables, files and plots."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tracker_ar.atomic import write_atomically
from tracker_ar.evaluate import metrics
from tracker_ar.evaluate.scores import Measures, SequenceScores, mean_curves, mean_measures

MEASURES = tuple(field.name for field in dataclasses.fields(Measures))
_HEADINGS = {
    "j": "J", "j_recall": "J rec", "j_decay": "J dec", "f": "F", "f_recall": "F rec", "f_decay": "F dec",
    "success": "AUC", "precision": "P@20", "normalised_precision_at_20": "Pn@.20", "normalised_precision_auc": "Pn AUC",
    "tracked": ">0.1", "reported_success": "AUCbox",
}
_LEGEND = """\
J, F: region similarity and contour accuracy, with recall and decay (DAVIS). AUC: success, P@20: precision
(OTB). Pn@.20: normalised precision at 0.20, as in published tables of TrackingNet and LaSOT; Pn AUC: its mean over
thresholds of 0 to 0.5. >0.1: fraction of frames in which the boxes overlap by more than 0.1.
These boxes are those around the tracker's masks, or the reported box where a mask is empty; AUCbox is the
success of the reported boxes. All sequences weigh the same in the means. One pass, no restarts."""


def groups(scores: Sequence[SequenceScores]) -> dict[str, list[SequenceScores]]:
    """What means are taken over: sequences with masks, with boxes, all; just all if they are of one kind."""
    masks = [score for score in scores if score.has_masks]
    boxes = [score for score in scores if not score.has_masks]
    return {"masks": masks, "boxes": boxes, "all": list(scores)} if masks and boxes else {"all": list(scores)}


def by_tracker(scores: Sequence[SequenceScores]) -> dict[str, list[SequenceScores]]:
    """The scores of every tracker, in the order in which trackers ran."""
    trackers: dict[str, list[SequenceScores]] = {}
    for score in scores:
        trackers.setdefault(score.tracker, []).append(score)
    return trackers


def format_tables(scores: Sequence[SequenceScores]) -> str:
    """A line for every sequence and tracker, then the means of every tracker, then what the columns mean."""
    width = max(len("mean of 999, boxes"), *(len(score.sequence) for score in scores))
    tracker_width = max(len("tracker"), *(len(score.tracker) for score in scores))

    def line(first: str, frames: int, tracker: str, measures: Measures) -> str:
        cells = (f"{'-':>6}" if math.isnan(value) else f"{value:6.3f}" for value in vars(measures).values())
        return f"{first:<{width}} {frames:>6} {tracker:<{tracker_width}} {' '.join(cells)}"

    heading = f"{'sequence':<{width}} {'frames':>6} {'tracker':<{tracker_width}}"
    heading += "".join(f" {_HEADINGS[name]:>6}" for name in MEASURES)
    rule = "-" * len(heading)
    means = []
    for group, members in groups(scores).items():
        for tracker, own in by_tracker(members).items():
            label = f"mean of {len(own)}" + ("" if group == "all" else f", {group}")
            means.append(line(label, sum(score.frames for score in own), tracker, mean_measures(own)))
    rows = [line(score.sequence, score.frames, score.tracker, score.measures) for score in scores]
    return "\n".join([heading, rule, *rows, rule, *means, "", _LEGEND])


def write_numbers(folder: Path, scores: Sequence[SequenceScores], settings: dict[str, Any]) -> None:
    """Write ``results.json`` (everything, with the settings) and ``results.csv`` (a row for each score)."""
    document = {
        **settings,
        "means": {
            group: {tracker: _numbers(mean_measures(own)) for tracker, own in by_tracker(members).items()}
            for group, members in groups(scores).items()
        },
        "sequences": [_entry(score) for score in scores],
    }
    write_atomically(folder / "results.json", (json.dumps(document, indent=1) + "\n").encode())

    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["sequence", "tracker", "frames", "ground_truth", *MEASURES])
    for score in scores:
        numbers = _numbers(score.measures).values()
        writer.writerow([score.sequence, score.tracker, score.frames, "masks" if score.has_masks else "boxes",
                         *("" if number is None else f"{number:.6f}" for number in numbers)])
    write_atomically(folder / "results.csv", table.getvalue().encode())


def write_plots(folder: Path, scores: Sequence[SequenceScores]) -> list[Path]:
    """Write the curves of all trackers and, where there are masks, J of every sequence; returns the files."""
    plots = {
        "success": _curve_plot(scores, "success", metrics.OVERLAP_THRESHOLDS,
                               "overlap above", "AUC"),
        "precision": _curve_plot(scores, "precision", metrics.DISTANCE_THRESHOLDS,
                                 "distance of the centres within, pixels", "at 20 pixels"),
        "normalised_precision": _curve_plot(scores, "normalised_precision", metrics.NORMALISED_THRESHOLDS,
                                            "distance of the centres within, target sizes", "at 0.20",
                                            "normalised_precision_at_20"),
    }
    masks = [score for score in scores if score.has_masks]
    if masks:
        plots["region_similarity"] = _similarity_plot(masks)
    for name, figure in plots.items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        write_atomically(folder / f"{name}.png", picture.getvalue())
    return [folder / f"{name}.png" for name in plots]


def _curve_plot(
    scores: Sequence[SequenceScores], curve: str, thresholds: np.ndarray, axis: str, summary: str, measure: str = ""
) -> Figure:
    """measure: that `summary` names in the legend, of the curve's name if empty."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    trackers = by_tracker(scores)
    for tracker, own in trackers.items():
        label = f"{tracker}  {summary} {getattr(mean_measures(own), measure or curve):.3f}"
        axes.plot(thresholds, getattr(mean_curves(own), curve), label=label)
    axes.set(xlabel=axis, ylabel="fraction of frames", xlim=(0, thresholds[-1]), ylim=(0, 1.02),
             title=f"{curve.replace('_', ' ').capitalize()}, {_count(scores)}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(len(trackers), 2))
    return figure


def _similarity_plot(scores: Sequence[SequenceScores]) -> Figure:
    trackers = by_tracker(scores)
    sequences = list(dict.fromkeys(score.sequence for score in scores))
    inches = 1.5 + 0.25 * len(sequences) * (len(trackers) + 1)
    figure = Figure(figsize=(max(6.0, inches), 5), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(trackers)
    for position, (tracker, own) in enumerate(trackers.items()):
        places = [sequences.index(score.sequence) - 0.4 + (position + 0.5) * width for score in own]
        axes.bar(places, [score.measures.j for score in own], width,
                 label=f"{tracker}  mean {mean_measures(own).j:.3f}")
    axes.set_xticks(range(len(sequences)), sequences, rotation=45, ha="right")
    axes.set(ylabel="region similarity J", ylim=(0, 1), title=f"Region similarity, {_count(scores)}")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(len(trackers), 2))
    return figure


def _count(scores: Sequence[SequenceScores]) -> str:
    names = {score.sequence for score in scores}
    return f"{len(names)} sequence{'s' * (len(names) > 1)}"


def _entry(score: SequenceScores) -> dict[str, Any]:
    return {
        "sequence": score.sequence,
        "tracker": score.tracker,
        "frames": score.frames,
        "ground_truth": "masks" if score.has_masks else "boxes",
        "measures": _numbers(score.measures),
        "curves": {name: np.round(curve, 6).tolist() for name, curve in vars(score.curves).items()},
    }


def _numbers(measures: Measures) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else round(value, 6) for name, value in vars(measures).items()}
