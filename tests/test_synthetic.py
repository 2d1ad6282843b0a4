"""The data generator: the folder's layout, exact masks and boxes, determinism."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_data import make_folder

from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.photometry import degrade, draw_degradation, tone_table
from tracker_ar.data.synthetic.samples import refiner_pair
from tracker_ar.data.synthetic.scene import Layer, Scene, warp, window_matrix
from tracker_ar.data.synthetic.scenes import SceneSampler, SceneSettings
from tracker_ar.data.training_samples import SequenceGeometry, SyntheticSource
from tracker_ar.errors import DataError
from tracker_ar.geometry import box_from_mask, box_iou


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ImageLibrary:
    return ImageLibrary(make_folder(tmp_path_factory.mktemp("data") / "set"))


def shifted(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def square_scene(occluder_at: float | None = None) -> Scene:
    """A red 20 x 10 target at (30, 40) on a random background of 100 x 80."""
    background = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    red = np.zeros((10, 20, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    opaque = np.full((10, 20), 255, np.uint8)
    layers = [Layer([background], None, np.eye(3)[None]), Layer([red], [opaque], shifted(30, 40)[None], is_target=True)]
    if occluder_at is not None:
        layers.append(Layer([red // 2], [opaque], shifted(occluder_at, 40)[None]))
    return Scene((80, 100), layers)


def test_library_finds_objects_regions_and_splits(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set")
    train, validation = ImageLibrary(folder), ImageLibrary(folder, "validation")
    assert (len(train.images), len(validation.images)) == (6, 2)
    assert len(train.objects["made"]) == 12
    assert len(train.regions) == 24
    ellipse = next(cutout for cutout in train.objects["made"] if cutout.label == 1)
    mask = train.mask_of(ellipse)
    x0, y0, x1, y1 = ellipse.box
    assert mask.sum() == ellipse.area
    np.testing.assert_array_equal(box_from_mask(mask), [x0, y0, x1 - x0, y1 - y0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "index.json: not found"),
        (lambda folder: (folder / "index.json").write_text("{"), "not a JSON list"),
        (lambda folder: (folder / "index.json").write_text("[]"), "empty"),
        (lambda folder: next((folder / "images").glob("*.jpg")).write_bytes(b"no"), "damaged, or not an image"),
        (lambda folder: [path.unlink() for path in (folder / "masks").iterdir()], "no object"),
    ],
)
def test_bad_folders_say_what_is_wrong(tmp_path: Path, damage, message: str) -> None:
    folder = make_folder(tmp_path / "set")
    damage(folder)
    with pytest.raises(DataError, match=message):
        for split in ("train", "validation"):
            ImageLibrary(folder, split)


def test_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set")
    name = json.loads((folder / "index.json").read_text())[0]["name"]
    cv2.imwrite(str(folder / "masks" / f"{name}.png"), np.ones((10, 10), np.uint8))
    with pytest.raises(DataError, match="10x10"):
        ImageLibrary(folder)


def test_window_at_full_scale_is_the_image_itself() -> None:
    scene = square_scene()
    whole, mask = scene.render(0, (0, 0, 100, 80), (80, 100), cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(np.argwhere(mask).min(0), (40, 30))
    np.testing.assert_array_equal(np.argwhere(mask).max(0), (49, 49))
    assert mask.sum() == 200
    assert (whole[mask == 1] == [255, 0, 0]).all()
    part, part_mask = scene.render(0, (20, 30, 60, 60), (30, 40), cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(part, whole[30:60, 20:60])
    np.testing.assert_array_equal(part_mask, mask[30:60, 20:60])


def test_beyond_the_frame_there_is_border_and_no_target() -> None:
    scene = square_scene()
    pixels, mask = scene.render(0, (-20, -10, 100, 80), (90, 120), cv2.BORDER_CONSTANT)
    assert not pixels[:10].any() and not pixels[:, :20].any()
    assert mask.sum() == 200
    scene.layers[1].matrices[0] = shifted(90, 40)
    _, mask = scene.render(0, (80, 30, 120, 60), (30, 40), cv2.BORDER_CONSTANT)
    assert mask.sum() == 100 and not mask[:, 20:].any()


def test_target_box_is_that_of_the_visible_part() -> None:
    box, share = square_scene().target_box(0)
    np.testing.assert_allclose(box, (30, 40, 20, 10), atol=0.2)
    assert share == 1.0
    box, share = square_scene(occluder_at=35).target_box(0)
    np.testing.assert_allclose(box, (30, 40, 5, 10), atol=0.6)
    assert share == pytest.approx(0.25, abs=0.03)
    assert square_scene(occluder_at=30).target_box(0)[1] == 0.0


def test_shrinking_averages_instead_of_aliasing() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 254
    small = warp(stripes, window_matrix((0, 0, 64, 64), (8, 8)), (8, 8))
    assert np.abs(small[1:-1, 1:-1].astype(int) - 127).max() <= 10


@pytest.mark.parametrize("real_share", [0.0, 1.0])
def test_scene_boxes_agree_with_rendered_masks(library: ImageLibrary, real_share: float) -> None:
    sampler = SceneSampler(library, SceneSettings(real_share=real_share))
    compared = 0
    for seed in range(12):
        scene = sampler.sample(np.random.default_rng(seed), 2)
        height, width = scene.frame_size
        _, mask = scene.render(1, (0, 0, width, height), (height, width), cv2.BORDER_REPLICATE)
        box, share = scene.target_box(1)
        assert 0.0 <= share <= 1.0
        if mask.sum() > 400:
            assert box_iou(box_from_mask(mask), box) > 0.85
            compared += 1
    assert compared >= 6


def test_reference_box_holds_the_target(library: ImageLibrary) -> None:
    sampler = SceneSampler(library, SceneSettings(real_share=1.0, region_share=0.0))
    pair = refiner_pair(sampler, np.random.default_rng(3), 96)
    assert pair.reference.shape == pair.search.shape == (96, 96, 3)
    assert pair.mask.dtype == np.uint8 and set(np.unique(pair.mask)) == {0, 1}
    np.testing.assert_allclose(pair.box, (23.5, 23.5, 48, 48))


def test_base_boxes_lie_on_the_target() -> None:
    class OneScene:
        def sample(self, rng: np.random.Generator, frames: int) -> Scene:
            scene = square_scene()
            layers = [
                Layer([layer.pixels[0] // (1 if layer.is_target else 4)] * frames,
                      None if layer.alpha is None else layer.alpha * frames,
                      np.repeat(layer.matrices, frames, 0), is_target=layer.is_target)
                for layer in scene.layers
            ]
            return Scene(scene.frame_size, layers)

    geometry = SequenceGeometry((2, 2), 128, 3.0, (1.0, 2.0), (0.1, 0.2))
    sequence = SyntheticSource(OneScene()).sequence(np.random.default_rng(1), geometry)
    assert sequence.images.shape == (4, 128, 128, 3) and sequence.boxes.shape == (4, 4)
    for pixels, (x, y, w, h) in zip(sequence.images, sequence.boxes):
        rows, columns = slice(int(y + h / 3), int(y + 2 * h / 3)), slice(int(x + w / 3), int(x + 2 * w / 3))
        inside, outside = pixels[rows, columns].astype(float), pixels[: max(1, int(y) - 4)].astype(float)
        assert inside.mean() > 1.3 * outside.mean()


def test_samples_depend_on_the_seed_alone(library: ImageLibrary) -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        sampler = SceneSampler(library)
        pair = refiner_pair(sampler, np.random.default_rng(seed), 64)
        geometry = SequenceGeometry((1, 1), 64, 5.0, (3.0, 4.5), (0.25, 0.5))
        sequence = SyntheticSource(sampler).sequence(np.random.default_rng(seed), geometry)
        return pair.search, sequence.images

    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any() and (first[1] != other[1]).any()


def test_photometry_keeps_type_and_shape() -> None:
    pixels = np.full((48, 48, 3), 100, np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        changed = degrade(pixels, draw_degradation(48, rng))
        assert changed.shape == pixels.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(tone_table(np.random.default_rng(0), 0.0)[0, :, 0], np.arange(256))
