"""Which targets to follow: boxes and masks from the command line, or boxes drawn with the mouse."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.errors import DataError, InputError
from tracker_ar.images import read_visible

Target = tuple[float, ...] | Path  # a box x, y, w, h, or the file of a mask
MOST_TARGETS = 255  # the values of an 8-bit mask
WINDOW = "Draw a box around each target: SPACE or ENTER keeps it, ESC ends"
WINDOW_SIZE = (1280, 720)
# In a process of its own: without a display the window system ends the process that asks for a window.
WINDOW_PROBE = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"


def parse_box(text: str) -> tuple[float, ...]:
    """`x,y,w,h` of the command line as four numbers; what they mean is checked against the first frame."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a box: give x,y,w,h in pixels (120,80,64,48)")
    return numbers


def read_mask(file: Path) -> np.ndarray:
    """A mask file as (H, W) uint8 {0, 1}: every pixel is target that is neither black nor transparent.

    Raises DataError when the file is missing or not an image.
    """
    try:
        return read_visible(file).astype(np.uint8)
    except DataError as error:
        raise DataError(f"{error}; give the mask as a PNG file, black where there is no target.") from error


def regions_of(targets: Sequence[Target], image: np.ndarray) -> list[np.ndarray]:
    """The regions for `AlphaRefineTracker.initialize`: masks (H, W) uint8 or boxes (4,) float64.

    image: the first frame, (H, W, 3). Raises InputError that names the target when a region does not fit it
    or marks nothing, DataError for a mask that cannot be read.
    """
    from tracker_ar.geometry import region_box

    regions = []
    for target in targets:
        if isinstance(target, Path):
            region, what = read_mask(target), f"--mask {target}"
        else:
            region = np.asarray(target, dtype=np.float64)
            what = f"--box {','.join(f'{value:g}' for value in target)}"
        try:
            region_box(region, image.shape[:2])
        except InputError as error:
            raise InputError(f"{what}: {error}") from error
        regions.append(region)
    return regions


def select_boxes(image: np.ndarray) -> list[tuple[float, ...]]:
    """Boxes that the user draws in a window over the first frame, (H, W, 3) uint8 RGB.

    Raises InputError where no window can be opened, and when no box was drawn.
    """
    probe = subprocess.run([sys.executable, "-c", WINDOW_PROBE], capture_output=True, text=True)
    if probe.returncode:
        headless = "not implemented" in probe.stderr
        cause = ("this OpenCV was built without windows (opencv-python-headless)" if headless
                 else "no display can be reached")
        raise InputError(f"--select cannot open a window: {cause}. Give the targets with --box x,y,w,h or "
                         "--mask FILE instead.")
    height, width = image.shape[:2]
    factor = min(1.0, WINDOW_SIZE[0] / width, WINDOW_SIZE[1] / height)
    shown = image
    if factor < 1:
        shown = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    drawn = cv2.selectROIs(WINDOW, cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), showCrosshair=False)
    cv2.destroyAllWindows()
    boxes = [tuple(float(value) / factor for value in box) for box in drawn if box[2] > 0 and box[3] > 0]
    if not boxes:
        raise InputError("No box was drawn: drag the mouse over a target, press SPACE or ENTER to keep the "
                         "box, and ESC after the last one.")
    return boxes
