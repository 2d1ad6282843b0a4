"""The refiners with branches, engine and all, against the authors' system on recorded boxes of a base tracker."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recorded import find, load_recipe, read_json
from synth import H, W, frame
from trace_notes import Notes, samples

from tracker_ar.crops import box_to_image
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.geometry import box_from_largest_part, clip_corners
from tracker_ar.models.box_head import boxes_from_deltas
from tracker_ar.models.branch_refiner import build_branch_refiner
from tracker_ar.models.branch_selector import BRANCHES, build_branch_selector
from tracker_ar.refine.box_refiner import AR_18, AR_34, AR_BASE, BoxRefiner, see, selecting_refiner
from tracker_ar.trace import listening

CPU = torch.device("cpu")
BASE = "ar_base"
SYSTEMS = {"ar34": ("dimp50", AR_34), "ar18": ("dimp18", AR_18), BASE: ("dimp50", AR_BASE)}
HELPERS = read_json("ar_helpers.json")


# ---- pure functions


@pytest.mark.parametrize("case", HELPERS["bbox_back"])
def test_box_to_image(case: dict[str, Any]) -> None:
    zoom = case["w_factor"], case["h_factor"]
    found = box_to_image(case["crop_box"], zoom, case["box"], case["search_factor"])
    np.testing.assert_allclose(found, case["out"], rtol=1e-12)


@pytest.mark.parametrize("case", HELPERS["delta2bbox"])
def test_boxes_from_deltas(case: dict[str, Any]) -> None:
    found = boxes_from_deltas(torch.tensor([case["delta"]], dtype=torch.float32))
    np.testing.assert_allclose(found[0], case["out"], rtol=2e-6)


def test_box_from_largest_part() -> None:
    masks, (rows, columns) = np.load(find("ar_mask_boxes.npz")), HELPERS["mask_shape"]
    assert len(masks.files) == len(HELPERS["mask2bbox"])
    for number, case in enumerate(HELPERS["mask2bbox"]):
        found = box_from_largest_part(np.unpackbits(masks[f"mask{number}"]).reshape(rows, columns))
        assert (case["fallback"] if found is None else found.tolist()) == case["out"]


@pytest.mark.parametrize("net", SYSTEMS)
def test_clipping(net: str) -> None:
    """Also of boxes whose corners are exchanged."""
    track = np.load(find(f"{SYSTEMS[net][0]}_track.npz"))
    refined = track[f"{net}.refined"]
    assert (refined[:, 2:] < 0).any() or net == "ar34"
    found = [clip_corners(box, (H, W)) for box in refined]
    np.testing.assert_allclose(found, track[f"{net}.clipped"], rtol=0, atol=1e-9)


# ---- whole frames


def engine(net: str) -> tuple[BoxRefiner, dict[str, Any]]:
    """A refiner, and what the last call of every part of a frame returned for the first target."""
    settings = SYSTEMS[net][1]
    runner = Runner(load_recipe(build_branch_refiner(settings.network), net), CPU)
    run, parts = runner.run, {}

    def noting(part: Any, inputs: Any) -> list[Any]:
        results = run(part, inputs)
        parts.update({part.__name__: results[0]} if results else {})
        return results

    runner.run = noting  # type: ignore[method-assign]
    if net != BASE:
        return BoxRefiner(runner, settings), parts
    selector = Runner(load_recipe(build_branch_selector(), "ar_selector"), CPU)
    return selecting_refiner(runner, selector, settings), parts


def close(actual: Any, expected: np.ndarray, atol: float) -> None:
    found = np.asarray(actual, dtype=np.float64).reshape(-1)
    np.testing.assert_allclose(found, expected.reshape(-1), rtol=0, atol=atol)


@pytest.mark.parametrize("net", SYSTEMS)
def test_frames(net: str) -> None:
    """Crops to the last bit, every branch, the branch chosen in all frames, the box in the image; some frames whole."""
    base, settings = SYSTEMS[net]
    track = np.load(find(f"{base}_track.npz"))
    recorded = {name.removeprefix(f"{net}."): track[name] for name in track.files if name.startswith(f"{net}.")}
    refiner, parts = engine(net)
    fixed = {branch: BoxRefiner(refiner.runner, replace(settings, branch=branch, masks=False))
             for branch in (("box", "corner") if net == BASE else ())}
    with listening(notes := Notes()):
        target = refiner.start(Frame(frame(0)), track["init.init_box"].astype(np.float64))
        assert zlib.crc32(notes["reference crop"][0].pixels.tobytes()) == track[f"init.{net}.ref_crc"]
        kernel = track[f"init.{net}.kernel_sub"]
        close(samples(target.kernel, kernel.size), kernel, 1e-4 * np.abs(kernel).max())
        for index, box in enumerate(track["box"]):
            image, one = Frame(frame(index + 1)), {name: values[index] for name, values in recorded.items()}
            whole = index % (6 if net == BASE else 3) == 0
            if not whole and net == BASE:
                (_, _, scores), = refiner.runner.run(see, [(refiner._input(refiner._crop(image, box)), target.kernel)])
                check_selector(one, scores)
            if not whole:
                continue
            found = refiner.look(image, target, box)
            crop, noted = notes["refined"][-1]
            assert noted is found and zlib.crc32(crop.pixels.tobytes()) == one["se_crc"]
            check_mask(one, parts["segment"], found.probabilities, found.mask)
            expected = one["refined"] if min(one["refined"][2:]) >= 1 else box
            close(found.box, expected, 2.0 if one.get("branch") == 2 else 1e-2)
            if net == BASE:
                check_selector(one, parts["see"][2])
                assert notes["branch"][-1] == BRANCHES[one["branch"]]
                close(fixed["box"].look(image, target, box).box, one["bbox_box"], 1e-3)
                fixed["corner"].look(image, target, box)
            close(parts["find_corners"][0], one["corner_crop"], 2e-2)


def check_selector(one: dict[str, Any], scores: torch.Tensor) -> None:
    close(scores, one["selector"], 1e-4)
    second, first = np.sort(one["selector"])[-2:]
    assert first - second < 1e-3 or int(scores.argmax()) == one["branch"]


def check_mask(
    one: dict[str, Any], inside: torch.Tensor, probabilities: np.ndarray | None, mask: np.ndarray | None
) -> None:
    assert probabilities is not None and mask is not None
    close(samples(inside, one["prob_sub"].size), one["prob_sub"], 2e-3)
    close([getattr(probabilities.astype(np.float64), name)() for name in ("mean", "std", "min", "max")],
          one["full_stats"], 2e-3)
    expected = np.unpackbits(one["mask05"]).reshape(probabilities.shape)
    assert np.count_nonzero(expected != (probabilities > 0.5)) <= 2
    assert abs(int(mask.sum()) - one["mask065_sum"]) <= 2
    around = box_from_largest_part(expected)
    assert (one["corner_box"] if around is None else around).tolist() == one["mask_box"].tolist()
