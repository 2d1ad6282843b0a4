"""The networks of DiMP, PrDiMP and SuperDiMP against recorded outputs of the authors' networks, stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from four_samples import BOXES, train_images
from recipe import SUPER_DIMP, net_input
from recorded import Reference, key_shapes, load_recipe
from relative_boxes import from_relative, relative_gradient, to_relative
from torch import Tensor

from tracker_ar.base.box_refinement import ascend
from tracker_ar.base.settings import BoxRefinementSettings
from tracker_ar.models.density_filter import DensityFilterOptimizer, score_density
from tracker_ar.models.dimp import DIMP_18, DIMP_50, PRDIMP_18, PRDIMP_50, SUPER_DIMP_50, DiMP, DiMPConfig, build_dimp
from tracker_ar.models.target_filter import FilterOptimizer


@dataclass(frozen=True)
class Recorded:
    """One network: its references were made from images of this side, its boxes climb as these settings say."""

    config: DiMPConfig
    references: str
    side: int
    refinement: BoxRefinementSettings


PIXELS = BoxRefinementSettings(space="pixels", iterations=5, step_length=1.0)
RELATIVE = BoxRefinementSettings(space="relative", iterations=10, step_length=2.5e-3)
NETS = {
    SUPER_DIMP: Recorded(SUPER_DIMP_50, "dimp_net", 352, RELATIVE),
    "dimp18": Recorded(DIMP_18, "dimp18_net", 288, PIXELS),
    "dimp50": Recorded(DIMP_50, "dimp50_net", 288, PIXELS),
    "prdimp18": Recorded(PRDIMP_18, "prdimp18_net", 288, RELATIVE),
    "prdimp50": Recorded(PRDIMP_50, "prdimp50_net", 352, RELATIVE),
}
STAGES = [
    "bf.layer2", "bf.layer3", "clf", "filter_init", "filter_it1", "loss_it1", "filter_it2", "loss_it2", "filter_it10",
    "loss_it10", "filter_upd2_weighted", "test_clf", "scores", "scores_train", "mod3", "mod4", "iou_feat3", "iou_feat4",
]
LABELS = {FilterOptimizer: ["label_map", "target_mask"], DensityFilterOptimizer: ["label_density", "probabilities"]}


@cache
def network(net: str) -> DiMP:
    return load_recipe(build_dimp(NETS[net].config), net)


@cache
@torch.no_grad()
def outputs(net: str) -> dict[str, Tensor]:
    dimp, side = network(net), NETS[net].side
    classifier, boxes = dimp.classifier, BOXES[side]
    backbone = dimp.extract_backbone(train_images(side))
    features = dimp.classification_features(backbone)
    initial = classifier.initial_filter(features, boxes)
    seen = {f"bf.{name}": layer for name, layer in backbone.items()}
    seen |= {"clf": features, "filter_init": initial}
    unrolled = classifier.unroll(initial, features, boxes, 10)
    for count in (1, 2, 10):
        seen[f"filter_it{count}"] = unrolled.filters[count]
        seen[f"loss_it{count}"] = torch.stack(unrolled.losses[: count + 1])
    final = seen["filter_it10"]
    sample_weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    seen["filter_upd2_weighted"] = classifier.optimize_filter(final, features, boxes, 2, sample_weights)
    test_backbone = dimp.extract_backbone(torch.from_numpy(net_input(side + 1, side)))
    seen["test_clf"] = dimp.classification_features(test_backbone)
    seen["scores"] = classifier.scores(final, seen["test_clf"])
    seen["scores_train"] = classifier.scores(final, features)
    cells = tuple(seen["scores"].shape[2:])
    optimizer = classifier.filter_optimizer
    if isinstance(optimizer, FilterOptimizer):
        seen["label_map"], seen["target_mask"], _ = optimizer.target_maps(boxes[:, None], 4, cells)
    else:
        seen["label_density"] = optimizer.label_density(boxes[:, None], 4, cells)
        seen["probabilities"] = score_density(seen["scores"])
    first = {name: layer[:1] for name, layer in backbone.items()}
    seen["mod3"], seen["mod4"] = dimp.iou_modulation(first, boxes[:1])
    seen["iou_feat3"], seen["iou_feat4"] = dimp.iou_features(test_backbone)
    return seen


@pytest.mark.parametrize("net", NETS)
def test_stages(net: str, reference: Callable[[str], Reference]) -> None:
    expected = reference(NETS[net].references)
    for name in STAGES + LABELS[type(network(net).classifier.filter_optimizer)]:
        expected.check(name, outputs(net)[name])


@pytest.mark.parametrize("net", [SUPER_DIMP, "prdimp50", "dimp18"])
def test_ascent_by_autograd(net: str, reference: Callable[[str], Reference]) -> None:
    """As the authors climb it: in the relative box space, or in pixels with steps scaled by the box's own size."""
    expected, settings, seen = reference(NETS[net].references), NETS[net].refinement, outputs(net)
    space = settings.space == "relative"
    boxes = expected["init_boxes"][None]
    reference_size = boxes[:, :1, 2:]
    place = to_relative(boxes, reference_size) if space else boxes
    for step in range(1, settings.iterations + 1):
        place = place.detach().requires_grad_()
        boxes = from_relative(place, reference_size) if space else place
        features = seen["iou_feat3"], seen["iou_feat4"]
        iou = network(net).predict_iou((seen["mod3"], seen["mod4"]), features, boxes)
        (gradient,) = torch.autograd.grad(iou.sum(), place)
        scale = 1.0 if space else place.detach()[..., 2:].repeat(1, 1, 2)
        place = place.detach() + settings.step_length * gradient * scale
        if step in (1, settings.iterations):
            expected.check(f"iou_step{step}", iou)
            expected.check(f"grad_step{step}", gradient)
            expected.check(f"boxes_step{step}", from_relative(place, reference_size) if space else place)


@pytest.mark.parametrize("net", NETS)
def test_ascent_in_closed_form(net: str, reference: Callable[[str], Reference]) -> None:
    """What the tracker runs: modulation and batch norm folded, gradient without autograd."""
    expected, settings, seen = reference(NETS[net].references), NETS[net].refinement, outputs(net)
    predict = network(net).bb_regressor.modulated((seen["mod3"], seen["mod4"])).on(
        (seen["iou_feat3"], seen["iou_feat4"])
    )
    start = expected["init_boxes"]
    for steps in (1, settings.iterations):
        before = ascend(predict, start, replace(settings, iterations=steps - 1))[0] if steps > 1 else start
        boxes, iou = ascend(predict, start, replace(settings, iterations=steps))
        gradient = predict(before)[1]
        if settings.space == "relative":
            gradient = relative_gradient(gradient, before, start[:1, 2:])
        expected.check(f"iou_step{steps}", iou[None])
        expected.check(f"grad_step{steps}", gradient[None])
        expected.check(f"boxes_step{steps}", boxes[None])


@pytest.mark.parametrize("net", NETS)
def test_state_dict_has_the_keys_and_shapes_of_the_published_checkpoint(net: str) -> None:
    shapes = {key: tuple(value.shape) for key, value in network(net).state_dict().items()}
    assert shapes == key_shapes(net)
