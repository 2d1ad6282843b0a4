"""Fitting checkpoints to networks and installing them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tracker_ar import cli, places, zoo
from tracker_ar.commands import checkpoints as command
from tracker_ar.errors import CheckpointError
from tracker_ar.weights import store as checkpoints
from tracker_ar.weights.containers import Checkpoint, read_checkpoint
from tracker_ar.weights.header import read_header
from tracker_ar.weights.slots import SLOT, SLOTS, Slot
from tracker_ar.weights.store import find_checkpoints, install, load_into, problem_with, recognise, write_checkpoint
from tracker_ar.zoo import best_installed, slots_of

DATA = Path(__file__).parent / "data" / "checkpoints"
KEYS = Path(__file__).parent / "parity" / "data"
CONTAINERS = ("zip", "legacy")
NAMES = ("super_dimp", "ARnet_seg_mask_ep0040")
CONV = "feature_extractor.conv1.weight"
BASE, REFINER = SLOT["super_dimp"], SLOT["mask_refiner_384"]
# What the small file of each slot is called, and what an unfit one is held against.
SMALL = {
    "super_dimp": "super_dimp.zip.pth.tar", "mask_refiner_384": "ARnet_seg_mask_ep0040.zip.pth.tar",
    "dimp18": "dimp18.legacy.pth", "dimp50": "dimp50.dlframework.pth", "prdimp18": "prdimp18.legacy.pth.tar",
    "prdimp50": "prdimp50.legacy.pth.tar", "atom": "atom_default.legacy.pth", "ar34": "SEcmnet_ep0040-c.zip.pth.tar",
    "ar18": "SEcmnet_r18_ep0040-a.legacy.pth.tar", "ar_base": "SEbcmnet_ep0040.legacy.pth.tar",
    "ar_selector": "Branch_Selector_ep0030.legacy.pth.tar", "siamrpn": "siamrpn_training.zip.pth",
    "rtmdnet": "rt-mdnet.legacy.pth", "eco": "resnet18_vggmconv1.legacy.pth",
}


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


def test_what_a_slot_does_not_need_may_be_lacking_or_of_another_shape():
    module, state_dict = network(), network().state_dict()
    slot = Slot("x", "", unneeded=r"1\.num_batches_tracked|fc\..*|0\.bias")
    bias = module[0].bias.clone()
    state_dict.update({"1.num_batches_tracked": None, "0.bias": torch.ones(9), "fc.weight": torch.ones(2)})
    del state_dict["1.num_batches_tracked"]
    load_into(module, held(state_dict), slot=slot)
    assert torch.equal(module[0].weight, state_dict["0.weight"]) and torch.equal(module[0].bias, bias)
    with pytest.raises(CheckpointError, match="foreign entry 'gc.weight'"):
        load_into(module, held({**state_dict, "gc.weight": torch.ones(1)}), slot=slot)
    with pytest.raises(CheckpointError, match="lacks entry '1.num_batches_tracked'"):
        load_into(module, held({key: value for key, value in network().state_dict().items() if "num" not in key}))


def test_a_small_file_of_the_authors_does_not_fit_for_want_of_keys():
    with pytest.raises(CheckpointError, match="lacks entries"):
        load_into(network(), DATA / "super_dimp.zip.pth.tar")


# ---- installing


@pytest.fixture
def small_slots(monkeypatch, tmp_path):
    """Slots for networks as small as the files, and a folder for the checkpoints."""
    shapes, slots = {}, []
    for slot in SLOTS:
        if slot.published:
            state_dict = read_checkpoint(DATA / SMALL[slot.kind]).state_dict
            expected = {slot.prefix + key: tuple(value.shape) for key, value in state_dict.items()}
            slot = replace(slot, layout=slot.layout_of(expected))
            shapes[slot] = expected
        slots.append(slot)
    monkeypatch.setattr(checkpoints, "SLOTS", tuple(slots))
    monkeypatch.setattr(command, "SLOTS", tuple(slots))
    monkeypatch.setattr(checkpoints, "_expected_shapes", shapes.__getitem__)
    monkeypatch.setattr(zoo, "SLOT", {slot.kind: slot for slot in slots})
    monkeypatch.setenv("ALPHAREFINE_CHECKPOINTS", str(tmp_path / "installed"))
    return tmp_path / "installed"


@pytest.mark.parametrize("kind", SMALL)
def test_every_published_file_is_recognised_and_installed(small_slots, kind):
    # The small files of the two have the same keys; the whole ones differ in their depth.
    checkpoints.SLOTS = tuple(slot for slot in checkpoints.SLOTS if {slot.kind, kind} != {"ar34", "ar18"})
    source = DATA / SMALL[kind]
    (done,) = install([source])
    assert done.slot.kind == kind and problem_with(done.slot) is None
    ours, theirs = read_checkpoint(done.path).state_dict, read_checkpoint(source).state_dict
    assert ours.keys() == {done.slot.prefix + key for key in theirs}
    assert all(torch.equal(ours[done.slot.prefix + key], value) for key, value in theirs.items())


def test_what_tells_super_dimp_and_dimp50_apart(small_slots, tmp_path):
    found = read_checkpoint(DATA / "dimp50.legacy.pth")
    slots = {slot.kind: slot for slot in checkpoints.SLOTS}
    same = replace(slots["super_dimp"], layout=slots["dimp50"].layout)
    checkpoints.SLOTS = (same, *(slot for slot in checkpoints.SLOTS if slot.kind != "super_dimp"))
    for actor, name, kind in (("DiMPActor", "super_dimp.pth", "dimp50"), ("KLDiMPActor", "dimp50.pth", "super_dimp"),
                              (None, "DiMP50.pth", "dimp50"), ("Other", "super_dimp-2.pth.tar", "super_dimp")):
        assert recognise(replace(found, metadata={"actor_type": actor} if actor else {}, path=Path(name))).kind == kind
    with pytest.raises(CheckpointError, match="super_dimp.pth.tar and dimp50.pth, and nothing in it says"):
        recognise(replace(found, metadata={}, path=Path("model.pth")))


@pytest.mark.parametrize("container", CONTAINERS)
def test_install_in_any_order(small_slots, container):
    sources = [DATA / f"{name}.{container}.pth.tar" for name in NAMES]
    assert best_installed() == "lite"
    done = install(reversed(sources))
    assert [item.slot.kind for item in done] == [REFINER.kind, BASE.kind]
    assert best_installed() == "vot2020"
    assert find_checkpoints(slots_of("vot2020"), "it") == [small_slots / slot.file_name for slot in (BASE, REFINER)]
    for source, slot in zip(sources, (BASE, REFINER)):
        ours, theirs = read_checkpoint(small_slots / slot.file_name), read_checkpoint(source)
        assert ours.metadata["source"] == source.name and len(ours.metadata["source_sha256"]) == 64
        assert all(torch.equal(ours.state_dict[key], value) for key, value in theirs.state_dict.items())
    assert sorted(path.name for path in small_slots.iterdir()) == [REFINER.file_name, BASE.file_name]


def test_installing_again_and_over_another(small_slots):
    source, other = (DATA / f"super_dimp.{container}.pth.tar" for container in CONTAINERS)
    assert not install([source])[0].already
    assert install([source])[0].already
    with pytest.raises(CheckpointError, match="--force"):
        install([other])
    assert not install([other], force=True)[0].already
    assert read_checkpoint(small_slots / BASE.file_name).metadata["source"] == other.name


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
    with pytest.raises(CheckpointError, match=r"none of the published.*it says 'Other'"):
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
    slot = slots_of("vot2020")[1]
    path = small_slots / REFINER.file_name
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:40], b"", b"<html>", os.urandom(64)):
        path.write_bytes(content)
        assert best_installed() == "lite"
        assert "cannot be used" in problem_with(slot)
    save_file({"weight": torch.ones(1)}, path)
    assert best_installed() == "lite" and "--force" in problem_with(slot)
    write_checkpoint(path, {"weight": torch.ones(1)}, slot.kind)
    assert best_installed() == "lite" and "lacks entries" in problem_with(slot)
    path.unlink()
    path.mkdir()
    assert best_installed() == "lite" and "cannot be used" in problem_with(slot)


def test_missing_checkpoints_say_where_and_how(small_slots):
    with pytest.raises(CheckpointError, match="alpharefine checkpoints install") as caught:
        zoo.weight_files("vot2020")
    message = str(caught.value)
    assert str(small_slots) in message and "super_dimp.safetensors is missing" in message
    assert "1qDptswis2FxihLRYLVRGDvx6aUoAVVLv" in message and "1qOQRfaRMbQ2nmgX1NFjoQHfXOAn609QM" in message
    with pytest.raises(CheckpointError, match="lite_mask_refiner.safetensors is missing"):
        zoo.weight_files("lite")
    for slot in slots_of("lite"):
        write_checkpoint(small_slots / slot.file_name, {"weight": torch.ones(1)}, slot.kind)
    assert zoo.weight_files("lite", small_slots)[1].name == "lite_mask_refiner.safetensors"


def test_the_folder(monkeypatch, tmp_path):
    root = places.ROOT
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
    said = capsys.readouterr().out
    assert "super_dimp unlocks super_dimp." in said and "AlphaRefine now runs lite" in said
    assert "For vot2020 there is still to be installed" in said and "1qOQRfaRMbQ2nmgX1NFjoQHfXOAn609QM" in said
    assert cli.main(["checkpoints", "install", str(DATA / "ARnet_seg_mask_ep0040.legacy.pth.tar")]) == 0
    said = capsys.readouterr().out
    assert "mask_refiner_384 unlocks vot2020, BASE+vot2020 with any base tracker." in said
    assert "AlphaRefine now runs vot2020" in said
    assert cli.main(["checkpoints", "list"]) == 0
    listing = capsys.readouterr().out
    assert "AlphaRefine runs vot2020" in listing and "from super_dimp.zip.pth.tar" in listing
    assert "rt-mdnet.pth\n    https://www.dropbox.com/" in listing and "ask its authors" in listing
    assert cli.main(["checkpoints", "install", str(small_slots / "absent")]) == 1
    assert "there is no file" in capsys.readouterr().err


# ---- the real networks


def authors_shapes(kind):
    name = {"mask_refiner_384": "ar_mask384"}.get(kind, kind)
    rows = json.loads((KEYS / f"keys_{name}.json").read_text())["keys"]
    return {row["key"]: tuple(row["shape"]) for row in rows}


@pytest.mark.parametrize("slot", [slot for slot in SLOTS if slot.published], ids=lambda slot: slot.kind)
def test_the_layouts_are_those_of_the_authors(slot):
    shapes = authors_shapes(slot.kind)
    assert slot.layout_of(shapes) == slot.layout
    for key, tensor in read_checkpoint(DATA / SMALL[slot.kind]).state_dict.items():
        key = slot.prefix + key
        assert shapes[key] == tuple(tensor.shape) or not slot.is_needed(key)
    # Files of old torch lack the counters, stripped ones the classifier; nothing else may lack or differ.
    rest = {key: shape for key, shape in shapes.items() if slot.is_needed(key)}
    assert 0 < len(rest) < len(shapes) and slot.layout_of(rest) == slot.layout
    for key in rest:
        assert slot.layout_of({**rest, key: (*rest[key], 1)}) != slot.layout


@pytest.mark.parametrize("slot", [slot for slot in SLOTS if slot.published], ids=lambda slot: slot.kind)
def test_the_networks_have_the_keys_and_shapes_that_the_trackers_need(slot):
    shapes = checkpoints._expected_shapes(slot)
    if not shapes:
        pytest.skip(f"{slot.network} does not exist yet")
    assert slot.layout_of(shapes) == slot.layout
    # Where it has more of the authors' keys, it has their shapes.
    theirs = authors_shapes(slot.kind)
    assert all(theirs.get(key, shape) == shape for key, shape in shapes.items())


@pytest.mark.parametrize("kind", ["super_dimp", "mask_refiner_384"])
def test_the_small_files_are_incomplete_for_the_real_networks(tmp_path, kind):
    with pytest.raises(CheckpointError, match=f"held against {SLOT[kind].published}: it lacks entries"):
        install([DATA / SMALL[kind]], tmp_path)


@pytest.mark.parametrize("kind", SMALL)
def test_incomplete_files_are_refused_with_what_could_be_meant(tmp_path, kind):
    with pytest.raises(CheckpointError, match="none of the published checkpoints"):
        install([DATA / SMALL[kind]], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_header_is_read_as_safetensors_reads_it(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.ones(2, 3), "b": torch.tensor(3), "c": torch.ones(5).half(), "d": torch.ones(0)}
    save_file(tensors, path, {"kind": "k"})
    shapes, metadata = read_header(path)
    assert shapes == {key: tuple(value.shape) for key, value in tensors.items()} and metadata == {"kind": "k"}
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    nested = b"[" * 100_000
    for content in (whole[:-1], whole + b"\0", whole[:9], whole[:4], b"", b"\xff" * 16,
                    whole.replace(b"[2,3]", b"[2,4]"),
                    whole.replace(b'"F32"', b'"F99"', 1), len(nested).to_bytes(8, "little") + nested,
                    whole[:8] + b" " * length + whole[8 + length:], (2).to_bytes(8, "little") + b"[]"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            read_header(path)
