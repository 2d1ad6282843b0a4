"""Names of trackers, what they become, and the table of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tracker_ar
from tracker_ar import cli, zoo
from tracker_ar.base.adapted import AdaptedTracker
from tracker_ar.commands.trackers import table
from tracker_ar.errors import CheckpointError, InputError
from tracker_ar.weights.store import FORMAT, _expected_shapes

ROOT = Path(__file__).resolve().parents[1]
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
BOX = np.array([20.0, 15.0, 24.0, 18.0])


def fill(folder: Path, name: str) -> None:
    """The files of a tracker with all its keys and shapes, and zeros that take no room on a disk."""
    for slot in zoo.slots_of(name):
        entries, end = {"__metadata__": {"format": FORMAT, "kind": slot.kind}}, 0
        for key, shape in _expected_shapes(slot).items():
            begin, end = end, end + 4 * math.prod(shape)
            entries[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        header = json.dumps(entries).encode()
        with open(folder / slot.file_name, "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + end)


@pytest.mark.parametrize(("name", "becomes", "base", "refiner"), [
    ("lite", "lite", "lite_base", "lite"), ("vot2020", "vot2020", "super_dimp", "vot2020"),
    ("lite_base+lite", "lite", "lite_base", "lite"), ("lite_dimp+lite", "lite_dimp+lite", "lite_dimp", "lite"),
    ("super_dimp+lite", "super_dimp+lite", "super_dimp", "lite"),
    ("csrt+vot2020", "csrt+vot2020", "csrt", "vot2020"), ("super_dimp", "super_dimp", "super_dimp", ""),
    ("static", "static", "static", "")])
def test_names(name: str, becomes: str, base: str, refiner: str) -> None:
    profile = zoo.profile(name)
    assert (profile.name, profile.base_name, profile.refiner_name) == (becomes, base, refiner)
    assert profile.feedback == "base" and profile.report == "masks"
    assert (profile.base is None) == (base in ("csrt", "static")) and (profile.refiner is None) == (not refiner)


@pytest.mark.parametrize(("name", "says"), [
    ("light", "Did you mean lite"), ("super-dimp", "Did you mean super_dimp"), ("csrt+", "no tracker 'csrt+'"),
    ("lite+lite", "no tracker 'lite+lite'"), ("+lite", "no tracker"), ("csrt+lite+lite", "no tracker"),
    ("xyzzyx", "Names are"),
])
def test_unknown_names_are_refused_with_what_could_be_meant(name: str, says: str) -> None:
    for call in (zoo.build_tracker, zoo.profile, zoo.slots_of, zoo.build_refiner):
        with pytest.raises(InputError) as caught:
            call(name)
        assert says in str(caught.value) and "BASE+REFINER" in str(caught.value)


def test_the_best_that_is_installed_is_taken_and_named(tmp_path: Path) -> None:
    assert zoo.best_installed(tmp_path) == "lite"
    with pytest.raises(CheckpointError, match="lite_base.safetensors is missing"):
        zoo.build_tracker(checkpoint=tmp_path)
    tracker = tracker_ar.build_tracker(device="cpu")  # on a fresh clone
    assert tracker.profile == zoo.profile("lite")
    for name in zoo.BEST:
        fill(tmp_path, name)
    assert zoo.best_installed(tmp_path) == zoo.profile("alpharefine", tmp_path).name == "vot2020"
    assert zoo.profile("alpharefine-box", tmp_path) == replace(zoo.profile("vot2020"), report="boxes")
    (tmp_path / "mask_refiner_384.safetensors").unlink()
    assert zoo.best_installed(tmp_path) == "lite" and zoo.lacks("super_dimp", tmp_path) == []
    assert zoo.lacks("super_dimp+vot2020", tmp_path) == ["mask_refiner_384.safetensors"]


@pytest.mark.parametrize("name", ["lite", "lite_base", "lite_dimp+lite", "lite_dimp", "static+lite", "static"])
def test_every_combination_tracks_through_one_class(name: str) -> None:
    torch.manual_seed(0)
    tracker = zoo.build_tracker(name, "cpu", random_weights=True)
    first = tracker.initialize(IMAGE, BOX)
    found = tracker.track(IMAGE)
    assert first.box.tolist() == BOX.tolist() and found.mask.shape == IMAGE.shape[:2]
    if "+" not in name and name != "lite":  # alone: the box as a mask
        assert tracker.refiner is None and found.mask.sum() == found.mask[found.mask.any(1)][:, found.mask.any(0)].size
    if "static" in name:
        assert found.box.tolist() == BOX.tolist()


def test_a_profile_of_ones_own_and_a_base_tracker_of_ones_own() -> None:
    class Still:
        def init(self, image: np.ndarray, box: np.ndarray) -> None:
            self.box = box

        def update(self, image: np.ndarray) -> np.ndarray:
            return self.box

    named = zoo.profile("lite")
    own = replace(named, name="mine", refiner=replace(named.refiner, threshold=0.9))
    tracker = zoo.build_tracker(own, "cpu", base=AdaptedTracker(Still))
    assert tracker.profile is own and tracker.refiner.settings.threshold == 0.9
    assert isinstance(tracker.base, AdaptedTracker)
    assert zoo.build_tracker(own, "cpu").base.runner.network is not None


def test_a_refiner_by_its_own_or_a_trackers_name() -> None:
    for name in ("lite", "csrt+lite", "static+lite"):
        assert zoo.build_refiner(name, "cpu").settings == zoo.profile("lite").refiner
    with pytest.raises(InputError, match="has no refiner"):
        zoo.build_refiner("static")
    with pytest.raises(CheckpointError, match="The refiner vot2020 cannot run"):
        zoo.build_refiner("vot2020", checkpoint="/nowhere")


def test_what_has_no_weights_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_is_installed", lambda package: package == "opencv-contrib-python-headless")
    assert zoo.needs("csrt+lite")[0] == "opencv-contrib-python" and zoo.lacks("csrt") == []
    monkeypatch.setattr(zoo, "_is_installed", lambda package: False)
    assert zoo.lacks("csrt") == ["opencv-contrib-python"] and zoo.lacks("static") == []


def test_onnx_files_are_looked_for_beside_the_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"nanotrack_backbone_sim.onnx, which is not in {tmp_path}"):
        zoo.build_tracker("nanotrack", "cpu", tmp_path)


# ---- the table


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_table_fits_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["trackers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = [line for line in lines if str(ROOT) in line]  # paths are not broken
    assert all(len(line) <= width for line in lines if line not in place)
    rows = {line.split()[0]: line.split() for line in lines[: lines.index("")]}
    assert rows["lite"][1:4] == ["lite_base", "lite", "yes"] and rows["static"][1:4] == ["static", "-", "yes"]
    assert rows["vot2020"][1:4] == ["super_dimp", "vot2020", "no"]
    text = " ".join(" ".join(lines).split())
    assert "EAO 0.493" in text and "mask_refiner_384.safetensors" in text and "Without a name, lite runs" in text


def test_columns_that_do_not_fit_go_below() -> None:
    rows = [("a", "x\ny", "1, 2, 3, 4, 5"), ("bb", "z", "-")]
    assert table(("N", "F", "S"), rows, 20) == ["N   F  S", "-" * 20, "a   x  1, 2, 3, 4, 5", "    y", "bb  z  -"]
    below = ["a   x", "    y", "    s: 1, 2, 3, 4,", "        5", "bb  z"]
    assert table(("N", "F", "S"), rows, 18) == ["N   F", "-----", *below]


def test_the_table_starts_without_the_heavy_libraries() -> None:
    program = ("import sys; from tracker_ar import cli; cli.main(['trackers']); cli.main(['checkpoints', 'list']); "
               "sys.exit(bool({'torch', 'numpy', 'cv2', 'safetensors'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
