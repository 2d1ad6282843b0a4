"""The doctor looks at the installation and the machine: every row that can fail does so once, with its fix."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from doctor_rows import named, write_lite

from tracker_ar import zoo
from tracker_ar.doctor import installation, machine, report
from tracker_ar.doctor.report import FAILED, OK, WARNING, Row, examine
from tracker_ar.weights.store import write_checkpoint

ROOT = Path(__file__).resolve().parents[1]


# ---- the report


def test_text_has_cause_and_fix_only_where_something_is_wrong() -> None:
    assert report.as_text(report.ok("a", "fine")) == "OK       a: fine"
    bad = report.as_text(report.failed("b", "bad", "one\ntwo", "fix it")).splitlines()
    assert bad[0] == "FAILED   b: bad"
    assert [line.split() for line in bad[1:]] == [["cause:", "one"], ["two"], ["fix:", "fix", "it"]]


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
    assert "RuntimeError: broken package" in second.cause and "pip install -c constraints.txt" in second.fix


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
    assert row.state == FAILED and "3.10 to 3.13" in row.cause and "PYTHON=python3" in row.fix


def test_running_python() -> None:
    assert installation.python_version().state == OK


@pytest.mark.parametrize(("name", "version", "state", "cause", "fix"), [
    ("numpy", None, FAILED, "needs", "pip install -c constraints.txt"),
    ("numpy", "1.0", WARNING, "with 2.2.6", "pip install numpy==2.2.6"),
    ("vot-toolkit", "0.8.0", FAILED, "ObjectQuery.state must be a Region", "vot-toolkit==0.7.4"),
    ("vot-toolkit", "0.9.0", FAILED, "ObjectQuery.state must be a Region", "vot-toolkit==0.7.4"),
    ("vot-trax", "3.0.2", FAILED, "needs vot-trax 4", "vot-trax==4.0.2"),
    ("torch", "2.13.0+cpu", OK, "", ""),
    ("vot-toolkit", "0.7.4", OK, "", ""),
])
def test_packages(name: str, version: str | None, state: str, cause: str, fix: str) -> None:
    tested = {"numpy": "2.2.6", "torch": "2.13.0", "vot-toolkit": "0.7.4", "vot-trax": "4.0.2"}
    row, = installation.packages({name: version}, tested)
    assert row.state == state and cause in row.cause and fix in row.fix


@pytest.mark.parametrize(("python", "state"), [((3, 11), FAILED), ((3, 10), WARNING)])
def test_attributee_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, python: tuple[int, int], state: str
) -> None:
    monkeypatch.setattr(installation.sys, "version_info", python)
    row, = installation.packages({"attributee": "0.1.10"}, {"attributee": "0.1.9"})
    assert row.state == state and "pip install attributee==0.1.9" in row.fix
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
    assert row.state == FAILED and "OSError: libGL.so.1" in row.cause and "make clean" in row.fix


@pytest.mark.parametrize("file", ["vot.py", "vot/__init__.py"])
def test_shadowed_toolkit(tmp_path: Path, file: str) -> None:
    assert [row.state for row in installation.shadows([tmp_path])] == [OK, OK]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    found = list(installation.shadows([tmp_path]))
    row = named(found, "module vot")
    assert row.state == FAILED and str(tmp_path / file) in row.found and "Rename or remove" in row.fix
    assert named(found, "module trax").state == OK


def test_missing_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "SHADOWED", {"no_such_module": "no-such-distribution"})
    row, = installation.shadows([])
    assert row.state == FAILED and "not installed" in row.cause and "pip install" in row.fix


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
    assert row.state == WARNING and "opencv-python" in row.fix and "--no-video" in row.fix
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


@pytest.mark.parametrize(("threads", "environment", "state", "fix"), [
    (4, {}, OK, ""),
    (1, {"OMP_NUM_THREADS": "1"}, WARNING, "unset OMP_NUM_THREADS"),
    (8, {"OMP_NUM_THREADS": "8"}, WARNING, "export OMP_NUM_THREADS=4"),
    (4, {"OMP_NUM_THREADS": "all"}, WARNING, "export OMP_NUM_THREADS=4"),
    (2, {}, OK, ""),  # half of the hardware threads is torch's own choice on many machines
])
def test_cpu(threads: int, environment: dict[str, str], state: str, fix: str) -> None:
    row = machine.cpu(threads, 4, environment)
    assert row.state == state and fix in row.fix


def test_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert machine.gpu().state == OK
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    row = machine.gpu()
    assert row.state == WARNING and "driver" in row.cause and "nvidia-smi" in row.fix


def write_card(folder: Path, **changed: str) -> None:
    files = folder.glob("*.safetensors")
    digests = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    lines = [f"| `{stem}.safetensors` | `{digest}` |" for stem, digest in {**digests, **changed}.items()]
    (folder / "README.md").write_text("\n".join(lines))


def test_sound_checkpoints(tmp_path: Path) -> None:
    write_lite(tmp_path)
    row = named(machine.checkpoints(tmp_path), "checkpoint lite_base.safetensors")
    assert "no recorded hash" in row.found
    write_card(tmp_path)
    found = list(machine.checkpoints(tmp_path))
    assert {row.state for row in found} == {OK} and len(found) == 4 + 1
    assert "as recorded" in named(found, "checkpoint lite_base.safetensors").found
    assert "runs lite" in named(found, "tracker").found
    assert "not installed" in named(found, "checkpoint super_dimp.safetensors").found


def test_missing_checkpoints(tmp_path: Path) -> None:
    found = list(machine.checkpoints(tmp_path))
    row = named(found, "checkpoint lite_mask_refiner.safetensors")
    assert row.state == FAILED and "is missing" in row.cause and "git checkout -- checkpoints" in row.fix
    row = named(found, "tracker")
    assert row.state == FAILED and "alpharefine checkpoints install" in row.fix


def test_altered_checkpoint(tmp_path: Path) -> None:
    write_lite(tmp_path)
    write_card(tmp_path, lite_base="0" * 64)
    found = list(machine.checkpoints(tmp_path))
    row = named(found, "checkpoint lite_base.safetensors")
    assert row.state == FAILED and "altered" in row.cause and "git checkout -- checkpoints" in row.fix
    assert named(found, "tracker").state == FAILED


def test_damaged_checkpoint(tmp_path: Path) -> None:
    write_lite(tmp_path)
    file = tmp_path / "lite_base.safetensors"
    write_checkpoint(file, {"weight": torch.tensor([1.0, float("nan")])}, "lite_base")
    row = named(machine.checkpoints(tmp_path), f"checkpoint {file.name}")
    assert (row.state, row.found) == (FAILED, "damaged") and "git checkout -- checkpoints" in row.fix


def test_unfit_checkpoint_of_the_authors_falls_back(tmp_path: Path) -> None:
    write_lite(tmp_path)
    (tmp_path / "super_dimp.safetensors").write_bytes(b"<html>")
    found = list(machine.checkpoints(tmp_path))
    row = named(found, "checkpoint super_dimp.safetensors")
    assert row.state == WARNING and "alpharefine checkpoints install" in row.fix
    assert named(found, "tracker").state == OK


def test_the_authors_weights_make_the_own_ones_dispensable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "best_installed", lambda folder: "vot2020")
    row = named(machine.checkpoints(tmp_path), "checkpoint lite_base.safetensors")
    assert row.state == WARNING and "git checkout" in row.fix
