"""Memory over many frames: `python tests/soak.py tracker --frames 10000`, `python tests/soak.py server`.

Profile `lite` follows the target of a rendered sequence that runs forwards and backwards without end; now and
then the target is gone for 50 frames. The resident memory is noted every 500 frames. Exits with 1 when it has
grown by more than `ALLOWED` between frame 100 and the end, or when an answer was not as it should be.

Not part of the fast suite: 10,000 frames take from ten minutes to an hour.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.data.synthetic import procedural

ROOT = Path(__file__).resolve().parents[1]
SETTLED = 100  # frames after which memory should not grow any more
ALLOWED = 16 << 20  # bytes: of 10,000 frames, so under 2 kB per frame
NOTED = 500
GONE_EVERY, GONE_FOR = 400, 50
RENDERED = procedural.LENGTH

Step = Callable[[int], np.ndarray]  # number of a picture -> mask


def resident(process: int | str = "self") -> int:
    """Bytes of physical memory that a process holds."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"process {process} has ended")


def pictures() -> tuple[list[np.ndarray], np.ndarray]:
    """RGB frames of a rendered sequence, the last one without the target, and the first frame's mask."""
    scene = procedural._deforming()
    images, masks = zip(*(procedural.render(scene, frame) for frame in range(RENDERED)))
    return [*images, np.full_like(images[0], 90)], masks[0]


def order(frames: int) -> Iterator[int]:
    """Which picture each frame shows: forwards, backwards, and sometimes the one without the target."""
    path = [*range(1, RENDERED), *range(RENDERED - 2, -1, -1)]
    for frame in range(frames):
        gone = frame % GONE_EVERY >= GONE_EVERY - GONE_FOR
        yield RENDERED if gone else path[frame % len(path)]


def run(frames: int, step: Step, memory: Callable[[], int]) -> bool:
    """Go through the frames; whether memory stayed flat and every mask had the right size."""
    settled, started = 0, time.perf_counter()
    for number, picture in enumerate(order(frames), 1):
        mask = step(picture)
        if mask.shape != (procedural.HEIGHT, procedural.WIDTH):
            print(f"frame {number}: a mask of the shape {mask.shape}")
            return False
        if number == SETTLED:
            settled = memory()
        if number == SETTLED or number % NOTED == 0 or number == frames:
            seconds = time.perf_counter() - started
            print(f"frame {number:6}: {memory() / 2**20:7.1f} MiB, {seconds:7.1f} s", flush=True)
    grown = memory() - settled
    flat = grown <= ALLOWED
    print(f"{frames} frames: {grown / 2**20:+.1f} MiB since frame {SETTLED}, {'flat' if flat else 'NOT FLAT'}")
    return flat


def soak_tracker(frames: int) -> bool:
    """The tracker in this process."""
    from tracker_ar import build_tracker

    images, mask = pictures()
    tracker = build_tracker("lite", device="cpu")
    tracker.initialize(images[0], mask)
    return run(frames, lambda picture: tracker.track(images[picture]).mask, resident)


def soak_server(frames: int) -> bool:
    """The TraX server as a subprocess behind a real client; the memory is the server's."""
    import trax
    from trax.client import Client
    from trax.image import FileImage

    images, mask = pictures()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number:04d}.jpg" for number in range(len(images))]
        for file, image in zip(files, images, strict=True):
            cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        process = subprocess.Popen([sys.executable, "-m", "vot_wrapper.alpharefine"], cwd=ROOT,
                                   env={**os.environ, "ALPHAREFINE_TRACKER": "lite"},
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            client = Client(stream=(process.stdin.fileno(), process.stdout.fileno()), log=lambda text: None)

            def image(picture: int) -> dict[str, FileImage]:
                return {"color": FileImage.create(str(files[picture]))}

            def step(picture: int) -> np.ndarray:
                objects, _ = client.frame(image(picture), {}, [])
                return objects[0][0].array()

            client.initialize(image(0), [(trax.Mask.create(mask), {})], {})
            flat = run(frames, step, lambda: resident(process.pid))
            client.quit()
            client._handle = None  # its release writes a last message: while the pipe is there
            return process.wait(60) == 0 and flat
        finally:
            process.kill()
            process.wait()


def main() -> int:
    """The exit status: 0 when memory stayed flat."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("tracker", "server"))
    parser.add_argument("--frames", type=int, help="default: 10000 through the tracker, 1000 through the server")
    args = parser.parse_args()
    if args.what == "tracker":
        return 0 if soak_tracker(args.frames or 10_000) else 1
    return 0 if soak_server(args.frames or 1_000) else 1


if __name__ == "__main__":
    sys.exit(main())
