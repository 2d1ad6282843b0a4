"""The batched renderer draws what the renderer of single views draws."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from training_data import make_folder

from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.photometry import Degradation
from tracker_ar.data.synthetic.render import View, pack, render
from tracker_ar.data.synthetic.samples import Shot, plan_pair, take
from tracker_ar.data.synthetic.scene import Layer, Scene
from tracker_ar.data.synthetic.scenes import SceneSampler, SceneSettings
from tracker_ar.data.synthetic.torch_renderer import compressed, pack_shots, take_shots
from tracker_ar.data.training_samples import SequenceGeometry, SyntheticSource
from tracker_ar.train.rendered import RenderedSource, pair_batch, sequence_batch


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


def pictures(library: ImageLibrary, count: int, size: int) -> list[Shot]:
    sampler = SceneSampler(library)
    plans = [plan_pair(sampler, np.random.default_rng(seed), size) for seed in range(count)]
    return [shot for plan in plans for shot in (plan.reference, plan.search)]


def test_shots_look_like_those_taken_one_by_one(library: ImageLibrary) -> None:
    shots = pictures(library, 24, 96)
    changes = [shot.degradation for shot in shots]
    for kind in ("defocus", "motion", "noise", "quality"):
        assert any(getattr(change, kind) is not None for change in changes)
    images, masks = take_shots(pack_shots(shots, 96))
    differences, overlaps = [], []
    for shot, image, mask in zip(shots, images, masks):
        pixels, known = take(shot, 96)
        differences.append(np.abs(image.numpy().astype(int) - pixels).mean())
        overlaps.append(1 - (mask.numpy() ^ known).sum() / max(1, (mask.numpy() | known).sum()))
    assert np.median(differences) < 1.5 and max(differences) < 6.0
    assert np.median(overlaps) > 0.99 and min(overlaps) > 0.9


@pytest.mark.parametrize("quality", [25, 60, 90])
def test_compression_loses_what_jpeg_loses(quality: int) -> None:
    rng = np.random.default_rng(1)
    pixels = cv2.GaussianBlur(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8), (0, 0), 2.5)
    pixels = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX)
    _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(code, cv2.IMREAD_COLOR).astype(float)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    found = compressed(batch, torch.tensor([quality]))[0].permute(1, 2, 0).numpy()
    loss = np.abs(pixels - expected).mean()
    assert np.abs(found - expected).mean() < 0.35 * loss + 0.5


@pytest.mark.parametrize("motion", [(4, 0.0), (5, 0.7), (7, 1.5)])
def test_motion_blur_is_that_of_opencv(motion: tuple[int, float]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    scene = Scene((48, 48), [Layer([pixels], None, np.eye(3)[None])])
    tone = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    view = View(scene, 0, (0.0, 0.0, 48.0, 48.0), 48, cv2.BORDER_REPLICATE)
    shot = Shot(view, tone, Degradation(motion=motion), False, True)
    images, _ = take_shots(pack_shots([shot], 48))
    np.testing.assert_allclose(images[0].numpy().astype(int), take(shot, 48)[0], atol=1)


def test_rendered_batches_are_those_of_the_same_seeds(library: ImageLibrary) -> None:
    sampler = SceneSampler(library)
    here = torch.device("cpu")
    generators = [[np.random.default_rng(seed) for seed in range(6)] for _ in range(2)]
    ours, single = (
        pair_batch(kind(sampler), some, 64).to(here)
        for kind, some in zip((RenderedSource, SyntheticSource), generators)
    )
    assert torch.equal(ours.boxes, single.boxes)
    for name in ("references", "searches"):
        difference = (getattr(ours, name).float() - getattr(single, name).float()).abs()
        assert difference.mean() < 3 and getattr(ours, name).dtype == torch.uint8
    for name in ("reference_masks", "masks"):
        assert (getattr(ours, name) != getattr(single, name)).float().mean() < 0.02
    geometry = SequenceGeometry((1, 2), 64, 4.0, (1.0, 2.0), (0.1, 0.2))

    def propose(boxes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return boxes[1:].flatten(0, 1), torch.zeros(2), torch.ones(2)

    generators = [[np.random.default_rng(seed) for seed in range(4)] for _ in range(2)]
    ours, single = (
        sequence_batch(kind(sampler), some, geometry, propose).to(here)
        for kind, some in zip((RenderedSource, SyntheticSource), generators)
    )
    assert ours.images.shape == (12, 64, 64, 3)
    for name in ("boxes", "proposals", "drawn", "target"):
        assert torch.equal(getattr(ours, name), getattr(single, name))
    assert (ours.images.float() - single.images.float()).abs().flatten(1).mean(1).max() < 8
