"""Workspaces and sequences as people write them: taken, or refused with file, line and fix; never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tracker_ar.data.datasets.vot_layout import inspect_sequence, read_list, write_list
from tracker_ar.errors import DataError, EvaluationError
from tracker_ar.evaluate import vot_workspace
from tracker_ar.evaluate.vot_results import open_workspace
from tracker_ar.evaluate.vot_toolkit import load_workspace
from tracker_ar.evaluate.workspace_config import data_set, read_config, sequences_folder, write_config
from tracker_ar.run_lengths import encode_mask_line

ROOT = Path(__file__).resolve().parents[1]
BOXES = ["4,8,10,8"] * 4
SQUARE = np.pad(np.ones((8, 10), np.uint8), ((8, 8), (4, 18)))
MASKS = [encode_mask_line(SQUARE)] * 4
STACK = "stack: short-videos.yaml\n"
REGISTRY = f"registry:\n  - {ROOT}/trackers.ini\n"


def text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def make_sequence(folder: Path, truth: bytes = text(*MASKS), meta: bytes = b"fps=20\n",
                  anchor: bytes = b"1\n0\n0\n-1\n") -> Path:
    (folder / "color").mkdir(parents=True)
    for number in range(1, 5):
        cv2.imwrite(str(folder / f"color/{number:08d}.jpg"), SQUARE * 255)
    for name, content in (("groundtruth.txt", truth), ("sequence", meta), ("anchor.value", anchor)):
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("content", [
    {"truth": text(*BOXES)}, {"truth": text("4, 8, 10, 8", *BOXES[1:])},
    {"truth": text("4,8,14,8,14,16,4,16", *BOXES[1:])},
    {"truth": text(BOXES[0], "nan,nan,nan,nan", "0", BOXES[3])}, {"truth": text("m4,8,10,8,0,75", *MASKS[1:])},
    {"truth": text(*MASKS).replace(b"\n", b"\r\n"), "meta": b"fps=20\r\nlength=4\r\n"},
    {"meta": b"name = x\nfps = 20\nlength = 4\n"}, {"meta": b"fps=20\nchannels.color=color\\%08d.jpg\n"},
])
def test_taken(content: dict[str, bytes], tmp_path: Path) -> None:
    assert inspect_sequence(make_sequence(tmp_path / "s", **content)).length == 4


@pytest.mark.parametrize(("content", "message"), [
    ({"truth": text(*(box.replace(",", separator) for box in BOXES))}, "groundtruth.txt: line 1.*commas")
    for separator in "\t ;"
] + [
    ({"truth": text("x,y,w,h", *BOXES[1:])}, "line 1 is not a region"),
    ({"truth": text(*BOXES[:2], "1,2,3,4,5", "1,2,3,4")}, "line 3 has 5 numbers"),
    ({"truth": text("1,2,3,4,5,6,7", *BOXES[1:])}, "line 1 has 7 numbers"),
    ({"truth": text(*BOXES[:3], "inf,inf,10,10")}, "line 4 has a number that is not finite"),
    ({"truth": text(*MASKS[:3], "m10,10,5,x,3,2")}, "line 4 is not a mask"),
    ({"truth": text(*MASKS[:3], "m")}, "line 4 is not a mask"),
    ({"truth": text(*MASKS[:3], "m10,10,5,5,3,2")}, "line 4 has runs that do not fill"),
    ({"truth": text(*MASKS[:3], "m10,10,5,5,3,30")}, "line 4 has runs that do not fill"),
    ({"truth": text(*MASKS, "")}, "groundtruth.txt: line 5 is blank"),
    ({"anchor": b"1\n0\n0\n-1\n\n"}, "anchor.value: line 5 is blank"),
    ({"truth": b"\xef\xbb\xbf" + text(*MASKS)}, "groundtruth.txt: begins with a byte order mark"),
    ({"meta": b"\xef\xbb\xbffps=20\n"}, "sequence: begins with a byte order mark"),
    ({"truth": text(*MASKS).decode().encode("utf-16")}, "groundtruth.txt: is not UTF-8"),
    ({"meta": "name=straße\nfps=20\n".encode("latin-1")}, "sequence: is not UTF-8"),
    ({"meta": b"fps=0\n"}, "fps="), ({"meta": b"fps=29.97\n"}, "fps="),
    ({"meta": b"fps=20\nchannels.color=100%/%08d.jpg\n"}, "sequence: 'channels.color"),
])
def test_refused_by_file_and_line(content: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        inspect_sequence(make_sequence(tmp_path / "s", **content))


@pytest.fixture
def one_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the rendered ones, which take their time."""

    def make(folder: Path) -> None:
        make_sequence(folder / "square")
        write_list(folder, ["square"])

    monkeypatch.setattr(vot_workspace, "make_sequences", make)


def test_a_folder_may_have_any_name(tmp_path: Path, one_sequence: None, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "my #1 project: 'new', [old]"
    project.mkdir()
    shutil.copy(ROOT / "trackers.ini", project)
    monkeypatch.setattr(vot_workspace, "TRACKERS", project / "trackers.ini")
    vot_workspace.prepare_workspace(project / "work #2")
    loaded = load_workspace(project / "work #2")
    assert "StaticBox" in loaded.registry and [sequence.name for sequence in loaded.dataset] == ["square"]


@pytest.mark.parametrize(("config", "message"), [
    (REGISTRY, "config.yaml does not name a stack"), ("", "config.yaml does not name a stack"),
    ("registry:\n\t- trackers.ini\n" + STACK, "config.yaml cannot be read"),
    (REGISTRY + "stack: nonsense\n", "config.yaml: the stack nonsense is not there"),
    (REGISTRY + STACK + "sequences: [a]\n", "`sequences` is not a path"),
    (REGISTRY + STACK + "foo: 1\n", "workspace.*foo"),
])
def test_configurations_that_cannot_be_used(config: str, message: str, tmp_path: Path, one_sequence: None) -> None:
    shutil.copy(ROOT / "workspace/short-videos.yaml", tmp_path)
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "results/T/baseline/s").mkdir(parents=True)
    (tmp_path / "results/T/baseline/s/x.bin").touch()
    for use in (lambda: (vot_workspace.prepare_workspace(tmp_path), load_workspace(tmp_path)),
                lambda: open_workspace(tmp_path)):
        with pytest.raises(EvaluationError, match=message):
            use()


def test_keys_may_be_quoted_and_sequences_shared(tmp_path: Path, one_sequence: None) -> None:
    write_list(tmp_path / "shared", ["ours"])
    make_sequence(tmp_path / "shared/ours")
    make_sequence(tmp_path / "other/mine")
    work = tmp_path / "w"
    work.mkdir()
    shutil.copy(ROOT / "workspace/short-videos.yaml", work)
    (work / "config.yaml").write_text(f'{REGISTRY}"stack": short-videos.yaml\nsequences: {tmp_path}/shared\n')
    assert data_set(work) is None and sequences_folder(work) == tmp_path / "shared"
    vot_workspace.prepare_workspace(work)
    assert not (work / "sequences").exists()
    assert [sequence.name for sequence in load_workspace(work).dataset] == ["ours"]
    with pytest.raises(EvaluationError, match="shares the sequences"):
        vot_workspace.prepare_workspace(work, tmp_path / "other")
    assert read_list(tmp_path / "shared") == ["ours"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    registry = [Path("/a: b/#c"), Path("/d, e/'f'")]
    write_config(tmp_path, registry, "車.yaml")
    assert read_config(tmp_path) == {"registry": list(map(str, registry)), "stack": "車.yaml"}
