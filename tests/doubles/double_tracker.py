"""Stands in for the tracker: served by the real server, a box that never moves, with a choice of bad manners.

The environment variable DOUBLE chooses: quiet, noisy, slow, finalising, crashing, killed or unbuildable.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

from vot_wrapper.launch import launch

BEHAVIOUR = os.environ.get("DOUBLE", "quiet")
CRASH_FRAME = 3


def make_noise() -> None:
    """Whole and unfinished lines on both streams, from Python, native code and a child, not all ASCII."""
    print("whole line")
    os.write(1, "progress \u2588\u2588 \u00e9t\u00e9\n".encode())
    print("progress 50 %", end="\r")
    print("unfinished", end="")
    sys.stdout.flush()
    sys.stderr.write("unfinished on stderr")
    sys.stderr.flush()
    os.write(1, b"native unfinished")
    os.write(2, b"native unfinished on stderr")
    subprocess.run([sys.executable, "-c", "import sys; sys.stdout.write('child unfinished')"], check=True)


class SlowToGo:
    """Spends its time in a finaliser, where Python swallows exceptions."""

    def __del__(self) -> None:
        print("tracking now", flush=True)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass


class Double:
    """The API of ``tracker_ar.AlphaRefineTracker``."""

    profile = SimpleNamespace(name=f"double-{BEHAVIOUR}")

    def initialize(self, image, region):
        self.size = image.shape[:2]
        self.frame = 0
        self.boxes = []
        from tracker_ar.prediction import without_overlap

        return without_overlap([self.add(image, one) for one in region])

    def add(self, image, region):
        from tracker_ar.geometry import box_from_mask, mask_from_box
        from tracker_ar.prediction import Prediction

        box = region if region.ndim == 1 else box_from_mask(region)
        self.boxes.append(box)
        print(f"initialized by process {os.getpid()} with {region.ndim}-d region")
        mask = mask_from_box(box, self.size) if region.ndim == 1 else region
        return Prediction(box, mask, 1.0)

    def track(self, image):
        from tracker_ar.errors import InputError
        from tracker_ar.geometry import mask_from_box
        from tracker_ar.prediction import Prediction, without_overlap

        if image.shape[:2] != self.size:
            raise InputError("the image has another size than the first")
        self.frame += 1
        if BEHAVIOUR == "noisy" and self.frame < 3:
            make_noise()
        if BEHAVIOUR == "finalising":
            SlowToGo()
        if BEHAVIOUR == "slow":
            print("tracking now", flush=True)
            time.sleep(60)
        if BEHAVIOUR == "killed" and self.frame == CRASH_FRAME:
            print("about to be killed", flush=True)
            time.sleep(0.2)  # for the line to get through
            os.kill(os.getpid(), signal.SIGKILL)
        if BEHAVIOUR == "crashing" and self.frame == CRASH_FRAME:
            raise RuntimeError("the double gave up")
        return without_overlap([Prediction(box, mask_from_box(box, self.size), 0.75) for box in self.boxes])


def make_tracker() -> Double:
    from tracker_ar.errors import CheckpointError

    if BEHAVIOUR == "noisy":
        make_noise()
    if BEHAVIOUR == "unbuildable":
        raise CheckpointError("no checkpoint h\u00e9re;\nput one there")
    return Double()


if __name__ == "__main__":
    sys.exit(launch(make_tracker, report=os.environ.get("REPORT", "masks")))
