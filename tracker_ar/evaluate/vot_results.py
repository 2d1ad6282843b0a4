"""Reading a workspace: every number comes from the toolkit's own analyses of its stack, or from its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracker_ar.data.datasets.vot_layout import LIST_NAME
from tracker_ar.errors import EvaluationError
from tracker_ar.evaluate.results import ExperimentResults, Measure, Plot, Results
from tracker_ar.evaluate.vot_toolkit import load_workspace, reported_profiles
from tracker_ar.evaluate.workspace_config import data_set, sequences_folder

if TYPE_CHECKING:
    from vot.analysis import Analysis
    from vot.dataset import Sequence
    from vot.experiment import Experiment
    from vot.tracker import Tracker
    from vot.workspace import Workspace

Progress = Callable[[str], None]
_TIMES = "_time.value"


def open_workspace(folder: Path) -> Workspace:
    """The toolkit's view of a workspace that has been evaluated; nothing is downloaded.

    Raises EvaluationError with cause and fix where there is no workspace, or one without results.
    """
    if not (folder / "config.yaml").is_file():
        raise EvaluationError(f"{folder} is no workspace of the VOT toolkit: there is no config.yaml in it. "
                              "Name the folder in which `vot evaluate` or `alpharefine evaluate` was run.")
    if not any((folder / "results").glob("*/*/*/*")):
        raise EvaluationError(f"{folder}/results holds no results yet: run `alpharefine evaluate "
                              f"--workspace {folder}`, or `vot evaluate TRACKER` in that folder.")
    if data_set(folder) is not None and not (sequences_folder(folder) / LIST_NAME).is_file():
        raise EvaluationError(f"the sequences of this workspace are not here ({sequences_folder(folder)} has "
                              "no list.txt); link or copy them there, or let `vot evaluate` fetch them")
    return load_workspace(folder)


def find_trackers(workspace: Workspace, asked: list[str]) -> tuple[list[Tracker], list[str]]:
    """The trackers to show: those asked for, else all with results; and notes on those that cannot be shown.

    Raises EvaluationError when one asked for is not in the registry or none is left.
    """
    folder = Path(workspace.directory)
    present = sorted(workspace.storage.substorage("results").folders())
    registered = [name for name in present if name.partition("@")[0] in workspace.registry]
    unknown = [name for name in asked if name.partition("@")[0] not in workspace.registry]
    if unknown:
        raise EvaluationError(f"no tracker {', '.join(unknown)} in the registry of {folder}; with results "
                              f"there are: {', '.join(registered) or 'none'}")
    notes = [f"{name}: in results/, but not in the registry; add it to a trackers.ini to show it."
             for name in present if name not in registered and not asked]
    notes += [f"{name}: no results; `vot evaluate {name}` makes them."
              for name in asked if name not in present]
    shown = [name for name in dict.fromkeys(asked or registered) if name in present]
    if not shown:
        raise EvaluationError(f"nothing to show in {folder}: {' '.join(notes) or 'no tracker has results'}")
    return workspace.registry.resolve(*shown, storage=workspace.storage.substorage("results")), notes


def collect(workspace: Workspace, trackers: list[Tracker], notes: list[str], progress: Progress) -> Results:
    """Run the stack's analyses over the results of `trackers`.

    progress: called with a few words after each tracker and sequence of each experiment. Results that are
    missing or damaged leave gaps and a note. The best tracker by the stack's first measure comes first.
    """
    experiments = []
    for experiment in workspace.stack:
        sequences = experiment.transform(list(workspace.dataset))
        reading = _Reading(experiment, sequences, progress)
        for tracker in trackers:
            reading.add(tracker)
        experiments.append(reading.results)
        notes = [*notes, *reading.notes]
    profiles = {tracker.reference: ", ".join(sorted(reported_profiles(workspace, tracker.reference)))
                for tracker in trackers}
    labels = {tracker.reference: tracker.label for tracker in trackers}
    return Results(Path(workspace.directory).name, workspace.stack.title, _ranked(labels, experiments),
                   profiles, experiments, notes)


def _ranked(labels: dict[str, str], experiments: list[ExperimentResults]) -> dict[str, str]:
    first = next((experiment for experiment in experiments if experiment.measures), None)
    if first is None:
        return labels
    sign = -1 if first.measures[0].higher_is_better else 1
    order = sorted(labels, key=lambda name: sign * first.scores[name][0] if name in first.scores else np.inf)
    return {name: labels[name] for name in order}


class _Reading:
    """One experiment while it is read. `results` and `notes` are what comes out."""

    def __init__(self, experiment: Experiment, sequences: list[Sequence], progress: Progress) -> None:
        from vot.analysis import Axes

        rate = experiment.realtime.fps if experiment.realtime else 20
        fps = {sequence.name: float(sequence.metadata("fps", rate)) for sequence in sequences}
        self.results = ExperimentResults(experiment.identifier, experiment.realtime is not None, fps)
        self.notes: list[str] = []
        self._experiment = experiment
        self._sequences = sequences
        self._progress = progress
        analyses = [analysis for analysis in experiment.analyses if analysis.compatible(experiment)]
        self._analyses = [analysis for analysis in analyses if analysis.axes is Axes.TRACKERS]
        needed = {part.identifier: part for analysis in analyses for part in _with_dependencies(analysis)}
        self._parts = [part for part in needed.values() if part.axes is Axes.BOTH]

    def add(self, tracker: Tracker) -> None:
        """Read all results of one tracker."""
        parts: dict[str, dict[str, tuple]] = {part.identifier: {} for part in self._parts}
        missing = []
        for sequence in self._sequences:
            self._progress(f"{tracker.reference} {self._experiment.identifier} {sequence.name}")
            try:
                complete, files, stored = self._experiment.scan(tracker, sequence)
                if not (complete and files):
                    missing.append(sequence.name)
                    continue
                for part in self._parts:
                    parts[part.identifier][sequence.name] = _scalar(part, self._experiment, tracker, sequence)
                times = [_read_times(stored, file) for file in files if file.endswith(_TIMES)]
            except Exception as error:  # damaged files fail in the toolkit's readers in many ways
                missing.append(sequence.name)
                place = (tracker.reference, self._experiment.identifier, sequence.name)
                self.notes.append(
                    f"{', '.join(place)}: the results cannot be read ({type(error).__name__}: {error}). "
                    f"Delete results/{'/'.join(place)} and run `vot evaluate {tracker.reference}`.")
                continue
            if times:
                self.results.times[tracker.reference, sequence.name] = np.concatenate(times)
        self._keep_sequences(tracker, parts)
        if missing:
            self._note_missing(tracker, missing)
        else:
            self._keep_scores(tracker, parts)

    def _keep_sequences(self, tracker: Tracker, parts: dict[str, dict[str, tuple]]) -> None:
        described = [(part, _measures(part)) for part in self._parts]
        self.results.sequence_measures = [measure for _, found in described for _, measure in found]
        for sequence in self._sequences:
            if all(sequence.name in parts[part.identifier] for part in self._parts):
                values = [parts[part.identifier][sequence.name][index] for part, found in described
                          for index, _ in found]
                self.results.sequence_scores[tracker.reference, sequence.name] = [float(v) for v in values]

    def _keep_scores(self, tracker: Tracker, parts: dict[str, dict[str, tuple]]) -> None:
        from vot import analysis as toolkit

        self.results.measures = [measure for analysis in self._analyses for _, measure in _measures(analysis)]
        scores = self.results.scores.setdefault(tracker.reference, [])
        known: dict[str, Any] = {}
        for analysis in self._analyses:
            values = self._compute(analysis, tracker, parts, known)[0, 0]
            scores += [float(values[index]) for index, _ in _measures(analysis)]
            for index, description in enumerate(analysis.describe()):
                if isinstance(description, toolkit.Plot):
                    self._add_curve(analysis, description, tracker.reference, np.asarray(values[index]))
                elif isinstance(description, toolkit.Point) and description.trait == "ar":
                    robustness, accuracy = map(float, values[index])
                    self.results.points[tracker.reference] = robustness, accuracy

    def _compute(
        self, analysis: Analysis, tracker: Tracker, parts: dict[str, dict[str, tuple]], known: dict[str, Any]
    ) -> Any:
        """The toolkit's grid of an analysis, from what is known of its parts."""
        from vot.utilities.data import Grid

        if analysis.identifier not in known:
            if analysis.identifier in parts:
                grid = Grid(1, len(self._sequences))
                for index, sequence in enumerate(self._sequences):
                    grid[0, index] = parts[analysis.identifier][sequence.name]
            else:
                needed = [self._compute(part, tracker, parts, known) for part in analysis.dependencies()]
                grid = analysis.compute(self._experiment, [tracker], self._sequences, needed)
            known[analysis.identifier] = grid
        return known[analysis.identifier]

    def _add_curve(self, analysis: Analysis, description: Any, tracker: str, values: np.ndarray) -> None:
        plot = next((plot for plot in self.results.plots if plot.title == description.name), None)
        if plot is None:
            plot = Plot(description.name, description.wrt, description.abbreviation,
                        np.arange(values.size), {}, _interval(self._analyses))
            self.results.plots.append(plot)
        plot.curves[tracker] = values

    def _note_missing(self, tracker: Tracker, missing: list[str]) -> None:
        names = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        self.notes.append(
            f"{tracker.reference}, {self._experiment.identifier}: no complete results on {len(missing)} of "
            f"{len(self._sequences)} sequences ({names}), so there are no totals; "
            f"`vot evaluate {tracker.reference}` makes the missing ones.")


def _with_dependencies(analysis: Analysis) -> Iterator[Analysis]:
    for dependency in analysis.dependencies():
        yield from _with_dependencies(dependency)
    yield analysis


def _measures(analysis: Analysis) -> list[tuple[int, Measure]]:
    """The single numbers among an analysis's results, with their place."""
    from vot import analysis as toolkit

    return [(index, Measure(found.name, found.abbreviation or found.name,
                            found.direction is not toolkit.Sorting.ASCENDING))
            for index, found in enumerate(analysis.describe()) if isinstance(found, toolkit.Measure)]


def _scalar(part: Analysis, experiment: Experiment, tracker: Tracker, sequence: Sequence) -> tuple:
    needed = [dependency.compute(experiment, [tracker], [sequence], [])
              for dependency in part.dependencies()]
    return part.compute(experiment, [tracker], [sequence], needed)[0, 0]


def _interval(analyses: list[Analysis]) -> tuple[int, int] | None:
    for analysis in analyses:
        if hasattr(analysis, "low") and hasattr(analysis, "high"):
            return analysis.low, analysis.high
    return None


def _read_times(stored: Any, file: str) -> np.ndarray:
    """Seconds per frame, (n,), without the first, in which the tracker was initialised."""
    with stored.read(file) as lines:
        return np.array([float(line) for line in list(lines)[1:] if line.strip()])
