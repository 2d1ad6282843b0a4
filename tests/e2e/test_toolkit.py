"""Through the real VOT toolkit as a subprocess, on tiny sequences, with trackers that need no weights."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from short_videos import LENGTH, ROOT, vot, write_sequence

from tracker_ar import cli
from tracker_ar.data.datasets.vot_layout import write_list

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences: one target stands still, one leaves the box of the first frame behind."""
    folder = tmp_path_factory.mktemp("workspace")
    for name, step in (("still", 0), ("moving", 2)):
        write_sequence(folder / "sequences" / name, step)
    write_list(folder / "sequences", ["still", "moving"])
    stack = (ROOT / "workspace/short-videos.yaml").read_text()
    (folder / "stack.yaml").write_text(re.sub(r"high: \d+", "high: 10", re.sub(r"low: \d+", "low: 4", stack)))
    (folder / "config.yaml").write_text(
        f"registry:\n  - {ROOT / 'trackers.ini'}\n  - {folder / 'doubles.ini'}\nstack: stack.yaml\n")
    paths = os.pathsep.join(map(str, (ROOT / "tests/doubles", ROOT)))
    (folder / "doubles.ini").write_text("\n".join(
        f"[{name}]\nprotocol = traxpython\ncommand = double_tracker\npaths = {paths}\n"
        f"env_DOUBLE = {name.lower()}\n"
        for name in ("Noisy", "Crashing", "Unbuildable")))
    return folder


def test_evaluation_ends_with_table_report_and_picture(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["evaluate", "--tracker", "Noisy", "--with-static", "--workspace", str(workspace)])
    output = capfd.readouterr().out
    assert status == 0
    assert "Noisy, profile double-noisy, 2 sequences, EAO over 4 to 10 frames" in output
    rows = {line.split()[0]: [float(word) for word in line.split()[1:] if word != "|"]
            for line in output.splitlines() if re.match(r"(Noisy|StaticBox) +\|", line)}
    # A box that keeps still: overlap 1 on one sequence, on the other 18/22, 16/24, ...
    falling = np.mean([max(20 - 2 * n, 0) / (20 + min(2 * n, 20)) for n in range(1, LENGTH)])
    assert rows["StaticBox"][6] == pytest.approx((1 + falling) / 2, abs=2e-3)
    assert rows["Noisy"] == rows["StaticBox"]
    assert all(0 < value <= 1 for value in rows["Noisy"])

    report = Path(re.search(r"report: +(.+)", output)[1])
    assert "VOT report" in report.read_text() and "Noisy" in report.read_text()
    assert "profile double-noisy" in report.with_name("summary.txt").read_text()
    page = Path(re.search(r"page: +(.+)", output)[1]).read_text()
    assert "double-noisy" in page and f"{rows['Noisy'][0]:.3f}" in page
    picture = cv2.imread(re.search(r"picture: +(.+)", output)[1]).astype(int)
    assert ((picture[..., 2] - picture[..., 0]) > 60).mean() > 0.02  # painted red


def test_results_are_kept_and_packed(workspace: Path) -> None:
    files = sorted((workspace / "results/StaticBox").rglob("*.bin"))
    assert files, "the evaluation runs first"
    before = [file.stat().st_mtime_ns for file in files]
    assert "Evaluation concluded successfuly" in vot(workspace, "evaluate", "StaticBox")
    assert before == [file.stat().st_mtime_ns for file in files]
    assert "Result packaging successful" in vot(workspace, "pack", "StaticBox")
    with zipfile.ZipFile(next(workspace.glob("StaticBox_*.zip"))) as archive:
        assert "baseline/still/still_00000000.bin" in archive.namelist()


def test_toolkit_test_command_in_the_workspace_of_the_project() -> None:
    output = vot(ROOT / "workspace", "test", "StaticBox")
    assert "Test concluded successfuly" in output
    # Three objects in 50 frames, since the tracker says that it takes several.
    assert output.count("@@TRAX:state") == 150


@pytest.mark.parametrize(("tracker", "cause"), [
    ("Crashing", "RuntimeError: the double gave up"),
    ("Unbuildable", "CheckpointError: no checkpoint"),
])
def test_failure_of_the_tracker_is_reported_with_its_cause(
    workspace: Path, capfd: pytest.CaptureFixture[str], tracker: str, cause: str
) -> None:
    assert cli.main(["evaluate", "--tracker", tracker, "--workspace", str(workspace)]) == 1
    error = capfd.readouterr().err
    assert cause in error
    assert "Traceback (most recent call last)" in error


def test_unknown_tracker(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--tracker", "Nobody", "--workspace", str(workspace)]) == 1
    assert "Nobody" in capfd.readouterr().err
