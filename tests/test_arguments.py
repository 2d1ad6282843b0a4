"""Words of the command line that a shell, a script or a terminal makes odd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracker_ar import cli
from tracker_ar.errors import InputError
from tracker_ar.places import expanded

ROOT = Path(__file__).resolve().parents[1]


def test_a_box_may_begin_outside_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracker_ar.commands import track

    seen = []
    monkeypatch.setattr(track, "run", lambda args: seen.append(args.targets) or 0)
    assert cli.main(["track", "clip.mp4", "--box", "-5,10,40,40", "--box", ".5,1,2,3", "--no-video"]) == 0
    assert seen == [[(-5, 10, 40, 40), (0.5, 1, 2, 3)]]


@pytest.mark.parametrize(("place", "words"), [
    ("", "empty name"), (" ", "empty name"), ("~nosuchuser/x.mp4", "no such user"), ("²", "no such video"),
])
def test_sources_that_cannot_be(place: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "1.png").touch()
    monkeypatch.chdir(tmp_path)  # an empty name is that of the current folder to pathlib
    assert cli.main(["track", place, "--box", "1,2,3,4"]) == 1
    assert words in capsys.readouterr().err


def test_a_user_who_is_not_known() -> None:
    with pytest.raises(InputError, match="no such user"):
        expanded("~nosuchuser/x")
    assert expanded("~") == Path.home()


def test_letters_that_a_terminal_lacks() -> None:
    program = "import sys; from tracker_ar import cli; sys.exit(cli.main(['track', '\\u8eca', '--box', '1,2,3,4']))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "cp1252:strict"})
    assert done.returncode == 1 and b"\\u8eca: there is no such video" in done.stderr
