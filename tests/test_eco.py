"""ECO on a small network of random weights: what must hold whatever the features are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synth
import torch
from small_trackers import SMALL_ECO, SmallFeatures
from torch import Tensor

from tracker_ar.base.eco import DEEP, SHALLOW, ECOTarget, ECOTracker
from tracker_ar.base.memory import SampleWeights
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.geometry import box_iou
from tracker_ar.models.conjugate_gradient import Direction, Vector, conjugate_gradient
from tracker_ar.models.fourier_filter import JointProblem, LayerModel, SolverSettings, learn_jointly
from tracker_ar.ops import fourier
from tracker_ar.prediction import BaseResult

BOX = np.array([110.0, 60, 48, 64])


def engine() -> ECOTracker:
    return ECOTracker(Runner(SmallFeatures(), torch.device("cpu")), SMALL_ECO)


def follow(boxes: list[np.ndarray], frames: int = 7) -> tuple[list[list[BaseResult]], list[ECOTarget]]:
    """All targets together through the first frames; results by frame."""
    eco = engine()
    targets = [eco.start(Frame(synth.frame(0)), box) for box in boxes]
    return [eco.track(Frame(synth.frame(1 + frame)), targets) for frame in range(frames)], targets


def equal(first: tuple[list[BaseResult], ECOTarget], second: tuple[list[BaseResult], ECOTarget]) -> None:
    for one, other in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(one.box, other.box)
        assert one.score == other.score
    for one, other in zip(first[1].layers, second[1].layers, strict=True):
        assert torch.equal(one.filter, other.filter) and torch.equal(one.samples, other.samples)


def test_it_follows_the_target_and_twice_the_same() -> None:
    results, targets = follow([BOX])
    for frame, (result,) in enumerate(results):
        assert box_iou(result.box, (*synth.corner(frame + 1), 48, 64)) > 0.7, frame
    again, targets_again = follow([BOX])
    equal(([result for (result,) in results], targets[0]), ([result for (result,) in again], targets_again[0]))


def test_several_targets_are_each_alone() -> None:
    """Also where their search regions differ in size, and in any order."""
    boxes = [BOX, np.array([20.0, 150, 30, 30]), np.array([200.0, 100, 44, 44])]
    together, targets = follow(boxes)
    assert {target.input_size for target in targets} == {208, 240}
    for index, box in enumerate(boxes):
        alone, (target,) = follow([box])
        equal(([results[index] for results in together], targets[index]), ([result for (result,) in alone], target))


@pytest.mark.parametrize("box", [
    (100, 100, 1, 1), (100, 100, 3, 2), (-20, -30, 48, 64), (300, 220, 48, 64), (0, 0, 320, 240), (-50, -50, 500, 400),
    (10, 100, 300, 3), (319, 0, 40, 240), (100.25, 60.5, 48.75, 63.9),
])
@pytest.mark.parametrize("scene", ["as it is", "grey", "black"])
def test_any_box_in_any_image(box: tuple[float, ...], scene: str) -> None:
    eco = engine()
    images = [synth.frame(index) for index in range(4)]
    if scene != "as it is":
        images = [image[:, :, 0] * (scene == "grey") for image in images]
    target = eco.start(Frame.of(images[0]), np.array(box, dtype=np.float64))
    for image in images[1:]:
        (result,) = eco.track(Frame.of(image), [target])
        assert np.isfinite(result.box).all() and (result.box[2:] > 0).all()
        assert result.box.dtype == np.float64 and 0 <= result.score <= 1
        # At least ten pixels, but never more than the image.
        limits = np.array([320, 240])
        assert (result.box[2:] < limits + 0.01).all()
        assert result.box[2:].min() > 9.99 or (result.box[2:] > limits - 0.01).any()
        centre = result.box[:2] + (result.box[2:] - 1) / 2
        # A fifth of the target stays within the image.
        assert (centre > -0.3 * result.box[2:] - 1).all() and (centre < limits + 0.3 * result.box[2:] + 1).all()


def test_correct_moves_the_next_search() -> None:
    eco = engine()
    target = eco.start(Frame(synth.frame(0)), BOX)
    x, y = synth.corner(12)
    eco.correct(target, np.array([x, y, 96.0, 32.0]))
    assert target.position.tolist() == [y + 16, x + 48]
    assert target.size.tolist() == [32, 96] and target.scale == 1
    eco.correct(target, np.array([x, y, 48.0, 64.0]))
    (result,) = eco.track(Frame(synth.frame(12)), [target])
    assert box_iou(result.box, (x, y, 48, 64)) > 0.7
    assert result.box[2] / result.box[3] == pytest.approx(48 / 64)


def test_the_lightest_sample_makes_room() -> None:
    weights = SampleWeights(count=2, capacity=3)
    assert weights.active.tolist() == [0.5, 0.5]
    assert [weights.add(0.6) for _ in range(4)] == [2, 2, 0, 1]
    assert weights.values.sum().item() == pytest.approx(1)
    protected = SampleWeights(count=2, capacity=3, protected=2, floor=0.5)
    assert [protected.add(0.25) for _ in range(6)] == [2] * 6
    assert protected.values[:2].sum() >= 0.5


# ---- learning


class Dense:
    """A matrix."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def product(self, x: Vector) -> Vector:
        return (self.matrix @ x[0],)

    def precondition(self, residual: Vector) -> Vector:
        return (residual[0] / self.matrix.diagonal(),)

    def inner(self, first: Vector, second: Vector) -> Tensor:
        return first[0] @ second[0]


@pytest.mark.parametrize("polak_ribiere", [True, False])
@pytest.mark.parametrize("from_zero", [True, False])
def test_conjugate_gradient_solves_in_as_many_steps_as_unknowns(polak_ribiere: bool, from_zero: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    root, wanted, start = (torch.randn(*shape, 5, dtype=torch.float64, generator=generator) for shape in ((5,), (), ()))
    problem = Dense(root @ root.T + torch.eye(5, dtype=torch.float64))
    right = problem.product((wanted,))
    at = None if from_zero else (start,)
    found, _ = conjugate_gradient(problem, right, at, 5, polak_ribiere=polak_ribiere)
    torch.testing.assert_close(found, (wanted,), rtol=1e-9, atol=1e-9)
    early, last = conjugate_gradient(problem, right, at, 3, polak_ribiere=polak_ribiere)
    assert (early[0] - wanted).norm() > 1e-3
    # A kept direction goes on where the run ended: as good as no pause at all.
    found, _ = conjugate_gradient(problem, right, early, 2, polak_ribiere=polak_ribiere, last=last)
    torch.testing.assert_close(found, (wanted,), rtol=1e-9, atol=1e-9)


def test_a_kept_direction_never_counts_negatively() -> None:
    """Polak-Ribiere's formula may be below zero: then the run begins as if nothing had been kept."""
    problem = Dense(torch.diag(torch.tensor([1.0, 2, 3], dtype=torch.float64)))
    right = (torch.tensor([1.0, 2, 2], dtype=torch.float64),)
    fresh, _ = conjugate_gradient(problem, right, None, 1)
    for scale, same in ((5.0, True), (0.1, False)):
        last = Direction((torch.ones(3, dtype=torch.float64),), torch.tensor(1.0), (scale * right[0],))
        found, _ = conjugate_gradient(problem, right, None, 1, last=last)
        assert torch.equal(found[0], fresh[0]) == same


def test_nothing_to_do_is_no_division_by_zero() -> None:
    problem = Dense(torch.eye(3, dtype=torch.float64))
    zero = torch.zeros(3, dtype=torch.float64)
    assert conjugate_gradient(problem, (zero,), None, 4) == (None, None)
    found, last = conjugate_gradient(problem, (zero,), (zero,), 4)
    assert torch.equal(found[0], zero) and last is None


def test_the_joint_step_is_gauss_newton() -> None:
    """Its product is that of the Jacobian with itself, by finite differences of the gradient without curvature."""
    model = LayerModel(5, 80, torch.tensor([24.0, 30.0]), SHALLOW, -0.75, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    rows, columns = model.label.shape
    count = rows * columns
    samples = torch.randn(count, 4, 6, dtype=torch.complex64, generator=generator)
    filters = torch.randn(2, rows, columns, dtype=torch.complex64, generator=generator)
    projection = torch.randn(6, 2, generator=generator)
    problem = JointProblem(model, samples, torch.ones(2, rows, columns), filters, projection, SolverSettings())

    def responses(filters: Tensor, projection: Tensor) -> Tensor:
        wide = filters.flatten(1).T @ projection.to(torch.complex64).T
        return torch.einsum("knc,kc->kn", samples, wide) / 2  # root of the four samples' weight

    change, turn = torch.randn_like(filters), torch.randn(6, 2, generator=generator)
    _, moved = torch.autograd.functional.jvp(responses, (filters, projection), (change, turn))
    _, (seen, turned) = torch.autograd.functional.vjp(responses, (filters, projection), moved)
    product = problem.product((change, turn))
    torch.testing.assert_close(product[0], seen + model.penalized(change, mirrored=False), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(product[1], turned + 5e-8 * turn, rtol=1e-4, atol=1e-4)


def test_a_learned_filter_answers_with_the_label() -> None:
    weak = replace(DEEP, window_minimum=1e-6, window_edge=1e-5)
    model = LayerModel(9, 144, torch.tensor([40.0, 40.0]), weak, -0.75, torch.device("cpu"))
    generator = torch.Generator().manual_seed(5)
    maps = torch.randn(1, 8, 9, 9, generator=generator) + 0.3 * torch.randn(3, 8, 9, 9, generator=generator)
    coefficients = fourier.series(maps * model.window) * model.interpolation
    samples = coefficients.flatten(2).permute(2, 0, 1).contiguous()
    learned, projection, _ = learn_jointly(model, samples, torch.eye(8)[:, :4].clone(), SolverSettings())
    narrow = torch.einsum("nchw,cd->ndhw", coefficients, projection.to(torch.complex64))
    scores = fourier.sample((narrow * learned).sum(dim=1), (36, 36))
    wanted = fourier.sample(model.label.to(torch.complex64), (36, 36))
    torch.testing.assert_close(scores, wanted.expand(3, -1, -1), rtol=0, atol=0.1)


# ---- series


@pytest.mark.parametrize("size", [(15, 15), (9, 5), (5, 12)])
def test_a_series_goes_through_its_samples(size: tuple[int, int]) -> None:
    """Exactly for odd sizes; the highest frequency of an even one counts twice."""
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    spectrum = torch.fft.fft2(maps)
    spectrum[..., :, size[1] // 2] *= 2 if size[1] % 2 == 0 else 1
    wanted = torch.fft.ifft2(spectrum).real
    coefficients = fourier.series(maps)
    assert coefficients.shape == (2, 3, 2 * (size[0] // 2) + 1, size[1] // 2 + 1)
    found = fourier.sample(coefficients / maps[0, 0].numel(), (3 * size[0], 4 * size[1]))
    torch.testing.assert_close(found[..., ::3, ::4], wanted, rtol=0, atol=1e-5)


def test_a_shifted_series_brings_the_offset_to_the_origin() -> None:
    coefficients = fourier.series(torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0)))
    plain = fourier.sample(coefficients, (18, 14))
    offsets = 2 * torch.pi * torch.tensor([[2 / 18, 3 / 14], [-5 / 18, 0.0]])
    both = fourier.sample(fourier.shift(coefficients, offsets), (18, 14))
    for index, moved in enumerate([(-2, -3), (5, 0)]):
        torch.testing.assert_close(both[index], plain[index].roll(moved, (-2, -1)), rtol=0, atol=1e-3)
    one = fourier.shift(coefficients, offsets[0])
    torch.testing.assert_close(one[:1], fourier.shift(coefficients, offsets)[:1])


def test_sum_and_inner_product_of_series_are_those_of_the_functions() -> None:
    generator = torch.Generator().manual_seed(0)
    fine, coarse = (fourier.series(torch.randn(2, n, n, generator=generator)) for n in (11, 5))
    first, second = (fourier.sample(each, (16, 16)) for each in (fine, coarse))
    both = fourier.sample(fourier.add(fine, coarse), (16, 16))
    torch.testing.assert_close(both, first + second, rtol=1e-4, atol=1e-3)
    other = fourier.add(torch.zeros_like(fine), coarse)
    torch.testing.assert_close(fourier.inner_product(fine, other), (first * second).sum() / 256, rtol=1e-4, atol=1e-2)
