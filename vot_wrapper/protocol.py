"""A private channel for the TraX protocol, so that stray output cannot break it.

Standard library only: this must run before anything that might print is imported.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from types import TracebackType

_CHUNK = 65536
_LAST_LINES_TIMEOUT = 2.0


class ProtocolChannel:
    """Keeps the protocol on private copies of descriptors 0 and 1 while it is entered.

    Inside the ``with`` block

    - libtrax talks on the private copies (it reads their numbers from TRAX_IN and TRAX_OUT);
    - whatever Python or native code writes to descriptor 1 or 2 goes through a pipe, from which a thread
      forwards it to the original stderr: whole lines of ASCII only. The toolkit reads stdout and stderr of a
      tracker as one stream. An unfinished line in front of a protocol message would hide that message, and
      any byte above 127 is the end of the stream to libtrax;
    - descriptor 0 is empty, so that nothing can read a request away.

    ``lock`` must be held while a protocol message is being sent: it keeps log lines out of the middle of one.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __enter__(self) -> ProtocolChannel:
        sys.stdout.flush()
        sys.stderr.flush()
        self._protocol = (os.dup(0), os.dup(1))
        self._log = os.dup(2)
        os.environ["TRAX_IN"], os.environ["TRAX_OUT"] = (_descriptor_name(fd) for fd in self._protocol)

        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        self._pipe_out, pipe_in = os.pipe()
        os.dup2(pipe_in, 1)
        os.dup2(pipe_in, 2)
        os.close(pipe_in)
        sys.stdout.reconfigure(line_buffering=True)
        # A crash in native code cannot wait for the forwarding thread.
        faulthandler.enable(file=self._log)
        self._forwarder = threading.Thread(target=self._forward_lines, name="log-lines", daemon=True)
        self._forwarder.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # Without its last writers the pipe ends, and with it the thread.
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        self._forwarder.join(_LAST_LINES_TIMEOUT)

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


def _descriptor_name(descriptor: int) -> str:
    """The form in which libtrax expects a descriptor: a number, or on Windows a handle in hexadecimal."""
    if sys.platform == "win32":
        import msvcrt

        return f"{msvcrt.get_osfhandle(descriptor):x}"
    return str(descriptor)
