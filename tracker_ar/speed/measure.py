"""How long a frame takes and where the time goes, beside what the machine can do."""

from __future__ import annotations

import dataclasses
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from tqdm import tqdm

from tracker_ar import __version__
from tracker_ar.data.datasets.vot_layout import inspect_sequence
from tracker_ar.data.synthetic.procedural import write_synthetic_sequences
from tracker_ar.errors import DataError, InputError
from tracker_ar.evaluate.metrics import region_similarity
from tracker_ar.evaluate.scores import read_frames
from tracker_ar.geometry import Region
from tracker_ar.ops.convolution import can_pack
from tracker_ar.prediction import Prediction, single
from tracker_ar.speed.ceilings import fastest, measure_ceilings, wait_for
from tracker_ar.speed.stages import REST, Both, StageMeter, TrafficCounter, clock
from tracker_ar.speed.start import Start, build, measure_start
from tracker_ar.speed.summary import Measurements, Work
from tracker_ar.trace import Listener, listening
from tracker_ar.tracker import AlphaRefineTracker
from tracker_ar.video.sources import open_source

SYNTHETIC_SIZE = (854, 480)  # width, height of most videos of VOT
WARM_UP = 5  # frames
INITIALISATIONS = 3
START_FRAMES = 22  # up to the first regular update of the filter, which is the most that a frame needs
BASELINE = "without preparation"


@dataclass(frozen=True)
class Clip:
    """Frames to track: RGB uint8 (H, W, 3) of one size, and the target in the first."""

    name: str
    images: list[np.ndarray]
    region: Region

    def image(self, number: int) -> np.ndarray:
        """Frame `number` from 0; after the last one the clip runs backwards, and so on."""
        turn = 2 * (len(self.images) - 1)
        return self.images[min(number % turn, turn - number % turn)]


def measure(
    start: Start, clip: Clip, frames: int, threads: int = 0, baseline: bool = False,
    targets: Sequence[int] = (),
) -> Measurements:
    """Everything that is reported. threads: 0 for torch's own choice. targets: see `time_targets`."""
    load = os.getloadavg()[0]
    opening = [clip.image(number) for number in range(START_FRAMES)]
    tracker = build(start)
    device = device_of(tracker)
    trackers = {start.profile: tracker}
    if baseline:
        trackers[BASELINE] = build(start, fast=False)
    stages = 2 + (2 + len(trackers)) * (frames + 1) + len(targets) * frames
    with tqdm(total=stages, unit=" frames", desc="start, in a new process") as progress:
        begun = measure_start(start, opening, clip.region, threads)
        progress.update()
        progress.set_description("warm-up and ceilings")
        settle = start.random_weights
        for each in trackers.values():
            for _ in follow(each, clip, WARM_UP, settle):
                pass
        ceilings = measure_ceilings(device)
        progress.set_description("whole frames")
        initialisations, whole, overlaps = time_frames(trackers, clip, frames, settle, progress.update)
        progress.set_description("several targets")
        of_targets = time_targets(tracker, clip, targets, frames, progress.update)
        progress.set_description("stages")
        seconds = staged(tracker, clip, frames, settle, StageMeter(clock(device)), progress.update)
        progress.set_description("operations")
        work = count_work(tracker, clip, frames, settle, progress.update)
        ceilings = fastest(ceilings, measure_ceilings(device))
        progress.update()
    return Measurements(
        settings=_settings(start, clip, device, load, frames),
        initialisations=initialisations,
        frames=whole,
        stages=seconds,
        work=work,
        ceilings=ceilings,
        start=begun,
        targets=of_targets,
        mask_overlaps=overlaps,
    )


def read_clip(place: str | None, box: list[float] | None, count: int) -> Clip:
    """At most `count` frames. Raises DataError where there are fewer than two, InputError for a box too many
    or one that is missing."""
    if place is None:
        with tempfile.TemporaryDirectory() as temporary:
            name = write_synthetic_sequences(Path(temporary))[0]
            clip = read_clip(str(Path(temporary) / name), None, count)
        images = [cv2.resize(image, SYNTHETIC_SIZE) for image in clip.images]
        region = cv2.resize(np.asarray(clip.region), SYNTHETIC_SIZE, interpolation=cv2.INTER_NEAREST)
        return Clip(f"{name}, enlarged", images, region)
    folder = Path(place)
    if (folder / "groundtruth.txt").is_file():
        if box:
            raise InputError(f"{folder} says itself where the target is: leave --box out.")
        pairs = list(islice(read_frames(inspect_sequence(folder)), count))
        truth = pairs[0][1]
        region = truth.box if truth.mask is None else truth.mask
        return Clip(folder.name, [image for image, _ in pairs], region)
    if not box:
        raise InputError(f"{place} is not a VOT-layout sequence: say where the target is in the first image "
                         "with --box X Y W H.")
    source = open_source(place, end=count)
    images = [frame.image for frame in source.frames if frame.image is not None]
    if len(images) < 2:
        raise DataError(f"{place}: {len(images)} images can be read; at least 2 are needed.")
    return Clip(source.name, images, box)


def follow(
    tracker: AlphaRefineTracker, clip: Clip, frames: int, settle: bool
) -> Iterator[Prediction | None]:
    """Initialise, then track `frames` frames; yields after each, nothing for the initialisation.

    settle: put the tracker back on the first box after every frame, since random weights would wander off to
    targets of any size.
    """
    first = tracker.initialize(clip.image(0), clip.region)
    yield None
    for number in range(1, frames + 1):
        yield single(tracker.track(clip.image(number)))
        if settle:
            tracker.correct(0, first.box)


def time_frames(
    trackers: Mapping[str, AlphaRefineTracker], clip: Clip, frames: int, settle: bool,
    on_frame: Callable[[], Any],
) -> tuple[dict[str, list[float]], dict[str, list[float]], list[float]]:
    """Seconds of initialisations and of whole frames, with nothing else in the way; the trackers take
    turns.

    Where there are two, also the overlaps of their masks: after every frame the second one is put on the box of
    the first, since in the long run rounding alone leads them apart.
    """
    initialisations: dict[str, list[float]] = {name: [] for name in trackers}
    whole: dict[str, list[float]] = {name: [] for name in trackers}
    overlaps: list[float] = []
    for _ in range(INITIALISATIONS - 1):
        for name, tracker in trackers.items():
            initialisations[name].append(_timed(follow(tracker, clip, 0, settle), tracker)[0])
    runs = {name: follow(tracker, clip, frames, settle) for name, tracker in trackers.items()}
    for number in range(frames + 1):
        # Who goes second finds other things in the caches: the order alternates.
        found: dict[str, Prediction | None] = {}
        for name in sorted(runs, reverse=bool(number % 2)):
            seconds, found[name] = _timed(runs[name], trackers[name])
            (whole if number else initialisations)[name].append(seconds)
            on_frame()
        first, *others = (found[name] for name in trackers)
        second = others[0] if number and others else None
        if first is not None and second is not None:
            overlaps.append(region_similarity(first.mask, second.mask))
            list(trackers.values())[1].correct(0, first.box)
    return initialisations, whole, overlaps


def staged(
    tracker: AlphaRefineTracker, clip: Clip, frames: int, settle: bool, meter: StageMeter,
    on_frame: Callable[[], Any] = lambda: None,
) -> list[dict[str, float]]:
    """What every stage spends in the initialisation and in each of the frames after it."""
    spent = []
    for _ in heard(follow(tracker, clip, frames, settle), meter):
        spent.append(meter.take())
        on_frame()
    return spent


def heard(run: Iterator[Any], listener: Listener) -> Iterator[Any]:
    """The steps of a run, each of them heard; what lies between the stages is 'everything else'."""
    while True:
        with listening(listener), listener.stage(REST):
            step = next(run, run)
        if step is run:
            return
        yield step


def count_work(
    tracker: AlphaRefineTracker, clip: Clip, frames: int, settle: bool,
    on_frame: Callable[[], Any] = lambda: None,
) -> list[dict[str, Work]]:
    """Operations and bytes of every stage in the initialisation and in each of the frames after it.

    Only convolutions and matrix products count as operations; see `TrafficCounter` for the bytes.
    """
    work = []
    with ExitStack() as context:
        packed = {}
        if can_pack(nn.Conv2d(1, 1, 1)):
            packed[torch.ops.mkldnn._convolution_pointwise] = _packed_operations
        operations = context.enter_context(FlopCounterMode(display=False, custom_mapping=packed))
        traffic = context.enter_context(TrafficCounter())
        of_operations = StageMeter(lambda: operations.get_total_flops())
        of_bytes = StageMeter(lambda: traffic.bytes)
        for _ in heard(follow(tracker, clip, frames, settle), Both((of_operations, of_bytes))):
            flops, moved = of_operations.take(), of_bytes.take()
            work.append({stage: Work(flops[stage], moved[stage]) for stage in flops})
            on_frame()
    return work


def _packed_operations(images: Any, second: Any, third: Any, *others: Any, out_shape: Any, **named: Any) -> int:
    """Of `PackedConvolution`: from the shapes of images, weight and bias, or of images, what is added and weight."""
    weight = third if third is not None and len(third) == 4 else second
    return conv_flop_count(images, weight, out_shape)


def time_targets(
    tracker: AlphaRefineTracker, clip: Clip, counts: Sequence[int], frames: int, on_frame: Callable[[], Any]
) -> dict[int, list[float]]:
    """Seconds of whole frames for each number of targets; the numbers take turns, frame by frame.

    The clip has one target: it is given as many times as there are targets to be.
    """
    device = device_of(tracker)
    several = {count: AlphaRefineTracker(tracker.base, tracker.refiner, tracker.profile) for count in counts}
    for count, targets in several.items():
        targets.initialize(clip.image(0), [clip.region] * count)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(1, frames + 1):
        for count, targets in several.items():
            wait_for(device)
            begin = time.perf_counter()
            targets.track(clip.image(number))
            wait_for(device)
            seconds[count].append(time.perf_counter() - begin)
            on_frame()
    return seconds


def device_of(tracker: AlphaRefineTracker) -> torch.device:
    """Where its networks are; the CPU where it has none."""
    runner = getattr(tracker.base, "runner", None) or getattr(tracker.refiner, "runner", None)
    return torch.device("cpu") if runner is None else runner.device


def _timed(
    run: Iterator[Prediction | None], tracker: AlphaRefineTracker
) -> tuple[float, Prediction | None]:
    """Seconds of the next step, and what it gave."""
    device = device_of(tracker)
    wait_for(device)
    begin = time.perf_counter()
    found = next(run)
    wait_for(device)
    return time.perf_counter() - begin, found


def _settings(start: Start, clip: Clip, device: torch.device, load: float, frames: int) -> dict[str, Any]:
    height, width = clip.image(0).shape[:2]
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        **dataclasses.asdict(start),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "clip": clip.name,
        "image_size": [width, height],
        "images_in_memory": len(clip.images),
        "frames": frames,
        "load_average_before": load,
        "machine": {"cpu": _cpu_name(), "cpus": os.cpu_count(), "gpu": gpu, "system": platform.platform()},
        "versions": {"alpharefine": __version__, "python": platform.python_version(),
                     "torch": torch.__version__, "opencv": cv2.__version__},
    }


def _cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
