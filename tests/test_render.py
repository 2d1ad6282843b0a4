"""The batched renderer draws what the renderer of single views draws."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_data import make_folder

from tracker_ar.data.library import ImageLibrary
from tracker_ar.data.render import View, pack, render
from tracker_ar.data.scene import Layer, Scene
from tracker_ar.data.synthetic import SceneSampler, SceneSettings


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ImageLibrary:
    return ImageLibrary(make_folder(tmp_path_factory.mktemp("data") / "set"))


def views_of(library: ImageLibrary, settings: SceneSettings, count: int, factor: float) -> list[View]:
    """Windows around targets, of several sides and both borders."""
    sampler = SceneSampler(library, settings)
    views = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scene = sampler.sample(rng, 2)
        x, y, w, h = scene.target_box(1)[0] if scene.target_box(1)[1] > 0 else (50.0, 50.0, 40.0, 40.0)
        centre = np.array([x + w / 2, y + h / 2])
        half = factor * np.array([max(w, 8), max(h, 8)]) / 2
        region = tuple(float(value) for value in (*(centre - half), *(centre + half)))
        border = cv2.BORDER_REPLICATE if seed % 2 else cv2.BORDER_CONSTANT
        views.append(View(scene, 1, region, int(rng.choice([40, 64, 96])), border))
    return views


def test_pixels_and_masks_are_those_of_single_views(library: ImageLibrary) -> None:
    settings = SceneSettings(clutter=1.0, occluder_share=0.5, elastic_share=0.6)
    views = views_of(library, settings, 24, 2.5)
    images, masks = render(pack(views, 96))
    assert images.shape == (24, 3, 96, 96) and masks.shape == (24, 96, 96) and masks.dtype == torch.uint8
    differences, overlaps = [], []
    for view, image, mask in zip(views, images, masks):
        pixels, known = view.scene.render(view.frame, view.region, (view.side, view.side), view.border)
        found = image[:, : view.side, : view.side].permute(1, 2, 0).numpy()
        differences.append(np.abs(found - pixels).mean())
        ours = mask[: view.side, : view.side].numpy()
        union = max(1, (ours | known).sum())
        overlaps.append(1 - (ours ^ known).sum() / union)
        assert not mask[view.side :].any() and not mask[:, view.side :].any()
    # OpenCV rounds positions to 1/32 pixel, and bends a layer before it moves it.
    assert np.median(differences) < 1.5 and max(differences) < 5.0
    assert np.median(overlaps) > 0.99 and min(overlaps) > 0.9


def test_a_shifted_square_is_exact() -> None:
    background = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    red = np.zeros((10, 20, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    opaque = np.full((10, 20), 255, np.uint8)
    place = np.array([[1, 0, 30], [0, 1, 40], [0, 0, 1.0]])
    tone = np.stack([np.full(256, value) for value in (9, 8, 7)], 1).astype(np.uint8)[None]
    scene = Scene(
        (80, 100),
        [
            Layer([background], None, np.eye(3)[None]),
            Layer([red], [opaque], place[None], [tone], is_target=True),
            Layer([red], [opaque], (place + [[0, 0, 15], [0, 0, 0], [0, 0, 0]])[None]),
        ],
    )
    view = View(scene, 0, (20.0, 30.0, 60.0, 70.0), 40, cv2.BORDER_REPLICATE)
    images, masks = render(pack([view], 40))
    pixels, known = scene.render(0, view.region, (40, 40), view.border)
    np.testing.assert_array_equal(images[0].permute(1, 2, 0), pixels)
    np.testing.assert_array_equal(masks[0], known)
    assert masks.sum() == 150 and (images[0][:, 12, 12] == torch.tensor([9.0, 8.0, 7.0])).all()


def test_beyond_the_frame_there_is_border_and_no_target(library: ImageLibrary) -> None:
    scene = SceneSampler(library, SceneSettings(real_share=1.0)).sample(np.random.default_rng(0), 1)
    height, width = scene.frame_size
    region = (-40.0, -40.0, width + 40.0, height + 40.0)
    sides = [View(scene, 0, region, 64, border) for border in (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)]
    images, masks = render(pack(sides, 64))
    assert not images[0, :, 0].any() and images[1, :, 0].any()
    assert torch.equal(images[1, :, 0], images[1, :, 1]) and not masks[:, 0].any()


def test_a_view_does_not_depend_on_the_others(library: ImageLibrary) -> None:
    views = views_of(library, SceneSettings(), 6, 3.0)
    together = render(pack(views, 96))
    for number, view in enumerate(views):
        alone = render(pack([view], 96))
        assert (together[0][number] - alone[0][0]).abs().max() <= 1.0
        assert torch.equal(together[1][number], alone[1][0])
