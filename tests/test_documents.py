"""README and guides: links lead somewhere, command lines are understood, examples run."""

from __future__ import annotations

import argparse
import configparser
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from short_videos import LENGTH, ROOT, vot

from tracker_ar import cli, zoo
from tracker_ar.commands.report import PAGE
from tracker_ar.data.datasets.vot_layout import inspect_sequence
from tracker_ar.data.synthetic.library import ImageLibrary, in_split
from tracker_ar.data.synthetic.procedural import anchor_values
from tracker_ar.weights.slots import SLOT, Slot

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "tracker_ar/docs").glob("*.md"))]
EXTENDING = ROOT / "tracker_ar/docs/extending.md"
PROGRAMS = ("alpharefine", "vot", "make", "python")


def command_lines() -> list[str]:
    """Every command in an indented block or in back quotes; `vot evaluate` alone is but a command's name."""
    found = []
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
        blocks = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        quoted = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
        found += [line.split(" # ")[0].strip() for line in blocks + quoted
                  if line.split()[0] in PROGRAMS and len(line.split()) > 1]
    return sorted({line for line in found if not re.fullmatch(r"vot \w+", line)})


class Parsed(BaseException):
    """The command line was understood."""


@pytest.fixture
def only_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs end where their command line has been parsed."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *arguments: object) -> None:
        original(parser, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


@pytest.mark.parametrize("line", command_lines())
def test_command_line_is_understood(line: str, only_parse: None, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[0] in targets
    elif program == "python":
        module = f"{words[1].replace('.', '/')}.py" if words[0] == "-m" else words[0]
        assert (ROOT / module).is_file()
    elif program == "alpharefine":
        with pytest.raises((Parsed, SystemExit)) as ended:
            cli.main(words)
        assert ended.type is Parsed or ended.value.code == 0  # --help
    else:
        from vot.utilities.cli import main

        monkeypatch.setattr(sys, "argv", ["vot", *words])
        with pytest.raises(Parsed):
            main()


def test_commands_are_found() -> None:
    lines = command_lines()
    assert "alpharefine doctor" in lines and "vot evaluate AlphaRefine" in lines and "make evaluate" in lines
    assert {line.split()[1] for line in lines if line.startswith("alpharefine")} == set(cli.COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert links or document.name == "challenge.md"
    for link in links:
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", found.lower()).replace(" ", "-") for found in headings]


def test_pictures_are_small_and_shown() -> None:
    pictures = [file for file in (ROOT / "tracker_ar/docs/pictures").iterdir()]
    assert sum(file.stat().st_size for file in pictures) < 1.1e6
    texts = "".join(document.read_text() for document in DOCUMENTS)
    assert [file.name for file in pictures if f"pictures/{file.name}" not in texts] == []


# ---- the examples


def marked_blocks(mark: str) -> list:
    """The examples of the guide below a comment like `mark`, with what its groups match."""
    found = re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", EXTENDING.read_text(), re.DOTALL)
    assert found
    return found


def write_examples(folder: Path) -> None:
    """The files of the guide, as they stand there."""
    for name, text in marked_blocks(r"file: (\S+)"):
        (folder / name).write_text(text)


def picture(frame: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square that moves to the right over noise, and its mask."""
    image = np.random.default_rng(frame).integers(30, 80, (96, 128, 3), dtype=np.uint8)
    mask = np.zeros((96, 128), np.uint8)
    mask[30:54, 40 + 2 * frame : 64 + 2 * frame] = 1
    image[mask > 0] += 150
    return image, mask


def python_blocks(document: Path) -> list[str]:
    """The Python examples that are not files of their own."""
    return re.findall(r"(?<!-->\n)```python\n(.*?)```", document.read_text(), re.DOTALL)


def test_readme_examples() -> None:
    class YourTracker:
        def init(self, image: np.ndarray, box: np.ndarray) -> None:
            self.box = box

        def update(self, image: np.ndarray) -> np.ndarray:
            return self.box

    (first_frame, mask), (next_frame, moved) = picture(0), picture(1)
    box, another_box = [40, 30, 24, 24], [60, 40, 30, 20]
    names = {"first_frame": first_frame, "next_frame": next_frame, "region": mask, "mask": mask, "box": box,
             "another_box": another_box, "better_box": [42, 30, 24, 24], "YourTracker": YourTracker,
             "boxes_of_another_tracker": [(next_frame, [42, 30, 24, 24])]}
    for example in python_blocks(ROOT / "README.md"):
        exec(example, names)
    assert len(names["second"].mask) == 96 and names["tracker"].profile.name == "lite"
    for found in (names["prediction"], names["refined"]):
        assert (found.mask & moved).sum() > 0.5 * moved.sum()


def test_readme_tracker_entry() -> None:
    (text,) = re.findall(r"```ini\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    entry, own = configparser.ConfigParser(), configparser.ConfigParser()
    entry.read_string(text)
    own.read(ROOT / "trackers.ini")
    written, shipped = dict(entry["AlphaRefine"]), dict(own["AlphaRefine"])
    assert written.pop("paths") and written.pop("python") and shipped.pop("paths")
    assert written == shipped


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace made of the files of the guide, with one sequence that its example has written."""
    folder = tmp_path_factory.mktemp("guide")
    write_examples(folder)
    write_sequence = runpy.run_path(str(folder / "write_sequence.py"))["write_sequence"]
    write_sequence(folder / "sequences/square", [picture(frame) for frame in range(LENGTH)])
    (folder / "sequences/list.txt").write_text("square\n")
    return folder


def test_data_set_example(workspace: Path) -> None:
    info = inspect_sequence(workspace / "sequences/square")
    assert info.length == LENGTH and info.has_masks
    anchors = (workspace / "sequences/square/anchor.value").read_text().split()
    assert [int(value) for value in anchors] == anchor_values(LENGTH)


def test_base_tracker_examples(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workspace))
    names = {"first_frame": picture(0)[0], "next_frame": picture(3)[0]}
    for example in python_blocks(EXTENDING):
        exec(example, names)
    for found in (names["prediction"], names["first"]):
        np.testing.assert_allclose(found.box[:2], [46, 30], atol=4)
        assert found.mask.shape == (96, 128)
    assert names["tracker"].refiner.settings.threshold == 0.6


def test_zoo_examples(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workspace))
    for text in marked_blocks("slot"):
        (slot,) = eval(f"({text})", {"Slot": Slot})
        monkeypatch.setitem(SLOT, slot.kind, slot)
    entries = eval(f"{{{''.join(marked_blocks('zoo'))}}}", {"Part": zoo.Part})
    for name, part in entries.items():
        monkeypatch.setitem(zoo.BASES, name, part)
        tracker = zoo.build_tracker(name, "cpu", random_weights=True)
        image, mask = picture(0)
        tracker.initialize(image, mask)
        assert tracker.track(image).mask.shape == mask.shape and zoo.build_tracker(f"{name}+lite", random_weights=True)


def test_refiner_example(workspace: Path) -> None:
    pictures, boxes = [picture(frame) for frame in range(4)], [[40 + 2 * frame, 30, 24, 24] for frame in range(1, 4)]
    masks = runpy.run_path(str(workspace / "behind.py"))["masks"]
    found = list(masks([image for image, _ in pictures], pictures[0][1], boxes))
    for mask, (_, truth) in zip(found, pictures[1:], strict=True):
        assert (mask & truth).sum() > 0.5 * truth.sum()


@pytest.mark.e2e
def test_base_tracker_and_stack_run_under_the_toolkit(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The project need not be installed here, as it is for the reader of the guide.
    registry = workspace / "trackers.ini"
    registry.write_text(registry.read_text().replace("paths = .", f"paths = .:{ROOT}"))
    assert "Evaluation concluded successfuly" in vot(workspace, "evaluate", "BrightSpot")
    assert cli.main(["report", str(workspace)]) == 0
    page = (workspace / PAGE).read_text()
    assert "Restarts only" in page and "Bright spot with refiner" in page and "averaged over 4 to 10" in page


def test_training_data_example(workspace: Path, tmp_path: Path) -> None:
    write = runpy.run_path(str(workspace / "write_training_data.py"))["write_training_data"]
    kept, held_out = (next(name for name in map(str, range(400)) if in_split(name, split))
                      for split in ("train", "validation"))
    write(tmp_path / "data", [(name, *picture(0)) for name in (kept, held_out)])
    for split, name in (("train", kept), ("validation", held_out)):
        library = ImageLibrary(tmp_path / "data", split)
        assert [image.name for image in library.images] == [name]
        assert [cutout.area for cutout in library.objects["mine"]] == [24 * 24]
