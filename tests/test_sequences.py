"""Synthetic sequences, the VOT layout, and the list of a workspace."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from tracker_ar.data.datasets.vot_layout import inspect_sequence, read_list, write_list
from tracker_ar.data.synthetic import procedural
from tracker_ar.errors import DataError
from tracker_ar.evaluate import vot_workspace as sequences
from tracker_ar.run_lengths import encode_mask_line


def decode_mask_line(line: str, size: tuple[int, int]) -> np.ndarray:
    """An independent reading of the format."""
    left, top, width, height, *runs = map(int, line[1:].split(","))
    flat = np.repeat(np.arange(len(runs)) % 2, runs)
    mask = np.zeros(size, np.uint8)
    mask[top:top + height, left:left + width] = flat.reshape(height, width) if width else 0
    return mask


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    return make_sequence(tmp_path / "source" / "walk")


def make_sequence(folder: Path, length: int = 6, boxes: bool = False) -> Path:
    (folder / "color").mkdir(parents=True)
    lines = []
    for frame in range(length):
        mask = np.zeros((24, 32), np.uint8)
        mask[8:16, 4 + frame:14 + frame] = 1
        cv2.imwrite(str(folder / "color" / f"{frame + 1:08d}.jpg"), mask * 255)
        lines.append(f"{4 + frame},8,10,8" if boxes else encode_mask_line(mask))
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    (folder / "anchor.value").write_text("\n".join(["1", *["0"] * (length - 2), "-1"]) + "\n")
    (folder / "sequence").write_text(f"fps=20\nname={folder.name}\nlength={length}\nwidth=32\nheight=24\n")
    return folder


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    sequences.configure(parser)
    return sequences.run(parser.parse_args(arguments))


@pytest.mark.parametrize("mask", [
    np.zeros((7, 9)), np.ones((7, 9)), np.eye(7, 9), np.eye(7, 9)[:, ::-1],
    np.random.default_rng(1).random((7, 9)) > 0.5, np.pad(np.ones((1, 1)), 3),
])
def test_mask_lines_can_be_read_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_mask_line(encode_mask_line(mask), mask.shape), mask)


def test_mask_line_equals_one_written_by_the_toolkit() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[2:5, 3:7] = 1
    mask[2, 3] = 0
    assert encode_mask_line(mask) == "m3,2,4,3,1,11"


def test_anchors_run_forward_in_the_first_half_and_backward_in_the_second() -> None:
    anchors = procedural.anchor_values(60)
    assert {frame: value for frame, value in enumerate(anchors) if value} == {0: 1, 30: -1, 59: -1}


def test_synthetic_sequences_are_valid_and_deterministic(tmp_path: Path) -> None:
    assert run("make", "--workspace", str(tmp_path)) == 0
    folder = tmp_path / "sequences"
    names = read_list(folder)
    assert len(names) == 4
    infos = sequences.listed_sequences(folder)
    assert all(info.has_masks and info.length == procedural.LENGTH for info in infos)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    procedural.write_synthetic_sequences(folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_synthetic_masks_lie_on_the_target_and_respect_occlusion() -> None:
    scene = procedural._occluded()
    areas = [int(procedural.render(scene, frame)[1].sum()) for frame in (0, 31, 59)]
    assert areas[1] < 0.5 * min(areas[0], areas[2]) and areas[1] > 0
    image, mask = procedural.render(scene, 0)
    inside, outside = image[mask > 0].mean(axis=0), image[mask == 0].mean(axis=0)
    assert np.abs(inside - outside).max() > 20


def test_link_extends_or_replaces_the_list(tmp_path: Path, sequence: Path) -> None:
    workspace = tmp_path / "workspace"
    make_sequence(tmp_path / "source" / "ride", boxes=True)
    write_list(workspace / "sequences", ["earlier"])
    make_sequence(workspace / "sequences" / "earlier")
    link = ("link", str(tmp_path / "source"), "--workspace", str(workspace))
    assert run(*link, "--masks-only") == 0
    assert read_list(workspace / "sequences") == ["earlier", "walk"]
    assert run(*link) == 0
    assert read_list(workspace / "sequences") == ["earlier", "walk", "ride"]
    assert run(*link, "--only", "--masks-only") == 0
    assert read_list(workspace / "sequences") == ["walk"]
    assert (workspace / "sequences" / "walk").resolve() == sequence.resolve()


def test_link_copies_where_links_are_impossible(
    tmp_path: Path, sequence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(sequences.os, "symlink", refuse)
    for _ in range(2):
        assert sequences.link_sequences(sequence.parent, tmp_path / "sequences") == ["walk"]
    assert not (tmp_path / "sequences" / "walk").is_symlink()
    assert inspect_sequence(tmp_path / "sequences" / "walk").length == 6


def test_link_refuses_a_name_that_is_taken(tmp_path: Path, sequence: Path) -> None:
    make_sequence(tmp_path / "sequences" / "walk", length=9)
    with pytest.raises(DataError, match="another sequence"):
        sequences.link_sequences(sequence.parent, tmp_path / "sequences")


def test_link_needs_a_sequence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder in it"):
        sequences.link_sequences(tmp_path, tmp_path / "sequences")


def test_list_names_what_is_missing(tmp_path: Path) -> None:
    write_list(tmp_path / "sequences", ["gone"])
    with pytest.raises(DataError, match="gone"):
        run("list", "--workspace", str(tmp_path))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda s: (s / "sequence").unlink(), "no file 'sequence'"),
    (lambda s: (s / "sequence").write_text("name=walk\n"), "fps="),
    (lambda s: (s / "color/00000001.jpg").unlink(), "0 images"),
    (lambda s: (s / "color/00000004.jpg").unlink(), "length=6, but there are 3"),
    (lambda s: (s / "groundtruth.txt").write_text("m0,0,1,1,0,1\n"), "1 lines for 6 images"),
    (lambda s: (s / "anchor.value").unlink(), "anchor.value: missing"),
    (lambda s: (s / "anchor.value").write_text("0\n" * 6), "no anchor"),
    (lambda s: (s / "anchor.value").write_text("one\n" * 6), "not a number"),
    (lambda s: (s / "groundtruth.txt").write_text("m0,0,0,0,0\n" * 6), "image 1 has no target"),
])
def test_damaged_sequences_are_refused_with_the_cause(sequence: Path, damage, message: str) -> None:
    damage(sequence)
    with pytest.raises(DataError, match=message):
        inspect_sequence(sequence)
