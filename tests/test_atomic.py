"""Files that are replaced in one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracker_ar.atomic import replacement, write_atomically


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    for content in (b"old", b"new"):
        write_atomically(file, content)
        assert file.read_bytes() == content and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "results.json"
    write_atomically(file, b"old")
    with pytest.raises(error), replacement(file) as temporary:
        temporary.write_bytes(b"ha")
        assert file.read_bytes() == b"old"
        raise error
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_put_in_place_is_removed(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "taken", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_nothing_to_clean_up(tmp_path: Path) -> None:
    """The first error is what is reported where there is no folder to write in, or nothing was written."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file" / "results.json", b"new")
    with pytest.raises(FileNotFoundError), replacement(tmp_path / "results.json"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
