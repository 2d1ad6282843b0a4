"""Ctrl-C and SIGTERM as a question, asked where nothing is half done.

No handler raises: the exception might come up in a finaliser, which swallows it, or in the middle of a write.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SAME_SECONDS = 1.0  # wrappers hand the Ctrl-C of a terminal on, so that one arrives twice


class Interruption:
    """asked: whether the program was told to end."""

    def __init__(self) -> None:
        self.asked = False
        self._owner = os.getpid()  # workers are forked with the handler
        self._since = 0.0

    def check(self) -> None:
        """Raise KeyboardInterrupt when the program was told to end."""
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._since = True, time.monotonic()
            if number == signal.SIGINT and os.getpid() == self._owner:
                with contextlib.suppress(OSError):  # not print: it may be printing now
                    os.write(2, b"\nending as soon as nothing is half done; Ctrl-C once more ends at once\n")
        elif time.monotonic() - self._since > _SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within the block Ctrl-C and SIGTERM only set `asked`; a second one ends the process at once."""
    interruption = Interruption()
    with _handled(interruption._ask):
        yield interruption


@contextlib.contextmanager
def ended_at_once() -> Iterator[Interruption]:
    """Within the block Ctrl-C and SIGTERM end the process with nothing done; `asked` stays False."""
    with _handled(signal.SIG_DFL):
        yield Interruption()


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
        yield
        return
    previous = {number: signal.signal(number, handler) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
