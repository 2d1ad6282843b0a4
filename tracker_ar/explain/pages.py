"""The panels as files: each on its own, all on one picture, and the numbers."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from tracker_ar.atomic import write_atomically
from tracker_ar.base.localization import peak
from tracker_ar.explain import panels
from tracker_ar.explain.observe import Explanation, Reference

OVERVIEW, NUMBERS = "overview.png", "numbers.txt"


def write_explanation(
    folder: Path, explanation: Explanation, reference: Reference, number: int
) -> list[Path]:
    """Write every panel, the overview and the numbers of frame `number`; returns the files."""
    shown = _panels(explanation, reference)
    for name, (_, picture) in shown.items():
        write_atomically(folder / f"{name}.png", _png(picture))
    write_atomically(folder / OVERVIEW, _overview(shown, number))
    write_atomically(folder / NUMBERS, f"{describe(explanation, number)}\n".encode())
    return [folder / name for name in (*(f"{name}.png" for name in shown), OVERVIEW, NUMBERS)]


def describe(explanation: Explanation, number: int) -> str:
    """The numbers of every stage, a line or a small table for each."""
    score, place = peak(torch.from_numpy(explanation.scores))
    rows, columns = explanation.scores.shape
    lines = [
        f"frame {number}",
        f"score map       {rows} x {columns}, highest {float(score):.3f} at row {place[0]:.0f}, column "
        f"{place[1]:.0f}: {explanation.decision.replace('_', ' ')}",
    ]
    if explanation.ascent is None:
        lines.append("boxes           none refined: the target was not found")
    else:
        ascent = explanation.ascent
        lines.append("boxes           x, y, w, h in the search region; scores before and after the ascent")
        for row in zip(ascent.start, ascent.start_scores, ascent.end, ascent.end_scores):
            start, before, end, after = row
            lines.append(f"  {_numbers(start)}  {before:6.3f}   ->  {_numbers(end)}  {after:6.3f}")
    mask = explanation.prediction.mask
    cells = explanation.correlation.shape
    lines += [
        f"box             {_numbers(explanation.prediction.box)} in the image",
        f"correlation     {cells[0]} cells of the target over {cells[1]} x {cells[2]} of the crop",
        f"mask            {int(mask.sum())} pixels over {explanation.threshold:g}, mean probability "
        f"{explanation.refinement.score:.3f}" if explanation.refinement.probabilities is not None else
        "mask            none: the refiner gives a box",
        f"confidence      {explanation.prediction.score:.3f}",
    ]
    return "\n".join(lines)


def _panels(explanation: Explanation, reference: Reference) -> dict[str, tuple[str, np.ndarray]]:
    """Name of the file -> caption and picture, in the order of the stages."""
    found = {
        "1_frame": ("frame; yellow: search region,\nred: box, blue: the refiner's view",
                    panels.frame(explanation)),
        "2_score_map": (f"score map, highest {explanation.scores.max():.2f}:\n"
                        f"{explanation.decision.replace('_', ' ')}", panels.score_map(explanation)),
    }
    if explanation.ascent is not None:
        before, after = explanation.ascent.start_scores, explanation.ascent.end_scores
        found["3_boxes_before"] = (f"boxes before the ascent,\nscores {before.min():.1f} to "
                                   f"{before.max():.1f}", panels.boxes(explanation, after=False))
        found["4_boxes_after"] = (f"boxes after it,\nscores {after.min():.1f} to {after.max():.1f}",
                                  panels.boxes(explanation, after=True))
    cells = round(len(explanation.correlation) ** 0.5)
    found |= {
        "5_target_cells": (f"first frame: {cells} x {cells} cells\nof the target",
                           panels.target_cells(reference, cells)),
        "6_correlation": ("correlation: the cell that responds\nmost, bright where it does",
                          panels.correlation(explanation)),
    }
    if explanation.refinement.probabilities is not None:
        found["7_mask_probability"] = (f"probability of the mask;\nwhite: {explanation.threshold:g}",
                                       panels.mask_probability(explanation))
    found["8_result"] = f"result, confidence {explanation.prediction.score:.2f}", panels.result(explanation)
    return found


def _overview(shown: dict[str, tuple[str, np.ndarray]], number: int) -> bytes:
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(13, 7.4), layout="constrained")
        figure.suptitle(f"frame {number}", x=0.01, ha="left")
        for axes, (caption, picture) in zip(figure.subplots(2, 4).flat, shown.values()):
            axes.imshow(picture)
            axes.set_title(caption, fontsize=9, loc="left")
            axes.set_anchor("NW")  # pictures differ in shape
        for axes in figure.axes:
            axes.set_axis_off()
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=100)
    return data.getvalue()


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _numbers(box: np.ndarray) -> str:
    return " ".join(f"{value:7.1f}" for value in box)
