"""What goes wrong under the real toolkit: the cause is in its log and in what the user sees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from short_videos import ROOT, UNSUPERVISED, vot, write_sequence

from tracker_ar import cli, zoo
from tracker_ar.data.datasets.vot_layout import write_list
from tracker_ar.evaluate.vot_toolkit import load_workspace, missing_results

pytestmark = pytest.mark.e2e


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for name in ("moving", "still"):
        write_sequence(tmp_path / "sequences" / name, step=int(name == "moving"))
    write_list(tmp_path / "sequences", ["moving", "still"])
    (tmp_path / "stack.yaml").write_text(UNSUPERVISED)
    (tmp_path / "doubles.ini").write_text(
        "".join(f"[{name}]\nprotocol = traxpython\ncommand = double_tracker\n"
                f"paths = {ROOT / 'tests/doubles'}{os.pathsep}{ROOT}\nenv_DOUBLE = {name.lower()}\n"
                for name in ("Killed", "Quiet")))
    (tmp_path / "config.yaml").write_text(
        f"registry:\n  - {ROOT / 'trackers.ini'}\n  - doubles.ini\nstack: stack.yaml\n")
    return tmp_path


def logs(workspace: Path) -> str:
    return "\n".join(file.read_text(errors="replace") for file in sorted((workspace / "logs").rglob("*.log")))


def take_whole_stack(workspace: Path) -> None:
    """The stack that `alpharefine evaluate` shows; a failing tracker never comes to the end of it."""
    config = workspace / "config.yaml"
    config.write_text(config.read_text().replace("stack.yaml", "vot2020/shortterm"))


def break_refiner(workspace: Path, damage: Callable[[bytes], bytes]) -> Path:
    """A folder with the weights of `lite`, those of the refiner damaged."""
    weights = workspace / "weights"
    weights.mkdir()
    for slot in zoo.slots_of("lite"):
        shutil.copy(ROOT / "checkpoints" / slot.file_name, weights)
    file = weights / "lite_mask_refiner.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    return weights


def test_a_truncated_checkpoint_under_the_toolkit_by_hand(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(break_refiner(workspace, lambda whole: whole[:-1000])))
    output = vot(workspace, "evaluate", "AlphaRefine-Lite")
    assert "concluded successfuly" not in output and "Unable to connect" not in output
    cause = r"CheckpointError.*lite_mask_refiner\.safetensors.*truncated or damaged"
    assert re.search(cause, output)
    assert re.search(cause, logs(workspace)) and "Traceback" in logs(workspace)


def test_an_altered_checkpoint_under_the_toolkit(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    take_whole_stack(workspace)
    weights = break_refiner(workspace, lambda whole: whole[:-4000] + b"\xff" * 4000)
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(weights))
    assert cli.main(["evaluate", "--tracker", "AlphaRefine-Lite", "--workspace", str(workspace)]) == 1
    cause = r"CheckpointError.*holds values that are not finite: the file is damaged"
    assert re.search(cause, capfd.readouterr().err) and re.search(cause, logs(workspace))


def test_a_tracker_that_is_killed(workspace: Path, capfd: pytest.CaptureFixture) -> None:
    take_whole_stack(workspace)
    assert cli.main(["evaluate", "--tracker", "Killed", "--workspace", str(workspace)]) == 1
    said = capfd.readouterr().err
    assert "vot evaluate failed" in said and "about to be killed" in said
    assert "about to be killed" in logs(workspace)


def test_two_evaluations_at_once_in_one_workspace(workspace: Path) -> None:
    """Each tracker has results and logs of its own."""
    trackers = ["StaticBox", "Quiet"]
    runs = [subprocess.Popen([sys.executable, "-m", "vot", "evaluate", tracker], cwd=workspace, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for tracker in trackers]
    for run in runs:
        assert "Evaluation concluded successfuly" in run.communicate(timeout=300)[0]
    assert not missing_results(load_workspace(workspace), trackers)
