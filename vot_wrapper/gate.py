"""What a client may say: requests are looked at before libtrax parses them.

libtrax (4.0) crashes on masks of impossible size and on a region that is empty or begins with a zero byte, spins
for ever when its stream ends in the middle of a request, takes a byte above 127 for the end of the stream, and
gives no reason when it refuses.
Standard library only: this starts before anything that might print is imported.
"""

from __future__ import annotations

import os
import re
import select

PREFIX = b"@@TRAX:"
QUIT, REFUSED = PREFIX + b"quit\n", PREFIX + b"refused\n"  # the second makes libtrax report an error
MOST_BYTES = 1 << 26  # of one request; the mask of an 8K image with a million runs takes a tenth
MOST_PIXELS = 1 << 28  # of the initial mask, eight 8K images
_CHUNK = 65536
_PLAIN = rb'[^"\\\x00-\x08\x0a-\x1f]*'
_TEXT = rb'"' + _PLAIN + rb"(?:\\[\x20-\x7e]" + _PLAIN + rb')*"'  # quotes and backslashes are escaped inside
_REQUEST = re.compile(rb"@@TRAX:([a-z]+)((?: +" + _TEXT + rb")*) *\r?")
_ARGUMENT = re.compile(_TEXT)
_PROPERTY = re.compile(rb"[\w.]+=")
_MASK = re.compile(rb"mask:-?\d{1,7},-?\d{1,7},(\d{1,7}),(\d{1,7})((?:,\d{1,9})*)")


class RequestGate:
    """Takes bytes as they come, gives the requests in them that libtrax can take.

    closed: nothing more will come: the client has quit or gone, or a request was refused.
    refusal: why, empty otherwise.
    """

    def __init__(self) -> None:
        self.closed = False
        self.refusal = ""
        self._unfinished = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """The whole lines to pass on, after `chunk` (empty: the stream has ended) has come."""
        if not chunk:
            return self._close()
        passed = []
        start = 0
        while not self.closed and (end := chunk.find(b"\n", start)) >= 0:
            self._unfinished += chunk[start:end]
            passed.append(self._line(bytes(self._unfinished)))
            self._unfinished.clear()
            start = end + 1
        self._unfinished += chunk[start:]
        if not self.closed and len(self._unfinished) > MOST_BYTES:
            if self._unfinished.startswith(PREFIX):
                passed.append(self._close(f"a request of over {MOST_BYTES >> 20} MiB"))
            del self._unfinished[len(PREFIX):]  # of other lines only the beginning matters
        return b"".join(passed)

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(PREFIX):
            return b""
        refusal = problem_with(line)
        if refusal or line.startswith(PREFIX + b"quit"):
            return self._close(refusal)
        return line + b"\n"

    def _close(self, refusal: str = "") -> bytes:
        # The end of the stream itself may make libtrax spin.
        self.closed, self.refusal = True, refusal
        return REFUSED if refusal else QUIT


def problem_with(line: bytes) -> str:
    """Why a request, one line without its end, cannot be given to libtrax; empty when it can."""
    if not line.isascii():
        return "a request with letters beyond ASCII, which TraX cannot carry; give files and folders plain names"
    request = _REQUEST.fullmatch(line)
    if request is None:
        return f"a request that cannot be read: {_shown(line)}"
    verb = request[1]
    arguments = [text[1:-1] for text in _ARGUMENT.findall(request[2])]
    plain = [text for text in arguments if not _PROPERTY.match(text)]
    if verb == b"quit":
        return ""
    if verb == b"initialize":
        if len(plain) > 1:
            return f"an 'initialize' request with {len(plain)} regions; send one in each"
        # The client of libtrax sends one without a region before it starts again.
        return _problem_with_region(plain[0]) if plain else ""
    if verb == b"frame":
        if len(plain) != 1 or not plain[0].startswith(b"file://"):
            return "a 'frame' request without exactly one image; send its path as file:///..."
        return ""
    return f"a request of the kind {verb.decode()!r}; send initialize, frame or quit"


def _problem_with_region(region: bytes) -> str:
    if not region.strip():
        return "an empty initial region; send a mask, a rectangle or a polygon"
    if not region.startswith(b"mask:"):
        return ""
    mask = _MASK.fullmatch(region)
    pixels = int(mask[1]) * int(mask[2]) if mask else 0
    if mask is None or not 0 < pixels <= MOST_PIXELS:
        return f"an initial mask of impossible size: {_shown(region)}"
    if sum(map(int, mask[3].split(b",")[1:])) > pixels:
        return f"an initial mask with more runs than pixels: {_shown(region)}"
    return ""


def _shown(text: bytes) -> str:
    shown = text[:60].decode("latin-1").encode("unicode_escape").decode()
    return shown + "..." if len(text) > 60 else shown


def pump(source: int, target: int, gate: RequestGate, stopped: int) -> None:
    """Pass requests from one descriptor to the other until the gate closes; `target` is then closed as well.

    That the other end of `stopped`, a pipe, is closed counts as the end of `source`.
    """
    poll = select.poll() if hasattr(select, "poll") else None  # Windows has none for pipes
    if poll is not None:
        poll.register(source, select.POLLIN)
        poll.register(stopped, 0)
    try:
        while not gate.closed:
            try:
                ended = poll is not None and any(descriptor == stopped for descriptor, _ in poll.poll())
                chunk = b"" if ended else os.read(source, _CHUNK)
            except OSError:
                chunk = b""
            lines = gate.feed(chunk)
            while lines:
                lines = lines[os.write(target, lines):]
        os.close(target)
    except OSError:
        pass  # the server has gone
