"""A small tracker with fresh `lite` weights, and a small video for it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from tracker_ar import zoo
from tracker_ar.base.dimp import DiMPTracker
from tracker_ar.engine.runner import Runner
from tracker_ar.models.alpha_refine import build_mask_refiner
from tracker_ar.models.dimp import build_dimp
from tracker_ar.prediction import Prediction
from tracker_ar.refine.refiner import SegmentingRefiner
from tracker_ar.tracker import AlphaRefineTracker

LITE = zoo.profile("lite_dimp+lite")

HEIGHT, WIDTH = 120, 160
BOX = (60.0, 40.0, 30.0, 24.0)
OTHER = (20.0, 20.0, 40.0, 30.0)
CPU = torch.device("cpu")
# Fresh weights score low: without the threshold every frame is refined and may be learned from. Smaller is faster.
ALWAYS_FOUND = replace(
    LITE.base, input_size=128, localization=replace(LITE.base.localization, not_found_threshold=-1.0)
)
SMALL_REFINER = replace(LITE.refiner, input_size=128, use_initial_mask=False)


def video(frames: int = 4) -> list[np.ndarray]:
    """A bright textured square that moves by two pixels per frame over a dark textured ground."""
    rng = np.random.default_rng(5)
    ground = rng.integers(20, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    target = rng.integers(150, 255, (24, 30, 3), dtype=np.uint8)
    images = []
    for frame in range(frames):
        image = ground.copy()
        image[40 : 40 + 24, 60 + 2 * frame : 90 + 2 * frame] = target
        images.append(image)
    return images


@lru_cache(maxsize=1)
def _weights() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build_dimp(LITE.base.network).state_dict(), build_mask_refiner(LITE.refiner.network).state_dict()


def make_tracker(seed: int = 0, device: torch.device = CPU) -> AlphaRefineTracker:
    """Every call gives the same weights in networks of its own."""
    networks = build_dimp(LITE.base.network), build_mask_refiner(LITE.refiner.network)
    for network, weights in zip(networks, _weights()):
        network.load_state_dict(weights)
    base, refiner = (Runner(network, device) for network in networks)
    return AlphaRefineTracker(DiMPTracker(base, ALWAYS_FOUND, seed), SegmentingRefiner(refiner, SMALL_REFINER), LITE)


def check(prediction: Prediction) -> None:
    """What holds for every prediction."""
    assert prediction.mask.shape == (HEIGHT, WIDTH)
    assert prediction.mask.dtype == np.uint8 and prediction.mask.flags.c_contiguous
    assert set(np.unique(prediction.mask)) <= {0, 1}
    x, y, width, height = prediction.box
    assert prediction.box.dtype == np.float64
    assert 0 <= x and 0 <= y and x + width <= WIDTH and y + height <= HEIGHT and min(width, height) > 0
    assert isinstance(prediction.score, float) and 0.0 <= prediction.score <= 1.0


def same(one: Prediction, other: Prediction) -> bool:
    """Bit for bit."""
    return np.array_equal(one.mask, other.mask) and np.array_equal(one.box, other.box) and one.score == other.score
