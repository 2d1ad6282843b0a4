"""The base tracker's network against recorded outputs of the authors' network, stage by stage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recipe import SUPER_DIMP, net_input
from recorded import Reference, key_shapes
from relative_boxes import from_relative, relative_gradient, to_relative
from torch import Tensor

from tracker_ar.base.box_refinement import ascend
from tracker_ar.models.dimp import SUPER_DIMP_LITE, SuperDiMP, build_super_dimp
from tracker_ar.models.target_filter import Correlation
from tracker_ar.base.settings import BoxRefinementSettings

BOXES = torch.tensor([[146.0, 136, 60, 80], [170, 176, 60, 80], [146, 136, 60, 80], [226, 80, 60, 80]])
STEP_LENGTH = 2.5e-3


def train_images() -> Tensor:
    """Four samples of one scene: as it is, moved, mirrored, moved."""
    image = torch.from_numpy(net_input(352, 352))
    moved = [image.roll(shift, dims=(2, 3)) for shift in ((40, 24), (-56, 80))]
    return torch.cat((image, moved[0], image.flip(3), moved[1]))


@pytest.fixture(scope="module")
@torch.no_grad()
def classifier_outputs(super_dimp: SuperDiMP) -> dict[str, Tensor]:
    classifier = super_dimp.classifier
    backbone = super_dimp.extract_backbone(train_images())
    features = super_dimp.classification_features(backbone)
    initial = classifier.initial_filter(features, BOXES)
    seen = {f"bf.{name}": layer for name, layer in backbone.items()}
    seen |= {"clf": features, "filter_init": initial}
    for count in (1, 2, 10):
        unrolled = classifier.unroll(initial, features, BOXES, count)
        seen[f"filter_it{count}"] = unrolled.filters[-1]
        seen[f"loss_it{count}"] = torch.stack(unrolled.losses)
    final = seen["filter_it10"]
    sample_weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    seen["filter_upd2_weighted"] = classifier.optimize_filter(final, features, BOXES, 2, sample_weights)
    maps = classifier.filter_optimizer.target_maps(BOXES[:, None], 4, (23, 23))
    test_backbone = super_dimp.extract_backbone(torch.from_numpy(net_input(353, 352)))
    test_features = super_dimp.classification_features(test_backbone)
    modulation = super_dimp.iou_modulation({name: layer[:1] for name, layer in backbone.items()}, BOXES[:1])
    iou_features = super_dimp.iou_features(test_backbone)
    return seen | {
        "label_map": maps.label,
        "target_mask": maps.mask,
        "test_clf": test_features,
        "scores": classifier.scores(final, test_features),
        "scores_train": classifier.scores(final, features),
        "mod3": modulation[0],
        "mod4": modulation[1],
        "iou_feat3": iou_features[0],
        "iou_feat4": iou_features[1],
    }


STAGES = """bf.layer2 bf.layer3 clf filter_init filter_it1 loss_it1 filter_it2 loss_it2 filter_it10 loss_it10
filter_upd2_weighted label_map target_mask test_clf scores scores_train mod3 mod4
iou_feat3 iou_feat4""".split()


@pytest.mark.parametrize("name", STAGES)
def test_stage(
    name: str, classifier_outputs: dict[str, Tensor], reference: Callable[[str], Reference]
) -> None:
    reference("dimp_net").check(name, classifier_outputs[name])


def test_ascent_on_the_predicted_iou(
    super_dimp: SuperDiMP, classifier_outputs: dict[str, Tensor], reference: Callable[[str], Reference]
) -> None:
    expected = reference("dimp_net")
    modulation = (classifier_outputs["mod3"], classifier_outputs["mod4"])
    features = (classifier_outputs["iou_feat3"], classifier_outputs["iou_feat4"])
    boxes = expected["init_boxes"][None]
    reference_size = boxes[:, :1, 2:]
    relative = to_relative(boxes, reference_size)
    for step in range(1, 11):
        relative = relative.detach().requires_grad_()
        iou = super_dimp.predict_iou(modulation, features, from_relative(relative, reference_size))
        (gradient,) = torch.autograd.grad(iou.sum(), relative)
        relative = relative.detach() + STEP_LENGTH * gradient
        if step in (1, 10):
            expected.check(f"iou_step{step}", iou)
            expected.check(f"grad_step{step}", gradient)
            expected.check(f"boxes_step{step}", from_relative(relative, reference_size))


def test_ascent_in_closed_form(
    super_dimp: SuperDiMP, classifier_outputs: dict[str, Tensor], reference: Callable[[str], Reference]
) -> None:
    """What the tracker runs: modulation and batch norm folded, gradient without autograd."""
    expected = reference("dimp_net")
    predict = super_dimp.bb_regressor.modulated((classifier_outputs["mod3"], classifier_outputs["mod4"])).on(
        (classifier_outputs["iou_feat3"], classifier_outputs["iou_feat4"])
    )
    start = expected["init_boxes"]
    for steps in (1, 10):
        settings = BoxRefinementSettings(iterations=steps, step_length=STEP_LENGTH)
        last_but_one = ascend(predict, start, BoxRefinementSettings(iterations=steps - 1))[0] if steps > 1 else start
        boxes, iou = ascend(predict, start, settings)
        gradient = relative_gradient(predict(last_but_one)[1], last_but_one, start[:1, 2:])
        expected.check(f"iou_step{steps}", iou[None])
        expected.check(f"grad_step{steps}", gradient[None])
        expected.check(f"boxes_step{steps}", boxes[None])


def test_closed_form_gradient_equals_autograd() -> None:
    """In double precision, with boxes inside, across the border, outside and without area."""
    torch.manual_seed(4)
    network = build_super_dimp(SUPER_DIMP_LITE).double().eval().requires_grad_(False).bb_regressor
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


def test_state_dict_has_the_keys_and_shapes_of_the_published_checkpoint(super_dimp: SuperDiMP) -> None:
    shapes = {key: tuple(value.shape) for key, value in super_dimp.state_dict().items()}
    assert shapes == key_shapes(SUPER_DIMP)


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
    classifier = build_super_dimp(SUPER_DIMP_LITE).classifier.requires_grad_(False)
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
    network = build_super_dimp(SUPER_DIMP_LITE)
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
