"""The trackers of `trackers.ini` through the real VOT toolkit: which profile runs, and that it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import MASK_REFINER, SUPER_DIMP, weights
from recorded import key_shapes
from short_videos import LENGTH, ROOT, SIZE, UNSUPERVISED, vot, write_sequence

from tracker_ar.data.datasets.vot_layout import write_list
from tracker_ar.evaluate.vot_toolkit import load_workspace, reported_profiles
from tracker_ar.weights.store import write_checkpoint

pytestmark = pytest.mark.e2e


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """One sequence of a slowly moving square."""
    write_sequence(tmp_path / "sequences" / "moving", step=1)
    write_list(tmp_path / "sequences", ["moving"])
    (tmp_path / "stack.yaml").write_text(UNSUPERVISED)
    (tmp_path / "config.yaml").write_text(f"registry:\n  - {ROOT / 'trackers.ini'}\nstack: stack.yaml\n")
    return tmp_path


@pytest.fixture(scope="module")
def authors_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the challenge entry's shapes with reproducible weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for net, kind in ((SUPER_DIMP, "super_dimp"), (MASK_REFINER, "mask_refiner_384")):
        tensors = {key: torch.from_numpy(array) for key, array in weights(net, key_shapes(net))}
        write_checkpoint(folder / f"{kind}.safetensors", tensors, kind)
    return folder


def masks(workspace: Path, tracker: str) -> list[np.ndarray]:
    """The masks that the toolkit stored, without the first frame's."""
    loaded = load_workspace(workspace)
    experiment = loaded.stack.experiments["unsupervised"]
    (sequence,) = loaded.dataset
    (trajectory,) = experiment.gather(loaded.registry[tracker], sequence)
    regions = trajectory.regions()
    return [region.rasterize((0, 0, SIZE[1] - 1, SIZE[0] - 1)) for region in regions[1:]]


@pytest.mark.parametrize("tracker", ["AlphaRefine", "AlphaRefine-VOT2020"])
def test_the_challenge_entry_runs_where_its_checkpoints_are(
    workspace: Path, authors_checkpoints: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(authors_checkpoints))
    assert "Evaluation concluded successfuly" in vot(workspace, "evaluate", tracker)
    assert reported_profiles(load_workspace(workspace), tracker) == {"vot2020"}
    assert len(masks(workspace, tracker)) == LENGTH - 1


def test_the_challenge_entry_never_falls_back(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(workspace))
    output = vot(workspace, "evaluate", "AlphaRefine-VOT2020")
    assert "super_dimp.safetensors is missing" in output
    assert "concluded successfuly" not in output


@pytest.mark.parametrize("tracker", ["AlphaRefine", "AlphaRefine-Lite"])
def test_lite_follows_the_target(workspace: Path, tracker: str) -> None:
    assert "Evaluation concluded successfuly" in vot(workspace, "evaluate", tracker)
    assert reported_profiles(load_workspace(workspace), tracker) == {"lite"}
    for frame, mask in enumerate(masks(workspace, tracker), start=1):
        target = np.zeros(SIZE, bool)
        target[20:40, 10 + frame : 30 + frame] = True
        overlap = (target & (mask > 0)).sum() / (target | (mask > 0)).sum()
        assert overlap > 0.5, frame
