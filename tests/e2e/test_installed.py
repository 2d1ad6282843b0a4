"""A wheel in an environment of its own, far from the repository: everything that users need is in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tracker_ar.run_lengths import encode_mask_line

ROOT = Path(__file__).resolve().parents[2]
NOT_PACKED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "tests", "__pycache__", "sequences", "results")
FRAMES = 6

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools")
    source, wheels = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("wheels")
    shutil.copytree(ROOT, source, ignore=NOT_PACKED)  # a build leaves files in its source
    (source / "checkpoints/super_dimp.safetensors").write_bytes(b"of the user")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--quiet",
               "--wheel-dir", wheels, source]
    subprocess.run(command, check=True, cwd=wheels)
    return next(wheels.iterdir())


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and, through a path, the dependencies that are installed here."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    bins = folder / ("Scripts" if os.name == "nt" else "bin")
    site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(site, "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    python = bins / "python"
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet",
                    wheel], check=True)
    return bins


@pytest.fixture
def alpharefine(bin_folder: Path, tmp_path: Path) -> Callable[..., str]:
    ours = ("PYTHONPATH", "ALPHAREFINE_CHECKPOINTS")
    environment = {key: value for key, value in os.environ.items() if key not in ours}

    def run(*words: object) -> str:
        done = subprocess.run([bin_folder / "alpharefine", *map(str, words)], cwd=tmp_path, env=environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def write_sequence(folder: Path) -> None:
    """A bright square that moves to the right."""
    (folder / "color").mkdir(parents=True)
    lines = []
    for number in range(FRAMES):
        image = np.random.default_rng(0).integers(0, 60, (96, 128, 3), np.uint8)
        mask = np.zeros((96, 128), np.uint8)
        mask[40:60, 30 + number : 54 + number] = 1
        image[mask > 0] = (40, 90, 230)
        cv2.imwrite(str(folder / f"color/{number + 1:08d}.jpg"), image)
        lines.append(encode_mask_line(mask))
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    (folder / "anchor.value").write_text("1\n" + "0\n" * (FRAMES - 2) + "-1\n")
    (folder / "sequence").write_text(f"fps=20\nlength={FRAMES}\n")


def test_the_wheel_holds_what_stands_at_the_top_and_nothing_of_the_users(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {name.removeprefix("tracker_ar/installed/") for name in names if "/installed/" in name}
    assert shipped >= {"trackers.ini", "constraints.txt", "checkpoints/lite_base.safetensors",
                       "workspace/short-videos.yaml", "workspace/vot2020/config.yaml"}
    assert names >= {"tracker_ar/py.typed", "tracker_ar/docs/method.md", "tracker_ar/demo/static/index.html",
                     "vot_wrapper/alpharefine.py"}
    assert "checkpoints/super_dimp.safetensors" not in shipped
    assert not any(name.startswith(("tests/", "tracker_ar/installed/workspace/sequences")) for name in names)


def test_track(alpharefine: Callable[..., str], tmp_path: Path) -> None:
    write_sequence(tmp_path / "clip")
    said = alpharefine("track", "clip/color", "--box", "30,40,24,20", "--no-video", "--out", "out")
    assert "tracker lite" in said
    assert len(list((tmp_path / "out/masks").glob("*.png"))) == FRAMES


def test_evaluate_makes_a_workspace_where_the_user_stands(alpharefine: Callable[..., str], tmp_path: Path) -> None:
    write_sequence(tmp_path / "set/square")
    said = alpharefine("evaluate", "--tracker", "StaticBox", "--sequences", "set")
    assert "StaticBox, profile" in said and (tmp_path / "workspace/reports/StaticBox/report.html").is_file()
    assert (tmp_path / "workspace/results/StaticBox/baseline/square").is_dir()


def test_doctor(alpharefine: Callable[..., str], bin_folder: Path) -> None:
    said = alpharefine("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(said[said.index("{\n") :])["checks"]}
    assert checks["workspace"]["state"] == "WARNING"  # none yet
    assert checks["tracker AlphaRefine"]["state"] == "OK"
    assert str(bin_folder.parent) in checks["tracker AlphaRefine"]["found"]


def test_demo_answers_and_ends(bin_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    with subprocess.Popen([bin_folder / "alpharefine", "demo", "--port", "0"], cwd=tmp_path, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            lines = iter(process.stdout.readline, "")
            address = next(found[0] for line in lines if (found := re.search(r"http://127.0.0.1:\d+/", line)))
            assert b"<html" in urllib.request.urlopen(address).read()
            assert json.load(urllib.request.urlopen(f"{address}api/about"))["examples"]
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0
        finally:
            process.kill()
