"""Fitting checkpoints to networks and installing them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tracker_ar import cli
from tracker_ar.weights import store as checkpoints
from tracker_ar.weights.store import (
    SLOTS,
    Checkpoint,
    find_checkpoints,
    install,
    installed_profile,
    load_into,
    problem_with,
    read_checkpoint,
    write_checkpoint,
)
from tracker_ar.errors import CheckpointError

DATA = Path(__file__).parent / "data" / "checkpoints"
CONTAINERS = ("zip", "legacy")
NAMES = ("super_dimp", "ARnet_seg_mask_ep0040")
CONV = "feature_extractor.conv1.weight"


def save(path: Path, content: object, container: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    return path


# ---- fitting a network


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))


def held(state_dict: dict[str, torch.Tensor]) -> Checkpoint:
    return Checkpoint(state_dict, {}, Path("some.pth.tar"))


def test_load_into_casts_and_copies():
    module, other = network(), network()
    halves = {key: value.half() if value.is_floating_point() else value
              for key, value in other.state_dict().items()}
    load_into(module, held(halves))
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, other[0].weight.half().float())


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s.pop("0.bias"), "lacks entry '0.bias'"),
    (lambda s: [s.pop(key) for key in list(s)[:5]], "and 2 more"),
    (lambda s: s.update(extra=torch.ones(1)), "foreign entry 'extra'"),
    (lambda s: s.update({"0.weight": torch.ones(3, 2, 2, 2)}), r"'0.weight' should have the shape \(3, 2, 1"),
    (lambda s: s.update({"0.bias": torch.ones(3, dtype=torch.int64)}), "'0.bias' should be torch.float32")])
def test_load_into_names_what_does_not_fit_and_changes_nothing(change, says):
    module, state_dict = network(), network().state_dict()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    change(state_dict)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_into(module, held(state_dict), "the small network")
    assert "some.pth.tar does not fit the small network" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_small_file_of_the_authors_does_not_fit_for_want_of_keys():
    with pytest.raises(CheckpointError, match="lacks entries"):
        load_into(network(), DATA / "super_dimp.zip.pth.tar")


# ---- installing


@pytest.fixture
def small_slots(monkeypatch, tmp_path):
    """Networks as small as the four files, and a folder for the checkpoints."""
    shapes = {}
    for slot, name in zip(SLOTS, NAMES):
        state_dict = read_checkpoint(DATA / f"{name}.zip.pth.tar").state_dict
        shapes[slot.kind] = {key: tuple(value.shape) for key, value in state_dict.items()}
        # The digests are of the real networks; without a match the shapes themselves are compared.
    monkeypatch.setattr(checkpoints, "_expected_shapes", shapes.__getitem__)
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(tmp_path / "installed"))
    return tmp_path / "installed"


@pytest.mark.parametrize("container", CONTAINERS)
def test_install_in_any_order(small_slots, container):
    sources = [DATA / f"{name}.{container}.pth.tar" for name in NAMES]
    assert installed_profile() == "lite"
    done = install(reversed(sources))
    assert [item.slot for item in done] == [SLOTS[1], SLOTS[0]]
    assert installed_profile() == "vot2020"
    assert find_checkpoints("vot2020") == tuple(small_slots / slot.file_name for slot in SLOTS[:2])
    for source, slot in zip(sources, SLOTS):
        ours, theirs = read_checkpoint(small_slots / slot.file_name), read_checkpoint(source)
        assert ours.metadata["source"] == source.name and len(ours.metadata["source_sha256"]) == 64
        assert all(torch.equal(ours.state_dict[key], value) for key, value in theirs.state_dict.items())
    assert sorted(path.name for path in small_slots.iterdir()) == sorted(slot.file_name for slot in SLOTS[:2])


def test_installing_again_and_over_another(small_slots):
    source, other = (DATA / f"super_dimp.{container}.pth.tar" for container in CONTAINERS)
    assert not install([source])[0].already
    assert install([source])[0].already
    with pytest.raises(CheckpointError, match="--force"):
        install([other])
    assert not install([other], force=True)[0].already
    assert read_checkpoint(small_slots / SLOTS[0].file_name).metadata["source"] == other.name


def test_nothing_is_installed_when_one_file_is_bad(small_slots, tmp_path):
    good, cut = DATA / "super_dimp.zip.pth.tar", tmp_path / "cut.pth.tar"
    cut.write_bytes(good.read_bytes()[:20_000])
    for pair in ([good, cut], [good, DATA / "super_dimp.legacy.pth.tar"]):
        with pytest.raises(CheckpointError):
            install(pair)
    assert not small_slots.exists()


@pytest.mark.parametrize("container", CONTAINERS)
def test_install_names_wrong_keys_and_shapes(small_slots, tmp_path, container):
    state_dict = read_checkpoint(DATA / "super_dimp.zip.pth.tar").state_dict
    wrong_shape = {**state_dict, CONV: torch.zeros(64, 3, 3, 3)}
    with pytest.raises(CheckpointError, match=r"'feature_extractor.conv1.weight' should have the shape"):
        install([save(tmp_path / "a", {"net": wrong_shape, "net_type": "DiMPnet"}, container)])
    lacking = {key: value for key, value in state_dict.items() if key != CONV}
    with pytest.raises(CheckpointError, match="lacks entry 'feature_extractor.conv1.weight'"):
        install([save(tmp_path / "b", {"net": lacking}, container)])
    with pytest.raises(CheckpointError, match=r"neither of the authors' two.*it says 'Other'"):
        install([save(tmp_path / "c", {"net": {"x": torch.ones(1)}, "net_type": "Other"}, container)])


def test_a_failed_write_leaves_nothing(small_slots, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        install([DATA / "super_dimp.zip.pth.tar"])
    assert list(small_slots.iterdir()) == []


def test_half_installed_and_foreign_files_fall_back_to_lite(small_slots):
    install([DATA / f"{name}.zip.pth.tar" for name in NAMES])
    path = small_slots / SLOTS[1].file_name
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:40], b"", b"<html>", os.urandom(64)):
        path.write_bytes(content)
        assert installed_profile() == "lite"
        assert "cannot be used" in problem_with(SLOTS[1])
    save_file({"weight": torch.ones(1)}, path)
    assert installed_profile() == "lite" and "--force" in problem_with(SLOTS[1])
    write_checkpoint(path, {"weight": torch.ones(1)}, SLOTS[1].kind)
    assert installed_profile() == "lite" and "lacks entries" in problem_with(SLOTS[1])
    path.unlink()
    path.mkdir()
    assert installed_profile() == "lite" and "cannot be used" in problem_with(SLOTS[1])


def test_missing_checkpoints_say_where_and_how(small_slots):
    with pytest.raises(CheckpointError, match="alpharefine checkpoints install") as caught:
        find_checkpoints("vot2020")
    message = str(caught.value)
    assert str(small_slots) in message and "super_dimp.safetensors is missing" in message
    assert "1qDptswis2FxihLRYLVRGDvx6aUoAVVLv" in message and "1qOQRfaRMbQ2nmgX1NFjoQHfXOAn609QM" in message
    with pytest.raises(CheckpointError, match="lite_mask_refiner.safetensors is missing"):
        find_checkpoints("lite")
    for slot in SLOTS[2:]:
        write_checkpoint(small_slots / slot.file_name, {"weight": torch.ones(1)}, slot.kind)
    assert find_checkpoints("lite", small_slots)[1].name == "lite_mask_refiner.safetensors"


def test_the_folder(monkeypatch, tmp_path):
    root = Path(checkpoints.__file__).parent.parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALPHAREFINE_CHECKPOINTS", raising=False)
    assert checkpoints.checkpoint_dir() == root / "checkpoints"
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", "")
    assert checkpoints.checkpoint_dir() == root / "checkpoints"
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", "elsewhere")
    assert checkpoints.checkpoint_dir() == root / "elsewhere"
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(tmp_path))
    assert checkpoints.checkpoint_dir() == tmp_path


def test_the_command(small_slots, capsys):
    assert cli.main(["checkpoints", "install", str(DATA / "super_dimp.zip.pth.tar")]) == 0
    assert "ARnet_seg_mask_ep0040.pth.tar is still to be installed" in capsys.readouterr().out
    assert cli.main(["checkpoints", "install", str(DATA / "ARnet_seg_mask_ep0040.legacy.pth.tar")]) == 0
    assert "Both are there" in capsys.readouterr().out
    assert cli.main(["checkpoints", "list"]) == 0
    listing = capsys.readouterr().out
    assert "runs the profile vot2020" in listing and "from super_dimp.zip.pth.tar" in listing
    assert cli.main(["checkpoints", "install", str(small_slots / "absent")]) == 1
    assert "there is no file" in capsys.readouterr().err


# ---- the real networks


def test_the_networks_have_the_authors_keys_and_shapes():
    # Key counts and value counts of the published checkpoints' state dicts.
    for slot, keys, values in zip(SLOTS, (407, 477), (43_155_863, 30_216_067)):
        shapes = checkpoints._expected_shapes(slot.kind)
        assert checkpoints._layout(shapes) == slot.layout
        assert len(shapes) == keys and sum(int(np.prod(shape)) for shape in shapes.values()) == values
    for name, slot in zip(NAMES, SLOTS):
        shapes = checkpoints._expected_shapes(slot.kind)
        for key, tensor in read_checkpoint(DATA / f"{name}.zip.pth.tar").state_dict.items():
            assert shapes[key] == tuple(tensor.shape)


def test_the_small_files_are_incomplete_for_the_real_networks(tmp_path):
    with pytest.raises(CheckpointError, match=r"held against super_dimp.pth.tar: it lacks entries"):
        install([DATA / "super_dimp.legacy.pth.tar"], tmp_path)
    with pytest.raises(CheckpointError, match=r"held against ARnet_seg_mask_ep0040.pth.tar: it lacks"):
        install([DATA / "ARnet_seg_mask_ep0040.legacy.pth.tar"], tmp_path)
