"""Refining the target's box by gradient ascent on the predicted IoU (ATOM, section 3.2).

The ascent of ATOM and DiMP runs in pixels, with steps in proportion to each box's own size; PrDiMP's in relative box
space: centre over a reference size, and the logarithm of the size. Boxes are x, y, w, h in pixels of the search region.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tracker_ar.base.settings import BoxRefinementSettings


def jittered_boxes(box: Tensor, noise: Tensor, settings: BoxRefinementSettings) -> Tensor:
    """The box (4,) followed by one variation of it per row of `noise`, (n, 4) uniform in [0, 1): (1 + n, 4)."""
    side = torch.sqrt(box[2:].prod())
    amount = torch.tensor([settings.jitter_position] * 2 + [settings.jitter_size] * 2)
    offsets = (noise - 0.5) * (side * amount)
    sizes = (box[2:] + offsets[:, 2:]).clamp(min=box[2:].min() / 3)
    centers = box[:2] + box[2:] / 2 + offsets[:, :2]
    return torch.cat((box[None], torch.cat((centers - sizes / 2, sizes), dim=1)))


def ascend(
    predict: Callable[[Tensor], tuple[Tensor, Tensor]], boxes: Tensor, settings: BoxRefinementSettings
) -> tuple[Tensor, Tensor]:
    """Climb the predicted IoU.

    predict maps boxes (n, 4) to their IoU (n,) and its gradient for the boxes (n, 4). Returns the boxes after the last
    step, (n, 4), and the IoU predicted before it, (n,), as the reference does.
    """
    climb = _ascend_in_pixels if settings.space == "pixels" else _ascend_relatively
    return climb(predict, boxes.clone(), settings)


def _ascend_in_pixels(
    predict: Callable[[Tensor], tuple[Tensor, Tensor]], boxes: Tensor, settings: BoxRefinementSettings
) -> tuple[Tensor, Tensor]:
    for _ in range(settings.iterations):
        iou, gradient = predict(boxes)
        boxes += settings.step_length * gradient * boxes[:, 2:].repeat(1, 2)
    return boxes, iou


def _ascend_relatively(
    predict: Callable[[Tensor], tuple[Tensor, Tensor]], boxes: Tensor, settings: BoxRefinementSettings
) -> tuple[Tensor, Tensor]:
    # In pixels: a step along a relative centre, over the reference size, is one of its square along the centre.
    pixels = settings.step_length * boxes[:1, 2:].square()
    corners, sizes = boxes[:, :2], boxes[:, 2:]
    centers, log_sizes = corners + 0.5 * sizes, sizes.log()
    for _ in range(settings.iterations):
        iou, gradient = predict(boxes)
        of_corner, of_size = gradient[:, :2], gradient[:, 2:]
        centers.addcmul_(of_corner, pixels)
        log_sizes.addcmul_(torch.sub(of_size, of_corner, alpha=0.5), sizes, value=settings.step_length)
        torch.exp(log_sizes, out=sizes)
        torch.sub(centers, sizes, alpha=0.5, out=corners)
    return boxes, iou


def best_box(boxes: Tensor, iou: Tensor, settings: BoxRefinementSettings) -> Tensor | None:
    """Mean (4,) of the `top_k` boxes of highest predicted IoU, without those of extreme aspect or that are not finite;
    None if none is left."""
    boxes = torch.cat((boxes[:, :2], boxes[:, 2:].clamp(min=1)), dim=1)
    aspect = boxes[:, 2] / boxes[:, 3]
    sane = (aspect < settings.maximal_aspect_ratio) & (aspect > 1 / settings.maximal_aspect_ratio)
    sane &= torch.isfinite(boxes).all(dim=1)
    boxes, iou = boxes[sane], iou[sane]
    if not len(boxes):
        return None
    best = torch.topk(iou, min(settings.top_k, len(boxes))).indices
    return boxes[best].mean(dim=0)
