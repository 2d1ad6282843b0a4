"""The ascent on the predicted IoU and the choice of a box, on a landscape made for it."""

from __future__ import annotations

import torch
from relative_boxes import from_relative, relative_gradient, to_relative
from torch import Tensor

from tracker_ar.base.box_refinement import ascend, best_box, jittered_boxes
from tracker_ar.base.settings import BoxRefinementSettings

SETTINGS = BoxRefinementSettings(iterations=200, step_length=0.05)
GOAL = torch.tensor([[30.0, 40.0, 60.0, 20.0]])
REFERENCE = torch.tensor([[50.0, 30.0]])


def landscape(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """A hill in relative space with its top at GOAL."""
    with torch.enable_grad():
        boxes = boxes.detach().requires_grad_()
        height = 1 - (to_relative(boxes, REFERENCE) - to_relative(GOAL, REFERENCE)).square().sum(1)
        (gradient,) = torch.autograd.grad(height.sum(), boxes)
    return height.detach(), gradient


def test_relative_space_and_back() -> None:
    torch.testing.assert_close(from_relative(to_relative(GOAL, REFERENCE), REFERENCE), GOAL)


def test_chain_rule() -> None:
    boxes = torch.tensor([[10.0, 12.0, 33.0, 44.0]], dtype=torch.float64)
    relative = to_relative(boxes, REFERENCE.double()).requires_grad_()
    (expected,) = torch.autograd.grad((from_relative(relative, REFERENCE.double()) ** 3).sum(), relative)
    torch.testing.assert_close(relative_gradient(3 * boxes**2, boxes, REFERENCE.double()), expected)


def test_the_ascent_reaches_the_top() -> None:
    start = torch.tensor([[25.0, 45.0, 50.0, 30.0], [40.0, 30.0, 80.0, 15.0]])
    boxes, iou = ascend(landscape, start, SETTINGS)
    torch.testing.assert_close(boxes, GOAL.expand(2, 4), atol=0.05, rtol=0)
    torch.testing.assert_close(iou, torch.ones(2), atol=1e-4, rtol=0)


def test_jittered_boxes_lie_around_the_first() -> None:
    box = torch.tensor([100.0, 80.0, 40.0, 10.0])
    middle = jittered_boxes(box, torch.full((3, 4), 0.5), SETTINGS)
    torch.testing.assert_close(middle, box.expand(4, 4))
    lowest = jittered_boxes(box, torch.zeros(1, 4), SETTINGS)[1]
    # Side 20: the centre moves by half of 0.1 x 20, sizes shrink by half of 0.5 x 20, but not under a third of 10.
    torch.testing.assert_close(lowest, torch.tensor([119.0 - 17.5, 84.0 - 2.5, 35.0, 5.0]))


def test_best_box_leaves_out_what_cannot_be() -> None:
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [2, 2, 10, 10], [0, 0, 90, 10], [0, 0, float("inf"), float("inf")],
         [float("nan"), 0, 10, 10], [4, 4, 10, 10], [50, 50, 10, 10]]
    )
    iou = torch.tensor([0.9, 0.8, 1.0, 1.0, 1.0, 0.7, 0.1])
    torch.testing.assert_close(best_box(boxes, iou, SETTINGS), torch.tensor([2.0, 2.0, 10.0, 10.0]))
    assert best_box(boxes[2:5], iou[2:5], SETTINGS) is None
