"""The folder of results: it appears under its name only when everything in it is complete.

| file | what |
|---|---|
| `overlay.mp4` | the video with the targets painted over it |
| `masks/%08d.png` | one 8-bit grey image per frame: 0 background, 1 the first target, 2 the second, ... |
| `masks.jsonl` | a JSON line for every target and frame: the mask in uncompressed COCO RLE |
| `boxes.csv` | a row for every target and frame: box, score, size of the mask, state |
| `target_1.txt`, ... | the masks of one target in the VOT text format, a line for every frame |
| `target_1_boxes.txt`, `target_1_confidence.value` | its boxes and scores in the VOT text format |

All masks are those without overlap: a pixel that two targets claim belongs to the one that is more probable there.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from tracker_ar.errors import DataError, InputError
from tracker_ar.run_lengths import coco_rle, encode_mask_line
from tracker_ar.video.follow import TrackedFrame
from tracker_ar.video.overlay import VideoFile, paint

COLUMNS = ("frame", "image", "target", "x", "y", "width", "height", "score", "mask_pixels", "state")
VOT_ENDINGS = (".txt", "_boxes.txt", "_confidence.value")
OWN_NAMES = re.compile(r"overlay\.(mp4|avi)|masks|masks\.jsonl|boxes\.csv|target_[0-9]+(_boxes)?\.txt|"
                       r"target_[0-9]+_confidence\.value")


def check_folder(folder: Path, replace: bool) -> None:
    """Raises InputError when results cannot go to `folder`: it holds results that are not to be replaced, or
    something else."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; choose another --out.")
    names = sorted(entry.name for entry in folder.iterdir())
    foreign = [name for name in names if not OWN_NAMES.fullmatch(name)]
    if foreign:
        raise InputError(f"The folder {folder} holds something else ({foreign[0]}), which would be lost; "
                         "choose another --out.")
    if names and not replace:
        raise InputError(f"The folder {folder} holds results already; choose another --out, or --force to "
                         "replace them.")


def unfinished(folder: Path) -> list[Path]:
    """What runs that were killed have left beside `folder`; not what one that still runs is writing."""
    found = folder.parent.glob(f"{glob.escape(folder.name)}.unfinished-*")
    return [path for path in found if not _runs(path.name.rpartition("-")[2])]


def _runs(process: str) -> bool:
    if os.name == "nt":  # where os.kill would end it
        return True
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:  # it is another user's
        return True
    return True


class ResultsFolder:
    """Writes results frame by frame into a folder beside `folder`, which takes its place in `close`.

    Raises DataError with cause and fix when writing fails; nothing is then left but what was there before.
    """

    def __init__(
        self, folder: Path, targets: int, fps: float, video: bool = True, replace: bool = False
    ) -> None:
        """targets: how many. fps: of the overlay video. video: whether to write that.

        replace: whether results that `folder` holds already may go.
        """
        self.folder = folder
        self.frames = 0
        self.video_is_whole = True
        self._fps = fps
        self._wants_video = video
        self._replace = replace
        self._video: VideoFile | None = None
        self._failed = False
        self._temporary = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
        self._files: list[TextIO] = []
        with self._writing():
            (self._temporary / "masks").mkdir(parents=True)
            self._rles = self._open("masks.jsonl")
            self._boxes = csv.writer(self._open("boxes.csv"), lineterminator="\n")
            self._boxes.writerow(COLUMNS)
            self._vot = [[self._open(f"target_{number}{ending}") for ending in VOT_ENDINGS]
                         for number in range(1, targets + 1)]

    def add(self, frame: TrackedFrame) -> None:
        """Append one frame to every file."""
        with self._writing():
            if self._wants_video and self._video is None:
                self._video = VideoFile(self._temporary, "overlay", self._fps, frame.image.shape[:2])
            labels = np.zeros(frame.image.shape[:2], dtype=np.uint8)
            for number, prediction in enumerate(frame.predictions, 1):
                labels[prediction.mask != 0] = number
                self._add_target(frame, number)
            encoded = cv2.imencode(".png", labels)[1]
            (self._temporary / "masks" / f"{frame.number:08d}.png").write_bytes(encoded.tobytes())
            if self._video is not None:
                note = f"frame {frame.number} not usable" if frame.state == "repeated" else ""
                self._video.add(paint(frame.image, frame.predictions, note))
        self.frames += 1

    def _add_target(self, frame: TrackedFrame, number: int) -> None:
        prediction = frame.predictions[number - 1]
        box = [f"{value:.3f}" for value in prediction.box]
        self._boxes.writerow([frame.number, frame.name, number, *box, f"{prediction.score:.4f}",
                              np.count_nonzero(prediction.mask), frame.state])
        entry = {"frame": frame.number, "target": number, "score": round(prediction.score, 4),
                 "segmentation": coco_rle(prediction.mask)}
        self._rles.write(json.dumps(entry, separators=(",", ":")) + "\n")
        lines = encode_mask_line(prediction.mask), ",".join(box), f"{prediction.score:.6f}"
        for file, line in zip(self._vot[number - 1], lines, strict=True):
            file.write(line + "\n")

    def close(self) -> list[Path]:
        """Complete the files and put the folder in its place; the paths in it, none without frames.

        A video that cannot be read back is left out, and `video_is_whole` is then False.
        """
        if self._failed or not self.frames:
            self.discard()
            return []
        with self._writing():
            for file in self._files:
                file.close()
            if self._video is not None and not self._video.close():
                self.video_is_whole = False
                self._video.path.unlink(missing_ok=True)
        try:
            self._put_in_place()
        except (OSError, InputError) as error:
            raise DataError(f"{self.folder}: the results cannot be put there ({error}); they are complete in "
                            f"{self._temporary}.") from error
        return sorted(self.folder.iterdir())

    def _put_in_place(self) -> None:
        if not self.folder.exists():
            self._temporary.rename(self.folder)
            return
        check_folder(self.folder, self._replace)  # it may have changed since the start
        old = self.folder.with_name(f"{self.folder.name}.replaced-{os.getpid()}")
        self.folder.rename(old)
        try:
            self._temporary.rename(self.folder)
        except OSError:
            old.rename(self.folder)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _open(self, name: str) -> TextIO:
        file = open(self._temporary / name, "w", encoding="utf-8", newline="\n")
        self._files.append(file)
        return file

    def discard(self) -> None:
        """Give up what was written so far, and leave nothing of it."""
        for file in self._files:
            with contextlib.suppress(OSError):  # closing writes what is still buffered
                file.close()
        if self._video is not None:
            self._video.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._failed = True
            self.discard()
            if isinstance(error, OSError):
                raise DataError(
                    f"{self.folder}: the results cannot be written ({error.strerror or error}) and were "
                    "removed; free some space, or choose another folder with --out."
                ) from error
            raise
