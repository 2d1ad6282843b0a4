"""Running the VOT toolkit as a person would, and finding out whether it succeeded.

Its commands exit 0 even when they failed, so success is judged by the line that they end with and by the
files that they leave.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker_ar.errors import EvaluationError
from tracker_ar.evaluate.workspace_config import read_config

if TYPE_CHECKING:
    from vot.workspace import Workspace

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PERCENT = re.compile(r"^\s*(\d+) %$")
_LOG_FILE = re.compile(r"Tracker output written to file: (.+)")
_PROTOCOL_LINE = re.compile(r"^@@TRAX:")
_LINES_KEPT = 30
EXPERIMENTS = ("baseline", "realtime", "unsupervised")  # of vot2020/shortterm
_TENTHS = 10


def evaluate(workspace: Path, trackers: list[str], force: bool = False) -> None:
    """Run the trackers over all experiments and sequences.

    Raises EvaluationError with what the tracker said when it failed.
    """
    loaded = load_workspace(workspace)
    steps = [f"{tracker} {experiment.identifier}" for tracker in trackers for experiment in loaded.stack]
    output = _vot(workspace, "evaluate", *trackers, *(["--force"] if force else []), steps=steps)
    if "Evaluation concluded successfuly" not in output[-1:]:
        raise EvaluationError(_cause("vot evaluate", workspace, output))
    missing = missing_results(loaded, trackers)
    if missing:
        raise EvaluationError(f"vot evaluate left no results for {', '.join(missing[:5])} "
                              f"({len(missing)} in all); see {workspace / 'logs'}")


def analyse(workspace: Path, trackers: list[str], name: str) -> dict[str, Any]:
    """The toolkit's analysis of existing results, as the parsed ``analysis/NAME.json``.

    Analyses of earlier results are dropped first: the toolkit would not notice that results have changed.
    """
    shutil.rmtree(workspace / "cache" / "analysis", ignore_errors=True)
    file = workspace / "analysis" / f"{name}.json"
    file.unlink(missing_ok=True)
    output = _vot(workspace, "analysis", *trackers, "--name", name)
    if not file.is_file() or not any("Analysis successful" in line for line in output[-3:]):
        raise EvaluationError(_cause("vot analysis", workspace, output))
    return json.loads(file.read_text())


def report(workspace: Path, trackers: list[str], name: str) -> Path:
    """Write the toolkit's HTML report of an analysis and return its path."""
    file = workspace / "reports" / name / "report.html"
    file.unlink(missing_ok=True)
    output = _vot(workspace, "report", *trackers, "--name", name)
    if not file.is_file() or file.stat().st_size == 0:
        raise EvaluationError(_cause("vot report", workspace, output))
    return file


def load_workspace(workspace: Path) -> Workspace:
    """The toolkit's own view of a workspace: its stack, sequences and result files.

    Where the stack names a data set and no sequences are there, the toolkit downloads them now. Raises
    EvaluationError when the workspace cannot be read or the download fails.
    """
    from vot.workspace import Workspace

    read_config(workspace)
    try:
        return Workspace.load(str(workspace))
    except Exception as error:  # YAML, registry, stack and sequences are each read by another parser
        raise EvaluationError(f"the toolkit cannot load the workspace {workspace}: {error or type(error).__name__}; "
                              f"`alpharefine doctor --workspace {workspace}` looks closer") from error


def check_stack(workspace: Workspace) -> None:
    """Raise EvaluationError, before hours of work, for a stack whose results the table could not show."""
    present = list(workspace.stack.experiments)
    missing = [name for name in EXPERIMENTS if name not in present]
    if missing:
        raise EvaluationError(
            f"the stack of {workspace.directory} has the experiments {', '.join(present) or 'none'}; this command "
            f"shows those of vot2020/shortterm and needs {', '.join(missing)} as well. For another stack run "
            "`vot evaluate TRACKER`, `vot analysis TRACKER` and `vot report TRACKER` in the workspace")


def missing_results(workspace: Workspace, trackers: list[str]) -> list[str]:
    """``tracker/experiment/sequence`` for everything that was not run to its end."""
    missing = []
    for tracker in workspace.registry.resolve(*trackers, skip_unknown=False):
        for experiment in workspace.stack:
            for sequence in experiment.transform(workspace.dataset):
                complete, files, _ = experiment.scan(tracker, sequence)
                if not (complete and files):
                    missing.append(f"{tracker.reference}/{experiment.identifier}/{sequence.name}")
    return missing


def reported_profiles(workspace: Workspace, tracker: str) -> set[str]:
    """The names of the profiles that produced the results of a tracker on the present sequences.

    They come from the property ``profile`` that our server sends with every state; the toolkit keeps it
    beside the trajectory. Empty for trackers that send none.
    """
    names: set[str] = set()
    root = Path(workspace.directory) / "results" / tracker
    for sequence in workspace.dataset:
        for file in root.glob(f"*/{sequence.name}/*_profile.value"):
            names.update(line.strip() for line in file.read_text().splitlines() if line.strip())
    return names


def _vot(workspace: Path, *arguments: str, steps: Sequence[str] = ()) -> list[str]:
    """Run one toolkit command in the workspace, pass on what it says, return its last lines.

    ``steps`` name the progress bars that the command goes through; the toolkit prints bare percentages.
    """
    print(f"$ vot {' '.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "vot", *arguments], cwd=workspace, text=True,
                               errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=_LINES_KEPT)
    names = iter(steps)
    name, shown = next(names, ""), -1
    try:
        for line in process.stdout:
            text = _COLOURS.sub("", line).rstrip()
            percent = _PERCENT.match(text)
            if not percent:
                last.append(text)
                print(f"  {text}", flush=True)
                continue
            tenth = int(percent[1]) * _TENTHS // 100
            if tenth != shown:
                print(f"  {name} {text.strip()}", flush=True)
            name, shown = (next(names, ""), -1) if tenth == _TENTHS else (name, tenth)
        process.wait()
    finally:
        process.terminate()
    return [line for line in last if line]


def _cause(command: str, workspace: Path, output: list[str]) -> str:
    """What went wrong, as far as the toolkit and the log of the tracker tell."""
    message = [f"{command} failed. Its last words:", *output[-1:]]
    logs = [match[1].strip() for match in map(_LOG_FILE.search, output) if match]
    if logs:
        file = workspace / logs[-1]
        lines = file.read_text(errors="replace").splitlines()
        said = [line for line in lines if not _PROTOCOL_LINE.match(line)]
        message += [f"The tracker said ({file}):", *said[-_LINES_KEPT:]]
    return "\n".join(message)
