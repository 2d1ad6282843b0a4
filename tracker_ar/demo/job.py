"""Tracking in a thread of its own, which can be paused, finished early and given up."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.atomic import replacement
from tracker_ar.demo.clips import NOTHING_YET, Clip
from tracker_ar.demo.feed import Feed
from tracker_ar.errors import AlphaRefineError
from tracker_ar.prediction import Tracker
from tracker_ar.run_lengths import coco_rle
from tracker_ar.video.follow import TrackedFrame, follow
from tracker_ar.video.results import ResultsFolder
from tracker_ar.video.sources import Frame

PREVIEW_SIDE = 1280  # pixels of the longer side of the frames that the page shows
PREVIEW_QUALITY = 88
RESULTS_NAME = "alpharefine-results"

log = logging.getLogger(__name__)


class Job:
    """Follows targets through a clip from its start on.

    feed: JSON messages, see `_frame_message`; then {"type": "saving"}, and at the end {"type": "done"} with
    the number of frames, or {"type": "failed"} with the reason in words.
    archive: the results as a zip file, complete when `feed` has ended, absent where there are none.
    """

    def __init__(
        self,
        clip: Clip,
        boxes: Sequence[np.ndarray],
        tracker: Tracker,
        folder: Path,
    ) -> None:
        """boxes: the targets, x, y, w, h, checked. tracker: follows one video at a time. folder: for previews and
        results; it exists."""
        self.feed = Feed()
        self.archive = folder / f"{RESULTS_NAME}.zip"
        self._clip = clip
        self._boxes = boxes
        self._tracker = tracker
        self._folder = folder
        self._running = threading.Event()
        self._running.set()
        self._finishing = self._dropped = self._computing = False
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def start(self) -> None:
        """Begin; once only."""
        self._computing = True
        self._thread.start()

    def pause(self) -> None:
        """Wait after the frame that is being tracked."""
        self._running.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._running.set()

    def finish(self) -> None:
        """End after the frame that is being tracked, and complete the results."""
        self._finishing = True
        self._running.set()

    def drop(self) -> None:
        """End after the frame that is being tracked, without results."""
        self._dropped = True
        self.finish()

    @property
    def active(self) -> bool:
        """Whether it still computes; not any more when its last message comes."""
        return self._computing

    def wait(self, seconds: float) -> bool:
        """Wait for the end; whether it came in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            frames, problem = self._track()
            self._computing = False
            if not self._dropped:
                ending = {"type": "failed", "message": problem} if problem else {"type": "done"}
                self._tell(ending | {"frames": frames, "results": self.archive.is_file()})
        finally:
            self._computing = False
            self.feed.close()

    def _track(self) -> tuple[int, str | None]:
        """Track and save; how many frames, and what went wrong."""
        results = problem = None
        try:
            source = self._clip.open(self._clip.start)
            with contextlib.closing(source.frames):
                first = next(source.frames)
                results = ResultsFolder(self._folder / RESULTS_NAME, len(self._boxes), source.fps)
                for frame in follow(first, self._paced(source.frames), self._boxes, self._tracker):
                    results.add(frame)
                    write_preview(self._folder, frame.number, frame.image)
                    self._tell(_frame_message(frame))
        except Exception as error:
            problem = self._in_words(error)
        try:
            self._save(results)
        except Exception as error:
            problem = problem or self._in_words(error)
        return results.frames if results else 0, problem

    def _paced(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames, held back while paused, until the job is finished."""
        for frame in frames:
            self._running.wait()
            if self._finishing:
                return
            if frame is not NOTHING_YET:
                yield frame

    def _save(self, results: ResultsFolder | None) -> None:
        if results is None:
            return
        if self._dropped or not results.frames:
            results.discard()
            return
        self._tell({"type": "saving"})
        files = results.close()
        if files:
            _pack(self._folder / RESULTS_NAME, self.archive)

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, AlphaRefineError):
            return str(error)
        log.error("tracking failed", exc_info=error)
        return (f"Tracking stopped at an unexpected error: {type(error).__name__}: {error}. "
                "The terminal in which alpharefine demo runs shows where.")

    def _tell(self, message: dict) -> None:
        self.feed.add(json.dumps(message, separators=(",", ":")))


def write_preview(folder: Path, number: int, image: np.ndarray) -> None:
    """Keep a frame, (H, W, 3) uint8 RGB, as the page shows it."""
    factor = PREVIEW_SIDE / max(image.shape[:2])
    if factor < 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, PREVIEW_QUALITY]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    preview_path(folder, number).write_bytes(encoded.tobytes())


def preview_path(folder: Path, number: int) -> Path:
    """Where `write_preview` keeps a frame."""
    return folder / f"preview-{number:08d}.jpg"


def _frame_message(frame: TrackedFrame) -> dict:
    """milliseconds: for finding all targets. mask: uncompressed COCO RLE."""
    targets = [
        {"box": [round(float(value), 2) for value in prediction.box], "score": round(prediction.score, 4),
         "mask": coco_rle(prediction.mask)}
        for prediction in frame.predictions
    ]
    return {"type": "frame", "number": frame.number, "state": frame.state, "problem": frame.problem,
            "milliseconds": round(1000 * frame.seconds, 2), "targets": targets}


def _pack(folder: Path, archive: Path) -> None:
    """Move what is in `folder` into a zip file that appears when it is complete."""
    with (replacement(archive) as unfinished,
          zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed):
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(folder.parent))
    shutil.rmtree(folder)
