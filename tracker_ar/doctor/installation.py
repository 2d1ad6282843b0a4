"""Python, the packages, what shadows them, and what OpenCV can do here."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tracker_ar.doctor.report import Row, failed, ok, warning
from tracker_ar.evaluate.fit_toolkit import give_numba_a_cache, why_unfit
from tracker_ar.places import IMPORTED_FROM, how_to_install

# distribution -> module
DEPENDENCIES = {
    "torch": "torch", "vot-toolkit": "vot", "attributee": "attributee", "vot-trax": "trax", "numpy": "numpy",
    "matplotlib": "matplotlib", "opencv-python": "cv2", "safetensors": "safetensors", "scipy": "scipy",
    "tqdm": "tqdm", "pillow": "PIL",
}
OLDEST_PYTHON, FIRST_UNTESTED_PYTHON = (3, 10), (3, 14)
SHADOWED = {"vot": "vot-toolkit", "trax": "vot-trax"}


def python_version(version: tuple[int, ...] | None = None) -> Row:
    """The interpreter against `requires-python`. version: None for the running one."""
    version = tuple(sys.version_info[:3]) if version is None else version
    found = f"{'.'.join(map(str, version))} ({sys.executable})"
    if OLDEST_PYTHON <= version[:2] < FIRST_UNTESTED_PYTHON:
        return ok("Python", found)
    tested = f"{_dotted(OLDEST_PYTHON)} to 3.{FIRST_UNTESTED_PYTHON[1] - 1}"
    return failed("Python", found, f"The project runs on Python {tested}.",
                  "Make the environment with another interpreter: make clean, then make evaluate "
                  "PYTHON=python3.12")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# ---- packages


def read_constraints(file: Path) -> dict[str, str]:
    """Distribution, in lower case -> tested version; empty where there is no such file."""
    if not file.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}


def installed_versions() -> dict[str, str | None]:
    """Version of every direct dependency; None for what is not installed."""
    versions: dict[str, str | None] = {}
    for name in DEPENDENCIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def packages(versions: Mapping[str, str | None], tested: Mapping[str, str]) -> Iterator[Row]:
    """A row for each direct dependency. tested: of `read_constraints`."""
    for name, version in versions.items():
        expected = tested.get(name)
        reason = version and why_unfit(name, version)
        if version is None:
            yield failed(name, "not installed", "The project needs this package.",
                         how_to_install())
        elif reason:
            yield failed(name, version, *reason)
        elif expected and version.partition("+")[0] != expected:  # 2.13.0+cpu is a build of 2.13.0
            yield warning(name, version, f"The tests were run with {expected}.",
                          f"pip install {name}=={expected}, if something does not work")
        else:
            yield ok(name, version)


def imports(modules: Sequence[str] = tuple(DEPENDENCIES.values())) -> Row:
    """Whether every dependency can be imported: installed is not the same."""
    give_numba_a_cache()
    broken = []
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a broken package raises
            broken.append(f"import {module}: {type(error).__name__}: {error}")
    if not broken:
        return ok("imports", f"{len(modules)} packages can be imported")
    return failed("imports", f"{len(broken)} of {len(modules)} packages cannot be imported",
                  "\n".join(broken),
                  f"Install again into a new environment: make clean, make setup; or: {how_to_install()}")


# ---- shadows


def shadows(folders: Sequence[Path]) -> Iterator[Row]:
    """A row for each of the toolkit's modules: whether a file of the same name is taken in its place.

    folders: what Python may search before the installed packages (current folder, workspace, PYTHONPATH).
    """
    for module, distribution in SHADOWED.items():
        name = f"module {module}"
        origin = _origin(module)
        if origin is None:
            yield failed(name, "not found", f"{distribution} is not installed.",
                         how_to_install())
            continue
        own = _own_folder(module, distribution)
        foreign = [file for file in _candidates(module, folders) if file.parent.resolve() != own]
        if own is not None and own.is_dir() and origin.parent.resolve() != own:
            foreign.insert(0, origin)
        if foreign:
            paths = ", ".join(map(str, dict.fromkeys(foreign)))
            yield failed(name, f"shadowed by {paths}",
                         f"Python takes this in place of {distribution} when it is searched first.",
                         "Rename or remove it, or take its folder out of PYTHONPATH.")
        else:
            yield ok(name, str(origin.parent))


def search_folders(workspace: Path) -> list[Path]:
    """The folders that Python may search before the installed packages when the toolkit or a tracker runs."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return list(dict.fromkeys(path.resolve() for path in (Path.cwd(), workspace, IMPORTED_FROM, *map(Path, paths))))


def _origin(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _own_folder(module: str, distribution: str) -> Path | None:
    try:
        return Path(str(importlib.metadata.distribution(distribution).locate_file(module))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None


def _candidates(module: str, folders: Sequence[Path]) -> list[Path]:
    files = (folder / name for folder in folders for name in (f"{module}.py", f"{module}/__init__.py"))
    return [file for file in files if file.is_file()]


# ---- OpenCV


def opencv_video() -> Row:
    """Whether OpenCV can write the overlay video of `alpharefine track`."""
    import numpy as np

    from tracker_ar.errors import DataError
    from tracker_ar.video.overlay import VideoFile

    try:
        with tempfile.TemporaryDirectory() as folder:
            video = VideoFile(Path(folder), "trial", 20.0, (48, 64))
            for _ in range(3):
                video.add(np.zeros((48, 64, 3), np.uint8))
            readable = video.close()
            ending = video.path.suffix
    except DataError as error:
        readable, ending = False, str(error)
    if readable:
        return ok("OpenCV video", f"can write {ending}")
    return warning("OpenCV video", "cannot write video",
                   f"A trial of 3 frames could not be read back ({ending}).",
                   "pip install opencv-python from PyPI, which brings FFmpeg; or: alpharefine track "
                   "--no-video")


def opencv_window() -> Row:
    """Whether targets can be drawn with the mouse; information only."""
    import cv2

    build = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    toolkit = build[1] if build else "unknown"
    if toolkit == "NONE":
        return ok("OpenCV windows", "none in this build (headless): give targets as --box or --mask")
    on_linux = sys.platform.startswith("linux")
    if on_linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return ok("OpenCV windows", f"{toolkit}, but no display here: give targets as --box or --mask")
    return ok("OpenCV windows", toolkit)
