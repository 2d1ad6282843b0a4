"""Contact sheets: frames of one run with ground truth and prediction drawn over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from tracker_ar.evaluate.results import Results
from tracker_ar.report.mask_sheets import draw

if TYPE_CHECKING:
    from vot.dataset import Sequence
    from vot.experiment import Experiment
    from vot.tracker import Tracker, Trajectory
    from vot.workspace import Workspace

FRAMES = 6
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Strip:
    """One tracker on one sequence.

    frames: numbers from 1, of the pictures; jpeg: the pictures side by side; overlaps: (n,) 0..1 for every
    frame after the first of the run, the mean where there are several targets.
    """

    tracker: str
    frames: list[int]
    jpeg: bytes
    overlaps: np.ndarray


@dataclass(frozen=True)
class Sheet:
    """A sequence with a strip for every tracker that has results on it. rank: from 1, the best."""

    sequence: str
    rank: int
    fps: float
    strips: list[Strip]


def contact_sheets(
    workspace: Workspace, results: Results, trackers: dict[str, Tracker], count: int
) -> tuple[str, int, list[Sheet]]:
    """The `count` best and `count` worst sequences of the first tracker, all trackers side by side.

    Returns the name of the experiment that the runs come from, how many sequences were ranked, and the
    sheets. Unsupervised runs are taken where the stack has them: one run over the whole sequence.
    """
    from vot.experiment.multirun import UnsupervisedExperiment

    stack = list(workspace.stack)
    experiment = next((one for one in stack if isinstance(one, UnsupervisedExperiment)), stack[0])
    found = next(one for one in results.experiments if one.name == experiment.identifier)
    sequences = {sequence.name: sequence for sequence in experiment.transform(list(workspace.dataset))}
    better = [measure.higher_is_better for measure in found.sequence_measures]

    def quality(tracker: str, sequence: str) -> float | None:
        values = found.sequence_scores.get((tracker, sequence))
        kept = None if values is None else [value for value, counts in zip(values, better) if counts]
        return None if kept is None else float(np.prod(kept))

    of_first: dict[str, float] = {}
    for reference in trackers:
        of_first = of_first or {name: value for name in sequences if (value := quality(reference, name)) is not None}
    ranked = sorted(of_first, key=of_first.__getitem__, reverse=True)
    shown = ranked if len(ranked) <= 2 * count else ranked[:count] + ranked[len(ranked) - count:]
    sheets = []
    for name in shown:
        strips = [_strip(experiment, tracker, sequences[name])
                  for reference, tracker in trackers.items() if quality(reference, name) is not None]
        sheets.append(Sheet(name, ranked.index(name) + 1, found.fps[name], strips))
    return experiment.identifier, len(ranked), sheets


def _strip(experiment: Experiment, tracker: Tracker, sequence: Sequence) -> Strip:
    from vot.region import calculate_overlaps

    frames, trajectories = _one_run(experiment, tracker, sequence)
    overlaps = []
    for target, trajectory in trajectories.items():
        truths = [sequence.frame(frame).object(target) for frame in frames[1:]]
        overlaps.append(calculate_overlaps(trajectory.regions()[1:], truths, sequence.size))
    places = np.unique(np.linspace(1, len(frames) - 1, FRAMES).astype(int))
    cells = []
    for place in places:
        frame = sequence.frame(frames[place])
        regions = [(trajectory.region(int(place)), frame.object(target))
                   for target, trajectory in trajectories.items()]
        cells.append(draw(frame.image(), *zip(*regions)))
    strip = cv2.cvtColor(np.hstack(cells), cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return Strip(tracker.reference, [frames[place] + 1 for place in places], jpeg,
                 np.mean(overlaps, axis=0))


def _one_run(
    experiment: Experiment, tracker: Tracker, sequence: Sequence
) -> tuple[list[int], dict[str, Trajectory]]:
    """The frames of the sequence in the order they were tracked, and the trajectory of every target."""
    from vot.experiment.multistart import MultiStartExperiment, find_anchors
    from vot.tracker import Trajectory

    targets = list(sequence.objects())
    if not isinstance(experiment, MultiStartExperiment):
        runs = {target: experiment.gather(tracker, sequence, objects=[target])[0] for target in targets}
        return list(range(len(sequence))), runs
    forward, backward = find_anchors(sequence, experiment.anchor)
    paths = {anchor: list(range(anchor, len(sequence))) for anchor in forward}
    paths |= {anchor: list(range(anchor, -1, -1)) for anchor in backward}
    longest = max(paths, key=lambda anchor: len(paths[anchor]))
    results = experiment.results(tracker, sequence)
    return paths[longest], {targets[0]: Trajectory.read(results, f"{sequence.name}_{longest:08d}")}
