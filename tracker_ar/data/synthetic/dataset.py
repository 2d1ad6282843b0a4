"""The generator of `tracker_ar.data.synthetic.scenes` as one more data set: a track is a scene of its own seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tracker_ar.data.datasets.files import masked_frame
from tracker_ar.data.sequence import Frame
from tracker_ar.data.synthetic.scene import Scene
from tracker_ar.data.synthetic.scenes import SceneSampler

_SMALLEST_SHARE = 0.35


@dataclass(frozen=True)
class _SceneTrack:
    name: str
    scene: Scene
    visible: np.ndarray

    def frame(self, index: int) -> Frame:
        height, width = self.scene.frame_size
        whole = (0.0, 0.0, float(width), float(height))
        return masked_frame(*self.scene.render(index, whole, (height, width), cv2.BORDER_REPLICATE))


class SyntheticVideos:
    """Scenes of `frames` frames each; the target counts as visible where over a third of it can be seen.

    Args:
        count: how many scenes; each is drawn anew from its number and `seed` whenever it is asked for.
    """

    name = "synthetic"
    is_video = True
    has_masks = True

    def __init__(
        self, sampler: SceneSampler, count: int = 1_000_000, frames: int = 24, seed: int = 0
    ) -> None:
        self.sampler = sampler
        self.count = count
        self.frames = frames
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def track(self, index: int) -> _SceneTrack:
        scene = self.sampler.sample(np.random.default_rng((self.seed, index)), self.frames)
        shares = [scene.target_box(frame)[1] for frame in range(self.frames)]
        return _SceneTrack(f"{self.name}/{index}", scene, np.array(shares) > _SMALLEST_SHARE)
