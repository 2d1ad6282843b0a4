"""Named trackers."""

from __future__ import annotations

from os import PathLike

import torch

from tracker_ar.base.dimp import DiMPTracker
from tracker_ar.base.lite import LiteBaseSettings, LiteTracker
from tracker_ar.engine.fallback import announce, is_out_of_memory
from tracker_ar.engine.runner import Runner
from tracker_ar.errors import InputError
from tracker_ar.models.alpha_refine import build_mask_refiner
from tracker_ar.models.dimp import build_super_dimp
from tracker_ar.models.lite_base import build_lite_base
from tracker_ar.prediction import BaseTracker
from tracker_ar.profiles import PROFILES, Profile
from tracker_ar.refine.refiner import SegmentingRefiner
from tracker_ar.tracker import CPU, AlphaRefineTracker
from tracker_ar.weights.store import find_checkpoints, find_refiner_checkpoint, load_into


def build_tracker(
    profile: str | Profile = "vot2020",
    device: str = "auto",
    checkpoint: str | PathLike[str] | None = None,
    seed: int = 0,
    base: BaseTracker | None = None,
    fast: bool = True,
    random_weights: bool = False,
) -> AlphaRefineTracker:
    """A tracker with its weights loaded.

    profile: 'vot2020', the challenge entry with the authors' checkpoints, or 'lite', with ours. device: 'auto' (the
    GPU where there is one), 'cpu', 'cuda', 'cuda:1', ... checkpoint: the folder that holds both files of the
    profile; None for the project's `checkpoints/`. seed: of everything random, applied anew at each initialisation.
    base: a base tracker to take the place of SuperDiMP (see `AdaptedTracker`). fast: False runs the networks as they
    are trained, layer by layer, in float32, to compare with; the results are the same up to rounding, which on a GPU
    is that of TF32 (see `Graphs`).
    Raises InputError for an unknown profile or device, CheckpointError for missing or unfit weights.
    """
    settings = _profile(profile)
    if base is not None:
        return AlphaRefineTracker(base, build_refiner(profile, device, checkpoint, fast), settings)
    where = _device(device)
    kind, build = (LiteTracker, build_lite_base) if isinstance(settings.base, LiteBaseSettings) else (
        DiMPTracker, build_super_dimp)
    network, refiner = build(settings.base.network), build_mask_refiner(settings.refiner.network)
    if not random_weights:
        for part, path in zip((network, refiner), find_checkpoints(settings.name, checkpoint)):
            load_into(part, path)

    def assemble(device: torch.device) -> AlphaRefineTracker:
        base = kind(Runner(network, device, fast), settings.base, seed)
        return AlphaRefineTracker(base, SegmentingRefiner(Runner(refiner, device, fast), settings.refiner), settings)

    try:
        return assemble(where)
    except RuntimeError as error:
        if where == CPU or not is_out_of_memory(error):
            raise
        announce(error)
    return assemble(CPU)


def build_refiner(
    profile: str | Profile = "vot2020",
    device: str = "auto",
    checkpoint: str | PathLike[str] | None = None,
    fast: bool = True,
) -> SegmentingRefiner:
    """The refiner of a profile, with its weights loaded, to stand behind a tracker of one's own.

    Arguments and errors as of `build_tracker`; only the refiner's checkpoint is needed.
    """
    settings = _profile(profile)
    network = build_mask_refiner(settings.refiner.network)
    load_into(network, find_refiner_checkpoint(settings.name, checkpoint))
    return SegmentingRefiner(Runner(network, _device(device), fast), settings.refiner)


def _profile(name: str | Profile) -> Profile:
    if isinstance(name, Profile):
        return name
    if name not in PROFILES:
        raise InputError(f"There is no profile {name!r}: choose one of {', '.join(PROFILES)}.")
    return PROFILES[name]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {name!r} cannot be used ({error}): use 'auto' or 'cpu'.") from None
    return device
