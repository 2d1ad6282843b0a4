"""The parts of RT-MDNet that draw and learn, against recorded runs of the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from recorded import DATA, key_shapes, load_recipe
from trace_notes import samples

from tracker_ar.base.box_regression import fit_box_regression
from tracker_ar.base.candidates import draw, draw_overlapping
from tracker_ar.base.hard_negatives import Descent, TrainingSettings
from tracker_ar.base.rt_mdnet import RegressionSettings, RTMDNetSettings
from tracker_ar.base.scenes import scene_edges
from tracker_ar.models.mdnet import MDNet, scores

PARTS = np.load(DATA / "family" / "rtmdnet_parts.npz")
SETTINGS = RTMDNetSettings()
TARGET, SIZE = np.array([110.0, 60, 48, 64]), (240, 320)
LAYERS = [key for key in key_shapes("rtmdnet") if not key.startswith("layers.conv")]


def close(key: str, actual: object, rtol: float) -> None:
    """Within `rtol` of the largest recorded value; long arrays are recorded as samples."""
    expected = PARTS[key if key in PARTS else f"{key}.sub"]
    actual = np.asarray(actual)
    actual = actual.reshape(expected.shape) if key in PARTS else samples(actual, expected.size)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max(), err_msg=key)


@pytest.fixture(scope="module")
def features() -> list[torch.Tensor]:
    """Positives, negatives, and of as many boxes as there are for the regression."""
    random = np.random.Generator(np.random.Philox(key=6001))
    made = []
    for count, offset in ((64, 0.3), (1500, 0), (200, 0)):
        made.append(np.maximum(random.standard_normal((count, 4608), dtype=np.float32) + np.float32(offset), 0))
    return [torch.from_numpy(some) for some in made]


def test_three_iterations(features: list[torch.Tensor]) -> None:
    positives, negatives, _ = features
    layers = load_recipe(MDNet(), "rtmdnet").initial_layers()
    before = [layer.clone() for layer in layers]
    shown = torch.cat((positives, negatives[:64]))
    close("scores_before", scores(layers, shown), 1e-5)
    descent = Descent(layers, SETTINGS.first_frame.rate, TrainingSettings())
    descent.train(positives, negatives, 3, RandomState(7), RandomState(1))
    close("scores_after", scores(layers, shown), 1e-5)
    for key, layer, start in zip(LAYERS, layers, before, strict=True):
        close(f"change.{key}", layer - start, 1e-2)


def test_box_regression(features: list[torch.Tensor]) -> None:
    settings = RegressionSettings()
    examples = draw_overlapping(RandomState(11), settings.spread, TARGET, SIZE, 200, settings.overlap, settings.area)
    np.testing.assert_array_equal(examples, PARTS["bbreg.examples"])
    known = features[2][: len(examples)]
    regression = fit_box_regression(known, examples, TARGET, settings.regularization, settings.overlap, settings.area)
    close("bbreg.coef", regression.coefficients, 1e-5)
    close("bbreg.intercept", regression.intercept, 1e-5)
    close("bbreg.out", regression.improved(known[:5], examples[:5], SIZE), 1e-6)


def test_boxes_drawn() -> None:
    """To the last bit, and so are their places in a scene that begins at the image's corner."""
    random, first = RandomState(0), SETTINGS.first_frame.samples
    drawn = {
        "gaussian_pos": draw_overlapping(random, first.positive_spread, TARGET, SIZE, 60, first.positive_overlap),
        "uniform_neg": draw_overlapping(random, first.negative_spread, TARGET, SIZE, 200, first.negative_overlap),
        "gaussian_search": draw(random, SETTINGS.spread, TARGET, SIZE, 256),
    }
    for name, boxes in drawn.items():
        np.testing.assert_array_equal(boxes, PARTS[f"samples.{name}"])
        edges = scene_edges(boxes, np.zeros(2, np.float32), 107 / TARGET[2:], SETTINGS.scene.padding)
        np.testing.assert_array_equal(edges, PARTS[f"rois.{name}"])
