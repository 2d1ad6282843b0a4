"""From nothing to tracking, in a process of its own: how long the start takes, and how much memory it comes
to.

Run as ``python -m tracker_ar.speed.start`` with one argument, the fields of `Start` as JSON; prints
JSON.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker_ar.errors import EvaluationError
from tracker_ar.places import IMPORTED_FROM

# Nothing heavy is imported up here: the imports of the new process are timed.
if TYPE_CHECKING:
    import numpy as np

    from tracker_ar.geometry import Region
    from tracker_ar.tracker import AlphaRefineTracker


@dataclass(frozen=True)
class Start:
    """What is started. checkpoint: a folder, None for the installed weights. random_weights: fresh ones
    instead. plain: without what makes it fast."""

    profile: str
    device: str
    checkpoint: str | None = None
    random_weights: bool = False
    plain: bool = False


def build(start: Start, fast: bool = True) -> AlphaRefineTracker:
    """`build_tracker`; with random weights it reads none, and the target always counts as found, since what
    such networks answer would often be 'not found', which skips half of the work. Seeded."""
    import torch

    from tracker_ar.zoo import build_tracker, profile

    fast = fast and not start.plain
    if not start.random_weights:
        return build_tracker(start.profile, start.device, start.checkpoint, fast=fast)
    named = profile(start.profile)
    always = dataclasses.replace(named, base=_always_found(named.base))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_tracker(always, start.device, fast=fast, random_weights=True)


def _always_found(settings: Any) -> Any:
    """The settings of a base tracker with thresholds that every frame passes, where it has such."""
    thresholds = {"localization": {"not_found_threshold": -1.0}, "judge": {"found": 0.0, "lost": 0.0}}
    changed = {part: dataclasses.replace(getattr(settings, part), **lowest)
               for part, lowest in thresholds.items() if hasattr(settings, part)}
    return dataclasses.replace(settings, **changed) if changed else settings


def measure_start(
    start: Start, images: Sequence[np.ndarray], region: Region, threads: int
) -> dict[str, float]:
    """Start in a new process and track `images`, RGB uint8 (H, W, 3).

    Returns seconds: 'import', 'build', 'first initialisation', 'first frame', and 'process' from the launch
    to the built tracker; bytes: 'peak memory' of the process, and on a GPU 'peak GPU memory'. Raises
    EvaluationError where that process fails.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            np.save(Path(folder) / f"{number:06d}.npy", image)
        np.save(Path(folder) / "region.npy", np.asarray(region))
        request = {**dataclasses.asdict(start), "folder": folder, "threads": threads}
        command = [sys.executable, "-m", "tracker_ar.speed.start", json.dumps(request)]
        launched = time.time()
        done = subprocess.run(command, cwd=IMPORTED_FROM, capture_output=True, text=True)
    if done.returncode:
        raise EvaluationError("The start could not be measured; the process that tried says:\n"
                              f"{done.stderr.strip()}")
    figures = json.loads(done.stdout.splitlines()[-1])
    figures["process"] = figures.pop("built at") - launched
    return figures


def main(request: str) -> None:
    """What the new process does."""
    began = time.perf_counter()
    import numpy as np
    import torch

    # What `build_tracker` imports once it is called.
    import tracker_ar.zoo  # noqa: F401

    imported = time.perf_counter()
    values = json.loads(request)
    folder, threads = Path(values.pop("folder")), values.pop("threads")
    use_threads(threads)
    tracker = build(Start(**values))
    built, built_at = time.perf_counter(), time.time()
    region = np.load(folder / "region.npy")
    seconds = []
    for number, file in enumerate(sorted(folder.glob("[0-9]*.npy"))):
        image = np.load(file)
        start = time.perf_counter()
        if number == 0:
            tracker.initialize(image, region)
        else:
            tracker.track(image)
        seconds.append(time.perf_counter() - start)
    figures = {"import": imported - began, "build": built - imported, "built at": built_at,
               "first initialisation": seconds[0], "first frame": seconds[1], "peak memory": peak_memory()}
    if torch.cuda.is_initialized():
        figures["peak GPU memory"] = torch.cuda.max_memory_allocated()
    print(json.dumps(figures))


def use_threads(threads: int) -> None:
    """For torch and OpenCV; 0 leaves them as they are."""
    import cv2
    import torch

    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def peak_memory() -> int:
    """Bytes of RAM that this process has had at most."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux counts what the parent had before the start into ru_maxrss, but not into this.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(sys.argv[1])
