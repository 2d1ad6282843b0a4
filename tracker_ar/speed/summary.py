"""The results of a speed benchmark: ratios first, as a table, a file of numbers and a plot."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tracker_ar.atomic import write_atomically
from tracker_ar.speed.stages import ARITHMETIC, REST

REAL_TIME = 20  # fps, as the VOT toolkit takes it for sequences without a rate of their own
CONVOLUTIONS = "all convolution stages"
_LEGEND = """\
ms: median, 10th and 90th percentile of the frames in which the stage ran; ran: in which fraction of the
frames that was; of frame: fraction of the mean frame. GMAC: convolutions and matrix products, multiply-accumulates;
MB: of the tensors that torch's operators take and give. of ceiling: rate over that of a large convolution
or matrix product, measured in this run with as many threads; of bandwidth: bytes per second over those of a
large copy (over 100 % where tensors stay in a cache). Where there is a GPU, every stage waits for it, runs
operator by operator and cuts on the CPU, without the CUDA graphs of whole frames: the sum of the stages is
more than a frame takes end to end."""


@dataclass(frozen=True)
class Work:
    """operations: of convolutions and matrix products, a multiply-accumulate being two. bytes: of tensors."""

    operations: float
    bytes: float


@dataclass(frozen=True)
class Measurements:
    """Raw results, in seconds. stages and work: of the initialisation first, then of every frame. ceilings:
    FLOP/s and bytes/s. start: see `measure_start`. targets: of frames by their number of targets. The first name in
    `frames` is the tracker that was asked for; there may be one to compare with, and then mask_overlaps, see
    `time_frames`."""

    settings: dict[str, Any]
    initialisations: dict[str, list[float]]
    frames: dict[str, list[float]]
    stages: list[dict[str, float]]
    work: list[dict[str, Work]]
    ceilings: dict[str, float]
    start: dict[str, float]
    targets: dict[int, list[float]] = field(default_factory=dict)
    mask_overlaps: list[float] = field(default_factory=list)


def summarize(measured: Measurements) -> dict[str, Any]:
    """What is printed, written and plotted. Times are in milliseconds."""
    own, *others = measured.frames
    frames, seconds, work = measured.frames[own], measured.stages[1:], measured.work[1:]
    document: dict[str, Any] = {
        "settings": measured.settings,
        "ceilings": measured.ceilings,
        "end_to_end": {
            "milliseconds": spread(frames),
            "fps": 1 / float(np.mean(frames)),
            "real_time_at_20_fps": 1 / float(np.mean(frames)) / REAL_TIME,
            "late_at_20_fps": float(np.mean(np.array(frames) > 1 / REAL_TIME)),
        },
        "initialisation": spread(measured.initialisations[own]),
        "stages": [_row(stage, (stage,), seconds, work, measured) for stage in stages_of(seconds)],
        "sums": [
            _row(CONVOLUTIONS, [name for name, kind in ARITHMETIC.items() if kind == "convolution"],
                 seconds, work, measured),
            _row("all stages", stages_of(seconds), seconds, work, measured),
        ],
        "initialisation_stages": [_row(stage, (stage,), measured.stages[:1], measured.work[:1], measured)
                                  for stage in stages_of(measured.stages[:1])],
        "start": measured.start,
        "targets": {str(count): spread(times) for count, times in measured.targets.items()},
    }
    for other in others:
        ratios = np.array(frames) / np.array(measured.frames[other])
        initialisation = spread(measured.initialisations[other])
        document["compared"] = {
            "with": other,
            "milliseconds": spread(measured.frames[other]),
            "initialisation": initialisation,
            "time_ratio": _percentiles(ratios),
            "initialisation_ratio": document["initialisation"]["median"] / initialisation["median"],
            "mask_iou": {"mean": float(np.mean(measured.mask_overlaps)),
                         "lowest": float(np.min(measured.mask_overlaps))},
        }
    return document


def stages_of(frames: Sequence[dict[str, float]]) -> list[str]:
    """All stages that were heard of, in the order of their first time; what lies between them last."""
    heard = dict.fromkeys(stage for frame in frames for stage in frame)
    return [*(stage for stage in heard if stage != REST), *(stage for stage in (REST,) if stage in heard)]


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile in milliseconds."""
    return _percentiles(1000 * np.array(list(seconds)))


def format_report(document: dict[str, Any]) -> str:
    """Everything on one screen."""
    settings, machine, whole = document["settings"], document["settings"]["machine"], document["end_to_end"]
    width, height = settings["image_size"]
    time = whole["milliseconds"]
    lines = [
        f"AlphaRefine {settings['profile']} on {machine['gpu'] or machine['cpu']}, {_threads(settings)}, "
        f"torch {settings['versions']['torch']}",
        f"{settings['frames']} frames of {width} x {height}: {settings['clip']}",
        *_warnings(settings),
        "",
        f"end to end, without decoding  {whole['fps']:.1f} fps, "
        f"{whole['real_time_at_20_fps']:.2f} x real time at {REAL_TIME} fps, "
        f"{whole['late_at_20_fps']:.0%} of the frames late",
        f"per frame                     {_times(time)} ms (median, 10th to 90th percentile)",
        f"initialisation                {_times(document['initialisation'])} ms",
        *(f"per frame, targets: {count:<10}{_times(times)} ms" for count, times in document["targets"].items()),
        *_comparison(document),
        *_start_lines(document["start"]),
        "",
        "ceilings                      " + ", ".join(
            f"{name} {rate / 1e9:,.0f} {'GB/s' if name == 'bandwidth' else 'GFLOP/s'}"
            for name, rate in document["ceilings"].items()),
        "",
        *_table(document["stages"], document["sums"]),
        "",
        "initialisation, once:",
        *_table(document["initialisation_stages"], []),
        "",
        _LEGEND,
    ]
    return "\n".join(lines)


def write_report(folder: Path, document: dict[str, Any]) -> list[Path]:
    """Write ``speed.txt``, ``speed.json`` and ``speed.png``; returns the files."""
    picture = io.BytesIO()
    _plot(document).savefig(picture, format="png", dpi=120)
    contents = {
        "speed.txt": f"{format_report(document)}\n".encode(),
        "speed.json": f"{json.dumps(document, indent=1)}\n".encode(),
        "speed.png": picture.getvalue(),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def _row(
    label: str, stages: Sequence[str], seconds: list[dict[str, float]], work: list[dict[str, Work]],
    measured: Measurements,
) -> dict[str, Any]:
    """One stage, or several summed frame by frame, in the frames in which it ran."""
    ran = [index for index, frame in enumerate(seconds) if any(stage in frame for stage in stages)]
    times = np.array([sum(seconds[index].get(stage, 0.0) for stage in stages) for index in ran])
    done = [[work[index][stage] for stage in stages if stage in work[index]] for index in ran]
    operations = np.array([sum(part.operations for part in parts) for parts in done])
    moved = np.array([sum(part.bytes for part in parts) for parts in done])
    kind = "convolution" if len(stages) > 1 else ARITHMETIC.get(label)
    ceiling = f"{kind} float32" if kind else None
    rate = float(np.median(operations / times))
    return {
        "stage": label,
        "milliseconds": spread(times),
        "ran_in": len(ran) / len(seconds),
        "fraction_of_frame": float(times.sum() / sum(sum(frame.values()) for frame in seconds)),
        "macs": float(np.median(operations)) / 2,
        "bytes": float(np.median(moved)),
        "ceiling": ceiling,
        "fraction_of_ceiling": rate / measured.ceilings[ceiling] if ceiling else None,
        "fraction_of_bandwidth": float(np.median(moved / times)) / measured.ceilings["bandwidth"],
    }


def _table(rows: list[dict[str, Any]], sums: list[dict[str, Any]]) -> list[str]:
    heading = (f"{'stage':<26} {'ms':>9} {'p10':>8} {'p90':>8} {'ran':>5} {'of frame':>8} "
               f"{'GMAC':>8} {'MB':>8} {'of ceiling':>10} {'of bandwidth':>12}")
    rule = "-" * len(heading)
    lines = [_line(row) for row in rows]
    return [heading, rule, *lines, *([rule, *map(_line, sums)] if sums else [])]


def _line(row: dict[str, Any]) -> str:
    time = row["milliseconds"]
    ceiling = "-" if row["fraction_of_ceiling"] is None else f"{row['fraction_of_ceiling']:.0%}"
    return (f"{row['stage']:<26} {time['median']:>9.2f} {time['p10']:>8.2f} {time['p90']:>8.2f} "
            f"{row['ran_in']:>5.0%} {row['fraction_of_frame']:>8.1%} {row['macs'] / 1e9:>8.3f} "
            f"{row['bytes'] / 1e6:>8.1f} {ceiling:>10} {row['fraction_of_bandwidth']:>12.0%}")


def _warnings(settings: dict[str, Any]) -> list[str]:
    lines = []
    if settings["random_weights"]:
        lines.append("Random weights: the work of the tracker, not its results. The target counts as found "
                     "in every frame, and the tracker is put back on the first box after each.")
    if settings["plain"]:
        lines.append("Plain: the networks as they are trained, layer by layer in float32, without optimisations.")
    if settings["load_average_before"] > 0.5:
        lines.append(f"Load average {settings['load_average_before']:.1f} before the run: where other "
                     "programs run, times are too long and fractions are uncertain.")
    return lines


def _comparison(document: dict[str, Any]) -> list[str]:
    if "compared" not in document:
        return []
    other, ratio = document["compared"], document["compared"]["time_ratio"]
    return [
        f"{other['with']:<29} {_times(other['milliseconds'])} ms per frame; initialisation "
        f"{other['initialisation']['median']:.1f} ms",
        f"time / {other['with']:<22} {ratio['median']:.3f} ({ratio['p10']:.3f} to {ratio['p90']:.3f}) "
        f"per frame, {1 / ratio['median']:.1f} times as fast; initialisation {other['initialisation_ratio']:.3f}",
        f"masks / {other['with']:<21} mean IoU {other['mask_iou']['mean']:.4f}, lowest "
        f"{other['mask_iou']['lowest']:.4f}, of the same frames from the same boxes",
    ]


def _start_lines(start: dict[str, float]) -> list[str]:
    gpu = f", {start['peak GPU memory'] / 1e6:,.0f} MB on the GPU" if "peak GPU memory" in start else ""
    return [
        f"start of a process            {start['process']:.2f} s to the built tracker, of it "
        f"{start['import']:.2f} s importing and {start['build']:.2f} s building; "
        f"first initialisation {start['first initialisation']:.2f} s",
        f"peak memory of that process   {start['peak memory'] / 1e6:,.0f} MB{gpu}",
    ]


def _plot(document: dict[str, Any]) -> Figure:
    """What every stage adds to a mean frame, and what it would add at its ceiling."""
    rows = document["stages"][::-1]
    total = sum(row["milliseconds"]["median"] * row["ran_in"] for row in rows)
    taken = [row["milliseconds"]["median"] * row["ran_in"] for row in rows]
    possible = [time * min(row["fraction_of_ceiling"] or 0.0, 1.0) for time, row in zip(taken, rows)]
    settings = document["settings"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    axes.barh(places, taken, color="#9db8d2", label="measured")
    axes.barh(places, possible, height=0.4, color="#1f4e79", label="at the machine's ceiling")
    for place, time in zip(places, taken):
        axes.annotate(f" {time:.1f} ms, {time / total:.0%}", (time, place), va="center", fontsize=8)
    axes.set_yticks(places, [row["stage"] for row in rows])
    axes.set_xlim(0, 1.25 * max(taken))
    axes.set(xlabel="ms per frame: median of the frames in which the stage runs, times their fraction",
             title=f"AlphaRefine {settings['profile']}, {settings['device']}, {_threads(settings)}: "
                   f"{document['end_to_end']['fps']:.1f} fps")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _percentiles(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(values, (10, 50, 90))
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def _times(time: dict[str, float]) -> str:
    return f"{time['median']:.1f} ({time['p10']:.1f} to {time['p90']:.1f})"


def _threads(settings: dict[str, Any]) -> str:
    return f"{settings['threads']} thread{'s' * (settings['threads'] != 1)}"
