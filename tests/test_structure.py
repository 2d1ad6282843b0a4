"""Imports run one way, and what starts fast stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the bottom up: a room may import the rooms of the lines above its own, and itself.
LAYERS = (
    {"errors", "atomic", "calm", "quiet", "interrupts", "profile", "trace", "wheel"},
    {"geometry", "images", "places", "run_lengths"},
    {"frame", "ops"},
    {"crops", "prediction", "models", "engine"},
    {"weights"},
    {"base", "refine"},
    {"tracker"},
    {"zoo"},
    {"data", "video"},
    {"evaluate", "train", "explain"},
    {"report", "speed"},
    {"doctor", "demo", "examples"},
    {"commands"},
    {"cli", "docs"},
)
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}


def imports_of(file: Path) -> Iterator[str]:
    """Modules of the package that a file imports, also inside functions, but not for type checking alone."""
    tree = ast.parse(file.read_text())
    typing_only = {
        inner for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tracker_ar"):
            for name in node.names:
                inner = ROOT / node.module.replace(".", "/") / f"{name.name}.py"
                yield f"{node.module}.{name.name}" if inner.exists() else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("tracker_ar."))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted((ROOT / "tracker_ar").rglob("*.py"))


def test_every_room_has_its_layer() -> None:
    rooms = {module.split(".")[1] for module in map(module_of, FILES) if module != "tracker_ar"}
    assert rooms == set(HEIGHT)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_run_one_way(file: Path) -> None:
    module = module_of(file)
    if module == "tracker_ar":
        return
    room = module.split(".")[1]
    for name in imports_of(file):
        parts = name.split(".")
        if len(parts) > 1 and parts[1] != room:
            assert HEIGHT[parts[1]] < HEIGHT[room], f"{module} imports {name}"


def test_there_is_no_circle() -> None:
    graph = {module_of(file): set(imports_of(file)) for file in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module):], module))
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_no_test_imports_another() -> None:
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else (
                [name.name for name in node.names] if isinstance(node, ast.Import) else [])
            assert not any(name.startswith("test_") for name in names), f"{file.name} imports {names}"


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
