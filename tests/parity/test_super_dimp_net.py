"""Parts of the base tracker's network against what they stand for: autograd, convolutions, one sequence at a time."""

from __future__ import annotations

import pytest
import torch

from tracker_ar.models.dimp import SUPER_DIMP_LITE, build_dimp
from tracker_ar.models.target_filter import Correlation


def test_closed_form_gradient_equals_autograd() -> None:
    """In double precision, with boxes inside, across the border, outside and without area."""
    torch.manual_seed(4)
    network = build_dimp(SUPER_DIMP_LITE).double().eval().requires_grad_(False).bb_regressor
    modulation = (torch.rand(1, 64, 1, 1).double(), torch.rand(1, 128, 1, 1).double())
    features = (torch.randn(1, 64, 16, 20).double(), torch.randn(1, 128, 8, 10).double())
    boxes = torch.tensor(
        [[30.3, 21.7, 50.1, 40.9], [-20.5, -11.2, 60.0, 45.3], [140.0, 110.0, 45.5, 33.3], [300.0, 10.0, 20.0, 20.0],
         [16.0, 16.0, 64.0, 32.0], [40.0, 40.0, 0.0, 10.0], [40.0, 40.0, 10.0, 0.0]]
    ).double()
    iou, gradient = network.modulated(modulation).on(features)(boxes)
    boxes = boxes[None].requires_grad_()
    expected = network(modulation, features, boxes)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), boxes)
    torch.testing.assert_close(iou, expected[0].detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("filter_size", [3, 4])
def test_correlation_is_a_padded_convolution_and_its_transpose(filter_size: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 2, 5, 7, 9, dtype=torch.float64)
    filters = torch.randn(2, 5, filter_size, filter_size, dtype=torch.float64, requires_grad=True)
    grouped = torch.nn.functional.conv2d(features.flatten(1, 2), filters, padding=filter_size // 2, groups=2)
    correlation = Correlation(features, filter_size)
    torch.testing.assert_close(correlation.scores(filters), grouped)
    maps = torch.randn_like(grouped)
    (gradient,) = torch.autograd.grad(grouped, filters, maps)
    torch.testing.assert_close(correlation.transposed(maps), gradient)


def test_sequences_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    classifier = build_dimp(SUPER_DIMP_LITE).classifier.requires_grad_(False)
    features = 0.02 * torch.randn(3, 2, 128, 16, 16)
    boxes = torch.rand(3, 2, 4) * 40 + torch.tensor([80.0, 80.0, 30.0, 30.0])
    both = classifier.unroll(classifier.initial_filter(features, boxes), features, boxes, 3)
    losses = torch.zeros(4)
    for index in range(2):
        own_features, own_boxes = features[:, index], boxes[:, index]
        initial = classifier.initial_filter(own_features, own_boxes)
        alone = classifier.unroll(initial, own_features, own_boxes, 3)
        torch.testing.assert_close(both.filters[-1][index], alone.filters[-1][0], rtol=1e-3, atol=1e-5)
        losses += torch.stack(alone.losses) / 2
    torch.testing.assert_close(torch.stack(both.losses), losses, rtol=1e-4, atol=1e-6)
    assert both.losses[-1] < both.losses[0]


def test_unrolled_training_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    network = build_dimp(SUPER_DIMP_LITE)
    boxes = torch.tensor([48.0, 52.0, 30.0, 24.0]).expand(2, 2, 4)
    backbone = network.extract_backbone(torch.randn(4, 3, 128, 128))
    features = network.classification_features(backbone).unflatten(0, (2, 2))
    classifier = network.classifier
    unrolled = classifier.unroll(classifier.initial_filter(features, boxes), features, boxes, 2)
    scores = torch.stack([classifier.scores(target_filter, features) for target_filter in unrolled.filters])
    modulation = network.iou_modulation(backbone, boxes.reshape(4, 4))
    candidates = boxes.reshape(4, 1, 4) + torch.randn(4, 8, 4)
    iou = network.predict_iou(modulation, network.iou_features(backbone), candidates)
    assert scores.shape == (3, 2, 2, 9, 9) and iou.shape == (4, 8)
    (scores.square().mean() + iou.square().mean()).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
