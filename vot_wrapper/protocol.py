"""A private channel for the TraX protocol, so that stray output cannot break it.

Standard library only: this must run before anything that might print is imported.
"""

from __future__ import annotations

import faulthandler
import io
import os
import select
import signal
import sys
import threading
import time
from types import TracebackType

from vot_wrapper.gate import RequestGate, pump

_CHUNK = 65536
_LAST_LINES_TIMEOUT = 2.0
_GRACE = 2.0  # seconds


class ProtocolChannel:
    """Keeps the protocol on private copies of descriptors 0 and 1 while it is entered.

    Inside the ``with`` block

    - libtrax talks on the private copies (it reads their numbers from TRAX_IN and TRAX_OUT), and of what the
      client says it gets what `gate` lets through;
    - whatever Python or native code writes to descriptor 1 or 2 goes through a pipe, from which a thread
      forwards it to the original stderr: whole lines of ASCII only. The toolkit reads stdout and stderr of a
      tracker as one stream. An unfinished line in front of a protocol message would hide that message, and
      any byte above 127 is the end of the stream to libtrax;
    - descriptor 0 is empty, so that nothing can read a request away;
    - SIGTERM and SIGINT end the requests, as if the client had quit. Nothing is raised: a finaliser that runs just
      then would swallow it;
    - the process ends a few seconds after that, or after the client has gone, whatever it is doing: libtrax goes
      on reading and writing in native code, where neither an exception nor a closed pipe stops it.

    ``gate.refusal`` says why a request of the client was refused.
    ``lock`` must be held while a protocol message is being sent: it keeps log lines out of the middle of one.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.gate = RequestGate()

    def __enter__(self) -> ProtocolChannel:
        sys.stdout.flush()
        sys.stderr.flush()
        self._protocol = (os.dup(0), os.dup(1))
        self._log = os.dup(2)
        requests, passed = os.pipe()
        stopped, stop = os.pipe()
        os.environ["TRAX_IN"] = _descriptor_name(requests)
        os.environ["TRAX_OUT"] = _descriptor_name(self._protocol[1])
        self._watch_for_the_end(stop)
        threading.Thread(target=pump, args=(self._protocol[0], passed, self.gate, stopped), name="requests",
                         daemon=True).start()

        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        self._pipe_out, pipe_in = os.pipe()
        os.dup2(pipe_in, 1)
        os.dup2(pipe_in, 2)
        os.close(pipe_in)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        # A crash in native code cannot wait for the forwarding thread.
        faulthandler.enable(file=self._log)
        self._forwarder = threading.Thread(target=self._forward_lines, name="log-lines", daemon=True)
        self._forwarder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_log()

    def end_log(self) -> None:
        """Wait until all that was printed is in the log; what follows goes there directly. Before the last message: a
        client that has got it may stop reading. Not to be called while the lock is held."""
        sys.stdout.flush()
        sys.stderr.flush()
        # Without its last writers the pipe ends, and with it the thread.
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        self._forwarder.join(_LAST_LINES_TIMEOUT)

    def _watch_for_the_end(self, stop: int) -> None:
        if not hasattr(select, "poll") or threading.current_thread() is not threading.main_thread():
            return  # Windows, which has no SIGTERM either
        signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        threading.Thread(target=_end_with, args=(self._protocol[1], signals, stop), name="end", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):  # only signals with a handler wake anybody
            signal.signal(number, _leave_to_the_thread)
            signal.siginterrupt(number, False)  # libtrax takes an interrupted read for a broken request

    def _forward_lines(self) -> None:
        unfinished = b""
        while chunk := os.read(self._pipe_out, _CHUNK):
            whole, newline, unfinished = (unfinished + chunk).rpartition(b"\n")
            self._write_log(whole + newline)
        if unfinished:
            self._write_log(unfinished + b"\n")

    def _write_log(self, lines: bytes) -> None:
        lines = lines.decode("utf-8", "replace").encode("ascii", "backslashreplace")
        with self.lock:
            try:
                while lines:
                    lines = lines[os.write(self._log, lines):]
            except OSError:
                # The reader has gone. Keep emptying the pipe, or the tracker would block on it.
                pass


def _leave_to_the_thread(number: int, frame: object) -> None:
    pass


def _end_with(client: int, signals: int, stop: int) -> None:
    """Close `stop`, and end the process some seconds later, when nobody reads from `client` any more or a signal asks.
    """
    poll = select.poll()
    poll.register(client, 0)  # what is always reported: a hang-up, no reader
    poll.register(signals, select.POLLIN)
    ending = False
    while not ending:
        for descriptor, _ in poll.poll():
            ending |= descriptor == client or bool({signal.SIGTERM, signal.SIGINT} & {*os.read(signals, 64)})
    os.close(stop)
    time.sleep(_GRACE)
    os._exit(0)


def _descriptor_name(descriptor: int) -> str:
    """The form in which libtrax expects a descriptor: a number, or on Windows a handle in hexadecimal."""
    if sys.platform == "win32":
        import msvcrt

        return f"{msvcrt.get_osfhandle(descriptor):x}"
    return str(descriptor)
