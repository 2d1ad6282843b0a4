"""The whole tracker against the authors' system, one frame at a time.

With random weights a free run is chaotic, so before every frame the recorded state, filter and random draws are put
in. Tolerances are ten times what 1e-6 of noise on the weights does to the authors' own system.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synth
import torch
from recipe import MASK_REFINER, SUPER_DIMP
from recorded import load_recipe

from tracker_ar import zoo
from tracker_ar.base import overlap
from tracker_ar.base.dimp import DiMPTracker
from tracker_ar.base.overlap import Place
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.alpha_refine import build_mask_refiner
from tracker_ar.models.dimp import build_dimp
from tracker_ar.prediction import Refinement
from tracker_ar.refine import refiner as mask_refiner
from tracker_ar.refine.refiner import SegmentingRefiner
from tracker_ar.tracker import AlphaRefineTracker

VOT2020 = zoo.profile("vot2020")

REFERENCE = np.load(Path(__file__).parent / "data" / "track_synth.npz")
FRAMES = len(REFERENCE["flag"])


def recorded(name: str, frame: int | None = None) -> torch.Tensor:
    values = REFERENCE[name] if frame is None else REFERENCE[name][frame]
    return torch.from_numpy(np.array(values))


class RecordedBoxes(SegmentingRefiner):
    """Refines the recorded box in place of the one it is given: a fraction of a pixel moves the crop's rounding."""

    frame = 0

    def refine(self, frame: Frame, targets: list, boxes: list, learn: list) -> list[Refinement]:
        return super().refine(frame, targets, [REFERENCE["box"][self.frame]], learn)


class RecordedDraws:
    """Stands in for the tracker's random source and hands out what the authors' run drew."""

    def __init__(self, seed: int) -> None:
        self.frame = 0

    def augmentation_shifts(self, count: int) -> torch.Tensor:
        assert count == len(REFERENCE["init.draws"])
        return recorded("init.draws")

    def kept_channels(self, samples: int, channels: int, dropout: float) -> torch.Tensor:
        return recorded("init.dropout_keep")

    def box_noise(self, count: int) -> torch.Tensor:
        return recorded("rand", self.frame)[:count]


def samples(values: np.ndarray | torch.Tensor, count: int) -> np.ndarray:
    """The values that a long array is recorded by."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat[(np.arange(count) * flat.size) // count]


def close(actual: torch.Tensor, name: str, frame: int | None = None) -> None:
    """Within 1e-4 of the largest recorded value: ten times the rounding of the deepest network stage."""
    expected = recorded(name, frame).numpy().reshape(-1)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(samples(actual, expected.size), expected, rtol=0, atol=1e-4 * scale, err_msg=name)


def noting(function: Callable, notes: list) -> Callable:
    """The function, with (arguments, result) of every call added to `notes`."""

    def call(*arguments: object, **named: object) -> object:
        result = function(*arguments, **named)
        notes.append((arguments, result))
        return result

    return call


@pytest.fixture(scope="module")
def run() -> dict[str, list]:
    """The sequence once, teacher-forced; what the tests below look at is noted for every frame."""
    device = torch.device("cpu")
    notes: dict[str, list] = {name: [] for name in (
        "modulation", "scores", "flag", "box", "filter", "mask", "weights", "crop", "ascent", "refined", "state",
        "memory", "refined state", "backbone", "features", "initial filter", "refiner crop", "kernel", "probabilities",
    )}
    base = DiMPTracker(Runner(load_recipe(build_dimp(), SUPER_DIMP), device), VOT2020.base)
    refiner = RecordedBoxes(Runner(load_recipe(build_mask_refiner(), MASK_REFINER), device), VOT2020.refiner)
    tracker = AlphaRefineTracker(base, refiner, VOT2020)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "RandomSource", RecordedDraws)
        patch.setattr(overlap, "sample_patch", noting(overlap.sample_patch, notes["crop"]))
        patch.setattr(overlap, "ascend", noting(overlap.ascend, notes["ascent"]))
        patch.setattr(mask_refiner, "refiner_crop", noting(mask_refiner.refiner_crop, notes["refiner crop"]))
        patch.setattr(mask_refiner, "paste_back", noting(mask_refiner.paste_back, notes["probabilities"]))
        network, neck = base.runner.network, refiner.runner.network.neck
        network.extract_backbone = noting(network.extract_backbone, notes["backbone"])
        network.classification_features = noting(network.classification_features, notes["features"])
        network.classifier.initial_filter = noting(network.classifier.initial_filter, notes["initial filter"])
        neck.reference_kernel = noting(neck.reference_kernel, notes["kernel"])
        network.iou_modulation = noting(network.iou_modulation, notes["modulation"])
        refiner.refine = noting(refiner.refine, notes["refined"])
        tracker.initialize(synth.frame(0), synth.mask(0))
        target = tracker._targets[0].base
        notes["start"] = [target.place, target.filter, target.memory.targets.clone()]
        assert target.base_size.tolist() == REFERENCE["init.base_target_sz"].tolist()
        target.memory.add = noting(target.memory.add, notes["memory"])
        correct = base.correct

        def noting_the_state(target: object, box: np.ndarray) -> None:
            notes["refined state"].append(target.place)
            correct(target, box)

        base.correct = noting_the_state
        for frame in range(FRAMES):
            target.place = Place(recorded("pos_in", frame), recorded("sz_in", frame), recorded("scale_in", frame))
            target.filter = recorded("filters")[REFERENCE["filter_in"][frame]]
            target.random.frame = refiner.frame = frame
            prediction = tracker.track(synth.frame(frame + 1))
            notes["scores"].append(target.scores)
            notes["flag"].append(target.decision.value)
            notes["box"].append(prediction.box)
            notes["mask"].append(prediction.mask)
            notes["filter"].append(target.filter)
            notes["weights"].append(target.memory.weights.clone())
            notes["state"].append(target.place)
    return notes


def test_first_frame(run: dict[str, list]) -> None:
    state, target_filter, boxes = run["start"]
    np.testing.assert_array_equal(state.position, REFERENCE["init.pos"])
    np.testing.assert_array_equal(state.size, REFERENCE["init.target_sz"])
    assert state.scale == REFERENCE["init.target_scale"]
    np.testing.assert_array_equal(boxes, REFERENCE["init.clf_boxes"])
    np.testing.assert_allclose(target_filter, REFERENCE["init.filter10"], atol=1e-5)


def test_stages_of_the_first_frame(run: dict[str, list]) -> None:
    (images, layers), (_, features) = run["backbone"][0], run["features"][0]
    assert images[0].shape[0] == 13
    close(layers["layer2"], "init.layer2_sub")
    close(layers["layer3"], "init.layer3_sub")
    kept = recorded("init.dropout_keep")
    dropped = features[:1] * kept[:, :, None, None] / 0.8
    close(torch.cat((features, dropped)), "init.clf_sub")
    close(run["initial filter"][0][1], "init.filter0")
    close(run["kernel"][0][1], "init.ref_kernel_sub")
    np.testing.assert_array_equal(run["start"][2], REFERENCE["init.clf_boxes"])
    stored = REFERENCE["init.target_boxes"]
    np.testing.assert_array_equal(stored[: len(run["start"][2])], run["start"][2])


def test_stages_of_every_frame(run: dict[str, list]) -> None:
    """Features of the base tracker, the refiner's crop to the last bit, probabilities inside it, the highest score."""
    for frame in range(FRAMES):
        layers, features = run["backbone"][frame + 1][1], run["features"][frame + 1][1]
        close(layers["layer2"], "layer2_sub", frame)
        close(layers["layer3"], "layer3_sub", frame)
        close(features, "clf_sub", frame)
        close(run["crop"][frame][1].patch, "patch_sub", frame)
        crop = run["refiner crop"][frame + 1][1]
        assert zlib.crc32(crop.pixels.tobytes()) == REFERENCE["se_crc"][frame]
        inside = samples(run["probabilities"][frame][0][0], 1024)
        np.testing.assert_allclose(inside, REFERENCE["prob_sub"][frame], atol=2e-3)
        assert run["scores"][frame].max().item() == pytest.approx(REFERENCE["max_score"][frame], abs=7e-5)


def test_modulation_vectors(run: dict[str, list]) -> None:
    ((_, vectors),) = run["modulation"]
    for vector, name in zip(vectors, ("init.mod3", "init.mod4"), strict=True):
        np.testing.assert_allclose(vector.flatten(), REFERENCE[name].flatten(), rtol=1e-4, atol=1e-5)


def test_scores_and_decisions(run: dict[str, list]) -> None:
    assert run["flag"] == [str(REFERENCE["flags"][flag]) for flag in REFERENCE["flag"]]
    np.testing.assert_allclose(torch.stack(run["scores"]), REFERENCE["scores"], atol=7e-5)


def test_search_regions(run: dict[str, list]) -> None:
    for frame, ((_, position, *_), region) in enumerate(run["crop"]):
        np.testing.assert_array_equal(position, REFERENCE["crop_pos"][frame])
        np.testing.assert_array_equal(region.coords, REFERENCE["patch_coord"][frame])
    assert len(run["crop"]) == FRAMES


def test_box_refinement(run: dict[str, list]) -> None:
    """Ten boxes before and after the ascent, in the frames where the target was found."""
    found = [frame for frame, flag in enumerate(run["flag"]) if flag != "not_found"]
    assert len(run["ascent"]) == len(found)
    errors = []
    for frame, ((_, start, _), (boxes, iou)) in zip(found, run["ascent"]):
        np.testing.assert_allclose(start, REFERENCE["init_boxes"][frame], rtol=1e-6, atol=1e-4)
        errors.append(np.abs(boxes.numpy() - REFERENCE["out_boxes"][frame]).max())
        np.testing.assert_allclose(iou, REFERENCE["out_iou"][frame], atol=1e-2, rtol=1e-3)
    assert max(errors) < 4.5
    assert np.median(errors) < 3e-3


def test_the_state_that_goes_on(run: dict[str, list]) -> None:
    """The clipped box goes back into the base tracker: centre, size and scale; all follow from the box."""
    for frame, state in enumerate(run["state"]):
        slack = np.abs(run["box"][frame] - REFERENCE["box"][frame]).max() * 2 + 1e-4
        np.testing.assert_allclose(state.position, REFERENCE["pos_out"][frame], rtol=0, atol=slack)
        np.testing.assert_allclose(state.size, REFERENCE["sz_out"][frame], rtol=0, atol=slack)
        np.testing.assert_allclose(state.scale, REFERENCE["scale_out"][frame], rtol=0, atol=slack)


def test_probabilities(run: dict[str, list]) -> None:
    """Mean and standard deviation, minimum and maximum of the pasted probabilities."""
    for frame, (_, (refinement,)) in enumerate(run["refined"]):
        values = refinement.probabilities.astype(np.float64)
        measured = [values.mean(), values.std(), values.min(), values.max()]
        np.testing.assert_allclose(measured, REFERENCE["full_stats"][frame], atol=2e-3, err_msg=f"frame {frame}")


def test_boxes(run: dict[str, list]) -> None:
    errors = np.abs(np.stack(run["box"]) - REFERENCE["box"]).max(axis=1)
    assert errors.max() < 1.1
    assert np.median(errors) < 9e-4


def test_filter_updates(run: dict[str, list]) -> None:
    for frame, target_filter in enumerate(run["filter"]):
        expected = REFERENCE["filters"][REFERENCE["filter_out"][frame]]
        np.testing.assert_allclose(target_filter, expected, atol=1e-5, err_msg=f"frame {frame}")


def test_memory_weights(run: dict[str, list]) -> None:
    np.testing.assert_array_equal(torch.stack(run["weights"]), REFERENCE["weights"])


def test_refined_state(run: dict[str, list]) -> None:
    """Position, size and scale after the box refinement, before the clipped box comes back."""
    for frame, state in enumerate(run["refined state"]):
        # Nothing is recorded where nothing was refined.
        assert np.isnan(REFERENCE["ref_pos"][frame]).any() == (run["flag"][frame] == "not_found")
        if run["flag"][frame] == "not_found":
            continue
        for value, name in ((state.position, "ref_pos"), (state.size, "ref_sz"), (state.scale, "ref_scale")):
            np.testing.assert_allclose(value, REFERENCE[name][frame], rtol=0, atol=1.1, err_msg=f"{name} {frame}")


def test_what_the_memory_takes(run: dict[str, list]) -> None:
    learned = [frame for frame in range(FRAMES) if not np.isnan(REFERENCE["mem_lr"][frame])]
    assert len(run["memory"]) == len(learned)
    for frame, ((_, box, rate), slot) in zip(learned, run["memory"]):
        np.testing.assert_allclose(box, REFERENCE["mem_box"][frame], rtol=0, atol=1.5, err_msg=f"frame {frame}")
        assert rate == pytest.approx(REFERENCE["mem_lr"][frame])
        assert slot == REFERENCE["prev_replace"][frame]


def test_masks(run: dict[str, list]) -> None:
    for frame, mask in enumerate(run["mask"]):
        expected = np.unpackbits(REFERENCE["mask"][frame]).reshape(synth.H, synth.W)
        assert (mask != expected).sum() <= 2, frame
        assert mask.shape == (synth.H, synth.W) and mask.dtype == np.uint8 and mask.flags.c_contiguous
