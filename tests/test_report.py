"""`alpharefine report`: the page of a workspace, and what it says where there is nothing to show."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_fixtures import HIGH, LOW, SECONDS, TRACKERS, write_results, write_workspace
from short_videos import LENGTH, SIZE

from tracker_ar import cli
from tracker_ar.commands.report import PAGE
from tracker_ar.evaluate import vot_toolkit as toolkit
from tracker_ar.report.vot_table import read_scores

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would find: rows of the tables, pictures, names; complains of tags that do not match."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.text = file.read_text()
        self.rows: list[list[str]] = []
        self.pictures: list[np.ndarray] = []
        self.resources: list[str] = []
        self.identifiers: list[str] = []
        self._open: list[str] = []
        self.feed(self.text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self._open.append(tag)
        if "id" in found:
            self.identifiers.append(found["id"])
        self.resources += [found[name] for name in ("src", "href", "xlink:href") if name in found]
        if tag == "img":
            data = base64.b64decode(found["src"].removeprefix("data:image/jpeg;base64,"))
            self.pictures.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if any(tag in ("td", "th") for tag in self._open):
            self.rows[-1][-1] += data

    def row(self, *first: str) -> list[str]:
        """The cells after the first ones given."""
        return next(row[len(first):] for row in self.rows if tuple(row[:len(first)]) == first)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_workspace(tmp_path_factory.mktemp("workspace"))
    for tracker in TRACKERS:
        write_results(folder, tracker)
    return folder


@pytest.fixture(scope="module")
def page(workspace: Path) -> Page:
    assert cli.main(["report", str(workspace)]) == 0
    return Page(workspace / PAGE)


def copied(workspace: Path, folder: Path) -> Path:
    shutil.copytree(workspace, folder / "copy")
    return folder / "copy"


def test_scores_are_those_of_vot_analysis(workspace: Path, page: Page) -> None:
    document = toolkit.analyse(workspace, list(TRACKERS), "compared")
    for tracker in TRACKERS:
        scores = read_scores(document, tracker)
        parts = (scores.baseline.eao, scores.baseline.accuracy, scores.baseline.robustness,
                 scores.realtime.eao, scores.realtime.accuracy, scores.realtime.robustness)
        shown = page.row(f"The {tracker.lower()} <one>", f"made-{tracker.lower()}")
        assert shown == [*(f"{value:.3f}" for value in parts), "0.0%", f"{scores.average_overlap:.3f}",
                         f"{1000 * SECONDS[tracker]:.1f}", f"{1 / SECONDS[tracker]:.1f}"]
    kinds = [settings["type"] for settings in document["results"]["baseline"]["parameters"]["analyses"]]
    (curve,) = document["results"]["baseline"]["results"][kinds.index("vot.analysis.multistart.EAOCurve")][1]
    assert page_curve(page, "EAO-baseline", 1) == pytest.approx(curve[1:], abs=2e-3)


def page_curve(page: Page, figure: str, place: int) -> list[float]:
    """The values of a tracker's curve, read off the picture between its grid lines 0 and 1."""
    svg = next(part for part in page.text.split("<svg") if f'id="{figure}-' in part)
    ticks = re.findall(r'id="[^"]*ytick_\d+">.*?<use [^>]*y="([\d.]+)"', svg, re.DOTALL)
    zero, one = float(ticks[0]), float(ticks[-1])
    colour = ("#2f7de1", "#e8710a")[place]
    path = re.search(rf'<path d="([^"]+)"[^>]*style="[^"]*stroke: {colour}', svg)[1]
    heights = [float(number) for number in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    return [(zero - height) / (zero - one) for height in heights]


def test_perfect_tracker_comes_first(page: Page) -> None:
    trackers = [row[0] for row in page.rows if row[0].startswith("The ")]
    assert trackers == ["The perfect <one>", "The shifted <one>"]
    # The first frame of a run, which holds no region, counts as a miss in the accuracy: 11 of 12 are left.
    assert page.row("The perfect <one>")[1:7] == ["1.000", "0.917", "1.000"] * 2


def test_every_sequence_and_tracker_has_a_row(page: Page) -> None:
    assert page.row("moving", "The perfect <one>") == [
        "0.917", "1.000", "0.917", "1.000", "1.000", "10.0", "100.0", "100.0%"]
    # A square of 20 pixels that is 10 aside: overlap 1/3. 5 fps at 20 fps allowed.
    assert page.row("still", "The shifted <one>") == [
        "0.306", "1.000", "0.306", "1.000", "0.333", "200.0", "5.0", "0.0%"]


def test_page_needs_nothing_from_outside(page: Page) -> None:
    assert all(name.startswith(("data:image/jpeg;base64,", "#")) for name in page.resources)
    assert "@import" not in page.text and "url(http" not in page.text
    assert "prefers-color-scheme: dark" in page.text
    assert "#010203" not in page.text and "currentColor" in page.text


def test_pictures_clash_in_no_name(page: Page) -> None:
    assert len(page.identifiers) == len(set(page.identifiers)) > 20
    used = {name[1:] for name in page.resources if name.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", page.text))
    assert used <= set(page.identifiers)


def test_interval_and_limit_are_marked(page: Page) -> None:
    assert f"averaged over {LOW} to {HIGH}" in page.text
    assert "red: the real-time limit 1 / fps, 50 ms" in page.text
    assert "The perfect &lt;one&gt;: median 10 ms, 100.0% of" in page.text


def test_sheets_show_prediction_and_truth(page: Page) -> None:
    assert len(page.pictures) == 4
    width = 240
    for picture in page.pictures:
        assert picture.shape == (SIZE[0] * width // SIZE[1], 6 * width, 3)
        blue, green, red = picture[:, -width:].astype(int).transpose(2, 0, 1)
        painted = (red - blue > 60).mean()
        assert 0.5 < painted / (400 / (SIZE[0] * SIZE[1])) < 1.2
        assert (green - red > 60).any()
    assert page.text.count(f"frames 2, 4, 6, 8, 10, {LENGTH}") == 4


def test_missing_results_leave_gaps_and_a_note(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(workspace, tmp_path)
    next((folder / "results/Shifted/baseline/moving").glob("*.bin")).unlink()
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "made/page.html")]) == 0
    output = capsys.readouterr().out
    assert "Shifted, baseline: no complete results on 1 of 2 sequences (moving)" in output
    page = Page(tmp_path / "made/page.html")
    assert page.row("The shifted <one>")[1:4] == ["-"] * 3 and "-" not in page.row("The shifted <one>")[4:]
    assert page.row("moving", "The shifted <one>")[:2] == ["-", "-"]
    assert page.row("still", "The shifted <one>")[1] == "1.000"
    assert "no complete results on 1 of 2 sequences" in page.text


def test_damaged_results_are_named(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(workspace, tmp_path)
    file = folder / "results/Shifted/unsupervised/still/still_001.bin"
    file.write_bytes(file.read_bytes()[:20])
    assert cli.main(["report", str(folder)]) == 0
    output = capsys.readouterr().out
    assert "Shifted, unsupervised, still: the results cannot be read" in output
    assert "Delete results/Shifted/unsupervised/still" in output
    assert Page(folder / PAGE).row("The shifted <one>")[-3] == "-"


def test_only_the_trackers_asked_for(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.html"
    assert cli.main(["report", str(workspace), "--tracker", "Shifted", "--out", str(out)]) == 0
    assert "The perfect" not in out.read_text()


def test_results_of_a_tracker_that_nobody_registered(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(workspace, tmp_path)
    shutil.copytree(folder / "results/Shifted", folder / "results/Stranger")
    assert cli.main(["report", str(folder)]) == 0
    assert "Stranger: in results/, but not in the registry" in capsys.readouterr().out


def test_stack_without_a_run_over_the_whole_sequence(tmp_path: Path) -> None:
    stack = ("title: Only restarts\nexperiments:\n  restarts:\n    type: multistart\n    analyses:\n"
             "      - type: multistart_average_ar\n        name: ar\n")
    folder = write_workspace(tmp_path, stack)
    write_results(folder, "Shifted")
    assert cli.main(["report", str(folder)]) == 0
    page = Page(folder / PAGE)
    assert page.row("The shifted <one>")[2] == "1.000"  # robustness
    assert "Only restarts" in page.text and "restarts" in page.text
    assert len(page.pictures) == 2 and "averaged over" not in page.text


def test_several_targets_in_a_sequence(tmp_path: Path) -> None:
    stack = ("title: Two\nexperiments:\n  both:\n    type: unsupervised\n    multiobject: true\n"
             "    analyses:\n      - type: average_accuracy\n")
    folder = write_workspace(tmp_path, stack)
    for sequence in (folder / "sequences/still", folder / "sequences/moving"):
        (sequence / "groundtruth.txt").rename(sequence / "groundtruth_1.txt")
        moved = (sequence / "groundtruth_1.txt").read_text().replace(",20,20,20,", ",40,20,20,")
        (sequence / "groundtruth_2.txt").write_text(moved)
    write_results(folder, "Perfect")
    assert cli.main(["report", str(folder)]) == 0
    page = Page(folder / PAGE)
    assert page.row("The perfect <one>", "made-perfect")[0] == "1.000"
    red = [(picture[..., 2].astype(int) - picture[..., 0] > 60).mean() for picture in page.pictures]
    assert len(red) == 2 and min(red) > 1.5 * 400 / (SIZE[0] * SIZE[1])


def test_stack_with_restarts_after_failures(tmp_path: Path) -> None:
    stack = ("title: Old\nexperiments:\n  baseline:\n    type: supervised\n    analyses:\n"
             "      - type: supervised_average_ar\n        sensitivity: 30\n"
             "      - type: supervised_eao_score\n        low: 4\n        high: 8\n"
             "      - type: supervised_eao_curve\n")
    folder = write_workspace(tmp_path, stack)
    write_results(folder, "Shifted")
    assert cli.main(["report", str(folder)]) == 0
    page = Page(folder / PAGE)
    assert page.row("The shifted <one>")[1:4] == ["0.333", "0.000", "0.333"]
    assert "Expected Average Overlap, baseline" in page.text and len(page.pictures) == 2


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda folder: shutil.rmtree(folder), "no config.yaml"),
    (lambda folder: shutil.rmtree(folder / "results"), "no results yet"),
    (lambda folder: (folder / "config.yaml").write_text("registry: [\n"), "config.yaml cannot be read"),
    (lambda folder: (folder / "stack.yaml").unlink(), "the stack stack.yaml is not there"),
    (lambda folder: shutil.rmtree(folder / "sequences"), "sequences"),
])
def test_what_cannot_be_shown_is_said(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil, words: str
) -> None:
    folder = copied(workspace, tmp_path)
    spoil(folder)
    assert cli.main(["report", str(folder)]) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_sequences_are_never_downloaded(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(workspace, tmp_path)
    shutil.rmtree(folder / "sequences")
    (folder / "config.yaml").write_text("registry:\n  - trackers.ini\nstack: vot2020/shortterm\n")
    assert cli.main(["report", str(folder)]) == 1
    assert "the sequences of this workspace are not here" in capsys.readouterr().err


def test_unknown_tracker(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(workspace), "--tracker", "Nobody"]) == 1
    error = capsys.readouterr().err
    assert "no tracker Nobody in the registry" in error and "Perfect, Shifted" in error


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_table_is_sorted_by_a_click(page: Page, tmp_path: Path) -> None:
    script = ("<script>const seen = [], heading = document.querySelectorAll('th[data-sort]')[6];"
              "const note = () => seen.push([...document.querySelectorAll('table')[1].tBodies[0].rows]"
              ".map(row => row.cells[6].textContent));"
              "heading.click(); note(); heading.click(); note();"
              "document.title = JSON.stringify(seen);</script></body>")
    file = tmp_path / "clicked.html"
    file.write_text(page.text.replace("</body>", script))
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu",
                           "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
                           "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=60)
    down, up = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert [float(value) for value in down] == sorted(map(float, down), reverse=True)
    assert up == sorted(down, key=float) and up != down
