"""Frames with what the tracker said drawn over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from vot.region import Region
    from vot.workspace import Workspace

_CELL_WIDTH = 240
_FRAMES = 6
_MOST_SEQUENCES = 16
_PREDICTED = (255, 60, 30)
_TRUTH = (60, 255, 60)


def write_overview(workspace: Workspace, tracker: str, file: Path, experiment: str = "unsupervised") -> Path:
    """A PNG with a row for every sequence and frames from its beginning to its end; returns ``file``.

    The reported mask is painted red, the outline of the ground truth green. Results are those of the first
    run of ``experiment``. At most 16 sequences are shown, spread over the list.
    """
    from vot.tracker.results import Trajectory

    tracker_entry = workspace.registry[tracker]
    experiment_entry = workspace.stack[experiment]
    sequences = [s for original in workspace.dataset for s in experiment_entry.transform(original)]
    chosen = np.unique(np.linspace(0, len(sequences) - 1, _MOST_SEQUENCES).astype(int))
    rows = []
    for sequence in (sequences[i] for i in chosen):
        results = experiment_entry.results(tracker_entry, sequence)
        trajectory = Trajectory.read(results, f"{sequence.name}_001")
        cells = []
        for index in np.linspace(1, len(sequence) - 1, _FRAMES).astype(int):
            frame = sequence.frame(int(index))
            cell = draw(frame.image(), [trajectory.region(int(index))], [frame.groundtruth()])
            cells.append(_label(cell, f"{sequence.name} {index + 1}"))
        rows.append(np.hstack(cells))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(".png", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))[1].tobytes())
    return file


def draw(image: np.ndarray, predicted: Sequence[Region], truths: Sequence[Region]) -> np.ndarray:
    """A frame (RGB uint8, H x W x 3), scaled to the width of a cell, with the regions of all targets over it."""
    height, width = image.shape[:2]
    cell = cv2.resize(image, (_CELL_WIDTH, round(height * _CELL_WIDTH / width)), interpolation=cv2.INTER_AREA)
    for region in predicted:
        painted = _scaled_mask(region, (height, width), cell.shape[:2]).astype(bool)
        cell[painted] = (0.5 * cell[painted] + 0.5 * np.array(_PREDICTED)).astype(np.uint8)
    for region in truths:
        outline, _ = cv2.findContours(_scaled_mask(region, (height, width), cell.shape[:2]),
                                      cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(cell, outline, -1, _TRUTH, 1)
    return cell


def _scaled_mask(region: Region, size: tuple[int, int], cell_size: tuple[int, int]) -> np.ndarray:
    from vot.region import RegionType

    if region.type == RegionType.SPECIAL:
        return np.zeros(cell_size, np.uint8)
    mask = region.convert(RegionType.MASK)
    whole = np.zeros(size, np.uint8)
    left, top = mask.offset
    visible = mask.mask[max(-top, 0):, max(-left, 0):]
    top, left = max(top, 0), max(left, 0)
    visible = visible[:max(size[0] - top, 0), :max(size[1] - left, 0)]
    whole[top:top + visible.shape[0], left:left + visible.shape[1]] = visible
    return cv2.resize(whole, cell_size[::-1], interpolation=cv2.INTER_NEAREST)


def _label(cell: np.ndarray, text: str) -> np.ndarray:
    cell[:16] //= 3
    cv2.putText(cell, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(cell, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
