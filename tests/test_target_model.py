"""The target model that is learned online by ridge regression."""

from __future__ import annotations

import pytest
import torch

from tracker_ar.models.alpha_refine import MASK_REFINER_LITE, MaskRefiner, box_masks
from tracker_ar.models.target_model import STAGES, Evidence, TargetModel

CHANNELS = {"layer1": 6, "layer2": 8, "layer3": 10}
SIDE = 64


@pytest.fixture
def model() -> TargetModel:
    torch.manual_seed(0)
    return TargetModel(CHANNELS, {"layer1": 3, "layer2": 4, "layer3": 4}).double().eval()


def stages(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        stage: torch.randn(count, CHANNELS[stage], side, side, generator=generator, dtype=torch.float64)
        for stage, side in zip(STAGES, (SIDE // 4, SIDE // 8, SIDE // 16))
    }


def masks(count: int) -> torch.Tensor:
    made = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.float64)
    made[..., 16:40, 8:48] = 1
    return made


def test_the_solution_minimises_the_squared_error(model: TargetModel) -> None:
    features, mask = stages(1, 1), masks(1)
    weights = model.solve(model.evidence(features, mask)).detach().requires_grad_()
    coverage = torch.nn.functional.avg_pool2d(mask, 4)
    balance = 0.5 * coverage / coverage.sum() + 0.5 * (1 - coverage) / (1 - coverage).sum()
    wanted = (coverage / coverage.sum() - (1 - coverage) / (1 - coverage).sum()) * 0.5 / balance
    error = (balance * (model.score(weights, features) - wanted).square()).sum()
    loss = error + model.log_regularization.exp().detach() * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() < 1e-10


def test_a_target_of_its_own_colour_is_found_at_any_size(model: TargetModel) -> None:
    for small in (False, True):
        mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
        mask[..., 16 : 24 if small else 56, 8 : 16 if small else 56] = 1
        features = stages(1, 2)
        features["layer1"][:, :1] += 20 * torch.nn.functional.avg_pool2d(mask, 4)
        score = model.score(model.solve(model.evidence(features, mask)), features)
        inside = torch.nn.functional.avg_pool2d(mask, 4) > 0.5
        assert score[inside].min() > 0.3 and score[~inside].max() < -0.3


def test_the_samples_of_a_batch_do_not_mix_and_one_target_serves_many(model: TargetModel) -> None:
    features, mask = stages(3, 3), masks(3)
    mask[1] = mask[1].flip(2)
    weights = model.solve(model.evidence(features, mask))
    for i in range(3):
        one = {stage: value[i : i + 1] for stage, value in features.items()}
        alone = model.solve(model.evidence(one, mask[i : i + 1]))
        torch.testing.assert_close(alone, weights[i : i + 1])
        torch.testing.assert_close(model.score(alone, one), model.score(weights, features)[i : i + 1])
    torch.testing.assert_close(model.score(weights[:1], features)[:1], model.score(weights, features)[:1])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_of_one_kind_gives_finite_weights(model: TargetModel, value: float) -> None:
    weights = model.solve(model.evidence(stages(1, 4), torch.full((1, 1, SIDE, SIDE), value, dtype=torch.float64)))
    assert torch.isfinite(weights).all()


def test_evidence_mixes_linearly() -> None:
    first = Evidence(torch.zeros(1, 2, 2), torch.zeros(1, 2))
    second = Evidence(torch.ones(1, 2, 2), torch.ones(1, 2))
    mixed = first.mixed(second, 0.25)
    assert (mixed.gram == 0.25).all() and (mixed.moment == 0.25).all()


def test_the_features_can_be_trained_through_the_solution(model: TargetModel) -> None:
    score = model.score(model.solve(model.evidence(stages(2, 5), masks(2))), stages(2, 6))
    score.square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_box_masks_cover_pixels_in_part() -> None:
    (covered,) = box_masks(torch.tensor([[1.5, 0.0, 2.0, 1.25]]), (3, 5))
    expected = torch.tensor([[0, 0.5, 1, 0.5, 0], [0, 0.125, 0.25, 0.125, 0], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(covered[0], expected)


def test_a_confident_frame_changes_what_the_refiner_knows() -> None:
    from dataclasses import replace

    torch.manual_seed(0)
    network = MaskRefiner(replace(MASK_REFINER_LITE, target_model=(16, 32, 32))).eval()
    images, box = torch.randn(1, 3, 128, 128), torch.tensor([[32.0, 32.0, 64.0, 64.0]])
    with torch.no_grad():
        target = network.learn(images, box)
        found = network.segment(target, images.flip(3))
        masks = torch.sigmoid(found.logits)
        again = network.update(target, found.stages, masks, 0.1, 0.7)
        never = network.update(target, found.stages, masks, 0.1, 1.0)
        same = network.update(again, found.stages, masks, 0.5, 0.7)
    assert (again.weights != target.weights).any()
    assert again.kernel is target.kernel and again.first is target.first
    torch.testing.assert_close(never.weights, target.weights)
    torch.testing.assert_close(same.weights, again.weights, rtol=1e-4, atol=1e-5)
