"""Readers of the published data sets, on miniature copies: layouts, offsets, visibility, errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import dataset_copies as copies
import numpy as np
import pytest
from training_data import make_folder

from tracker_ar.data.datasets import coco as coco_module
from tracker_ar.data.datasets.catalogue import CATALOGUE, open_dataset
from tracker_ar.data.datasets.coco import COCO, fill
from tracker_ar.data.datasets.davis import DAVIS
from tracker_ar.data.datasets.got10k import GOT10k
from tracker_ar.data.datasets.index_cache import cached_index
from tracker_ar.data.datasets.lasot import LaSOT, names_of_test_set
from tracker_ar.data.datasets.saliency import Saliency
from tracker_ar.data.datasets.trackingnet import TrackingNet
from tracker_ar.data.datasets.youtube_vos import YouTubeVOS
from tracker_ar.data.synthetic.dataset import SyntheticVideos
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.errors import DataError
from tracker_ar.geometry import box_from_mask, box_iou


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHAREFINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copies.all_sets(tmp_path_factory.mktemp("sets"))
    make_folder(root / "synthetic")
    copies.davis(root / "davis2016", year=2016)
    shutil.copytree(root / "GOT-10k" / "train", root / "GOT-10k" / "val")
    return root


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_set_reads_with_its_box_on_the_target(name: str, sets: Path) -> None:
    dataset = open_dataset(name, sets, {"davis2016": sets / "davis2016"})
    track = dataset.track(0)
    assert len(dataset) >= 1 and track.visible.dtype == bool
    assert (len(track.visible) > 1) == dataset.is_video
    for index in np.flatnonzero(track.visible)[:3]:
        frame = track.frame(int(index))
        assert frame.usable and frame.image.dtype == np.uint8 and frame.image.ndim == 3
        assert (frame.mask is not None) == dataset.has_masks
        if not name.startswith("synthetic"):
            # The rectangle is where `picture` drew it: pixels that count from 1 are taken off.
            np.testing.assert_array_equal(frame.box, (8 + index, 10, 20, 16))
            x, y, w, h = frame.box.astype(int)
            inside = frame.image[y + 3 : y + h - 3, x + 3 : x + w - 3].reshape(-1, 3)
            np.testing.assert_allclose(inside, np.broadcast_to((90, 200, 30), inside.shape), atol=16)
        if frame.mask is not None:
            assert frame.mask.dtype == np.uint8 and set(np.unique(frame.mask)) == {0, 1}
            assert box_iou(box_from_mask(frame.mask), frame.box) > 0.85


def test_visibility_comes_from_the_labels(sets: Path) -> None:
    np.testing.assert_array_equal(GOT10k(sets / "GOT-10k").track(0).visible, [1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(LaSOT(sets / "LaSOT").track(0).visible, [1, 0, 1, 1, 0, 1])
    assert TrackingNet(sets / "TrackingNet", (2,)).track(0).visible.all()


def test_lasot_splits_are_those_of_the_paper(sets: Path) -> None:
    names = names_of_test_set()
    assert len(names) == 280 and {"airplane-1", "zebra-10"} <= names and "airplane-2" not in names
    def found(split: str) -> list[str]:
        return [folder.name for folder in LaSOT(sets / "LaSOT", split).folders]
    assert found("train") == ["airplane-2", "zebra-1"]
    assert found("test") == ["airplane-1", "zebra-10"]
    assert len(found("all")) == 4


def test_got10k_keeps_and_leaves_out_what_files_name(sets: Path, tmp_path: Path) -> None:
    numbers, names = tmp_path / "numbers.txt", tmp_path / "names.txt"
    numbers.write_text("0\n2\n")
    names.write_text("GOT-10k_Train_000001\n")
    kept = GOT10k(sets / "GOT-10k", only=numbers, without=names)
    assert kept.names == ["GOT-10k_Train_000003"]
    assert len(GOT10k(sets / "GOT-10k" / "train")) == 3
    numbers.write_text("3\n")
    with pytest.raises(DataError, match="sequence 3"):
        GOT10k(sets / "GOT-10k", only=numbers)
    names.write_text("GOT-10k_Train_000009\n")
    with pytest.raises(DataError, match="000009"):
        GOT10k(sets / "GOT-10k", without=names)


def test_objects_of_palette_masks_are_told_apart(sets: Path) -> None:
    videos = YouTubeVOS(sets / "YouTube-VOS")
    assert len(videos) == 2
    second = videos.track(1)
    assert len(second.visible) == 3
    np.testing.assert_array_equal(second.frame(0).box, (50, 40, 10, 6))
    davis = DAVIS(sets / "DAVIS")
    assert [label for _, label in davis.targets] == [1, 2]  # and not 255, which is undecided
    np.testing.assert_array_equal(davis.track(1).frame(3).box, (50, 40, 10, 6))


def test_an_object_that_has_left_gives_an_unusable_frame(tmp_path: Path) -> None:
    root = copies.davis(tmp_path)
    copies.palette_mask(root / "Annotations/480p/bear/00002.png", np.zeros(copies.SIZE, np.uint8))
    track = DAVIS(root).track(0)
    assert track.frame(1).usable and not track.frame(2).usable


def test_outlines_fill_the_pixels_they_surround() -> None:
    square = np.array([[4, 6], [14, 6], [14, 10], [4, 10]], np.float32)
    mask = fill([square, square + [20, 0]], (20, 40))
    np.testing.assert_array_equal(box_from_mask(mask), (4, 6, 30, 4))
    assert mask.sum() == 2 * 10 * 4
    beyond = [square + [30, -8]]
    np.testing.assert_array_equal(fill(beyond, (20, 40)), fill(beyond, (40, 60))[:20, :40])
    assert fill([square - 100], (20, 40)).sum() == 0


def test_coco_reads_its_annotations_once(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = COCO(sets / "COCO")
    monkeypatch.setattr(coco_module, "build_index", lambda path: pytest.fail("read again"))
    second = COCO(sets / "COCO")
    assert len(first) == len(second) == 3  # and not the crowd
    np.testing.assert_array_equal(first.track(1).frame(0).mask, second.track(1).frame(0).mask)


def test_a_damaged_or_outdated_cache_is_made_anew(tmp_path: Path) -> None:
    source, folder, calls = tmp_path / "notes.json", tmp_path / "kept", []

    def build(path: Path) -> dict[str, np.ndarray]:
        calls.append(path)
        return {"size": np.array([len(path.read_text())])}

    source.write_text("one")
    for expected in (1, 1):
        assert cached_index(source, build, folder)["size"] == 3 and len(calls) == expected
    next(folder.iterdir()).write_bytes(b"PK broken")
    assert cached_index(source, build, folder)["size"] == 3 and len(calls) == 2
    source.write_text("three")
    assert cached_index(source, build, folder)["size"] == 5 and len(calls) == 3
    assert cached_index(source, build, source / "no-folder")["size"] == 5


@pytest.mark.parametrize(
    ("make", "damage", "open_set", "message"),
    [
        (copies.got10k, "train/list.txt", GOT10k, "list.txt not found(.|\n)*groundtruth.txt"),
        (copies.got10k, "train/GOT-10k_Train_000001/cover.label", GOT10k, "cover.label: cannot be read"),
        (copies.lasot, "airplane", lambda root: LaSOT(root / "zebra"), "no train seq(.|\n)*full_occlusion"),
        (copies.lasot, "airplane/airplane-2/img", LaSOT, "00000001.jpg: missing"),
        (copies.trackingnet, "TRAIN_2/anno", TrackingNet, "TRAIN_2/anno not found(.|\n)*frames/VIDEO"),
        (copies.youtube_vos, "train/Annotations", YouTubeVOS, "Annotations not found(.|\n)*meta.json"),
        (copies.youtube_vos, "train/Annotations/abc", YouTubeVOS, "00000.png: missing"),
        (copies.davis, "ImageSets", DAVIS, "train.txt not found(.|\n)*JPEGImages/480p"),
        (copies.coco, "train2017", COCO, "train2017(.|\n)*annotations/instances"),
    ],
)
def test_what_is_missing_is_named_with_the_layout(
    make: Callable, damage: str, open_set: Callable, message: str, tmp_path: Path
) -> None:
    root = make(tmp_path / "set")
    path = root / damage
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=message):
        open_set(root).track(0).frame(0)


def test_damaged_annotations_are_named(tmp_path: Path) -> None:
    root = copies.got10k(tmp_path / "got")
    boxes = root / "train/GOT-10k_Train_000001/groundtruth.txt"
    boxes.write_text("1,2,3\n")
    with pytest.raises(DataError, match="rows of 4"):
        GOT10k(root).track(0)
    boxes.write_text("1,2,3,x\n")
    with pytest.raises(DataError, match="something else than numbers"):
        GOT10k(root).track(0)
    boxes.write_text("1,2,3,4\n")
    with pytest.raises(DataError, match="6 entries, but the sequence has 1"):
        GOT10k(root).track(0)
    notes = copies.coco(tmp_path / "coco") / "annotations/instances_train2017.json"
    notes.write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match="not a COCO instances file"):
        COCO(tmp_path / "coco")
    meta = copies.youtube_vos(tmp_path / "vos") / "train/meta.json"
    meta.write_text("[]")
    with pytest.raises(DataError, match="videos"):
        YouTubeVOS(tmp_path / "vos")


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    root = copies.saliency(tmp_path, "ECSSD")
    cv2.imwrite(str(root / "ground_truth_mask/0000.png"), np.full((5, 6), 255, np.uint8))
    with pytest.raises(DataError, match="6x5, its image 64x48"):
        Saliency(root, "ECSSD").track(0).frame(0)


def test_unknown_and_missing_sets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set 'imagenet'; there are lasot"):
        open_dataset("imagenet", tmp_path)
    with pytest.raises(DataError, match="LaSOT: no such folder(.|\n)*--dataset lasot=FOLDER"):
        open_dataset("lasot", tmp_path)


def test_a_synthetic_track_is_the_same_whenever_it_is_drawn(sets: Path) -> None:
    videos = SyntheticVideos(SceneSampler(ImageLibrary(sets / "synthetic")), frames=3)
    first, again, other = videos.track(5), videos.track(5), videos.track(6)
    np.testing.assert_array_equal(first.frame(2).image, again.frame(2).image)
    assert first.scene.frame_size != other.scene.frame_size or (first.frame(2).image != other.frame(2).image).any()
