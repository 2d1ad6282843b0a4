"""The doctor's TraX session with a tracker: it always comes to an end, and says what went wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracker_ar.doctor import handshake
from tracker_ar.doctor.handshake import Session, converse, rows
from tracker_ar.doctor.report import FAILED, OK, WARNING
from tracker_ar.doctor.workspace import Launch

ROOT = Path(__file__).resolve().parents[1]
DOUBLE = ROOT / "tests" / "doubles" / "double_tracker.py"


def double(behaviour: str, seconds: float = 60) -> Launch:
    environment = {"DOUBLE": behaviour, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return Launch((sys.executable, str(DOUBLE)), environment, seconds)


def script(text: str) -> Launch:
    return Launch((sys.executable, "-c", text), {"PYTHONPATH": str(ROOT)}, 60)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for its status does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_good_tracker() -> None:
    session = converse(double("quiet"), frames=3)
    assert (session.stage, session.failure, session.profile) == ("done", "", "double-quiet")
    assert len(session.frame_seconds) == len(session.overlaps) == 3 and 0 < session.overlaps[0] <= 1
    found = list(rows(session, double("quiet"), fps=1))
    assert [row.state for row in found] == [OK] * 4
    assert "profile double-quiet" in found[0].found
    assert "limit at 1 fps is 1000 ms" in found[3].found


def test_tracker_that_crashes() -> None:
    session = converse(double("crashing"))
    *before, row = rows(session, double("crashing"))
    assert [earlier.state for earlier in before] == [OK, OK]
    assert (row.name, row.state) == ("tracking", FAILED)
    assert "'frame 3'" in row.cause and "RuntimeError: the double gave up" in row.cause
    assert "ended with status 1" in row.cause and "Traceback" in row.cause  # what it wrote to stderr
    assert "@@TRAX:hello" in row.fix and str(DOUBLE) in row.fix and "@@TRAX" not in row.cause


def test_tracker_that_cannot_be_built() -> None:
    session = converse(double("unbuildable"))
    hello, row = rows(session, double("unbuildable"))
    assert "could not be built" in hello.found
    assert (row.name, row.state) == ("initialize", FAILED) and "CheckpointError: no checkpoint" in row.cause


@pytest.mark.parametrize(("text", "cause"), [
    ("raise SystemExit('no module named torch')", "no module named torch"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "by SIGKILL; as a rule the system was out"),
])
def test_tracker_that_ends_before_its_hello(text: str, cause: str) -> None:
    row, = rows(converse(script(text)), script(text))
    assert (row.name, row.state) == ("TraX hello", FAILED) and cause in row.cause and "By hand" in row.fix


def test_tracker_that_hangs_while_tracking() -> None:
    started = time.monotonic()
    launch = double("slow", seconds=2)
    session = converse(launch)  # here the time limit is the registry's
    *_, row = rows(session, launch)
    assert time.monotonic() - started < 30
    assert "no answer within 2 s" in row.cause and "tracking now" in row.cause and "--timeout" in row.fix


def test_tracker_that_hangs_before_its_hello_leaves_no_process(tmp_path: Path) -> None:
    # It ignores SIGTERM, and so does its child, which holds the pipe open.
    text = ("import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork();"
            f"open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w');"
            "print('waiting for a download', flush=True);"
            "time.sleep(300)")
    started = time.monotonic()
    row, = rows(converse(script(text), timeout=2), script(text))
    assert time.monotonic() - started < 30
    assert (row.name, row.state) == ("TraX hello", FAILED) and "no answer within 2 s" in row.cause
    assert "waiting for a download" in row.cause and "--timeout" in row.fix
    processes = [int(path.name) for path in tmp_path.iterdir()]
    assert len(processes) == 2 and not any(map(alive, processes))


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "number"
    text = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    program = ("import sys; from tracker_ar.doctor.handshake import converse; "
               "from tracker_ar.doctor.workspace import Launch; "
               f"converse(Launch((sys.executable, '-c', {text!r}), {{}}, 60))")
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE) as doctor:
        limit = time.monotonic() + 30
        while not (file.exists() and file.read_text()) and time.monotonic() < limit:
            time.sleep(0.05)
        doctor.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in doctor.communicate(timeout=30)[1]
    assert not alive(int(file.read_text()))


def test_program_that_cannot_be_started(tmp_path: Path) -> None:
    launch = Launch((str(tmp_path),), {}, 60)
    row, = rows(converse(launch), launch)
    assert row.state == FAILED and "cannot be started" in row.cause and str(tmp_path) in row.fix


def test_slow_tracker_is_a_warning() -> None:
    session = Session(stage="done", frame_seconds=[0.04, 0.06, 0.2])
    row = list(rows(session, double("quiet"), fps=20))[-1]
    assert row.state == WARNING and "median 60 ms" in row.found and "50 ms" in row.found
    assert "use a GPU, or take the tracker AlphaRefine-Lite." in row.fix
    session.profile = "lite"  # which runs that already
    fix = list(rows(session, double("quiet"), fps=20))[-1].fix
    assert "or use a GPU." in fix and "AlphaRefine-Lite" not in fix


def test_last_words_are_bounded_and_without_protocol() -> None:
    log = ["@@TRAX:hello \"a\"\n", "first\nsec", "ond\n", "@@TRAX:quit\n", *(f"{n}\n" for n in range(28))]
    words = handshake.last_words(log)
    assert words[:3] == ["first", "second", "0"] and len(words) == 30
