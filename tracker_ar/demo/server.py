"""Running the application until Ctrl-C, and ending it cleanly."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from tracker_ar.demo.app import Pages, make_app
from tracker_ar.demo.limits import Limits
from tracker_ar.interrupts import Interruption
from tracker_ar.prediction import Tracker

GRACE = 5  # seconds for requests that are being answered at the end


class Server(uvicorn.Server):
    """Tells when it is ready, and lets open streams end when it is to stop."""

    def __init__(self, config: uvicorn.Config, pages: Pages, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._pages = pages
        self.interruption = Interruption()  # before it answers
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._ready()
        self.should_exit |= self.interruption.asked

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop answering."""
        self._pages.stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On Ctrl-C and SIGTERM: a flag, since the program may hold any lock now. A second Ctrl-C waits for nobody.

        Uvicorn's own would raise the signal again at the end."""
        self.force_exit |= self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(
    tracker: Tracker,
    about: str,
    host: str,
    listening: socket.socket,
    limits: Limits,
    ready: Callable[[str], None],
    interruption: Interruption,
) -> None:
    """Answer on the socket `listening` until Ctrl-C or SIGTERM. ready: is told the address of the page.

    interruption: of the program until now. tracker, about, host, limits: as of `make_app`.
    """
    server = make_server(tracker, about, host, listening, limits, ready)
    server.interruption = interruption
    server.run(sockets=[listening])


def make_server(
    tracker: Tracker,
    about: str,
    host: str,
    listening: socket.socket,
    limits: Limits,
    ready: Callable[[str], None],
) -> Server:
    """The server, not running yet; arguments as of `serve`."""
    app = make_app(tracker, about, host, limits)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", ws="none",
                            server_header=False, timeout_graceful_shutdown=GRACE)
    port = listening.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return Server(config, app.state.pages, lambda: ready(f"http://{shown}:{port}/"))
