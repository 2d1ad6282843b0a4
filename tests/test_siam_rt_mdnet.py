"""SiamRPN++ and RT-MDNet as engines: targets do not know of each other, runs repeat, any box and image is survived."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_trackers import SMALL_MDNET, TinySiamRPN, lively
from torch.nn import functional as F
from trace_notes import Notes

from tracker_ar.base import siam_rpn
from tracker_ar.base.hard_negatives import Descent, TrainingSettings
from tracker_ar.base.rt_mdnet import RTMDNetTracker
from tracker_ar.base.scenes import SceneSettings, object_sides
from tracker_ar.base.siam_rpn import SiamRPNSettings, SiamRPNTracker, square_crop
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.mdnet import Layers, MDNet, gradient, scores
from tracker_ar.ops.roi_align import roi_samples
from tracker_ar.prediction import BaseTracker
from tracker_ar.trace import listening

CPU = torch.device("cpu")
BOX = np.array([110.0, 60, 48, 64])


def siam() -> SiamRPNTracker:
    return SiamRPNTracker(Runner(TinySiamRPN(), CPU), SiamRPNSettings())


def mdnet() -> RTMDNetTracker:
    return RTMDNetTracker(Runner(lively(MDNet()), CPU), SMALL_MDNET)


ENGINES = pytest.mark.parametrize("build", [siam, mdnet])


def video(size: tuple[int, int] = (240, 320), frames: int = 5) -> list[Frame]:
    """A textured square that moves over a textured background."""
    random = np.random.RandomState(0)
    background = np.kron(random.randint(90, 130, (size[0] // 8 + 1, size[1] // 8 + 1, 3)), np.ones((8, 8, 1)))
    target = np.kron(random.randint(0, 256, (8, 6, 3)), np.ones((8, 8, 1)))
    images = []
    for number in range(frames):
        image = background[: size[0], : size[1]].astype(np.uint8)
        shown = image[60 + 2 * number: 124 + 2 * number, 110 + 3 * number: 158 + 3 * number]
        shown[:] = target[: shown.shape[0], : shown.shape[1]]
        images.append(Frame(image))
    return images


def follow(engine: BaseTracker, frames: list[Frame], boxes: list[np.ndarray]) -> np.ndarray:
    """(frames, targets, 5) boxes and scores."""
    targets = [engine.start(frames[0], box) for box in boxes]
    results = [engine.track(frame, targets) for frame in frames[1:]]
    return np.array([[[*one.box, one.score] for one in some] for some in results])


@ENGINES
def test_targets_do_not_know_of_each_other(build: Callable[[], BaseTracker]) -> None:
    boxes = [BOX, np.array([20.0, 30, 40, 30]), np.array([200.5, 100.25, 60, 90])]
    engine, frames = build(), video()
    together = follow(engine, frames, boxes)
    alone = [follow(build(), frames, [box]) for box in boxes]
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=1))


@ENGINES
def test_runs_repeat_and_leave_global_generators_alone(build: Callable[[], BaseTracker]) -> None:
    engine, runs, frames = build(), [], video()
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        runs.append(follow(engine, frames, [BOX]))
        assert torch.equal(torch.get_rng_state(), before[0])
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    np.testing.assert_array_equal(*runs)


def test_another_seed_draws_other_boxes() -> None:
    engine = mdnet()
    other = RTMDNetTracker(engine.runner, SMALL_MDNET, seed=5)
    assert not np.array_equal(follow(engine, video(), [BOX]), follow(other, video(), [BOX]))


@ENGINES
@pytest.mark.parametrize("box", [
    [100, 80, 1, 1], [100, 80, 0.01, 0.01], [160, 100, 2, 130], [-20, -30, 50, 60], [310, 230, 40, 40],
    [-400, -300, 1200, 900], [0, 0, 320, 240], [319.5, 239.5, 3, 3],
], ids=str)
def test_any_box(build: Callable[[], BaseTracker], box: list[float]) -> None:
    found = follow(build(), video(frames=4), [np.array(box, dtype=np.float64)])
    assert np.isfinite(found).all() and (found[..., 2:4] > 0).all()
    assert (found[..., 4] >= 0).all() and (found[..., 4] <= 1).all()


@ENGINES
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (20, 300)], ids=str)
def test_any_image(build: Callable[[], BaseTracker], size: tuple[int, int]) -> None:
    found = follow(build(), video(size, 3), [np.array([0, 0, size[1], size[0]], dtype=np.float64)])
    assert np.isfinite(found).all() and (found[..., 2:4] > 0).all()


@ENGINES
def test_grey_images(build: Callable[[], BaseTracker]) -> None:
    grey = [frame.pixels[:, :, 0] for frame in video()]
    found = follow(build(), [Frame.of(image) for image in grey], [BOX])
    coloured = [Frame(image[:, :, None].repeat(3, 2)) for image in grey]
    np.testing.assert_array_equal(found, follow(build(), coloured, [BOX]))


@ENGINES
def test_goes_on_from_a_corrected_box(build: Callable[[], BaseTracker]) -> None:
    """The target is at rest: who is told where it is finds it there again."""
    engine, frame = build(), video()[0]
    target = engine.start(frame, np.array([30.0, 30, 48, 64]))
    engine.correct(target, BOX)
    (result,) = engine.track(frame, [target])
    assert np.abs(result.box[:2] + result.box[2:] / 2 - [134, 92]).max() < 40


def test_siam_corrected_centre_is_half_a_pixel_from_the_first() -> None:
    engine = siam()
    target = engine.start(video()[0], BOX)
    np.testing.assert_array_equal(target.centre, [133.5, 91.5])
    engine.correct(target, BOX)
    np.testing.assert_array_equal(target.centre, [134, 92])


def test_siam_sees_blue_first_unless_told_otherwise() -> None:
    crops = []
    for blue_first in (True, False):
        engine = SiamRPNTracker(Runner(TinySiamRPN(), CPU), SiamRPNSettings(blue_first=blue_first))
        with listening(notes := Notes()):
            engine.start(video()[0], np.array([-10.0, 10, 60, 60]))
        crops += notes["base crop"]
    np.testing.assert_array_equal(crops[0], crops[1][:, :, ::-1])


def test_huge_regions_are_sampled_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    image, arguments = video()[0].pixels, (np.array([300.0, 40]), 410, 255, np.array([100.7, 90, 80]))
    expected = square_crop(image, *arguments).astype(int)
    monkeypatch.setattr(siam_rpn, "MAX_REGION_PIXELS", 1)
    assert np.abs(square_crop(image, *arguments) - expected).max() <= 8
    assert np.abs(square_crop(image, *arguments) - expected).mean() < 0.5
    side = 10**9
    assert (square_crop(image, np.array([0.0, 0]), side, 255, np.array([100.7, 90, 80]))[0, 0] == [100, 90, 80]).all()


def test_gradient_is_that_of_autograd() -> None:
    network, generator = mdnet().runner.network, torch.Generator().manual_seed(3)
    layers = Layers(*(layer.requires_grad_() for layer in network.initial_layers()))
    pooled = torch.rand(10, 4608, generator=generator)
    labels = torch.tensor([1] * 4 + [0] * 6)
    masks = [2.0 * (torch.rand(10, 512, generator=generator) > 0.5) for _ in range(2)]
    hidden = F.relu(F.linear(pooled, layers.fc4, layers.fc4_bias)) * masks[0]
    hidden = F.relu(F.linear(hidden, layers.fc5, layers.fc5_bias)) * masks[1]
    F.cross_entropy(F.linear(hidden, layers.fc6, layers.fc6_bias), labels).backward()
    for mine, layer in zip(gradient(Layers(*(layer.detach() for layer in layers)), pooled, labels, masks), layers):
        torch.testing.assert_close(mine, layer.grad, rtol=1e-4, atol=1e-6)


def test_learning_tells_target_from_surroundings() -> None:
    generator = torch.Generator().manual_seed(4)
    direction = torch.rand(4608, generator=generator)
    positives = torch.rand(40, 4608, generator=generator) + 0.2 * direction
    negatives = torch.rand(60, 4608, generator=generator)
    layers = mdnet().runner.network.initial_layers()
    descent = Descent(layers, 1e-3, TrainingSettings(8, 20, 50))
    descent.train(positives, negatives, 60, np.random.RandomState(0), np.random.RandomState(1))
    assert scores(layers, positives)[:, 1].min() > scores(layers, negatives)[:, 1].max()


def test_samples_lie_on_the_edges_and_extrapolate_in_the_last_cell() -> None:
    """Along a ramp, 4 cells wide: the box from 1 to 2 counts two cells long, to 3 and beyond."""
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    boxes = torch.tensor([[1.0, 0, 2, 1], [1.5, 0, 3, 1], [-1, 0, 1, 1]])
    rows = roi_samples(ramp, boxes, (2, 4))[:, 0, 0]
    # The last sample of the second would be 4; it is outside, as is the first of the last.
    expected = torch.tensor([[1, 5 / 3, 7 / 3, 3], [1.5, 7 / 3, 19 / 6, 0], [0, 0, 1, 2]])
    torch.testing.assert_close(rows, expected)


def test_narrow_targets_do_not_make_endless_scenes() -> None:
    assert object_sides(np.array([0, 0, 1, 320.0]), SceneSettings()).tolist() == [20, 320]
    assert object_sides(np.array([0, 0, 0.1, 0.2]), SceneSettings()).tolist() == [1, 1]
