"""Ctrl-C and SIGTERM: asked for, never raised out of a handler."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tracker_ar.interrupts import interruptible

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_question_until_the_block_ends(number: int) -> None:
    before = signal.getsignal(number)
    with interruptible() as interruption:
        interruption.check()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # the same Ctrl-C, handed on by a wrapper
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("block", [
    "with interruptible() as one: one._since = 0; one.asked = True",  # asked a while ago
    "with ended_at_once():",
])
def test_what_hangs_can_be_ended(block: str) -> None:
    head, _, first = block.partition(": ")
    program = "\n".join((
        "import os, signal", "from tracker_ar.interrupts import ended_at_once, interruptible", f"{head.rstrip(':')}:",
        f"    {first or 'pass'}", "    os.kill(os.getpid(), signal.SIGINT)", "    print('alive')"))
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_no_handler_raises() -> None:
    """Handlers are set in two places; a third one has to be looked at."""
    files = [file for room in ("tracker_ar", "vot_wrapper") for file in (ROOT / room).rglob("*.py")]
    setting = {file.relative_to(ROOT).as_posix() for file in files
               if re.search(r"signal\.signal\(|default_int_handler", file.read_text(encoding="utf-8"))}
    assert setting == {"tracker_ar/interrupts.py", "vot_wrapper/protocol.py"}
