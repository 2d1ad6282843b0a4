"""The evaluation around the toolkit: registry and stacks, tables, pictures, verdicts."""

from __future__ import annotations

import argparse
import configparser
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tracker_ar.commands import evaluate as command
from tracker_ar.errors import EvaluationError
from tracker_ar.evaluate import vot_toolkit as toolkit
from tracker_ar.evaluate.vot_workspace import prepare_workspace
from tracker_ar.evaluate.workspace_config import data_set
from tracker_ar.report.vot_table import eao_interval, format_table, read_scores

ROOT = Path(__file__).resolve().parents[1]


def read_registry(file: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser()
    assert parser.read(file)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_both_registries_name_the_same_trackers() -> None:
    outer, inner = (read_registry(ROOT / name) for name in ("trackers.ini", "workspace/trackers.ini"))
    assert set(outer) == {
        "AlphaRefine", "AlphaRefine-VOT2020", "AlphaRefine-Lite", "AlphaRefine-Box", "AlphaRefine-CSRT",
        "StaticBox"}
    assert set(inner) == set(outer)
    for name, entry in outer.items():
        assert (ROOT / entry.pop("paths")).resolve() == ROOT
        assert (ROOT / "workspace" / inner[name].pop("paths")).resolve() == ROOT
        assert entry == inner[name]
        assert (ROOT / (entry["command"].replace(".", "/") + ".py")).is_file()


def test_own_stack_differs_from_vot2020_only_in_the_interval() -> None:
    import vot.stack

    def experiments(file: Path) -> dict:
        # Through JSON, so that what YAML shares by an alias can be changed in one place.
        return json.loads(json.dumps(yaml.safe_load(file.read_text())["experiments"]))

    own = experiments(ROOT / "workspace/short-videos.yaml")
    original = experiments(Path(vot.stack.__file__).parent / "vot2020/shortterm.yaml")
    for name in ("baseline", "realtime"):
        score, curve, _ = own[name]["analyses"]
        assert (score["low"], score["high"], curve["high"]) == (20, 90, 90)
        score.update(low=115, high=755)
        curve.update(high=755)
    assert own == original


def analysis_document() -> dict:
    def multistart(shift: float) -> dict:
        kinds = [{"type": "vot.analysis.multistart.EAOScore", "low": 20, "high": 90},
                 {"type": "vot.analysis.multistart.AverageAccuracyRobustness"}]
        rows = [[[0.1 + shift], [0.2 + shift]],
                [[0.3 + shift, 0.5 + shift, [0.5, 0.3]], [0.4 + shift, 0.6 + shift, [0.6, 0.4]]]]
        return {"parameters": {"analyses": kinds}, "results": rows}

    overlap = {"parameters": {"analyses": [{"type": "vot.analysis.accuracy.AverageAccuracy"}]},
               "results": [[[0.7], [0.8]]]}
    return {"trackers": {"First": {}, "Second": {}},
            "results": {"baseline": multistart(0), "realtime": multistart(0.01), "unsupervised": overlap}}


def test_scores_are_found_and_tabled() -> None:
    document = analysis_document()
    scores = {name: read_scores(document, name) for name in document["trackers"]}
    assert (scores["Second"].baseline.eao, scores["Second"].baseline.accuracy) == (0.2, 0.4)
    assert scores["Second"].baseline.robustness == 0.6
    assert scores["First"].realtime.eao == pytest.approx(0.11)
    assert scores["First"].average_overlap == 0.7
    assert eao_interval(document) == (20, 90)
    lines = format_table(scores).splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    assert [word for word in lines[-1].split() if word != "|"] == [
        "Second", "0.200", "0.400", "0.600", "0.210", "0.410", "0.610", "0.800"]


def test_another_stack_is_named_as_the_cause() -> None:
    document = analysis_document()
    del document["results"]["realtime"]
    with pytest.raises(EvaluationError, match="realtime"):
        read_scores(document, "First")


def fake_toolkit(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Let ``python -m vot`` run a script instead: the toolkit fails in ways that are hard to provoke."""
    (folder / "vot.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(toolkit, "load_workspace", lambda workspace: type("Loaded", (), {"stack": []}))
    monkeypatch.setattr(toolkit, "missing_results", lambda workspace, trackers: [])


def test_a_stack_that_the_table_cannot_show_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(toolkit, "_vot", lambda *_, **__: pytest.fail("ran"))
    stack = (ROOT / "workspace/multi-object/multi-object.yaml").read_text().replace("baseline:", "quality:")
    (tmp_path / "stack.yaml").write_text(stack)
    (tmp_path / "config.yaml").write_text(f"registry:\n  - {ROOT / 'trackers.ini'}\nstack: stack.yaml\n")
    parser = argparse.ArgumentParser()
    command.configure(parser)
    with pytest.raises(EvaluationError, match="has the experiments quality.*needs baseline, realtime, unsupervised"):
        command.run(parser.parse_args(["--workspace", str(tmp_path)]))


def test_exit_status_0_after_an_error_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/x.log").write_text("@@TRAX:hello\nCheckpointError: no weights\n")
    fake_toolkit(monkeypatch, tmp_path, "print('Tracker output written to file: logs/x.log')\n"
                                        "print('\\x1b[31mEvaluation interrupted by tracker error\\x1b[0m')")
    with pytest.raises(EvaluationError) as caught:
        toolkit.evaluate(tmp_path, ["Any"])
    assert "interrupted by tracker error" in str(caught.value)
    assert "CheckpointError: no weights" in str(caught.value)
    assert "@@TRAX" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_success_without_results_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_toolkit(monkeypatch, tmp_path, "print('5 %'); print('Evaluation concluded successfuly')")
    toolkit.evaluate(tmp_path, ["Any"])
    monkeypatch.setattr(toolkit, "missing_results", lambda workspace, trackers: ["Any/baseline/walk"])
    with pytest.raises(EvaluationError, match="Any/baseline/walk"):
        toolkit.evaluate(tmp_path, ["Any"])


def test_stale_analyses_and_reports_do_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stale = [tmp_path / name for name in ("analysis/Any.json", "reports/Any/report.html", "cache/analysis/x")]
    for file in stale:
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({}))
    fake_toolkit(monkeypatch, tmp_path, "print('Analysis successful, report available as Any')")
    with pytest.raises(EvaluationError, match="vot analysis failed"):
        toolkit.analyse(tmp_path, ["Any"], "Any")
    with pytest.raises(EvaluationError, match="vot report failed"):
        toolkit.report(tmp_path, ["Any"], "Any")
    assert not any(file.exists() for file in stale)


def test_progress_is_named_and_thinned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_toolkit(monkeypatch, tmp_path, "for n in [*range(1, 101)] * 2: print(n, '%')\nprint('end')")
    assert toolkit._vot(tmp_path, "evaluate", steps=["first", "second"]) == ["end"]
    lines = capfd.readouterr().out.splitlines()
    assert "  first 50 %" in lines and "  second 100 %" in lines and len(lines) < 30


def test_mixed_profiles_are_refused(tmp_path: Path) -> None:
    for run, profile in (("001", "lite"), ("002", "vot2020")):
        file = tmp_path / "results/T/baseline/walk" / f"walk_{run}_profile.value"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"\n{profile}\n{profile}\n")
    other = tmp_path / "results/T/baseline/not_listed/a_profile.value"
    other.parent.mkdir()
    other.write_text("elsewhere\n")
    sequence = type("Sequence", (), {"name": "walk"})
    workspace = type("Workspace", (), {"directory": str(tmp_path), "dataset": [sequence]})
    profiles = toolkit.reported_profiles(workspace, "T")
    assert profiles == {"lite", "vot2020"}
    with pytest.raises(EvaluationError, match="lite, vot2020"):
        command._only_profile(profiles, "T")


def test_workspace_in_a_folder_that_trax_cannot_name(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="ASCII"):
        prepare_workspace(tmp_path / "caf\u00e9")


def test_vot2020_workspace_downloads_its_own_sequences() -> None:
    assert data_set(ROOT / "workspace/vot2020")
    assert data_set(ROOT / "workspace") is None


def test_unreadable_workspace(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("registry: []\nstack: no-such-stack\n")
    with pytest.raises(EvaluationError, match="Experiment stack does not exist"):
        toolkit.load_workspace(tmp_path)


def test_regions_are_drawn_where_they_are() -> None:
    from vot.region import Mask, Rectangle, Special

    from tracker_ar.report.mask_sheets import draw

    image = np.zeros((120, 240, 3), np.uint8)
    predicted = Mask(np.ones((40, 50), np.uint8), offset=(-10, 100))
    cell = draw(image, [predicted], [Rectangle(150, 20, 30, 30)])
    red, green = cell[..., 0] > 100, cell[..., 1] > 200
    assert np.argwhere(red).min(axis=0).tolist() == [100, 0]
    assert np.argwhere(red).max(axis=0).tolist() == [119, 39]
    assert np.abs(np.argwhere(green).min(axis=0) - [20, 150]).max() <= 1
    assert draw(image, [Special(0)], [Special(0)]).max() == 0


def test_sequences_shorter_than_the_interval_of_eao_are_pointed_out() -> None:
    assert command.short_note(90, 90) == []
    assert "25 frames" in " ".join(command.short_note(25, 90))
