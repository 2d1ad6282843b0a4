"""How many threads, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracker_ar.calm import calm, usable_processors

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("files", "processors"), [
    ({"cpu.max": "150000 100000\n"}, 2), ({"cpu.max": "50000 100000\n"}, 1), ({"cpu.max": "max 100000\n"}, 64),
    ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ({"cpu.max": "what"}, 64), ({}, 64), ({"cpu.max": "9900000 100000"}, 64),
])
def test_quotas_of_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], processors: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_processors(tmp_path) == processors


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    monkeypatch.setenv("KMP_BLOCKTIME", "200")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("tracker_ar.calm.usable_processors", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    calm()
    assert (os.environ["GOMP_SPINCOUNT"], os.environ["KMP_BLOCKTIME"]) == ("1000", "200")
    assert os.environ.pop("OMP_NUM_THREADS") == "1"


@pytest.mark.parametrize("module", ["tracker_ar.cli", "vot_wrapper.launch"])
def test_entry_points_are_calm_before_torch_is_loaded(module: str) -> None:
    program = f"import sys, os, {module}; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "False"]
