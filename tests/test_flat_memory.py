"""What a tracker holds after many frames is what it held after few."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import torch

from tracker_ar import zoo
from tracker_ar.zoo import build_tracker

LITE = zoo.profile("lite_dimp+lite")

FOUND = replace(LITE.base.localization, not_found_threshold=-1.0)
SMALL = replace(LITE, base=replace(LITE.base, input_size=128, localization=FOUND),
                refiner=replace(LITE.refiner, input_size=128))


def held() -> tuple[int, int]:
    """How many tensors are alive, and the bytes of their storages, each counted once."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    dense = [tensor for tensor in tensors if tensor.layout == torch.strided]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in dense}
    return len(tensors), sum(storages.values())


def test_frames_leave_nothing_behind() -> None:
    tracker = build_tracker(SMALL, "cpu", random_weights=True)
    rng = np.random.default_rng(5)
    image = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    first_box = tracker.initialize(image, [60.0, 40.0, 30.0, 24.0]).box

    def follow(frames: int) -> tuple[int, int]:
        for _ in range(frames):
            tracker.track(image)
            tracker.correct(0, first_box)
        return held()

    # By then the filter was updated once, and every buffer has been made.
    tensors, size = follow(22)
    more_tensors, more_size = follow(22)
    # Buffers of the box refinement depend on how many cells the boxes touch in the last frame.
    assert abs(more_tensors - tensors) < 20
    assert more_size < size + 200_000
