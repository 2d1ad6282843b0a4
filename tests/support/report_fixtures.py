"""A workspace with results that the toolkit's own classes have written, without running a tracker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from short_videos import LENGTH, ROOT, SIZE, write_sequence

from tracker_ar.data.datasets.vot_layout import write_list
from tracker_ar.evaluate.vot_toolkit import load_workspace

LOW, HIGH = 4, 10
TRACKERS = {"Perfect": 0, "Shifted": 10}  # how far to the right of the target each one says it is, pixels
SECONDS = {"Perfect": 0.01, "Shifted": 0.2}


def write_workspace(folder: Path, stack: str | None = None) -> Path:
    """Two sequences and two registered trackers, no results. stack: its YAML instead of the project's."""
    for name, step in (("still", 0), ("moving", 2)):
        write_sequence(folder / "sequences" / name, step)
    write_list(folder / "sequences", ["still", "moving"])
    text = stack or (ROOT / "workspace/short-videos.yaml").read_text()
    text = text.replace("low: 20", f"low: {LOW}").replace("high: 90", f"high: {HIGH}")
    (folder / "stack.yaml").write_text(text)
    (folder / "trackers.ini").write_text("\n".join(
        f"[{name}]\nlabel = The {name.lower()} <one>\nprotocol = traxpython\ncommand = none\n"
        for name in TRACKERS))
    (folder / "config.yaml").write_text("registry:\n  - trackers.ini\nstack: stack.yaml\n")
    return folder


def write_results(folder: Path, tracker: str) -> None:
    """Results of a tracker in every experiment and sequence."""
    from vot.experiment.multistart import MultiStartExperiment, find_anchors

    workspace = load_workspace(folder)
    entry = workspace.registry[tracker]
    for experiment in workspace.stack:
        for sequence in experiment.transform(list(workspace.dataset)):
            targets = list(sequence.objects())
            if isinstance(experiment, MultiStartExperiment):
                forward, backward = find_anchors(sequence)
                runs = {f"{start:08d}": list(range(start, LENGTH)) for start in forward}
                runs |= {f"{start:08d}": list(range(start, -1, -1)) for start in backward}
            elif len(targets) == 1:
                runs = {"001": list(range(LENGTH))}
            else:
                runs = {f"{target}_001": list(range(LENGTH)) for target in targets}
            for run, frames in runs.items():
                target = run.partition("_")[0] if len(targets) > 1 else targets[0]
                trajectory = _trajectory(tracker, sequence, target, frames)
                trajectory.write(experiment.results(entry, sequence), f"{sequence.name}_{run}")


def _trajectory(tracker: str, sequence, target: str, frames: list[int]):
    from vot.region import Mask, Special
    from vot.tracker import Trajectory

    trajectory = Trajectory(len(frames))
    trajectory.set(0, Special(Trajectory.INITIALIZATION), {"time": 5.0})
    for place, frame in enumerate(frames[1:], 1):
        truth = sequence.frame(frame).object(target).rasterize((0, 0, SIZE[1] - 1, SIZE[0] - 1))
        mask = np.roll(truth, TRACKERS[tracker], axis=1)
        trajectory.set(place, Mask(np.ascontiguousarray(mask), (0, 0)),
                       {"time": SECONDS[tracker], "profile": f"made-{tracker.lower()}"})
    return trajectory
