"""Which frames are drawn, from which set, and what their crops show."""

from __future__ import annotations

from pathlib import Path

import dataset_copies as copies
import numpy as np
import pytest
from training_data import make_folder

from tracker_ar.data.datasets.coco import COCO
from tracker_ar.data.datasets.davis import DAVIS
from tracker_ar.data.datasets.got10k import GOT10k
from tracker_ar.data.datasets.lasot import LaSOT
from tracker_ar.data.datasets.saliency import Saliency
from tracker_ar.data.datasets.youtube_vos import YouTubeVOS
from tracker_ar.data.mixture import FrameSampling, Mixture, choose_frames
from tracker_ar.data.synthetic.dataset import SyntheticVideos
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.data.training_samples import (
    Augmentation,
    MixedPairs,
    MixedSequences,
    SequenceGeometry,
    SyntheticSource,
    jittered_box,
)
from tracker_ar.errors import DataError
from tracker_ar.geometry import box_from_mask, box_iou

PLAIN = Augmentation(brightness=0.0, grey=0.0, flip_all=0.0, flip_each=0.0)
PAIR = FrameSampling(1, 1, 50, shortest=2)
REGIONS = SequenceGeometry((2, 1), 96, 4.0, (0.5, 2.0), (0.1, 0.2))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHAREFINE_CACHE", str(tmp_path / "cache"))


def seeds(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


def test_frames_are_visible_and_within_the_gap() -> None:
    visible = np.random.default_rng(0).random(300) < 0.4
    sampling = FrameSampling(3, 3, 40)
    for rng in seeds(50):
        train, test = choose_frames(visible, sampling, rng)
        assert len(train) == len(test) == 3
        assert visible[train + test].all()
        assert max(abs(index - train[0]) for index in train + test) <= 40
        assert not set(train) & set(test) and len(set(train)) == 3


def test_causal_test_frames_come_later() -> None:
    visible = np.random.default_rng(1).random(120) < 0.3
    for rng in seeds(50):
        train, test = choose_frames(visible, FrameSampling(2, 2, 20, "causal"), rng)
        assert max(train) == train[0] < min(test) and visible[train + test].all()


@pytest.mark.parametrize("mode", ["interval", "causal"])
def test_the_gap_grows_until_there_are_frames(mode: str) -> None:
    visible = np.zeros(400, bool)
    visible[::40] = True
    train, test = choose_frames(visible, FrameSampling(2, 1, 10, mode), np.random.default_rng(0))
    assert visible[train + test].all() and abs(train[0] - test[0]) >= 40


def test_too_few_visible_frames_are_passed_over() -> None:
    visible = np.zeros(100, bool)
    visible[:12] = True
    rng = np.random.default_rng(0)
    assert choose_frames(visible, FrameSampling(3, 3, 50), rng) is None
    assert choose_frames(np.ones(19, bool), FrameSampling(1, 1, 50), rng) is None
    assert choose_frames(np.ones(20, bool), FrameSampling(1, 1, 50), rng) is not None
    assert choose_frames(np.zeros(1, bool), PAIR, rng, is_video=False) is None
    still = choose_frames(np.ones(1, bool), FrameSampling(2, 3, 50), rng, is_video=False)
    assert still == ([0, 0], [0, 0, 0])


def test_sets_are_drawn_by_weight(tmp_path: Path) -> None:
    videos = YouTubeVOS(copies.youtube_vos(tmp_path / "vos"))
    stills = Saliency(copies.saliency(tmp_path / "ecssd", "ECSSD"), "ECSSD")
    drawn = []
    for dataset in (videos, stills):
        read = dataset.track
        def counted(index: int, read=read, name=dataset.name):
            drawn.append(name)
            return read(index)
        dataset.track = counted
    mixture = Mixture([videos, stills], [1.0, 3.0])
    assert str(mixture) == "YouTube-VOS 25% (2 targets), ECSSD 75% (3 targets)"
    rng = np.random.default_rng(3)
    for _ in range(200):
        mixture.draw(rng, PAIR)
    # Its second object is in too few frames, so YouTube-VOS is asked a little more often.
    fraction = drawn.count("ECSSD") / len(drawn)
    assert 0.6 < fraction < 0.85


def test_mixtures_that_cannot_be_drawn_from_are_refused(tmp_path: Path) -> None:
    got10k = GOT10k(copies.got10k(tmp_path / "got"))
    with pytest.raises(DataError, match="positive weight"):
        Mixture([got10k], [0.0])
    got10k.names = []
    with pytest.raises(DataError, match="no target: GOT-10k"):
        Mixture([got10k], [1.0])
    short = Mixture([LaSOT(copies.lasot(tmp_path / "lasot"))], [1.0])
    with pytest.raises(DataError, match="too few visible frames(.|\n)*at least 20"):
        short.draw(np.random.default_rng(0), FrameSampling(3, 3, 200))
    with pytest.raises(DataError, match="LaSOT: the refiner learns from masks"):
        MixedPairs(short, PAIR, PLAIN)


def test_frames_whose_mask_is_empty_are_not_used(tmp_path: Path) -> None:
    root = copies.davis(tmp_path, frames=12)
    for number in range(0, 12, 2):
        mask = root / f"Annotations/480p/bear/{number:05d}.png"
        copies.palette_mask(mask, np.full(copies.SIZE, 2, np.uint8))
    dataset = DAVIS(root)
    dataset.targets = [("bear", 1)]
    for rng in seeds(20):
        frames = Mixture([dataset], [1.0]).draw(rng, FrameSampling(1, 2, 50, shortest=2))
        assert all(frame.usable for frame in frames[0] + frames[1])


def mixture(root: Path) -> Mixture:
    sets = [YouTubeVOS(copies.youtube_vos(root / "vos", 8)), COCO(copies.coco(root / "coco"))]
    sets.append(Saliency(copies.saliency(root / "duts", "DUTS"), "DUTS"))
    return Mixture(sets, [1.0, 1.0, 1.0])


def test_pairs_show_the_target_under_their_masks(tmp_path: Path) -> None:
    source = MixedPairs(mixture(tmp_path), PAIR, Augmentation())
    for rng in seeds(20):
        pair = source.pair(rng, 64)
        assert pair.reference.shape == pair.search.shape == (64, 64, 3)
        assert set(np.unique(pair.mask)) <= {0, 1} and pair.mask.dtype == np.uint8
        assert box_iou(box_from_mask(pair.reference_mask), pair.box) > 0.8
        inside = pair.search[pair.mask == 1].mean(0)
        outside = pair.search[(pair.mask == 0) & pair.search.any(2)].mean(0)
        assert inside.mean() > outside.mean() + 20 or len(np.unique(pair.search[pair.mask == 1])) < 40
    box_only = MixedPairs(source.mixture, PAIR, Augmentation(box_only=1.0))
    assert (box_only.pair(rng, 64).reference_mask == 1).all()


def test_a_still_image_gives_two_different_crops(tmp_path: Path) -> None:
    stills = Mixture([COCO(copies.coco(tmp_path))], [1.0])
    pair = MixedPairs(stills, PAIR, PLAIN).pair(np.random.default_rng(0), 64)
    assert (pair.reference != pair.search).any()
    again = MixedPairs(stills, PAIR, PLAIN).pair(np.random.default_rng(0), 64)
    np.testing.assert_array_equal(pair.search, again.search)


@pytest.mark.parametrize("augmentation", [PLAIN, Augmentation(flip_all=1.0, flip_each=0.5)])
def test_sequences_have_their_boxes_on_the_target(tmp_path: Path, augmentation: Augmentation) -> None:
    videos = Mixture([GOT10k(copies.got10k(tmp_path, frames=24))], [1.0])
    source = MixedSequences(videos, FrameSampling(2, 1, 200), augmentation)
    for rng in seeds(8):
        sequence = source.sequence(rng, REGIONS)
        assert sequence.images.shape == (3, 96, 96, 3) and sequence.boxes.shape == (3, 4)
        for image, box in zip(sequence.images, sequence.boxes):
            bright = image[..., 1].astype(int) > 120
            found = box_from_mask(bright.astype(np.uint8))
            # The region may cut the target; what is seen of it lies in the box.
            corner, opposite = np.clip(box[:2], 0, 96), np.clip(box[:2] + box[2:], 0, 96)
            seen = np.concatenate((corner, opposite - corner))
            assert box_iou(found, seen) > 0.75


def test_jitter_keeps_a_box_near_and_never_empty() -> None:
    box = np.array([10.0, 20.0, 30.0, 4.0])
    np.testing.assert_allclose(jittered_box(box, 0.0, 0.0, np.random.default_rng(0)), box)
    for rng in seeds(30):
        moved = jittered_box(box, 1.0, 1.0, rng)
        assert min(moved[2:]) >= 2.0
        offset = np.abs(moved[:2] + moved[2:] / 2 - [25, 22])
        assert offset.max() <= 0.5 * np.sqrt(moved[2:].prod())


def test_scenes_serve_as_a_source_and_as_a_data_set(tmp_path: Path) -> None:
    sampler = SceneSampler(ImageLibrary(make_folder(tmp_path / "set")))
    straight = SyntheticSource(sampler)
    assert straight.pair(np.random.default_rng(0), 64).mask.any()
    assert straight.sequence(np.random.default_rng(0), REGIONS).images.shape == (3, 96, 96, 3)
    scenes = Mixture([SyntheticVideos(sampler, frames=6)], [1.0])
    pair = MixedPairs(scenes, PAIR, PLAIN).pair(np.random.default_rng(0), 64)
    assert pair.reference_mask.any()
    sequences = MixedSequences(scenes, FrameSampling(1, 1, 6, shortest=2), PLAIN)
    assert sequences.sequence(np.random.default_rng(1), REGIONS).images.shape == (2, 96, 96, 3)
