"""Which set, which target, which frames: how training draws from a mixture of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tracker_ar.data.sequence import Dataset, Frame
from tracker_ar.errors import DataError

_GAP_STEP = 5
_ATTEMPTS = 100


@dataclass(frozen=True)
class FrameSampling:
    """How the frames of one sample are chosen from a video, as in ATOM and DiMP.

    Attributes:
        train, test: numbers of frames.
        max_gap: farthest distance of a frame from the base frame, in frames; grows by 5 until there are some.
        mode: "interval": frames within the gap on either side of the base frame; "causal": test frames come
            after the train frames.
        shortest: videos with fewer frames are passed over.
    """

    train: int
    test: int
    max_gap: int
    mode: Literal["interval", "causal"] = "interval"
    shortest: int = 20


class Mixture:
    """Data sets with weights: first a set is drawn, then one of its targets, then frames.

    Raises:
        DataError: there is no set, a set is empty, or a weight is not positive.
    """

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float]) -> None:
        if not datasets or len(datasets) != len(weights) or min(weights) <= 0:
            raise DataError("a mixture needs data sets with one positive weight each")
        empty = [dataset.name for dataset in datasets if not len(dataset)]
        if empty:
            raise DataError(f"these data sets hold no target: {', '.join(empty)}")
        self.datasets = list(datasets)
        self.fractions = np.array(weights, np.float64) / sum(weights)

    def __str__(self) -> str:
        parts = zip(self.datasets, self.fractions)
        return ", ".join(f"{dataset.name} {fraction:.0%} ({len(dataset)} targets)" for dataset, fraction in parts)

    def draw(self, rng: np.random.Generator, sampling: FrameSampling) -> tuple[list[Frame], list[Frame]]:
        """Train and test frames of one target that is visible in all of them.

        A still image serves for every frame.

        Raises:
            DataError: a hundred targets in a row had too few visible frames; or a file is missing or damaged.
        """
        for _ in range(_ATTEMPTS):
            dataset = self.datasets[rng.choice(len(self.datasets), p=self.fractions)]
            track = dataset.track(int(rng.integers(len(dataset))))
            chosen = choose_frames(track.visible, sampling, rng, dataset.is_video)
            if chosen is None:
                continue
            frames = {index: track.frame(index) for index in sorted({*chosen[0], *chosen[1]})}
            # A mask may turn out to be empty, although the annotation files list its frame.
            if all(frame.usable for frame in frames.values()):
                return [frames[index] for index in chosen[0]], [frames[index] for index in chosen[1]]
        raise DataError(
            f"{_ATTEMPTS} targets in a row had too few visible frames, the last was {track.name}: "
            f"a sample needs {sampling.train} + {sampling.test} of a video of at least {sampling.shortest}"
        )


def choose_frames(
    visible: np.ndarray, sampling: FrameSampling, rng: np.random.Generator, is_video: bool = True
) -> tuple[list[int], list[int]] | None:
    """Indices of train and of test frames, all visible, or None where the track has too few.

    Args:
        visible: bool (frames,).
    """
    seen = np.flatnonzero(visible)
    if not is_video:
        return ([int(seen[0])] * sampling.train, [int(seen[0])] * sampling.test) if len(seen) else None
    # Twice as many as are drawn, so that they differ: the rule of ATOM and DiMP.
    if len(visible) < sampling.shortest or len(seen) <= 2 * (sampling.train + sampling.test):
        return None
    choose = _interval if sampling.mode == "interval" else _causal
    return choose(seen, sampling, rng)


def _interval(
    seen: np.ndarray, sampling: FrameSampling, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    base = int(rng.choice(seen))
    gap = sampling.max_gap
    while True:
        others = seen[(np.abs(seen - base) <= gap) & (seen != base)]
        if len(others):
            break
        gap += _GAP_STEP
    train = [base, *_draw(others, sampling.train - 1, rng)]
    # Test frames are not train frames as long as there are others.
    unused = np.setdiff1d(others, train)
    return train, _draw(unused if len(unused) else others, sampling.test, rng)


def _causal(
    seen: np.ndarray, sampling: FrameSampling, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    # The base is the last train frame: enough frames must lie before and one after it.
    base = int(rng.choice(seen[sampling.train - 1 : -1]))
    gap = sampling.max_gap
    while True:
        before = seen[(seen < base) & (seen >= base - gap)]
        after = seen[(seen > base) & (seen <= base + gap)]
        if len(after) and (len(before) or sampling.train == 1):
            break
        gap += _GAP_STEP
    return [base, *_draw(before, sampling.train - 1, rng)], _draw(after, sampling.test, rng)


def _draw(candidates: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Without repetition where there are enough."""
    if not count:
        return []
    return [int(index) for index in rng.choice(candidates, count, replace=len(candidates) < count)]
