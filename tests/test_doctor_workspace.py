"""The doctor looks at a workspace and at the tracker in it; the whole command."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from doctor_rows import named, write_lite

from tracker_ar.commands import doctor as command
from tracker_ar.doctor import handshake
from tracker_ar.doctor.report import FAILED, OK, WARNING
from tracker_ar.doctor.workspace import find_tracker, workspace
from tracker_ar.run_lengths import encode_mask_line

ROOT = Path(__file__).resolve().parents[1]
DOUBLE = ROOT / "tests" / "doubles" / "double_tracker.py"
CONFIG = "registry:\n  - trackers.ini\nstack: stack.yaml\n"


def make_workspace(folder: Path, config: str = CONFIG, registry: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "stack.yaml").write_text((ROOT / "workspace/short-videos.yaml").read_text())
    (folder / "trackers.ini").write_text(registry)
    (folder / "config.yaml").write_text(config)
    return folder


def add_sequence(folder: Path, name: str = "short", fps: str = "20") -> Path:
    path = folder / "sequences" / name
    (path / "color").mkdir(parents=True)
    picture = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    for frame in (1, 2):
        (path / "color" / f"{frame:08d}.jpg").write_bytes(picture)
    (path / "groundtruth.txt").write_text(f"{encode_mask_line(np.ones((8, 8), np.uint8))}\n" * 2)
    (path / "anchor.value").write_text("1\n0\n")
    (path / "sequence").write_text(f"channels.color=color/%08d.jpg\nformat=default\nfps={fps}\nlength=2\n"
                                   f"name={name}\nwidth=32\nheight=24\n")
    (folder / "sequences" / "list.txt").write_text(f"{name}\n")
    return path


def test_sound_workspace(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    add_sequence(folder)
    found = list(workspace(folder))
    assert [row.state for row in found] == [OK] * 5
    assert "baseline, realtime, unsupervised" in named(found, "stack").found
    assert named(found, "sequences").found.startswith("1 with 2 images")


@pytest.mark.parametrize(("config", "name", "cause", "fix"), [
    ("stack: [", "workspace", "line 1", "stack: short-videos.yaml"),
    ("registry:\n  - trackers.ini\n", "workspace", "does not name a stack", "stack: short-videos.yaml"),
    ("stack: nowhere.yaml", "stack", "nowhere.yaml", "vot2020/shortterm"),
    ("stack: wrong.yaml", "stack", "no_such_type", "short-videos.yaml"),
])
def test_unreadable_configuration(tmp_path: Path, config: str, name: str, cause: str, fix: str) -> None:
    folder = make_workspace(tmp_path / "w", config)
    (folder / "wrong.yaml").write_text("experiments:\n  baseline:\n    type: no_such_type\n")
    row = named(workspace(folder), name)
    assert row.state == FAILED and cause in row.cause and fix in row.fix


def test_no_workspace(tmp_path: Path) -> None:
    row, = workspace(tmp_path)
    assert row.state == FAILED and "config.yaml" in row.cause
    assert "alpharefine evaluate --workspace" in row.fix


@pytest.mark.parametrize(("stack", "fix"), [
    ("stack.yaml", "alpharefine sequences make"), ("vot2020/shortterm", "`vot evaluate` downloads"),
])
def test_no_sequences_yet_and_nothing_is_downloaded(tmp_path: Path, stack: str, fix: str) -> None:
    folder = make_workspace(tmp_path / "w", f"registry:\n  - trackers.ini\nstack: {stack}\n")
    row = named(workspace(folder), "sequences")
    assert row.state == WARNING and fix in row.fix
    assert not (folder / "sequences").exists()


def test_damaged_sequence(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    add_sequence(folder, fps="fast")
    row = named(workspace(folder), "sequences")
    assert row.state == FAILED and "fps=" in row.cause and "alpharefine sequences --help" in row.fix


def test_list_without_a_sequence(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    add_sequence(folder)
    (folder / "sequences" / "list.txt").write_text("")
    row = named(workspace(folder), "sequences")
    assert row.state == FAILED and "alpharefine sequences make" in row.fix


def test_sequences_annotated_with_boxes(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    (add_sequence(folder) / "groundtruth.txt").write_text("1,2,8,8\n1,2,8,8\n")
    row = named(workspace(folder), "sequences")
    assert row.state == WARNING and "short" in row.cause and "--masks-only" in row.fix


def test_paths_that_trax_cannot_send(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    add_sequence(folder, "caf\u00e9")
    row = named(workspace(folder), "paths")
    assert row.state == FAILED and "ASCII" in row.cause and "Rename the sequence" in row.fix


def test_workspace_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_workspace(tmp_path / "w")

    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tracker_ar.doctor.workspace.tempfile.TemporaryFile", refuse)
    row = named(workspace(folder), "writing")
    assert row.state == FAILED and row.cause == "Permission denied" and "chmod u+w" in row.fix


# ---- finding the tracker


@pytest.mark.parametrize(("registry", "cause", "fix"), [
    ("[Other]\nprotocol = trax\ncommand = true\n", "knows: Other", "--tracker"),
    ("[Mine\n", "MissingSectionHeaderError", "trackers.ini"),
    ("[Mine]\nprotocol = trax\ncommand = true\ncolour = red\n", "colour", "env_NAME"),
    ("[Mine]\nprotocol = telepathy\ncommand = true\n", "telepathy", "traxpython"),
    ("[Mine]\nprotocol = trax\ncommand = /with a space/x\n", "no program /with", "path without spaces"),
    ("[Mine]\nprotocol = trax\ncommand = true\nsocket = true\n", "pipes only", "Take `socket` out"),
])
def test_tracker_that_cannot_be_launched(tmp_path: Path, registry: str, cause: str, fix: str) -> None:
    launch, row = find_tracker(make_workspace(tmp_path / "w", registry=registry), "Mine")
    assert launch is None and row.state == FAILED
    assert cause in row.cause and fix in row.fix


def test_a_folder_without_configuration_has_the_trackers_of_the_project(tmp_path: Path) -> None:
    launch, row = find_tracker(tmp_path, "AlphaRefine")
    assert row.state == OK and launch.command == (sys.executable, "-m", "vot_wrapper.alpharefine")
    assert launch.environment["PYTHONPATH"] == str(ROOT) and launch.timeout == 120


# ---- the command


def doctor(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(arguments))


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which everything is well, with doubles for trackers."""
    entry = f"protocol = trax\ncommand = {sys.executable} {DOUBLE}\nenv_PYTHONPATH = {ROOT}\nenv_DOUBLE = "
    folder = make_workspace(tmp_path / "w", registry=f"[Good]\n{entry}quiet\n[Bad]\n{entry}crashing\n")
    add_sequence(folder)
    weights = tmp_path / "weights"
    write_lite(weights)
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return folder


def test_command_passes(patient: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("--workspace", str(patient), "--tracker", "Good", "--fps", "1") == 0
    out = capsys.readouterr().out
    assert "OK       tracking: 12 frames" in out and out.rstrip().endswith(" 0 FAILED")


def test_command_fails_as_json(patient: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("--workspace", str(patient), "--tracker", "Bad", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    bad = [row for row in document["checks"] if row["state"] == "FAILED"]
    assert [row["name"] for row in bad] == ["tracking"]
    assert "the double gave up" in bad[0]["cause"] and bad[0]["fix"]


def test_quick_starts_nothing(
    patient: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "converse", lambda *_: pytest.fail("the tracker was started"))
    assert doctor("--workspace", str(patient), "--tracker", "Bad", "--quick", "--json") == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["checks"]]
    assert "tracker Bad" in names and "TraX hello" not in names


def test_temporary_folder_that_trax_cannot_send(
    patient: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.tempfile, "gettempdir", lambda: "/tmp/caf\u00e9")
    assert doctor("--workspace", str(patient), "--tracker", "Good", "--json") == 1
    row = {row["name"]: row for row in json.loads(capsys.readouterr().out)["checks"]}["TraX hello"]
    assert "ASCII" in row["cause"] and "export TMPDIR" in row["fix"]


@pytest.mark.parametrize("arguments", [("--fps", "0"), ("--timeout", "nan"), ("--timeout", "-1")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as error:
        doctor(*arguments)
    assert error.value.code == 2


def test_importing_the_command_is_light() -> None:
    program = ("import sys, tracker_ar.commands.doctor; "
               "print(*sorted(sys.modules.keys() & {'torch', 'cv2', 'numpy', 'vot', 'trax'}))")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout.split() == []
