"""Clients that die, hang or talk nonsense, and a tracker that is killed: nothing hangs, and the cause is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trax
from server_session import MASK, PATIENCE, Session, raw_session, start_server, wait_for_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals, and pipes cannot be watched")


def request(frame: Path) -> bytes:
    return f'@@TRAX:frame "file://{frame}"\n'.encode()


@pytest.fixture
def ended() -> Iterator[Callable[[subprocess.Popen], int]]:
    """Waits for the end of a process; whoever has not ended by then is killed."""
    started = []

    def wait(process: subprocess.Popen) -> int:
        started.append(process)
        return process.wait(PATIENCE)

    yield wait
    for process in started:
        if process.poll() is None:
            process.kill()


CLIENT = """\
import os, subprocess, sys, time
server = subprocess.Popen([sys.executable, {double!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
server.stdin.write(b'@@TRAX:initialize "4,6,8,10"\\n' + 2 * b'@@TRAX:frame "file://{frame}"\\n')
print(server.pid, flush=True)
time.sleep(300)
"""


def test_client_that_is_killed_in_mid_frame(frame: Path) -> None:
    """The tracker would compute for another minute."""
    double = str(Path(__file__).parent / "doubles/double_tracker.py")
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT.format(double=double, frame=frame)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "DOUBLE": "slow", "PYTHONPATH": str(Path(__file__).parents[1])})
    number = int(client.stdout.readline())
    wait_for_line(SimpleStream(client.stderr), b"tracking now")
    client.kill()
    client.wait()
    # Standard error is the tracker's alone now: it ends with the process.
    watchdog = threading.Timer(PATIENCE / 2, os.kill, (number, signal.SIGKILL))
    watchdog.start()
    client.stderr.read()
    assert watchdog.is_alive(), "the tracker went on without a client"
    watchdog.cancel()


class SimpleStream:
    """A stream in the place of a process's standard output."""

    def __init__(self, stream: object) -> None:
        self.stdout = stream


@pytest.mark.parametrize("said", [
    b'@@TRAX:initialize "4,6,8,10"\n', b'@@TRAX:initialize "4,6', b"@@TRAX:initialize\n", b"\xff\n",
])
def test_client_that_goes_in_the_middle_of_a_request(said: bytes, ended: Callable) -> None:
    with start_server("quiet") as process:
        wait_for_line(process, b"@@TRAX:hello")
        process.stdin.write(said)
        process.stdin.close()
        assert ended(process) == 0
        assert b"Traceback" not in process.stdout.read()


def test_client_that_stops_reading_and_goes(frame: Path, ended: Callable) -> None:
    with raw_session("quiet", frame) as process:
        process.stdout.close()  # but it keeps the other pipe
        process.stdin.write(request(frame))
        assert ended(process) == 0


def test_terminated_while_the_client_does_not_read(frame: Path, ended: Callable) -> None:
    with raw_session("quiet", frame) as process:
        os.set_blocking(process.stdin.fileno(), False)
        written = 0
        while written < 4000:  # until nothing more fits into either pipe: the tracker cannot write any more
            try:
                written += bool(os.write(process.stdin.fileno(), request(frame)))
            except BlockingIOError:
                if not wait_until_asleep(process.pid):
                    continue
                break
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 0


def wait_until_asleep(process: int) -> bool:
    """Whether no thread of a process runs or waits for a disk, at several looks."""
    for _ in range(5):
        threading.Event().wait(0.05)
        for task in Path(f"/proc/{process}/task").iterdir():
            if (task / "stat").read_text().rpartition(")")[2].split()[0] != "S":
                return False
    return True


def test_slow_client(frame: Path, ended: Callable) -> None:
    """Requests come in pieces, long after one another."""
    with raw_session("quiet", frame) as process:
        for piece in (b"@@TRAX:fra", request(frame)[10:40], request(frame)[40:]):
            threading.Event().wait(0.3)
            process.stdin.write(piece)
        wait_for_line(process, b"@@TRAX:state")
        process.stdin.write(b"@@TRAX:quit\n")
        assert ended(process) == 0


def test_killed_tracker_is_an_error_for_the_client(serve: Callable[[str], Session], frame: Path) -> None:
    session = serve("slow")
    session.initialize(frame, MASK)
    threading.Timer(0.5, session.process.kill).start()
    with pytest.raises(trax.TraxException):
        session.frame(frame)
    assert session.end() == -signal.SIGKILL


@pytest.mark.parametrize(("said", "reason"), [
    (b'@@TRAX:initialize ""\n', "an empty initial region"),
    (b'@@TRAX:initialize "mask:0,0,65536,65537,0,9"\n', "an initial mask of impossible size"),
    (b'@@TRAX:initialize "1,2,3"\n', "that libtrax cannot use"),
    (b'@@TRAX:frame "file:///caf\xc3\xa9.jpg"\n', "letters beyond ASCII"),
    (b"@@TRAX:hello\n", "a request of the kind 'hello'"),
])
def test_nonsense_ends_the_session_with_a_reason(said: bytes, reason: str, frame: Path, ended: Callable) -> None:
    with start_server("quiet") as process:
        process.stdin.write(said + request(frame))
        assert ended(process) == 1
        output = process.stdout.read().decode()
    lines = output.splitlines()
    assert any(line.startswith("@@TRAX:quit") and reason in line for line in lines)  # for the client
    assert any(line.startswith("AlphaRefine: InputError") and reason in line for line in lines)  # for the log


def test_lines_that_are_no_requests_are_ignored(frame: Path, ended: Callable) -> None:
    with raw_session("quiet", frame) as process:
        process.stdin.write(b"\xff\x00\xfe noise\n\n@@TRAX\n" + b"a" * 300_000 + b"\n" + request(frame))
        wait_for_line(process, b"@@TRAX:state")
        process.stdin.close()
        assert ended(process) == 0
