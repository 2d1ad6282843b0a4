"""Imports run one way, and what starts fast stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each part of the project may import of the others; a part may always import itself.
BELOW = {
    "errors": set(),
    "atomic": set(),
    "options": set(),
    "geometry": {"errors"},
    "crops": {"errors", "geometry"},
    "device_crops": {"crops", "geometry"},
    "ops": set(),
    "models": {"ops"},
    "profiles": {"models"},
    "inert_pickle": {"errors"},
    "checkpoint_files": {"errors", "inert_pickle"},
    "checkpoints": {"errors", "atomic", "inert_pickle", "checkpoint_files", "models"},
    "base": {"errors", "geometry", "crops", "device_crops", "models", "profiles"},
    "refine": {"errors", "geometry", "crops", "device_crops", "models", "profiles"},
    "prediction": set(),
    "fallback": set(),
    "tracker": {"errors", "fallback", "geometry", "crops", "device_crops", "models", "profiles", "base", "refine",
                "checkpoints", "prediction"},
    "batch": {"crops", "device_crops", "fallback", "models", "prediction", "tracker"},
    "multi_target": {"errors", "geometry", "prediction", "batch"},
}


def parts_imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tracker_ar."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found.update(name.name.split(".")[1] for name in node.names if name.name.startswith("tracker_ar."))
    return found


@pytest.mark.parametrize("part", BELOW)
def test_imports_run_one_way(part: str) -> None:
    folder = ROOT / "tracker_ar" / part
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert files
    for file in files:
        above = parts_imported(file) - BELOW[part] - {part}
        assert not above, f"{file.name} imports {above}"


@pytest.mark.parametrize("module", [
    "tracker_ar.cli", "tracker_ar.atomic", "vot_wrapper.launch", "vot_wrapper.protocol",
])
def test_starts_without_the_heavy_libraries(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(sys.modules.keys() & {{'torch', 'cv2', 'numpy', 'vot', 'trax'}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_file_shadows_the_toolkit() -> None:
    tracked = {path.name for folder in ("tracker_ar", "vot_wrapper") for path in (ROOT / folder).rglob("*.py")}
    assert "vot.py" not in tracked and "trax.py" not in tracked
    assert not (ROOT / "vot.py").exists() and not (ROOT / "trax.py").exists()
