"""Reading checkpoints; and that no file, however made, gets anything executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as serialize
from safetensors.torch import save_file

from tracker_ar.errors import CheckpointError
from tracker_ar.weights.containers import read_checkpoint
from tracker_ar.weights.pickle_reader import read_pickle

DATA = Path(__file__).parent / "data" / "checkpoints"
CONTAINERS = ("zip", "legacy")
NAMES = ("super_dimp", "ARnet_seg_mask_ep0040")
CONV = "feature_extractor.conv1.weight"


def save(path: Path, content: object, container: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# ---- the authors' formats


@pytest.mark.parametrize("name", NAMES)
def test_both_containers_hold_the_same_weights(name):
    first, second = (read_checkpoint(DATA / f"{name}.{container}.pth.tar") for container in CONTAINERS)
    assert first.state_dict.keys() == second.state_dict.keys() and CONV in first.state_dict
    for key, tensor in first.state_dict.items():
        other = second.state_dict[key]
        assert torch.equal(tensor, other) and tensor.dtype == other.dtype and tensor.device.type == "cpu"
    assert (first.metadata["container"], second.metadata["container"]) == CONTAINERS
    assert {**first.metadata, "container": ""} == {**second.metadata, "container": ""}


def test_values_and_metadata_of_the_small_files():
    base = read_checkpoint(DATA / "super_dimp.legacy.pth.tar")
    assert base.metadata == {"container": "legacy", "key": "net", "epoch": 50, "net_type": "DiMPnet",
                             "actor_type": "KLDiMPActor", "constructor": "dimpnet50"}
    assert base.state_dict[CONV].shape == (64, 3, 7, 7)
    assert base.state_dict["classifier.filter_optimizer.log_step_length"].item() == pytest.approx(np.log(0.9))
    counter = base.state_dict["feature_extractor.bn1.num_batches_tracked"]
    assert counter.shape == () and counter.dtype == torch.int64


def test_zip_container_agrees_with_torch(tmp_path):
    content = {"epoch": 3, "net": OrderedDict(
        half=torch.randn(3, 5).half(), turned=torch.randn(4, 6).t(), part=torch.randn(10)[2:7],
        counter=torch.tensor(7), single=torch.randn(2, 3, 4))}
    for container in CONTAINERS:
        path = save(tmp_path / container, content, container)
        theirs, ours = torch.load(path, weights_only=True)["net"], read_checkpoint(path).state_dict
        assert list(ours) == list(theirs)
        for key in theirs:
            assert torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype
            assert ours[key].is_contiguous()


def test_storages_of_the_optimizer_are_passed_over(tmp_path):
    moments = {"state": {140_000_000_000_000: {"exp_avg": torch.randn(50)}}, "param_groups": [{"lr": 1e-3}]}
    moments["of pairs"] = {(0, 1): 2.0, None: 3}
    content = {"optimizer": moments, "net": OrderedDict(weight=torch.arange(6.0)), "stats": [torch.randn(9)]}
    for container in CONTAINERS:
        state_dict = read_checkpoint(save(tmp_path / container, content, container)).state_dict
        assert list(state_dict) == ["weight"] and torch.equal(state_dict["weight"], torch.arange(6.0))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_protocols_that_torch_can_write(tmp_path, protocol):
    path = tmp_path / "newer.pth.tar"
    torch.save({"net": OrderedDict(weight=torch.ones(2)), "epoch": 1}, path, pickle_protocol=protocol)
    assert torch.equal(read_checkpoint(path).state_dict["weight"], torch.ones(2))


# file -> (key of the weights, one of their keys, its shape); the first names of the same classes are read as the later.
FAMILY = {
    "atom_default.dlframework.pth": ("net", "feature_extractor.bn1.weight", (64,)),
    "dimp50.dlframework.pth": ("net", "feature_extractor.bn1.weight", (64,)),
    "Branch_Selector_ep0030.legacy.pth.tar": ("net", "fc2.weight", (3, 512)),
    "SEbcmnet_ep0040.legacy.pth.tar": ("net", "feature_extractor.bn1.weight", (64,)),
    "SEcmnet_r18_ep0040-a.legacy.pth.tar": ("net", "feature_extractor.bn1.weight", (64,)),
    "resnet18_vggmconv1.legacy.pth": (None, "vggmconv1.bias", (96,)),
    "rt-mdnet.legacy.pth": ("shared_layers", "conv1.0.bias", (96,)),
    "siamrpn_r50_l234_dwxcorr.legacy.pth": (None, "backbone.bn1.weight", (64,)),
    "siamrpn_training.zip.pth": ("state_dict", "backbone.bn1.weight", (64,)),
}


@pytest.mark.parametrize("name", FAMILY)
def test_every_published_form_of_the_family_is_read(name):
    place, key, shape = FAMILY[name]
    found = read_checkpoint(DATA / name)
    assert found.metadata.get("key") == place and found.state_dict[key].shape == shape
    assert found.metadata.get("prefix") == ("module." if "training" in name else None)
    assert not any(key.startswith("module.") for key in found.state_dict)


def test_the_first_names_of_the_classes_give_the_same(tmp_path):
    old, new = (read_checkpoint(DATA / f"dimp50.{form}.pth") for form in ("dlframework", "legacy"))
    assert old.metadata == new.metadata and old.state_dict.keys() == new.state_dict.keys()
    assert all(torch.equal(old.state_dict[key], new.state_dict[key]) for key in new.state_dict)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"net": w}, lambda w: {"state_dict": w, "epoch": 1},
                                  lambda w: {"shared_layers": w}])
def test_weights_wherever_they_stand(tmp_path, container, wrap):
    flat = torch.arange(12.0)
    weights = OrderedDict(a=flat[:6].view(2, 3), b=flat[6:], tied=flat[:6].view(2, 3), n=torch.tensor(3))
    weights._metadata = OrderedDict({"": {"version": 1}})
    for prefix in ("", "module."):
        content = wrap(OrderedDict((prefix + key, value) for key, value in weights.items()))
        found = read_checkpoint(save(tmp_path / "x", content, container)).state_dict
        assert list(found) == list(weights)
        assert all(torch.equal(found[key], weights[key]) for key in weights)
        assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 4


@pytest.mark.parametrize("container", CONTAINERS)
def test_views_may_not_repeat_the_file_without_end(tmp_path, container):
    weight = torch.ones(1000)
    content = {"net": {f"w{number}": weight for number in range(40)}}
    assert "claim" in refusal(save(tmp_path / "x", content, container))
    content = {"net": {f"w{number}": weight[:25] for number in range(40)}}
    assert len(read_checkpoint(save(tmp_path / "x", content, container)).state_dict) == 40


# ---- nothing is executed


class Marker:
    """Unpickled, it creates a file: whoever runs what the pickle says is found out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Evaluated(Marker):
    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(self.path)!r})",)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("kind", "named"), [(Marker, f"{os.name}.mkdir"), (Evaluated, "builtins.eval")])
def test_a_foreign_global_is_named_and_not_executed(tmp_path, container, protocol, kind, named):
    marker, path = tmp_path / "executed", tmp_path / "evil.pth.tar"
    torch.save({"net": OrderedDict(weight=torch.ones(2)), "settings": kind(marker)}, path,
               pickle_protocol=protocol, _use_new_zipfile_serialization=container == "zip")
    message = refusal(path)
    assert named.replace("builtins", "__builtin__") in message or named in message
    assert "nothing was executed" in message and not marker.exists()
    # The file is a live one: torch itself, told to trust it, runs it.
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("content", [b"cposix\nmkdir\n(S'executed'\ntR.", b"(iposix\nmkdir\nS'executed'\n.",
                                     b"\x80\x02cposix\nmkdir\nX\x08\0\0\0executed\x85R.",
                                     b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c\x08executed\x85R."])
def test_bare_pickles_are_not_executed(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").write_bytes(content)
    refusal(tmp_path / "bare")
    assert not (tmp_path / "executed").exists()
    with pytest.raises(CheckpointError, match=r"posix\.mkdir|instruction"):
        read_pickle(content)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(("value", "named"), [
    (np.float64(1.5), "numpy"), (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    (torch.device("cpu"), "torch.device"), (Path("x"), "pathlib"), (bytearray(b"x"), "bytearray"),
    (1j, "complex")])
@pytest.mark.parametrize("container", CONTAINERS)
def test_harmless_looking_globals_are_refused_by_name_too(tmp_path, container, value, named):
    path = save(tmp_path / "foreign", {"net": OrderedDict(weight=torch.ones(2)), "extra": value}, container)
    assert named in refusal(path)


@pytest.mark.parametrize("tail", [
    b"ccollections\nOrderedDict\nX\x01\0\0\0a\x85R.",                    # OrderedDict("a")
    b"ccollections\nOrderedDict\n}X\x01\0\0\0a" b"K\x01sb.",              # attributes for the class itself
    b"cltr.admin.settings\nSettings\n)\x81]b.",                          # a list as fields
    b"ctorch._utils\n_rebuild_tensor_v2\n)R.",                            # a tensor of nothing
    b"ctorch\nFloatStorage\n)R.", b"ctorch\nFloatStorage\n)\x81.",
    b"Q.", b")Q.", b"R.", b"(K\x01.", b"K\x01K\x02.",
    b"u.", b"e.", b"]K\x01K\x02s.", b"h\x07.", b"\x93.", b"\x8a\x09.", b"q\x01.", b"."])
def test_nonsense_is_damage(tail):
    with pytest.raises(CheckpointError):
        read_pickle(b"\x80\x02" + tail)


# ---- files made to cost time or memory


def tensor_pickle(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """The pickled part of {'net': {'w': tensor}} with any claim about the tensor."""
    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if obj is token else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (token, offset, size, stride, False, OrderedDict())

    token, stream = object(), io.BytesIO()
    Writer(stream, protocol=2).dump({"net": {"w": Tensor()}})
    return stream.getvalue()


@pytest.mark.parametrize(("count", "size", "stride", "offset"), [
    (10**12, (10**12,), (1,), 0), (4, (10**6, 10**6), (0, 0), 0), (4, (5,), (1,), 0), (4, (2, 2), (4, 1), 0),
    (4, (4,), (1,), 1), (4, (2**47,) * 8, (0,) * 8, 0), (4, (-1,), (1,), 0), (4, (4,), (-1,), 3),
    (4, (0,), (1,), 0),
    (10**30, (4,), (1,), 0), (4, (1,) * 9, (1,) * 9, 0), (4, (True,), (1,), 0)])
@pytest.mark.parametrize("container", CONTAINERS)
def test_claims_beyond_the_file_take_no_memory(tmp_path, container, count, size, stride, offset):
    path = tmp_path / "claims"
    write_container(path, container, tensor_pickle(count, size, stride, offset))
    refusal(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_containers_written_here_are_sound(tmp_path, container):
    write_container(tmp_path / "sound", container, tensor_pickle(4, (2, 2), (1, 2)))
    assert read_checkpoint(tmp_path / "sound").state_dict["w"].tolist() == [[0.0, 2.0], [1.0, 3.0]]


def write_container(path: Path, container: str, pickled: bytes) -> None:
    numbers = np.arange(4, dtype="<f4").tobytes()
    if container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/data/0", numbers)
    else:
        parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
        path.write_bytes(head + pickled + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 4) + numbers)


@pytest.mark.parametrize("content", [b"X\xff\xff\xff\xff.", b"\x8d" + b"\xff" * 8 + b".",
                                     b"T\xff\xff\xff\xff.", b"N" * (5 << 20)])
def test_pickles_that_claim_more_than_there_is(content):
    with pytest.raises(CheckpointError, match="too early"):
        read_pickle(content)


def test_a_packed_zip_is_refused(tmp_path):
    path = tmp_path / "bomb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(4, (4,), (1,)))
        archive.writestr("archive/data/0", bytes(16))
    assert "'data.pkl' is packed" in refusal(path)


# ---- damaged files and wrong files


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir()))
@pytest.mark.parametrize("fraction", [0.0001, 0.001, 0.02, 0.05, 0.3, 0.9, 0.999])
def test_truncated_files(tmp_path, name, fraction):
    whole = (DATA / name).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * fraction) or 1])
    message = refusal(tmp_path / "cut")
    assert "truncated" in message or "damaged" in message


def test_truncated_safetensors(tmp_path):
    save_file({"weight": torch.randn(100)}, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for length in (9, 30, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        assert "truncated or damaged" in refusal(tmp_path / "cut.safetensors")


def test_a_flipped_bit_in_the_numbers_of_a_zip_is_noticed(tmp_path):
    content = bytearray((DATA / "super_dimp.zip.pth.tar").read_bytes())
    content[20_000] ^= 1
    (tmp_path / "flipped").write_bytes(content)
    assert "CRC" in refusal(tmp_path / "flipped")


@pytest.mark.parametrize(("content", "says"), [
    (b"", "empty"), (b"\n<!DOCTYPE html><html>Virus scan warning", "web page"), (b"<HTML>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"), (b"hello", "neither"),
    (b"\x1f\x8b\x08\0" * 9, "packed archive"), (pickle.dumps({"net": 1}), "not a PyTorch checkpoint")])
def test_files_that_are_something_else(tmp_path, content, says):
    (tmp_path / "other").write_bytes(content)
    assert says in refusal(tmp_path / "other")


def test_no_file_and_a_folder(tmp_path):
    assert "no file" in refusal(tmp_path / "absent")
    assert "not be unpacked" in refusal(tmp_path)


@pytest.mark.parametrize(("content", "says"), [
    ({"model": {"a": torch.ones(1)}, "epoch": 3}, "'model', 'epoch'"), ([1, 2], "no weights"),
    ({"net": {}}, "no weights"), ({"net": {"a": 1.0}}, "'a' of its 'net' is not a tensor"), ({}, "no weights"),
    ({"state_dict": [torch.ones(1)]}, "no weights"), ({"shared_layers": {"a": None}}, "'a' of its 'shared_layers'"),
    ({"a": torch.ones(1), "b": 2}, "'b' of its weights is not a tensor"),
    ({"net": {7: torch.ones(1)}}, "with a text as its key"),
    ({"net": {"a": torch.tensor([1.0, float("nan")])}}, "not finite")])
@pytest.mark.parametrize("container", CONTAINERS)
def test_contents_that_are_no_network(tmp_path, container, content, says):
    assert says in refusal(save(tmp_path / "content", content, container))


# ---- fuzzing


def small_safetensors() -> bytes:
    return serialize(read_checkpoint(DATA / "super_dimp.zip.pth.tar").state_dict, {"format": "x"})


def small_legacy() -> bytes:
    stream = io.BytesIO()
    content = {"net": OrderedDict(weight=torch.randn(3, 2), bias=torch.randn(3)), "stats": [1.5, None]}
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def pickled_part(name: str) -> bytes:
    with zipfile.ZipFile(DATA / f"{name}.zip.pth.tar") as archive:
        return archive.read(next(entry for entry in archive.namelist() if entry.endswith("data.pkl")))


FILES = [path.read_bytes() for path in sorted(DATA.iterdir())]
EDITS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["set", "insert", "delete", "cut"]),
                           st.binary(min_size=1, max_size=4)), min_size=1, max_size=6)


def mutated(content: bytes, edits: list, reach: int) -> bytes:
    """`content` with edits at fractions of its first `reach` bytes, where its structure lies."""
    result = bytearray(content)
    for fraction, action, piece in edits:
        at = int(fraction * (min(reach, len(result)) - 1))
        if action == "set":
            result[at : at + len(piece)] = piece
        elif action == "insert":
            result[at:at] = piece
        elif action == "delete":
            del result[at : at + len(piece)]
        elif len(result) > 1 and fraction > 0.5:
            del result[at:]
    return bytes(result) or b"\0"


@settings(max_examples=400, deadline=20_000, derandomize=True, database=None)
@given(st.sampled_from([*FILES, small_legacy(), small_safetensors()]), EDITS,
       st.sampled_from([400, 4000, 1 << 20]))
def test_no_mutation_of_a_file_raises_anything_but_checkpoint_errors(tmp_path_factory, content, edits, reach):
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(mutated(content, edits, reach))
    try:
        result = read_checkpoint(path)
    except CheckpointError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in result.state_dict.values())


@settings(max_examples=600, deadline=20_000, derandomize=True, database=None)
@given(st.sampled_from([pickled_part(name) for name in NAMES]), EDITS)
def test_no_mutation_of_the_pickled_part_does(tmp_path_factory, content, edits):
    path = tmp_path_factory.getbasetemp() / "mutated_pickle"
    for container in CONTAINERS:
        write_container(path, container, mutated(content, edits, 1 << 20))
        with pytest.raises(CheckpointError):  # the four numbers there never suffice for the tensors
            read_checkpoint(path)


@settings(max_examples=400, deadline=20_000, derandomize=True, database=None)
@given(st.lists(st.sampled_from([bytes([code]) for code in range(256)] + [
    b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"cltr.admin.settings\nSettings\n", b"X\x01\0\0\0a", b"K\x01",
    b"}", b"]", b")", b"(", b"R", b"\x81", b"b", b"s", b"u"]),
    max_size=40))
def test_no_sequence_of_instructions_does(instructions):
    try:
        read_pickle(b"\x80\x02" + b"".join(instructions) + b".")
    except CheckpointError:
        pass
