"""What the examples have in common: frames in, an overlay video out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tracker_ar.errors import AlphaRefineError, DataError
from tracker_ar.prediction import Prediction, Refinement
from tracker_ar.video.overlay import VideoFile, paint
from tracker_ar.video.sources import open_source
from tracker_ar.video.targets import parse_box

Painted = tuple[np.ndarray, Prediction | Refinement]
Follow = Callable[[np.ndarray, Iterable[np.ndarray], np.ndarray], Iterator[Painted]]


def run(follow: Follow, description: str) -> int:
    """The command line of an example; the exit status."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("box", metavar="X,Y,W,H", type=parse_box)
    parser.add_argument("overlay", metavar="OVERLAY.mp4", type=Path)
    args = parser.parse_args()
    try:
        _write_overlay(follow, args.source, np.array(args.box), args.overlay)
    except AlphaRefineError as error:
        print(error, file=sys.stderr)
        return 1
    print(args.overlay)
    return 0


def _write_overlay(follow: Follow, place: str, box: np.ndarray, overlay: Path) -> None:
    if overlay.exists():
        raise DataError(f"{overlay} is there already: choose another name.")
    source = open_source(place)
    images = (frame.image for frame in source.frames if frame.image is not None)
    first = next(images, None)
    if first is None:
        raise DataError(f"{place}: no frame of it can be decoded.")
    video = VideoFile(overlay.parent, f"{overlay.stem}.unfinished", source.fps, first.shape[:2])
    try:
        for image, found in tqdm(follow(first, images, box), unit="frame"):
            video.add(paint(image, [found]))
        if not video.close():
            raise DataError(f"{overlay}: the video could not be written; is the disk full?")
        video.path.replace(overlay)
    finally:
        video.path.unlink(missing_ok=True)
