"""What the page takes and how long it keeps it, and the error that says no."""

from __future__ import annotations

from dataclasses import dataclass

from tracker_ar.errors import AlphaRefineError


@dataclass(frozen=True)
class Limits:
    """Bounds of the server. Bytes, pixels and frames are checked before anything is decoded further."""

    upload_bytes: int = 512 * 2**20
    picture_bytes: int = 16 * 2**20  # one frame of a camera
    pixels: int = 4096 * 2304  # of a frame
    frames: int = 3000  # of a video; what follows is not tracked
    targets: int = 8
    sessions: int = 16
    idle_seconds: float = 30 * 60.0  # after which a session is forgotten
    unwatched_seconds: float = 60.0  # after which tracking that no page looks at is given up


class Refused(AlphaRefineError):
    """A request that is not carried out. status: of HTTP. The message names the cause and the fix."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
