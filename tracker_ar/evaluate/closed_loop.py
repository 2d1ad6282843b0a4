"""Validation of whole trackers on held-out clips: in closed loop, and told the true box before every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tracker_ar.base.judge import judge
from tracker_ar.base.lite import LiteResult, LiteTracker
from tracker_ar.data.sequence import Frame, Track
from tracker_ar.evaluate.metrics import box_overlaps, region_similarity, success_curve
from tracker_ar.frame import Frame as VideoFrame
from tracker_ar.geometry import box_from_mask, clip_box
from tracker_ar.prediction import Refinement, Refiner, State

TRACKED = 0.1
_SMALLEST_SIDE = 4.0


@dataclass(frozen=True)
class Answer:
    """What a tracker says of a frame: box (4,) x, y, w, h; mask (H, W) or None; and what it rests on, by name."""

    box: np.ndarray
    mask: np.ndarray | None = None
    details: dict[str, object] = field(default_factory=dict)


class Tracker(Protocol):
    """What is validated."""

    def start(self, image: np.ndarray, box: np.ndarray, mask: np.ndarray | None) -> None: ...

    def track(self, image: np.ndarray) -> Answer: ...


class LiteLoop:
    """Base tracker, refiner and judge. from_mask: whether the refiner is shown the first mask, where there is one."""

    def __init__(self, base: LiteTracker, refiner: Refiner | TrueBoxes, from_mask: bool = True) -> None:
        self.base = base
        self.refiner = refiner
        self.from_mask = from_mask

    def start(self, image: np.ndarray, box: np.ndarray, mask: np.ndarray | None) -> None:
        frame = VideoFrame.of(image)
        self.target = self.base.start(frame, box)
        self.refined = self.refiner.start(frame, mask if self.from_mask and mask is not None else box)

    def track(self, image: np.ndarray) -> Answer:
        found, refined = self.search(image)
        verdict = self.base.settle(self.target, found, refined)
        details: dict[str, object] = {
            "base_box": found.box, "peak": found.evidence.peak, "rival": found.evidence.rival, "score": verdict.score,
            "refined_box": refined.box, "refined_score": refined.score, "state": verdict.state.value,
        }
        lost = verdict.state is State.LOST
        mask = np.zeros(image.shape[:2], np.uint8) if lost else refined.mask
        return Answer(refined.box if verdict.trusted else verdict.box, mask, details)

    def search(self, image: np.ndarray) -> tuple[LiteResult, Refinement]:
        """What base tracker and refiner say of the next frame."""
        frame = VideoFrame.of(image)
        found = self.base.track(frame, [self.target])[0]
        box = clip_box(found.box, frame.size, _SMALLEST_SIDE)
        learn = found.score >= self.base.settings.judge.found
        return found, self.refiner.refine(frame, [self.refined], [box], [learn])[0]


class TrueBoxes:
    """In the place of a refiner: the true box of `frame` wherever the base tracker's overlaps with it, so that what
    goes wrong is the base tracker's doing."""

    frame: Frame

    def start(self, frame: VideoFrame, region: np.ndarray) -> None:
        """There is nothing to remember."""

    def refine(self, frame: VideoFrame, targets: list, boxes: list[np.ndarray], learn: list[bool]) -> list[Refinement]:
        """See `Refiner.refine`."""
        return [self._true(frame, box) for box in boxes]

    def _true(self, frame: VideoFrame, box: np.ndarray) -> Refinement:
        seen = self.frame.usable and box_overlaps(box[None], self.frame.box[None])[0] > TRACKED
        if not seen:
            nothing = np.zeros(frame.size)
            return Refinement(box, nothing.astype(np.uint8), 0.0, nothing)
        assert self.frame.mask is not None
        return Refinement(self.frame.box, self.frame.mask, 1.0, self.frame.mask.astype(np.float32))


class OpenCVTracker(Protocol):
    """What OpenCV's trackers have in common. Images: uint8 (H, W, 3) BGR; boxes x, y, w, h in pixels."""

    def init(self, image: np.ndarray, boundingBox: Sequence[int]) -> None: ...

    def update(self, image: np.ndarray) -> tuple[bool, Sequence[float]]: ...


class OpenCVLoop:
    """A tracker of OpenCV."""

    def __init__(self, create: Callable[[], OpenCVTracker]) -> None:
        self.create = create

    def start(self, image: np.ndarray, box: np.ndarray, mask: np.ndarray | None) -> None:
        self.tracker = self.create()
        self.tracker.init(image[:, :, ::-1].copy(), tuple(int(value) for value in np.rint(box)))

    def track(self, image: np.ndarray) -> Answer:
        _, box = self.tracker.update(image[:, :, ::-1].copy())
        return Answer(np.array(box, np.float64))


@dataclass
class Run:
    """One tracker on one track: per frame after the first the overlap with the true box (NaN where there is none), that
    of the masks, and the details."""

    name: str
    overlaps: np.ndarray
    similarities: np.ndarray
    details: list[dict[str, object]]

    @property
    def tracked(self) -> float:
        return float(np.nanmean(self.overlaps > TRACKED)) if len(self.overlaps) else np.nan


def frames_of(track: Track, step: int = 1) -> list[Frame]:
    """Every `step`th frame of a track, from the first one on that shows the target."""
    frames = [track.frame(index) for index in range(0, len(track.visible), step)]
    first = next((index for index, frame in enumerate(frames) if frame.usable), len(frames))
    return frames[first:]


def closed_loop(name: str, frames: list[Frame], tracker: Tracker) -> Run:
    """Start the tracker in the first frame and let it go."""
    tracker.start(frames[0].image, frames[0].box, frames[0].mask)
    overlaps, similarities, details = [], [], []
    for frame in frames[1:]:
        show_truth(tracker, frame)
        answer = tracker.track(frame.image)
        box, true = answer.box, frame.box if frame.usable else np.full(4, np.nan)
        if answer.mask is not None and answer.mask.any():
            box = box_from_mask(answer.mask)
        overlaps.append(box_overlaps(box[None], true[None])[0])
        similarity = np.nan
        if frame.usable and frame.mask is not None and answer.mask is not None:
            similarity = region_similarity(answer.mask, frame.mask)
        similarities.append(similarity)
        details.append(answer.details)
    return Run(name, np.array(overlaps), np.array(similarities), details)


def teacher_forced(frames: list[Frame], loop: LiteLoop) -> list[dict[str, float]]:
    """Every frame from the true box of the frame before: whether the score map's peak lies in the true box, overlaps
    with the true box of the base tracker's box, of the refiner's, of the judge's and of the one that stays."""
    loop.start(frames[0].image, frames[0].box, frames[0].mask)
    rows = []
    for before, frame in zip(frames, frames[1:]):
        if not (before.usable and frame.usable):
            continue
        show_truth(loop, frame)
        loop.target.box, loop.target.lost_frames = before.box, 0
        found, refined = loop.search(frame.image)
        verdict = judge(found.box, found.score, refined, loop.base.settings.judge)
        centre = found.box[:2] + found.box[2:] / 2
        inside = bool(((centre >= frame.box[:2]) & (centre <= frame.box[:2] + frame.box[2:])).all())
        boxes = {"base": found.box, "refined": refined.box, "judged": verdict.box, "stays": before.box}
        rows.append({
            "hit": float(inside), "peak": found.evidence.peak, "rival": found.evidence.rival, "score": found.score,
            "refined_score": refined.score,
            **{f"iou_{name}": float(box_overlaps(one[None], frame.box[None])[0]) for name, one in boxes.items()},
        })
        loop.base.accept(loop.target, frame.box, verdict.learns)
    return rows


def strangers(frames: list[Frame], others: list[Frame], loop: LiteLoop, count: int = 10) -> list[dict[str, float]]:
    """What base tracker and refiner say of frames of another clip, in which the target is not."""
    loop.start(frames[0].image, frames[0].box, frames[0].mask)
    rows = []
    for frame in others[:: max(1, len(others) // count)][:count]:
        show_truth(loop, Frame(frame.image, np.zeros(4), None))
        limits = np.array(frame.image.shape[1::-1])
        size = np.minimum(frames[0].box[2:], limits)
        middle = frame.box[:2] + frame.box[2:] / 2 if frame.usable else limits / 2
        loop.target.box = np.concatenate((middle - size / 2, size))
        found, refined = loop.search(frame.image)
        rows.append({"peak": found.evidence.peak, "rival": found.evidence.rival, "score": found.score,
                     "refined_score": refined.score})
    return rows


def show_truth(tracker: Tracker, frame: Frame) -> None:
    """Tell a `TrueBoxes` of the frame to come."""
    if isinstance(tracker, LiteLoop) and isinstance(tracker.refiner, TrueBoxes):
        tracker.refiner.frame = frame


def summary(runs: Iterable[Run]) -> dict[str, float]:
    """Means over tracks, each weighing the same."""
    runs = list(runs)
    curves = [success_curve(run.overlaps).mean() for run in runs if np.isfinite(run.overlaps).any()]
    masks = [np.nanmean(run.similarities) for run in runs if np.isfinite(run.similarities).any()]
    return {
        "tracked": float(np.nanmean([run.tracked for run in runs])),
        "auc": float(np.mean(curves)),
        "j": float(np.mean(masks)) if masks else np.nan,
    }
