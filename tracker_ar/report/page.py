"""The page itself: results, plots and contact sheets as one HTML file without outside resources."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from importlib import resources

import numpy as np

from tracker_ar.evaluate.results import ExperimentResults, Measure, Results
from tracker_ar.report import figures
from tracker_ar.report.sheets import Sheet


def render(results: Results, sheets: tuple[str, int, list[Sheet]], made: str) -> str:
    """The page. sheets: as `contact_sheets` returns them; made: who made the page and when."""
    parts = [
        _head(results, made),
        _notes(results.notes),
        "<h2>Scores</h2>", _score_table(results),
        *_plots(results),
        *_speed(results),
        "<h2>Sequences</h2>", _sequence_table(results),
        *_contact_sheets(results, *sheets),
    ]
    files = resources.files(__package__)
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(results.title)}: {escape(', '.join(results.trackers.values()))}</title>",
        f"<style>\n{files.joinpath('page.css').read_text()}</style>\n</head>\n<body>",
        *parts,
        f"<script>\n{files.joinpath('page.js').read_text()}</script>\n</body>\n</html>\n",
    ])


def _head(results: Results, made: str) -> str:
    sequences = {name: None for experiment in results.experiments for name in experiment.sequences}
    names = ", ".join(escape(label) for label in results.trackers.values())
    return (f"<h1>{names}</h1>\n<p>{escape(results.title)}; {len(sequences)} sequences. Scores and curves "
            f'are those of the toolkit.</p>\n<p class="soft">{escape(results.workspace)}; {escape(made)}</p>')


def _notes(notes: list[str]) -> str:
    if not notes:
        return ""
    lines = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f'<div class="notes"><h3>What is missing</h3>{lines}</div>'


# ---- tables


def _score_table(results: Results) -> str:
    """A row for every tracker, the scores of every experiment, speed."""
    timed = results.timed()
    groups = [(experiment.name, [measure.name for measure in experiment.measures]
               + (["frames skipped"] if experiment.realtime and experiment.times else []))
              for experiment in results.experiments if experiment.measures]
    if timed:
        groups.append((f"speed, {timed.name}", ["median ms", "fps"]))
    shows_profile = any(results.profiles.values())
    head = _group_head(["tracker"] + ["profile"] * shows_profile, groups)
    rows = []
    for index, (tracker, label) in enumerate(results.trackers.items()):
        cells = [f'<td class="text">{_dot(index)}{escape(label)}</td>']
        if shows_profile:
            cells.append(f'<td class="text">{escape(results.profiles.get(tracker) or "-")}</td>')
        for experiment in results.experiments:
            cells += _score_cells(experiment, tracker)
        if timed:
            cells += _speed_cells(timed.times_of(tracker))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _score_cells(experiment: ExperimentResults, tracker: str) -> list[str]:
    scores = experiment.scores.get(tracker)
    cells = []
    for column, measure in enumerate(experiment.measures):
        if scores is None:
            cells.append(_number(None))
            continue
        values = [others[column] for others in experiment.scores.values()]
        best = max(values) if measure.higher_is_better else min(values)
        cells.append(_number(scores[column], best=len(values) > 1 and scores[column] == best))
    if experiment.realtime and experiment.measures and experiment.times:
        times = experiment.times_of(tracker)
        cells.append(_number(float((times == 0).mean()), "{:.1%}") if times.size else _number(None))
    return cells


def _sequence_table(results: Results) -> str:
    """A row for every sequence and tracker; every column can be sorted by."""
    timed = results.timed()
    groups = [(one.name, [measure.name for measure in one.sequence_measures])
              for one in results.experiments if one.sequence_scores]
    if timed:
        groups.append((f"speed, {timed.name}", ["median ms", "fps", "within the limit"]))
    head = _group_head(["sequence", "tracker"], groups, sortable=True)
    names = {name: None for experiment in results.experiments for name in experiment.sequences}
    rows = []
    for name in names:
        for index, (tracker, label) in enumerate(results.trackers.items()):
            cells = [f'<td class="text">{escape(name)}</td>',
                     f'<td class="text">{_dot(index)}{escape(label)}</td>']
            for experiment in results.experiments:
                if experiment.sequence_scores:
                    values = experiment.sequence_scores.get((tracker, name))
                    cells += _sequence_cells(experiment.sequence_measures, values, index)
            if timed:
                times = timed.times.get((tracker, name), np.empty(0))
                cells += _speed_cells(times)
                share = float((times <= 1 / timed.fps[name]).mean()) if times.size else None
                cells.append(_number(share, "{:.1%}"))
            rows.append(f"<tr>{''.join(cells)}</tr>")
    return ('<p class="soft">Click a heading to sort.</p>\n'
            f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>')


def _sequence_cells(measures: list[Measure], values: list[float] | None, tracker: int) -> list[str]:
    if values is None:
        return [_number(None)] * len(measures)
    return [_number(value, bar=figures.colour(tracker) if measure.higher_is_better else None)
            for measure, value in zip(measures, values)]


def _speed_cells(times: np.ndarray) -> list[str]:
    times = times[times > 0]
    if not times.size:
        return [_number(None)] * 2
    return [_number(float(np.median(times)) * 1000, "{:.1f}"), _number(1 / float(times.mean()), "{:.1f}")]


def _group_head(first: list[str], groups: list[tuple[str, list[str]]], sortable: bool = False) -> str:
    """Two rows: the experiments over their columns, then the columns."""
    above = f'<th colspan="{len(first)}"></th>' + "".join(
        f'<th colspan="{len(columns)}">{escape(name)}</th>' for name, columns in groups if columns)
    text, number = (' data-sort="text"', ' data-sort="number"') if sortable else ("", "")
    below = "".join(f'<th class="text"{text}>{escape(name)}</th>' for name in first) + "".join(
        f"<th{number}>{escape(_heading(column))}</th>" for _, columns in groups for column in columns)
    return f"<thead><tr>{above}</tr><tr>{below}</tr></thead>"


def _heading(name: str) -> str:
    known = {"Expected average overlap": "EAO", "Sequence accurarcy": "average overlap",
             "accuracy": "average overlap"}
    return known.get(name, name[:1].lower() + name[1:] if name[1:2].islower() else name)


def _number(value: float | None, form: str = "{:.3f}", best: bool = False, bar: str | None = None) -> str:
    if value is None or not np.isfinite(value):
        return '<td data-value="">-</td>'
    style = f' style="--share:{min(max(value, 0), 1):.3f};--fill:{bar}"' if bar else ""
    kind = " ".join(name for name, wanted in (("best", best), ("bar", bar)) if wanted)
    kind = f' class="{kind}"' if kind else ""
    return f'<td data-value="{value:.6g}"{kind}{style}>{form.format(value)}</td>'


def _dot(tracker: int) -> str:
    return f'<span class="dot" style="background:{figures.colour(tracker)}"></span>'


# ---- plots and pictures


def _plots(results: Results) -> Iterable[str]:
    drawn = [
        figures.curves(plot, experiment.name, results.trackers, _scores_of(experiment, plot.title))
        for experiment in results.experiments for plot in experiment.plots
    ]
    if any(experiment.points for experiment in results.experiments):
        drawn.append(figures.accuracy_robustness(results.experiments, results.trackers))
    if drawn:
        yield "<h2>Overlap over sequence length, accuracy and robustness</h2>"
        yield f'<div class="figures">{"".join(f"<div>{figure}</div>" for figure in drawn)}</div>'


def _scores_of(experiment: ExperimentResults, name: str) -> dict[str, float]:
    """The single number that summarises the curve of this name."""
    place = next((i for i, measure in enumerate(experiment.measures) if measure.name == name), None)
    return {} if place is None else {tracker: values[place] for tracker, values in experiment.scores.items()}


def _speed(results: Results) -> Iterable[str]:
    timed = results.timed()
    if timed is None:
        return
    yield "<h2>Speed against the real-time limit</h2>"
    yield ("<p>The time that the toolkit waited for each frame, with decoding and messages, in the "
           f"experiment {escape(timed.name)}; initialisation is left out.</p>")
    yield figures.frame_times(timed, results.trackers)


def _contact_sheets(
    results: Results, experiment: str, ranked: int, sheets: list[Sheet]
) -> Iterable[str]:
    if not sheets:
        return
    order = list(results.trackers)
    all_shown = len(sheets) == ranked
    yield f"<h2>{'All sequences, best first' if all_shown else 'Best and worst sequences'}</h2>"
    first = escape(results.trackers[sheets[0].strips[0].tracker])
    yield ("<p>Red: the prediction; green outline: the ground truth. Experiment "
           f"{escape(experiment)}, ranked by {first}. The curves are the overlap in every frame, "
           "from 0 to 1.</p>")
    for sheet in sheets:
        lines = {order.index(strip.tracker): strip.overlaps for strip in sheet.strips}
        yield (f'<div class="sheet"><h3>{escape(sheet.sequence)} <span class="soft">{sheet.rank} of {ranked}'
               f"</span></h3>{figures.overlap_lines(lines)}")
        for strip in sheet.strips:
            frames = ", ".join(map(str, strip.frames))
            label = escape(results.trackers[strip.tracker])
            picture = base64.b64encode(strip.jpeg).decode()
            yield (f'<div class="name"><span>{_dot(order.index(strip.tracker))}{label}</span>'
                   f"<span>mean overlap {strip.overlaps.mean():.3f}</span>"
                   f'<span class="soft">frames {frames}</span></div>'
                   f'<img alt="{label} on {escape(sheet.sequence)}" src="data:image/jpeg;base64,{picture}">')
        yield "</div>"
