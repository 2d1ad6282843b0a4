"""Precise RoI pooling against recorded values and gradients, and against its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from recorded import Reference
from torch import Tensor

from tracker_ar.ops.prroi_pool import prroi_pool2d, prroi_pool_boxes


def case_features(case: str, expected: Reference) -> Tensor:
    if f"{case}.feat" in expected.arrays:
        return expected[f"{case}.feat"]
    # Too large to be stored: the stream they were drawn from, held against the stored samples.
    shape = tuple(expected[f"{case}.feat.shape"].tolist())
    features = np.random.Generator(np.random.Philox(key=12)).standard_normal(shape, dtype=np.float32)
    samples = (np.arange(1024) * features.size) // 1024
    np.testing.assert_array_equal(features.reshape(-1)[samples], expected[f"{case}.feat.sub"])
    return torch.from_numpy(features)


@pytest.mark.parametrize("case", ["c0", "c1", "c2", "c3", "c4"])
def test_values_and_gradients(case: str, reference: Callable[[str], Reference]) -> None:
    expected = reference("prroi")
    rows, columns, stride = expected[f"{case}.cfg"].tolist()
    features = case_features(case, expected).requires_grad_()
    rois = expected[f"{case}.rois"].requires_grad_()
    pooled = prroi_pool2d(features, rois, (rows, columns), 1.0 / stride)
    pooled.backward(expected[f"{case}.gout"])
    expected.check(f"{case}.out", pooled)
    expected.check(f"{case}.gfeat", features.grad)
    expected.check(f"{case}.grois", rois.grad)


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[1, 3.3, 4.1, 31.7, 39.9], [0, -9.3, 11.2, 20.6, 63.1]], dtype=torch.float64)
    coordinates = rois[:, 1:].clone().requires_grad_()

    def pool(features: Tensor, coordinates: Tensor) -> Tensor:
        return prroi_pool2d(features, torch.cat((rois[:, :1], coordinates), dim=1), (2, 3), 1 / 8)

    assert torch.autograd.gradcheck(pool, (features, coordinates))


def test_mean_of_the_bilinear_surface() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    box = torch.tensor([[1.3, 2.2, 6.1, 4.9]], dtype=torch.float64)
    pooled = prroi_pool_boxes(features, box[None], (2, 2), 1.0)[0, 0]
    points = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    x = box[0, 0] + points * (box[0, 2] - box[0, 0])
    y = box[0, 1] + points * (box[0, 3] - box[0, 1])
    grid = torch.stack(torch.broadcast_tensors(x[None, :] / 4 - 1, y[:, None] / 4 - 1), dim=-1)
    surface = torch.nn.functional.grid_sample(features, grid[None], align_corners=True)
    torch.testing.assert_close(pooled, torch.nn.functional.avg_pool2d(surface, 200)[0], rtol=1e-4, atol=1e-4)


def test_a_box_without_area_gives_zeros_and_no_gradient() -> None:
    features = torch.ones(1, 1, 4, 4)
    rois = torch.tensor([[0.0, 2.0, 1.0, 2.0, 3.0], [0.0, 3.0, 3.0, 1.0, 1.0]], requires_grad=True)
    pooled = prroi_pool2d(features, rois, (2, 2), 1.0)
    pooled.sum().backward()
    assert not pooled.any() and not rois.grad.any()
