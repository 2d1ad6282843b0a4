"""DiMP, PrDiMP and ATOM, whole, against the authors' systems, one frame at a time.

With random weights a free run is chaotic, so before every frame the recorded state, filter and random draws are put in.
Tolerances are ten times what 1e-6 of noise on the weights does to the authors' own systems.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import synth
import torch
from recorded import find, load_recipe, read_json
from torch import Tensor

from tracker_ar.base import overlap
from tracker_ar.base.atom import ATOM_DEFAULT, ATOMTracker
from tracker_ar.base.dimp import DIMP_18, DIMP_50, PRDIMP_18, PRDIMP_50, DiMPTracker
from tracker_ar.base.overlap import OverlapTracker, Place
from tracker_ar.engine.runner import Runner
from tracker_ar.frame import Frame
from tracker_ar.models.atom import ATOM
from tracker_ar.models.dimp import build_dimp
from tracker_ar.models.factorized_filter import FactorizedFilterSettings, Samples, objective, project
from tracker_ar.trace import listening

TRACKERS = {
    "dimp18": DIMP_18,
    "dimp50": DIMP_50,
    "prdimp18": PRDIMP_18,
    "prdimp50": PRDIMP_50,
    "atom": ATOM_DEFAULT,
}


@dataclass
class Notes:
    """Hears what the stages tell; of every frame a dictionary."""

    frames: list[dict[str, Any]] = field(default_factory=lambda: [{}])

    def stage(self, name: str) -> nullcontext:
        return nullcontext()

    def note(self, name: str, value: Any) -> None:
        self.frames[-1][name] = value


class Run:
    """The recorded track of one system, and the same frames through ours, teacher-forced."""

    def __init__(self, name: str) -> None:
        self.name, self.expected = name, np.load(find(f"{name}_track.npz"))
        self.noise = read_json("noise.json")[name]
        # The deep backbones are slow: up to their first update of the filter, after which nothing new happens.
        self.frames = 20 if name.endswith("50") else len(self.expected["flag"])
        self.notes = Notes()
        with pytest.MonkeyPatch.context() as patch, listening(self.notes):
            patch.setattr(overlap, "RandomSource", lambda seed: RecordedDraws(self))
            self._follow(_engine(name))

    def recorded(self, name: str, frame: int | None = None) -> Tensor:
        values = self.expected[name] if frame is None else self.expected[name][frame]
        return torch.from_numpy(np.array(values))

    def _follow(self, engine: OverlapTracker) -> None:
        image = Frame(synth.frame(0))
        target = self.target = engine.start(image, self.expected["init.init_box"].astype(np.float64))
        self.start = target.place, target.filter, target.memory.targets.clone()
        if self.name == "atom":
            self.learned_projection = target.projection
            target.projection = self.recorded("init.projection")[None, :, :, 0, 0]
            with torch.inference_mode():
                target.memory.features[:] = project(target.projection, self.notes.frames[0]["first frame"]["features"])
        for frame in range(self.frames):
            target.place = Place(*(self.recorded(f"{part}_in", frame) for part in ("pos", "sz", "scale")))
            target.filter = self.recorded("filters")[self.expected["filter_in"][frame]]
            target.random.frame = frame
            self.notes.frames.append({})
            (result,) = engine.track(Frame(synth.frame(frame + 1)), [target])
            self.notes.frames[-1].update(
                result=result, place=target.place, filter=target.filter, weights=target.memory.weights.clone(),
                count=target.memory.count, decision=target.decision, scores=target.scores,
            )

    def check(self, name: str, actual: Any, frame: int | None = None, noise: str | None = None) -> None:
        """Within ten times the noise, which is the largest over all frames; sampled as recorded."""
        expected = self.expected[name] if frame is None else self.expected[name][frame]
        values = np.asarray(actual).reshape(-1)
        values = values[(np.arange(expected.size) * values.size) // expected.size].reshape(expected.shape)
        tolerance = 10 * self.noise[noise or name][0]
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance, err_msg=f"{name} of frame {frame}")


class RecordedDraws:
    """Stands in for the tracker's random source and hands out what the authors' run drew."""

    def __init__(self, run: Run) -> None:
        self._run, self.frame, self._normal = run, 0, ["init.filter0", "init.projection0"]

    def augmentation_shifts(self, count: int) -> Tensor:
        assert count == len(self._run.expected["init.draws"])
        return self._run.recorded("init.draws")

    def kept_channels(self, samples: int, channels: int, dropout: float) -> Tensor:
        return self._run.recorded("init.dropout_keep")

    def box_noise(self, count: int) -> Tensor:
        return self._run.recorded("rand", self.frame)[:count]

    def normal(self, *shape: int) -> Tensor:
        """The recorded numbers have their published deviation already: 1 / 16 and 1 / 1024."""
        values = self._run.recorded(self._normal.pop())
        return values.reshape(shape) * (16 if values.numel() > 1024 else 1024)


def _engine(name: str) -> OverlapTracker:
    chosen, device = TRACKERS[name], torch.device("cpu")
    if name == "atom":
        return ATOMTracker(Runner(load_recipe(ATOM(), name), device), chosen)
    return DiMPTracker(Runner(load_recipe(build_dimp(chosen.network), name), device), chosen)


run = cache(Run)
each = pytest.mark.parametrize("name", TRACKERS)


@each
def test_first_frame(name: str) -> None:
    of = run(name)
    first, (place, target_filter, targets) = of.notes.frames[0]["first frame"], of.start
    for part, value in (("pos", place.position), ("target_sz", place.size), ("target_scale", place.scale),
                        ("base_target_sz", of.target.base_size)):
        np.testing.assert_array_equal(value, of.expected[f"init.{part}"])
    for layer in ("layer2", "layer3"):
        of.check(f"init.{layer}_sub", first["backbone"][layer])
    if name == "atom":
        of.check("init.features_sub", first["features"])
        np.testing.assert_allclose(targets, of.expected["init.labels"], rtol=0, atol=1e-6)
    else:
        of.check("init.clf_sub", first["features"])
        np.testing.assert_array_equal(targets, of.expected["init.clf_boxes"])
        of.check("init.filter0", first["initial filter"])
        of.check("init.filter10", target_filter)


def test_joint_optimisation_of_the_first_frame() -> None:
    """In double precision, where the authors' own is in single precision: the loss, and close to theirs in double."""
    of = run("atom")
    first, (_, target_filter, _) = of.notes.frames[0]["first frame"], of.start
    samples = Samples(first["features"], first["labels"], torch.full((30,), 1 / 30))
    loss = objective(samples, target_filter, of.learned_projection, FactorizedFilterSettings())
    _, authors_single, authors_double = of.expected["init.loss"]
    assert loss < authors_single and loss == pytest.approx(authors_double, rel=1e-3)
    for part, value in (("filter", target_filter), ("projection", of.learned_projection)):
        expected = of.expected[f"init.{part}_fp64"].reshape(value.shape)
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@each
def test_decisions_memory_and_crops(name: str) -> None:
    of = run(name)
    for frame, seen in enumerate(of.notes.frames[1:]):
        flag = str(of.expected["flags"][of.expected["flag"][frame]])
        assert seen["decision"].value == flag, frame
        np.testing.assert_array_equal(seen["weights"], of.expected["weights"][frame])
        assert seen["count"] == min(of.expected["num_stored"][frame], len(seen["weights"]))
        (region,) = seen["search regions"]
        if "patch_coord" in of.expected:
            np.testing.assert_array_equal(region.coords, of.expected["patch_coord"][frame])
        # Rounding of float32 in another order, as in the crops of the challenge entry.
        np.testing.assert_allclose(
            region.patch.flatten()[(np.arange(256) * region.patch.numel()) // 256], of.expected["patch_sub"][frame],
            rtol=0, atol=1e-3,
        )
        assert ("learned sample" in seen) == (not np.isnan(of.expected["mem_lr"][frame]))
        if "learned sample" in seen:
            where, rate, slot = seen["learned sample"]
            assert rate == pytest.approx(of.expected["mem_lr"][frame]) and slot == of.expected["prev_replace"][frame]
            of.check("mem_label" if name == "atom" else "mem_box", where, frame)


@each
def test_scores_and_filters(name: str) -> None:
    of = run(name)
    for frame, seen in enumerate(of.notes.frames[1:]):
        for layer in ("layer2", "layer3"):
            of.check(f"{layer}_sub", seen["search"]["backbone"][layer], frame)
        atom = name == "atom"
        of.check("projected_sub" if atom else "clf_sub", seen["search"]["features"], frame)
        of.check("scores_raw" if atom else "scores", seen["search"]["scores"], frame)
        if atom:
            of.check("scores_sub", seen["scores"], frame)
        assert seen["result"].score == pytest.approx(
            min(of.expected["max_score"][frame], 1), abs=10 * of.noise["max_score"][0]
        )
        np.testing.assert_allclose(
            seen["filter"], of.expected["filters"][of.expected["filter_out"][frame]], rtol=0,
            atol=10 * of.noise["filter_after"][0], err_msg=f"filter after frame {frame}",
        )


@each
def test_boxes(name: str) -> None:
    of, errors = run(name), []
    for frame, seen in enumerate(of.notes.frames[1:]):
        assert ("ascent" in seen) == (not np.isnan(of.expected["out_iou"][frame]).any())
        if "ascent" in seen:
            start, _, refined, _, iou = seen["ascent"]
            np.testing.assert_allclose(start, of.expected["init_boxes"][frame], rtol=1e-6, atol=1e-4)
            of.check("out_boxes", refined, frame)
            of.check("out_iou", iou, frame)
            errors.append(np.abs(refined.numpy() - of.expected["out_boxes"][frame]).max())
        of.check("box", seen["result"].box, frame)
        place = seen["place"]
        for part, value in (("pos", place.position), ("sz", place.size), ("scale", place.scale)):
            of.check(f"{part}_out", value, frame)
    assert np.median(errors) < 10 * of.noise["out_boxes"][1]
