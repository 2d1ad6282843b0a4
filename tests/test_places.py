"""Where things lie, in a repository and in an installed package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tracker_ar
from tracker_ar import places

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a package that may not be written to, in which the weights of `lite` are."""
    root = tmp_path / "installed"
    (root / "checkpoints").mkdir(parents=True)
    (root / "checkpoints/lite.safetensors").touch()
    monkeypatch.delenv(places.CHECKPOINTS_VARIABLE, raising=False)
    monkeypatch.setattr(places, "ROOT", root)
    monkeypatch.setattr(places, "IN_REPOSITORY", False)
    monkeypatch.setattr(places, "user_data", lambda: tmp_path / "user")
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(root))
    return root


def test_all_is_there_in_a_repository() -> None:
    assert places.IN_REPOSITORY and places.ROOT == ROOT
    for path in (places.STACKS, places.TRACKERS, places.CONSTRAINTS, places.DOCUMENTS):
        assert path.exists()


def test_checkpoints_go_to_the_user_where_the_package_is_read_only(installed: Path, tmp_path: Path) -> None:
    assert places.checkpoint_dir() == tmp_path / "user/checkpoints"
    assert places.checkpoint_file("lite.safetensors") == installed / "checkpoints/lite.safetensors"
    assert places.checkpoint_file("other.safetensors") == tmp_path / "user/checkpoints/other.safetensors"
    (tmp_path / "user/checkpoints").mkdir(parents=True)
    (tmp_path / "user/checkpoints/lite.safetensors").touch()
    assert places.checkpoint_file("lite.safetensors") == tmp_path / "user/checkpoints/lite.safetensors"


def test_what_was_installed_stays_when_the_package_can_be_written(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user/checkpoints").mkdir(parents=True)
    (tmp_path / "user/checkpoints/own.safetensors").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert places.checkpoint_dir() == installed / "checkpoints"
    assert places.checkpoint_file("own.safetensors") == tmp_path / "user/checkpoints/own.safetensors"


def test_a_chosen_folder_is_the_only_one(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.CHECKPOINTS_VARIABLE, str(tmp_path))
    assert places.checkpoint_file("lite.safetensors") == tmp_path / "lite.safetensors"


def test_the_workspace_is_where_the_user_stands(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.workspace() == tmp_path / "workspace"
    (tmp_path / "config.yaml").touch()
    assert places.workspace() == tmp_path


def test_no_other_module_looks_for_its_place() -> None:
    files = [file for room in ("tracker_ar", "vot_wrapper") for file in (ROOT / room).rglob("*.py")]
    found = [file.name for file in files if re.search(r"__file__", file.read_text(encoding="utf-8"))]
    assert found == ["places.py"]


def test_the_library_works_without_the_toolkit() -> None:
    blocked = "sys.meta_path.insert(0, type('No', (), {'find_spec': lambda self, name, *_: (_ for _ in ()).throw(" \
              "ImportError(name)) if name.partition('.')[0] in ('vot', 'trax', 'attributee') else None})())"
    program = f"import sys; {blocked}; import tracker_ar, tracker_ar.commands.track, tracker_ar.video.follow; " \
              "[getattr(tracker_ar, name) for name in tracker_ar.__all__]"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_public_names_are_listed() -> None:
    assert set(tracker_ar.__all__) < set(dir(tracker_ar))
