"""The comparison with the authors' code, as far as it goes without that code."""

from __future__ import annotations

from pathlib import Path

import against_authors
import authors_code
import pytest
import torch

from tracker_ar.errors import InputError


def checkout(folder: Path) -> Path:
    for name in authors_code.NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_code_is_found_in_the_checkout_and_in_its_folder(tmp_path: Path) -> None:
    inner = checkout(tmp_path / authors_code.FOLDER)
    assert authors_code.find_code(tmp_path) == authors_code.find_code(inner) == inner.resolve()


def test_another_folder_is_refused_with_the_missing_file_and_the_fix(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (folder / "pytracking/ARcm_seg.py").unlink()
    with pytest.raises(InputError, match="pytracking/ARcm_seg.py is missing.*git clone --branch vot2020"):
        authors_code.find_code(folder)


def test_the_command_refuses_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert against_authors.main(["--authors", str(tmp_path), "--threads", str(threads)]) == 2
    assert "is not a checkout of the authors' entry" in capsys.readouterr().err


def test_ratios_are_ours_over_theirs() -> None:
    values = against_authors.ratios(ours=[2.0, 1.0, 6.0], authors=[4.0, 10.0, 5.0])
    assert values == {"medians": 2 / 5, "fastest frames": 1 / 4, "frame by frame": 1 / 2}


def test_a_stage_counts_only_the_frames_it_ran_in() -> None:
    side = against_authors.Side(stages=[{"a": 0.001}, {"b": 1.0}, {"a": 0.003}])
    assert side.stage("a") == pytest.approx(2.0)
    assert side.stage("c") is None


def test_integer_division_truncates_only_inside() -> None:
    halve = authors_code._dividing_as_then(lambda tensor: tensor / 2)
    odd = torch.tensor([-3, 5])
    assert halve(odd).tolist() == [-1, 2]
    assert halve(odd.float()).tolist() == [-1.5, 2.5]
    assert (odd / 2).tolist() == [-1.5, 2.5]


def test_draws_are_those_of_single_calls() -> None:
    draws = against_authors.SharedDraws(5).augmentation_shifts(8)
    torch.manual_seed(5)
    assert torch.equal(draws, torch.stack([torch.rand(2) for _ in range(8)]))
