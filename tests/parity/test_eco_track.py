"""ECO against the authors' system: features, learning on the first frame, 22 frames one at a time.

Before every frame the recorded place is put in. Tolerances are ten times what 1e-6 of noise on the weights does to the
authors' own system; boxes, scales, memory slots and weights are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import synth
import torch
from recipe import net_input
from recorded import DATA, Reference, key_shapes, load_recipe, read_json
from torch.nn.functional import avg_pool2d
from trace_notes import Notes, samples

from tracker_ar.base import eco
from tracker_ar.base.eco import ECOSettings, ECOTarget, ECOTracker
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.eco_features import ECOFeatures
from tracker_ar.models.fourier_filter import principal_directions
from tracker_ar.ops.fourier import bicubic_kernel
from tracker_ar.trace import listening

TRACK = np.load(DATA / "family" / "eco_track.npz")
NOISE = read_json("noise.json")["eco"]
FRAMES = len(TRACK["scale_ind"])
LAYERS = (0, 1)


def close(name: str, actual: Any, frame: int | None = None) -> None:
    """Equal to the recorded values, sampled where there are more; complex ones are recorded as pairs."""
    if isinstance(actual, torch.Tensor):
        actual = torch.view_as_real(actual.resolve_conj().contiguous()) if actual.is_complex() else actual
    expected = TRACK[name] if frame is None else TRACK[name][frame]
    found = samples(actual, expected.size).reshape(expected.shape)
    # Where noise changes nothing, rounding in the last place may: 3e-7 of the largest value.
    allowed = max(10 * NOISE[name][0], 3e-7 * np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed, err_msg=f"{name} {frame}")


@pytest.fixture(scope="module")
def network() -> ECOFeatures:
    return load_recipe(ECOFeatures(), "eco")


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    """The sequence once, teacher-forced, the network as it tracks: prepared for inference."""
    guesses = {TRACK[f"init.projection0_{layer}"].shape[0]: TRACK[f"init.projection0_{layer}"] for layer in LAYERS}
    kept = {values.shape[1]: values for values in (TRACK["init.dropout_keep0"], TRACK["init.dropout_keep1"])}
    engine = ECOTracker(Runner(load_recipe(ECOFeatures(), "eco"), torch.device("cpu")))
    first, notes, results, seen = Notes(), Notes(), [], []
    with pytest.MonkeyPatch.context() as patch:
        # Signs of principal directions are arbitrary.
        patch.setattr(eco, "principal_directions", lambda features, count: torch.tensor(guesses[features.shape[1]]))
        patch.setattr(eco.RandomSource, "kept_channels", lambda _, count, channels, *__: torch.tensor(kept[channels]))
        with listening(first):
            target = engine.start(Frame(synth.frame(0)), TRACK["init.init_box"])
    start = vars(target) | {"layers": [dict(vars(layer)) for layer in target.layers]}
    for index, layer in enumerate(target.layers):
        layer.filter = torch.view_as_complex(torch.tensor(TRACK[f"filters{index}"][0, 0]))
        start["layers"][index]["samples"] = layer.samples.clone()
    with listening(notes):
        for frame in range(FRAMES):
            target.position, target.size = torch.tensor(TRACK["pos_in"][frame]), torch.tensor(TRACK["sz_in"][frame])
            target.scale = torch.tensor(TRACK["scale_in"][frame])
            results += engine.track(Frame(synth.frame(frame + 1)), [target])
            seen.append(vars(target) | {
                "filters": [layer.filter for layer in target.layers],
                "weights": [layer.weights.values.clone() for layer in target.layers],
            })
    return {"first": first, "start": start, "notes": notes, "results": results, "seen": seen}


@pytest.mark.parametrize("name", ["vggconv1", "layer3", "pooled", "features.pooled", "features.layer3"])
def test_stages_of_the_network(name: str, network: ECOFeatures) -> None:
    images = torch.from_numpy(net_input(240, 240))
    first, (shallow, deep) = network.first_layer(images), network.extract(images)
    stages = {
        "vggconv1": first, "pooled": avg_pool2d(first, 2), "layer3": network(images, ["layer3"])["layer3"],
        "features.pooled": shallow, "features.layer3": deep,
    }
    Reference("eco_net").check(name, stages[name])


def test_keys_of_the_published_file(network: ECOFeatures) -> None:
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == key_shapes("eco")


def test_sizes_and_place_at_the_start(run: dict[str, Any]) -> None:
    start = run["start"]
    names = {"position": "pos", "size": "target_sz", "scale": "target_scale", "base_size": "base_target_sz"}
    for ours, theirs in names.items():
        np.testing.assert_array_equal(start[ours], TRACK[f"init.{theirs}"])
    assert [start["input_size"]] * 2 == TRACK["init.img_sample_sz"].tolist()
    for layer, cells, rows in zip(start["layers"], TRACK["init.feature_sz"], TRACK["init.filter_sz"]):
        assert list(layer["model"].window.shape) == cells.tolist()
        assert layer["filter"].shape[1] == rows[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_what_is_learned_from_the_first_frame(layer: int, run: dict[str, Any]) -> None:
    learned, seen = run["start"]["layers"][layer], run["first"]["first frame"][layer]
    model = learned["model"]
    close(f"init.features{layer}_sub", seen["features"])
    close(f"init.label_f{layer}", model.label)
    close(f"init.reg_filter{layer}", model.kernel)
    rows = TRACK[f"init.interp_y{layer}"].shape[2]
    close(f"init.interp_y{layer}", bicubic_kernel(rows, ECOSettings().bicubic))
    close(f"init.interp_x{layer}", bicubic_kernel(rows, ECOSettings().bicubic)[rows // 2 :])
    close(f"init.samples_f{layer}_sub", seen["samples"].permute(2, 3, 0, 1))
    close(f"init.sample_energy{layer}_sub", learned["energy"])
    close(f"init.projection{layer}", learned["projection"])
    found = torch.view_as_real(learned["filter"])
    allowed = 10 * NOISE[f"init.filter{layer}_sub"][0]
    np.testing.assert_allclose(found, TRACK[f"filters{layer}"][0, 0], rtol=0, atol=allowed)


@pytest.mark.parametrize("layer", LAYERS)
def test_principal_directions_up_to_their_sign(layer: int, run: dict[str, Any]) -> None:
    expected = torch.tensor(TRACK[f"init.projection0_{layer}"])
    found = principal_directions(run["first"]["first frame"][layer]["features"], expected.shape[1])
    torch.testing.assert_close((found * expected).sum(dim=0).abs(), torch.ones(expected.shape[1]), rtol=0, atol=1e-5)


def test_search_regions_and_scores(run: dict[str, Any]) -> None:
    searches = run["notes"]["search"]
    assert len(searches) == FRAMES
    for frame, ((regions,), found) in enumerate(zip(run["notes"]["scaled regions"], searches)):
        close("patch_sub", torch.cat([region.patch for region in regions]), frame)
        close("scores_sub", found["scores"], frame)
        close("scale_max", found["scores"].amax(dim=(-2, -1)), frame)
        for layer in LAYERS:
            close(f"projected_f{layer}_sub", found["samples"][layer], frame)
            weight = ECOSettings().layers[layer].score_weight
            close(f"scores_f{layer}_sub", found["layer scores"][layer] / weight, frame)


def test_places(run: dict[str, Any]) -> None:
    """The same cell, the same scale."""
    for frame, (result, seen) in enumerate(zip(run["results"], run["seen"], strict=True)):
        np.testing.assert_array_equal(result.box, TRACK["box"][frame])
        for ours, theirs in (("position", "pos_out"), ("size", "sz_out"), ("scale", "scale_out")):
            np.testing.assert_array_equal(seen[ours], TRACK[theirs][frame])
    decisions = run["notes"]["best"]
    assert [index for index, _ in decisions] == TRACK["scale_ind"].tolist()
    np.testing.assert_array_equal(np.stack([moved for _, moved in decisions]), TRACK["translation"])
    best = TRACK["scale_max"].max(axis=1).clip(0, 1)
    np.testing.assert_allclose([result.score for result in run["results"]], best, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_memory_and_updates(layer: int, run: dict[str, Any]) -> None:
    learned = run["notes"]["learned sample"][layer::2]
    assert [slot for _, slot in learned] == TRACK["replace"][:, layer].tolist()
    for frame, seen in enumerate(run["seen"]):
        np.testing.assert_array_equal(seen["weights"][layer], TRACK[f"weights{layer}"][frame])
        close(f"train_f{layer}_sub", learned[frame][0], frame)
        close(f"filter_after{layer}_sub", seen["filters"][layer], frame)
    changed = [frame for frame in range(1, FRAMES) if run["seen"][frame]["filters"][layer]
               is not run["seen"][frame - 1]["filters"][layer]]
    assert changed == [9, 19]


def test_corrected_by_the_refined_box(run: dict[str, Any]) -> None:
    engine = ECOTracker(Runner(torch.nn.Identity(), torch.device("cpu")))
    target = ECOTarget(**run["start"])
    for frame in range(FRAMES):
        engine.correct(target, TRACK["ar34.clipped"][frame])
        np.testing.assert_array_equal(target.position, TRACK["ar34.pos"][frame])
        np.testing.assert_array_equal(target.size, TRACK["ar34.sz"][frame])
        np.testing.assert_allclose(target.scale, TRACK["ar34.scale"][frame], rtol=1.2e-7)  # the last place
