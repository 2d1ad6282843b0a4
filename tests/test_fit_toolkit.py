"""Versions of the toolkit that fail are named before they do, and its compiled functions find a place."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tracker_ar import cli
from tracker_ar.evaluate import fit_toolkit

ROOT = Path(__file__).resolve().parents[1]
FAILED = {"vot-toolkit": ["0.8.0", "0.8.1", "0.9.0"], "attributee": ["0.1.10"], "vot-trax": ["3.0.3"]}
WORKED = {"vot-toolkit": "0.7.4", "attributee": "0.1.9", "vot-trax": "4.0.2"}


@pytest.mark.parametrize("name", FAILED)
def test_only_what_was_seen_to_fail_is_kept_out(name: str) -> None:
    quoted = re.findall(rf'^    "({name}[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    (required,) = map(Requirement, quoted)
    assert all(version not in required.specifier for version in FAILED[name])
    assert WORKED[name] in required.specifier and "99.0" in required.specifier
    assert fit_toolkit.why_unfit(name, WORKED[name]) is None and fit_toolkit.why_unfit(name, "99.0") is None


@pytest.mark.parametrize("version", ["0.8.0", "0.9.0", None])
def test_an_unfit_toolkit_is_named(version: str | None, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version if name == "vot-toolkit" else WORKED[name]

    monkeypatch.setattr(importlib.metadata, "version", installed)
    for command in cli.NEED_THE_TOOLKIT:
        assert cli.main([command]) == 1
        said = capsys.readouterr().err
        assert "vot-toolkit" in said and "pip install" in said


def test_a_read_only_installation_compiles_into_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    fit_toolkit.give_numba_a_cache()
    assert not os.environ["NUMBA_CACHE_DIR"]  # the usual places will do
    monkeypatch.setattr(fit_toolkit, "_can_be_written", lambda folder: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    fit_toolkit.give_numba_a_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).parent == tmp_path
