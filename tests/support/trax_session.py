"""A TraX server in a process of its own and vot-trax's client in front of it."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import numpy as np
import trax
from trax.client import Client

PATIENCE = 60  # seconds


class Session:
    """A server and a real client in front of it."""

    def __init__(self, process: subprocess.Popen, patience: float = PATIENCE) -> None:
        """process: with pipes. patience: seconds until it is killed, since a client waits for a server for ever."""
        self.process = process
        self.pieces: list[str] = []
        self.watchdog = threading.Timer(patience, self.process.kill)
        self.watchdog.start()
        streams = (self.process.stdin.fileno(), self.process.stdout.fileno())
        self.client = Client(stream=streams, log=self.pieces.append)

    @property
    def log(self) -> str:
        """Everything that went through the pipe, protocol messages included."""
        return "".join(self.pieces)

    def initialize(self, image: Path, region: trax.Region) -> tuple[np.ndarray, dict]:
        (state,) = self.initialize_all(image, region)
        return state

    def initialize_all(self, image: Path, *regions: trax.Region) -> list[tuple[np.ndarray, dict]]:
        images = {"color": trax.FileImage.create(str(image))}
        return _states(self.client.initialize(images, [(region, {}) for region in regions], {}))

    def frame(self, image: Path) -> tuple[np.ndarray, dict]:
        (state,) = self.frame_of_all(image)
        return state

    def frame_of_all(self, image: Path, *new: trax.Region) -> list[tuple[np.ndarray, dict]]:
        images = {"color": trax.FileImage.create(str(image))}
        return _states(self.client.frame(images, {}, [(region, {}) for region in new]))

    def end(self) -> int:
        """Wait for the server and return its exit status; the rest of its output joins the log."""
        status = self.process.wait(PATIENCE)
        self.pieces.append(self.process.stdout.read().decode())
        return status

    def close(self) -> None:
        self.watchdog.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        # The handle writes a last message when it is released: while its streams and its logger still exist.
        self.client._handle = None


def _states(reply: tuple[list, float]) -> list[tuple[np.ndarray, dict]]:
    """Masks as arrays, boxes as x, y, w, h."""
    return [(region.array() if region.type == trax.Region.MASK else np.array(region.bounds()), properties)
            for region, properties in reply[0]]
