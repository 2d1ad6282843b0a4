"""The plots of a report as inline SVG that takes the page's text colour, for light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracker_ar.evaluate.results import ExperimentResults, Plot

# Of middle lightness, so that they stand out from white and from black alike.
COLOURS = ("#2f7de1", "#e8710a", "#12a071", "#b158e0", "#e04356", "#0fa3b8", "#a3803a", "#8a8f98")
_LINES = ("-", "--", "-.", ":")
_MARKERS = "osD^vP"
_INK = "#010203"  # stands for the page's text colour until the SVG is written
_LIMIT = "#d6303f"
_STYLE = {
    "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "text.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK,
    "ytick.color": _INK, "grid.color": _INK, "grid.alpha": 0.12, "legend.frameon": False,
    "font.family": "sans-serif",
}
_BINS_PER_DECADE = 24


def colour(tracker: int) -> str:
    """The colour of the tracker at this place in the order of the page."""
    return COLOURS[tracker % len(COLOURS)]


def curves(plot: Plot, heading: str, trackers: dict[str, str], scores: dict[str, float]) -> str:
    """Curves over sequence length; scores: the number that stands for each curve in the legend."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.7, 3.7), layout="constrained")
        axes = figure.add_subplot()
        if plot.interval:
            low, high = plot.interval
            axes.axvspan(low, high, color=_INK, alpha=0.07, lw=0)
            middle = (min(low, plot.x[-1]) + min(high, plot.x[-1])) / 2
            axes.text(middle, 1.0, f"averaged over {low} to {high}", ha="center", va="bottom", fontsize=8.5,
                      transform=axes.get_xaxis_transform())
        for index, (tracker, label) in enumerate(trackers.items()):
            if tracker in plot.curves:
                score = f"  {scores[tracker]:.3f}" if tracker in scores else ""
                # The first value stands for a run of no frames.
                axes.plot(plot.x[1:], plot.curves[tracker][1:], color=colour(index), lw=2,
                          ls=_LINES[index // len(COLOURS) % len(_LINES)], label=f"{label}{score}")
        axes.set(xlabel=f"sequence length, {plot.x_label}", ylim=(0, 1), xlim=(1, plot.x[-1]))
        axes.set_title(f"{plot.title}, {heading}", loc="left", fontsize=11, pad=16)
        axes.grid()
        axes.legend(loc="best")
        return _svg(figure, f"{plot.y_label}-{heading}")


def accuracy_robustness(experiments: Sequence[ExperimentResults], trackers: dict[str, str]) -> str:
    """A point for every tracker and experiment; those of one tracker are joined."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.7, 3.7), layout="constrained")
        axes = figure.add_subplot()
        for index, (tracker, label) in enumerate(trackers.items()):
            points = [(one.points[tracker], one.realtime) for one in experiments if tracker in one.points]
            if not points:
                continue
            axes.plot(*zip(*(point for point, _ in points)), color=colour(index), lw=1, alpha=0.6)
            for place, (point, realtime) in enumerate(points):
                axes.plot(*point, _MARKERS[index % len(_MARKERS)], color=colour(index), ms=9, mew=2,
                          mfc="none" if realtime else colour(index), label=None if place else label)
        axes.set(xlabel="robustness", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
        kinds = {"filled": _names(experiments, False), "hollow": _names(experiments, True)}
        axes.set_title("; ".join(f"{kind}: {names}" for kind, names in kinds.items() if names), loc="left",
                       fontsize=11, pad=16)
        axes.grid()
        axes.legend(loc="best")
        return _svg(figure, "accuracy-robustness")


def frame_times(experiment: ExperimentResults, trackers: dict[str, str]) -> str:
    """A histogram of the time per frame for every tracker, with the limit 1 / fps of the sequences."""
    timed = [(index, tracker) for index, tracker in enumerate(trackers) if experiment.times_of(tracker).size]
    everything = np.concatenate([experiment.times_of(tracker) for _, tracker in timed]) * 1000
    low, high = max(everything[everything > 0].min(initial=1e3), 0.05), max(everything.max(), 0.1)
    limits = sorted({1000 / fps for fps in experiment.fps.values()})
    low, high = min(low, limits[0]) / 1.3, max(high, limits[-1]) * 1.3
    edges = np.geomspace(low, high, max(int(np.log10(high / low) * _BINS_PER_DECADE), 8))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 0.8 + 0.8 * len(timed)), layout="constrained")
        rows = figure.subplots(len(timed), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (index, tracker) in zip(rows, timed):
            times = experiment.times_of(tracker) * 1000
            _histogram(axes, times, edges, colour(index))
            late = experiment.late_fraction(tracker)
            axes.text(0, 1.0, f"{trackers[tracker]}: median {np.median(times):.3g} ms, "
                      f"{1 - (late or 0.0):.1%} of {times.size} frames within the limit",
                      transform=axes.transAxes, va="bottom", fontsize=9.5)
            for limit in limits:
                axes.axvline(limit, color=_LIMIT, lw=1.6)
        names = ", ".join(f"{limit:.3g}" for limit in limits[:4]) + (", ..." if len(limits) > 4 else "")
        rows[-1].set(xlabel=f"ms per frame; red: the real-time limit 1 / fps, {names} ms")
        return _svg(figure, "frame-times")


def overlap_lines(lines: dict[int, np.ndarray]) -> str:
    """A small plot of the overlap in every frame; lines: values 0..1 by the place of the tracker."""
    width, height = 600, 60
    paths = []
    for index, values in lines.items():
        xs = np.linspace(0, width, len(values)) if len(values) > 1 else [0]
        points = " ".join(f"{x:.1f},{height - height * y:.1f}" for x, y in zip(xs, values))
        paths.append(f'<polyline points="{points}" fill="none" stroke="{colour(index)}" stroke-width="1.6" '
                     'vector-effect="non-scaling-stroke"/>')
    grid = "".join(f'<line x1="0" x2="{width}" y1="{y}" y2="{y}" stroke="currentColor" stroke-opacity="0.15" '
                   'vector-effect="non-scaling-stroke"/>' for y in (0, height / 2, height))
    return (f'<svg class="overlap" viewBox="0 -2 {width} {height + 4}" preserveAspectRatio="none" role="img" '
            f'aria-label="overlap in every frame">{grid}{"".join(paths)}</svg>')


def _histogram(axes: Axes, times: np.ndarray, edges: np.ndarray, shade: str) -> None:
    counts, _ = np.histogram(times, edges)
    axes.stairs(counts, edges, fill=True, color=shade, alpha=0.85)
    axes.axvline(np.median(times), color=_INK, lw=1.2, ls=(0, (2, 2)))
    axes.set(xscale="log", yticks=[], xlim=(edges[0], edges[-1]))
    axes.spines["left"].set_visible(False)
    within_a_decade = edges[-1] < 10 * edges[0]
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if within_a_decade else "")


def _names(experiments: Sequence[ExperimentResults], realtime: bool) -> str:
    return ", ".join(one.name for one in experiments if one.realtime is realtime and one.points)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element whose names clash with those of no other figure on the page."""
    name = re.sub(r"\W+", "-", name)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg"):].replace(_INK, "currentColor")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]+", r"font: \1\2 inherit", svg)
    return re.sub(r'<svg ([^>]*?)width="([\d.]+)pt" ([^>]*)>', _sized, svg, count=1)


def _sized(match: re.Match[str]) -> str:
    attributes = re.sub(r'height="[\d.]+pt" ', "", f"{match[1]}{match[3]}")
    return f'<svg class="figure" style="max-width:{float(match[2]) * 4 / 3:.0f}px" {attributes}>'
