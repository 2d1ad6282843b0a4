"""SiamRPN++'s crops, anchors and decisions against the authors' system, one frame at a time.

The state before every frame is put in as it was recorded. Tolerances are ten times what 1e-6 of noise on the weights
does to the authors' own system.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import synth
import torch
from recorded import DATA, Reference, load_recipe, read_json
from trace_notes import Notes, samples

from tracker_ar.base.siam_rpn import (
    SiamRPNSettings,
    SiamRPNTarget,
    SiamRPNTracker,
    anchors,
    offset_boxes,
    square_crop,
    target_scores,
    template_side,
    window,
)
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.siam_rpn import SiamRPN
from tracker_ar.trace import listening

TRACK = np.load(DATA / "family" / "siamrpn_track.npz")
NOISE = read_json("noise.json")["siamrpn"]
FRAMES = range(0, len(TRACK["best"]), 9)  # the network takes a second or more for a frame
SETTINGS = SiamRPNSettings()


def crc(crop: np.ndarray) -> int:
    """Of an H x W x 3 crop, channels first, as the record counts."""
    return zlib.crc32(np.ascontiguousarray(crop.transpose(2, 0, 1)).tobytes())


@pytest.fixture(scope="module")
def run() -> tuple[SiamRPNTarget, Notes, list]:
    """Some frames, teacher-forced, the network as it tracks: prepared for inference."""
    engine = SiamRPNTracker(Runner(load_recipe(SiamRPN(), "siamrpn"), torch.device("cpu")))
    notes, results = Notes(), []
    with listening(notes):
        target = engine.start(Frame(synth.frame(0)), TRACK["init.init_box"])
        start = SiamRPNTarget(target.centre, target.size, target.colour, target.kernels)
        for frame in FRAMES:
            target.centre, target.size = TRACK["pos_in"][frame], TRACK["size_in"][frame]
            results += engine.track(Frame(synth.frame(frame + 1)), [target])
            notes.note("state", (target.centre, target.size))
    return start, notes, results


def test_first_frame(run: tuple) -> None:
    start, notes, _ = run
    np.testing.assert_array_equal(start.centre, TRACK["init.pos"])
    np.testing.assert_array_equal(start.size, TRACK["init.size"])
    np.testing.assert_allclose(start.colour, TRACK["init.average"], rtol=1e-12)
    assert round(template_side(start.size, SETTINGS.context)) == TRACK["init.crop_size"]


def test_crops(run: tuple) -> None:
    """Equal to the last bit: as the engine makes them, and in all frames."""
    made = [crc(crop) for crop in run[1]["base crop"]]
    assert made == [TRACK["init.crop_crc"], *TRACK["crop_crc"][FRAMES]]
    for frame, expected in enumerate(TRACK["crop_crc"]):
        side = template_side(TRACK["size_in"][frame], SETTINGS.context) * (255 / 127)
        image = synth.frame(frame + 1)[:, :, ::-1]
        assert round(side) == TRACK["crop_size"][frame]
        assert crc(square_crop(image, TRACK["pos_in"][frame], round(side), 255, TRACK["init.average"])) == expected


def test_decisions(run: tuple) -> None:
    """The anchor exactly, unless the second best is as good; the scores of all anchors."""
    for frame, choice in zip(FRAMES, run[1]["anchor"], strict=True):
        lead = TRACK["best_pscore"][frame] - TRACK["second_pscore"][frame]
        assert choice.anchor == TRACK["best"][frame] or lead <= 1e-4
        penalised = choice.penalised[choice.anchor]
        assert penalised == pytest.approx(TRACK["best_pscore"][frame], abs=10 * NOISE["best_pscore"][0])
        expected = TRACK["pscore_sub"][frame]
        np.testing.assert_allclose(samples(choice.penalised, 512), expected, rtol=0, atol=10 * NOISE["pscore_sub"][0])


def test_boxes_and_the_state_that_goes_on(run: tuple) -> None:
    _, notes, results = run
    for frame, choice, result, (centre, size) in zip(FRAMES, notes["anchor"], results, notes["state"], strict=True):
        if choice.anchor != TRACK["best"][frame]:
            continue
        assert result.score == pytest.approx(TRACK["score"][frame], abs=10 * NOISE["score"][0])
        for value, name in ((result.box, "box"), (centre, "pos_out"), (size, "size_out")):
            np.testing.assert_allclose(value, TRACK[name][frame], rtol=0, atol=10 * NOISE[name][0], err_msg=name)


@pytest.mark.parametrize("case", read_json("siamrpn_crops.json"), ids=lambda case: str(case["box"]))
def test_crop_at_borders(case: dict) -> None:
    """Filled with the first frame's mean colour, truncated."""
    box = np.array(case["box"], dtype=np.float64)
    image = synth.frame(case["frame"])[:, :, ::-1]
    side = template_side(box[2:], SETTINGS.context)
    if case["model_size"] == SETTINGS.search_size:
        side *= SETTINGS.search_size / SETTINGS.template_size
    assert round(side) == case["original_size"]
    colour = image.mean(axis=(0, 1))
    crop = square_crop(image, box[:2] + (box[2:] - 1) / 2, round(side), case["model_size"], colour)
    assert crc(crop) == case["crc"]


def test_decoding() -> None:
    """Anchors, window, scores and boxes of recorded outputs of the network."""
    expected, outputs = np.load(DATA / "family" / "siamrpn_decode.npz"), Reference("siamrpn_net")
    np.testing.assert_array_equal(anchors(SETTINGS).T, expected["anchors"])
    np.testing.assert_allclose(window(SETTINGS)[:625], expected["window"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(target_scores(outputs["cls"][0]), expected["score"], rtol=0, atol=1e-6)
    # Offsets and boxes are sampled at the same places.
    offsets = np.zeros(4 * 3125, np.float32)
    offsets[(np.arange(1024) * offsets.size) // 1024] = outputs["loc.sub"]
    boxes = offset_boxes(offsets.reshape(4, -1), anchors(SETTINGS))
    np.testing.assert_allclose(samples(boxes, 1024), expected["boxes.sub"], rtol=1e-6, atol=1e-5)
