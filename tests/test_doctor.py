"""The doctor: every row that can fail does so once, with its cure."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from tracker_ar import checkpoints as checkpoint_files
from tracker_ar.checkpoints import SLOTS, write_checkpoint
from tracker_ar.doctor import command, handshake, installation, machine, report
from tracker_ar.doctor.report import FAILED, OK, WARNING, Row, examine
from tracker_ar.doctor.workspace import find_tracker, workspace
from tracker_ar.evaluate.vot_format import encode_mask_line

ROOT = Path(__file__).resolve().parents[1]
DOUBLE = ROOT / "tests" / "doubles" / "double_tracker.py"


def named(found: Iterable[Row], name: str) -> Row:
    return {row.name: row for row in found}[name]


# ---- the report


def test_text_has_cause_and_cure_only_where_something_is_wrong() -> None:
    assert report.as_text(report.ok("a", "fine")) == "OK       a: fine"
    bad = report.as_text(report.failed("b", "bad", "one\ntwo", "mend it")).splitlines()
    assert bad[0] == "FAILED   b: bad"
    assert [line.split() for line in bad[1:]] == [["cause:", "one"], ["two"], ["cure:", "mend", "it"]]


def test_only_failures_make_the_exit_status() -> None:
    fine = [report.ok("a", ""), report.warning("b", "", "c", "d")]
    assert report.exit_status(fine) == 0
    assert report.exit_status([*fine, report.failed("c", "", "c", "d")]) == 1
    assert report.summary(fine) == "2 checks: 1 OK, 1 WARNING, 0 FAILED"


def test_an_error_in_a_check_becomes_a_row() -> None:
    def half() -> Iterable[Row]:
        yield report.ok("first", "fine")
        raise RuntimeError("broken package")

    first, second = examine("group", half)
    assert first.state == OK and second.state == FAILED
    assert "RuntimeError: broken package" in second.cause and "pip install -c constraints.txt" in second.cure


# ---- installation


def test_what_is_checked_is_what_the_project_asks_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r'^\s*"([a-z-]+)', listed, re.MULTILINE)) == set(installation.DEPENDENCIES)
    limits = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text)
    ours = installation.OLDEST_PYTHON[1], installation.FIRST_UNTESTED_PYTHON[1]
    assert ours == tuple(map(int, limits.groups()))


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_wrong_python(version: tuple[int, ...]) -> None:
    row = installation.python_version(version)
    assert row.state == FAILED and "3.10 to 3.13" in row.cause and "PYTHON=python3" in row.cure


def test_running_python() -> None:
    assert installation.python_version().state == OK


@pytest.mark.parametrize(("name", "version", "state", "cause", "cure"), [
    ("numpy", None, FAILED, "needs", "pip install -c constraints.txt"),
    ("numpy", "1.0", WARNING, "with 2.2.6", "pip install numpy==2.2.6"),
    ("vot-toolkit", "0.8.0", FAILED, "ObjectQuery.state must be a Region", "vot-toolkit==0.7.4"),
    ("vot-toolkit", "0.9.0", FAILED, "ObjectQuery.state must be a Region", "vot-toolkit==0.7.4"),
    ("vot-trax", "3.0.2", FAILED, "needs vot-trax 4", "vot-trax==4.0.2"),
    ("torch", "2.13.0+cpu", OK, "", ""),
    ("vot-toolkit", "0.7.4", OK, "", ""),
])
def test_packages(name: str, version: str | None, state: str, cause: str, cure: str) -> None:
    tested = {"numpy": "2.2.6", "torch": "2.13.0", "vot-toolkit": "0.7.4", "vot-trax": "4.0.2"}
    row, = installation.packages({name: version}, tested)
    assert row.state == state and cause in row.cause and cure in row.cure


@pytest.mark.parametrize(("python", "state"), [((3, 11), FAILED), ((3, 10), WARNING)])
def test_attributee_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, python: tuple[int, int], state: str
) -> None:
    monkeypatch.setattr(installation.sys, "version_info", python)
    row, = installation.packages({"attributee": "0.1.10"}, {"attributee": "0.1.9"})
    assert row.state == state and "pip install attributee==0.1.9" in row.cure
    assert ("dataclass_transform()" in row.cause) == (state == FAILED)


def test_constraints_are_read(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    assert installation.read_constraints(file) == {}
    file.write_text("# tested\nNumPy==2.2.6\n\ntorch==2.13.0  # CPU\n")
    assert installation.read_constraints(file) == {"numpy": "2.2.6", "torch": "2.13.0"}
    assert set(installation.DEPENDENCIES) <= set(installation.read_constraints(ROOT / "constraints.txt"))


def test_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.imports().state == OK
    (tmp_path / "broken_for_doctor.py").write_text("raise OSError('libGL.so.1 is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    row = installation.imports(["json", "broken_for_doctor"])
    assert row.state == FAILED and "OSError: libGL.so.1" in row.cause and "make clean" in row.cure


@pytest.mark.parametrize("file", ["vot.py", "vot/__init__.py"])
def test_shadowed_toolkit(tmp_path: Path, file: str) -> None:
    assert [row.state for row in installation.shadows([tmp_path])] == [OK, OK]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    found = list(installation.shadows([tmp_path]))
    row = named(found, "module vot")
    assert row.state == FAILED and str(tmp_path / file) in row.found and "Rename or remove" in row.cure
    assert named(found, "module trax").state == OK


def test_missing_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "SHADOWED", {"no_such_module": "no-such-distribution"})
    row, = installation.shadows([])
    assert row.state == FAILED and "not installed" in row.cause and "pip install" in row.cure


def test_missing_distribution_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert set(installation.installed_versions().values()) == {None}


def test_opencv_without_video(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.opencv_video().state == OK
    from tracker_ar.video import overlay

    monkeypatch.setattr(overlay.VideoFile, "close", lambda self: False)
    row = installation.opencv_video()
    assert row.state == WARNING and "opencv-python" in row.cure and "--no-video" in row.cure
    monkeypatch.setattr(overlay, "CODECS", ())
    assert installation.opencv_video().state == WARNING


def test_windows_are_information_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:   NONE\n")
    row = installation.opencv_window()
    assert row.state == OK and "headless" in row.found
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:   QT5\n")
    monkeypatch.setattr(installation.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "no display" in installation.opencv_window().found
    monkeypatch.setenv("DISPLAY", ":0")
    assert installation.opencv_window().found == "QT5"


# ---- device and checkpoints


@pytest.mark.parametrize(("threads", "environment", "state", "cure"), [
    (4, {}, OK, ""),
    (1, {"OMP_NUM_THREADS": "1"}, WARNING, "unset OMP_NUM_THREADS"),
    (8, {"OMP_NUM_THREADS": "8"}, WARNING, "export OMP_NUM_THREADS=4"),
    (4, {"OMP_NUM_THREADS": "all"}, WARNING, "export OMP_NUM_THREADS=4"),
    (2, {}, OK, ""),  # half of the hardware threads is torch's own choice on many machines
])
def test_cpu(threads: int, environment: dict[str, str], state: str, cure: str) -> None:
    row = machine.cpu(threads, 4, environment)
    assert row.state == state and cure in row.cure


def test_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert machine.gpu().state == OK
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    row = machine.gpu()
    assert row.state == WARNING and "driver" in row.cause and "nvidia-smi" in row.cure


def write_lite(folder: Path) -> None:
    for slot in SLOTS:
        if slot.profile == "lite":
            write_checkpoint(folder / slot.file_name, {"weight": torch.ones(3)}, slot.kind)


def write_card(folder: Path, **changed: str) -> None:
    files = folder.glob("*.safetensors")
    digests = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    lines = [f"| `{stem}.safetensors` | `{digest}` |" for stem, digest in {**digests, **changed}.items()]
    (folder / "README.md").write_text("\n".join(lines))


def test_sound_checkpoints(tmp_path: Path) -> None:
    write_lite(tmp_path)
    row = named(machine.checkpoints(tmp_path), "checkpoint lite_super_dimp.safetensors")
    assert "no recorded hash" in row.found
    write_card(tmp_path)
    found = list(machine.checkpoints(tmp_path))
    assert {row.state for row in found} == {OK} and len(found) == len(SLOTS) + 1
    assert "as recorded" in named(found, "checkpoint lite_super_dimp.safetensors").found
    assert "runs lite" in named(found, "profile").found
    assert "not installed" in named(found, "checkpoint super_dimp.safetensors").found


def test_missing_checkpoints(tmp_path: Path) -> None:
    found = list(machine.checkpoints(tmp_path))
    row = named(found, "checkpoint lite_mask_refiner.safetensors")
    assert row.state == FAILED and "is missing" in row.cause and "git checkout -- checkpoints" in row.cure
    row = named(found, "profile")
    assert row.state == FAILED and "alpharefine checkpoints install" in row.cure


def test_altered_checkpoint(tmp_path: Path) -> None:
    write_lite(tmp_path)
    write_card(tmp_path, lite_super_dimp="0" * 64)
    found = list(machine.checkpoints(tmp_path))
    row = named(found, "checkpoint lite_super_dimp.safetensors")
    assert row.state == FAILED and "altered" in row.cause and "git checkout -- checkpoints" in row.cure
    assert named(found, "profile").state == FAILED


def test_damaged_checkpoint(tmp_path: Path) -> None:
    write_lite(tmp_path)
    file = tmp_path / "lite_super_dimp.safetensors"
    write_checkpoint(file, {"weight": torch.tensor([1.0, float("nan")])}, "lite_super_dimp")
    row = named(machine.checkpoints(tmp_path), f"checkpoint {file.name}")
    assert (row.state, row.found) == (FAILED, "damaged") and "git checkout -- checkpoints" in row.cure


def test_unfit_checkpoint_of_the_authors_falls_back(tmp_path: Path) -> None:
    write_lite(tmp_path)
    (tmp_path / "super_dimp.safetensors").write_bytes(b"<html>")
    found = list(machine.checkpoints(tmp_path))
    row = named(found, "checkpoint super_dimp.safetensors")
    assert row.state == WARNING and "runs lite" in row.cure and "alpharefine checkpoints install" in row.cure
    assert named(found, "profile").state == OK


def test_the_authors_weights_make_the_own_ones_dispensable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_files, "installed_profile", lambda folder: "vot2020")
    row = named(machine.checkpoints(tmp_path), "checkpoint lite_super_dimp.safetensors")
    assert row.state == WARNING and "git checkout" in row.cure


# ---- workspace


CONFIG = "registry:\n  - trackers.ini\nstack: stack.yaml\n"


def make_workspace(folder: Path, config: str = CONFIG, registry: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "stack.yaml").write_text((ROOT / "workspace/short-videos.yaml").read_text())
    (folder / "trackers.ini").write_text(registry)
    (folder / "config.yaml").write_text(config)
    return folder


def add_sequence(folder: Path, name: str = "short", fps: str = "20") -> Path:
    import cv2

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


@pytest.mark.parametrize(("config", "name", "cause", "cure"), [
    ("stack: [", "workspace", "line 1", "stack: short-videos.yaml"),
    ("registry:\n  - trackers.ini\n", "workspace", "does not name a stack", "stack: short-videos.yaml"),
    ("stack: nowhere.yaml", "stack", "nowhere.yaml", "vot2020/shortterm"),
    ("stack: wrong.yaml", "stack", "no_such_type", "short-videos.yaml"),
])
def test_unreadable_configuration(tmp_path: Path, config: str, name: str, cause: str, cure: str) -> None:
    folder = make_workspace(tmp_path / "w", config)
    (folder / "wrong.yaml").write_text("experiments:\n  baseline:\n    type: no_such_type\n")
    row = named(workspace(folder), name)
    assert row.state == FAILED and cause in row.cause and cure in row.cure


def test_no_workspace(tmp_path: Path) -> None:
    row, = workspace(tmp_path)
    assert row.state == FAILED and "config.yaml" in row.cause
    assert "alpharefine evaluate --workspace" in row.cure


@pytest.mark.parametrize(("stack", "cure"), [
    ("stack.yaml", "alpharefine sequences make"), ("vot2020/shortterm", "`vot evaluate` downloads"),
])
def test_no_sequences_yet_and_nothing_is_downloaded(tmp_path: Path, stack: str, cure: str) -> None:
    folder = make_workspace(tmp_path / "w", f"registry:\n  - trackers.ini\nstack: {stack}\n")
    row = named(workspace(folder), "sequences")
    assert row.state == WARNING and cure in row.cure
    assert not (folder / "sequences").exists()


def test_damaged_sequence(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    add_sequence(folder, fps="fast")
    row = named(workspace(folder), "sequences")
    assert row.state == FAILED and "fps=" in row.cause and "alpharefine sequences --help" in row.cure


def test_list_without_a_sequence(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    add_sequence(folder)
    (folder / "sequences" / "list.txt").write_text("")
    row = named(workspace(folder), "sequences")
    assert row.state == FAILED and "alpharefine sequences make" in row.cure


def test_sequences_annotated_with_boxes(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    (add_sequence(folder) / "groundtruth.txt").write_text("1,2,8,8\n1,2,8,8\n")
    row = named(workspace(folder), "sequences")
    assert row.state == WARNING and "short" in row.cause and "--masks-only" in row.cure


def test_paths_that_trax_cannot_send(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path / "w")
    add_sequence(folder, "caf\u00e9")
    row = named(workspace(folder), "paths")
    assert row.state == FAILED and "ASCII" in row.cause and "Rename the sequence" in row.cure


def test_workspace_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_workspace(tmp_path / "w")

    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tracker_ar.doctor.workspace.tempfile.TemporaryFile", refuse)
    row = named(workspace(folder), "writing")
    assert row.state == FAILED and row.cause == "Permission denied" and "chmod u+w" in row.cure


# ---- finding the tracker


@pytest.mark.parametrize(("registry", "cause", "cure"), [
    ("[Other]\nprotocol = trax\ncommand = true\n", "knows: Other", "--tracker"),
    ("[Mine\n", "MissingSectionHeaderError", "trackers.ini"),
    ("[Mine]\nprotocol = trax\ncommand = true\ncolour = red\n", "colour", "env_NAME"),
    ("[Mine]\nprotocol = telepathy\ncommand = true\n", "telepathy", "traxpython"),
    ("[Mine]\nprotocol = trax\ncommand = /with a space/x\n", "no program /with", "path without spaces"),
    ("[Mine]\nprotocol = trax\ncommand = true\nsocket = true\n", "pipes only", "Take `socket` out"),
])
def test_tracker_that_cannot_be_launched(tmp_path: Path, registry: str, cause: str, cure: str) -> None:
    launch, row = find_tracker(make_workspace(tmp_path / "w", registry=registry), "Mine")
    assert launch is None and row.state == FAILED
    assert cause in row.cause and cure in row.cure


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
    assert "the double gave up" in bad[0]["cause"] and bad[0]["cure"]


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
    assert "ASCII" in row["cause"] and "export TMPDIR" in row["cure"]


@pytest.mark.parametrize("arguments", [("--fps", "0"), ("--timeout", "nan"), ("--timeout", "-1")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as error:
        doctor(*arguments)
    assert error.value.code == 2


def test_importing_the_command_is_light() -> None:
    program = ("import sys, tracker_ar.doctor.command; "
               "print(*sorted(sys.modules.keys() & {'torch', 'cv2', 'numpy', 'vot', 'trax'}))")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout.split() == []
