"""AlphaRefine: a base tracker finds the target, the refiner turns its box into a mask.

The order of one frame (Alpha-Refine, VOT2020 real-time entry): the base tracker's box is clipped to the image, the
refiner makes the mask from the clipped box, and the clipped box - not the refined one - goes back into the base
tracker.
"""

from __future__ import annotations

import copy
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from tracker_ar.base import BaseResult, BaseTracker
from tracker_ar.frame import as_rgb_image
from tracker_ar.device_crops import uploaded_once
from tracker_ar.errors import InputError
from tracker_ar.engine.fallback import Movable, announce, is_out_of_memory, on_cpu_when_full
from tracker_ar.geometry import Region, clip_box, region_box
from tracker_ar.prediction import Prediction
from tracker_ar.profiles import PROFILES, Profile
from tracker_ar.refine import Refinement, Refiner

CPU = torch.device("cpu")


class AlphaRefineTracker:
    """Follows one target through a video: `initialize` with the first frame, then `track` each further one.

    When the GPU runs out of memory it goes on on the CPU, with a RuntimeWarning; what was learned since the first
    frame is then lost, but not where the target is.
    """

    def __init__(self, base: BaseTracker, refiner: Refiner, profile: Profile) -> None:
        self.base = base
        self.refiner = refiner
        self.profile = profile
        self._image_size: tuple[int, int] | None = None
        self._learned_on = CPU
        self._start: tuple[np.ndarray, np.ndarray] | None = None  # image and region, where they may be needed again
        self._last_box: np.ndarray | None = None

    @on_cpu_when_full
    def initialize(self, image: np.ndarray, region: Region) -> None:
        """Learn the target.

        image: (H, W, 3) uint8 RGB; grey and RGBA are taken as well. region: a mask (H, W), non-zero on the target,
        or a box x, y, w, h in pixels (0-based, top-left origin). Raises InputError for an image or region that
        cannot be used; the tracker then keeps the target it had.
        """
        image = as_rgb_image(image)
        box = region_box(region, image.shape[:2])
        self._start = self._last_box = None
        self._learn(image, region, box)
        if self._learned_on != CPU:
            self._start = image.copy(), np.array(region)
        self._image_size = image.shape[:2]

    @on_cpu_when_full
    def track(self, image: np.ndarray) -> Prediction:
        """Find the target in the next frame, an image of the first frame's size.

        Raises InputError for an image that cannot be used and for a call before `initialize`; the next good frame
        is tracked as if the bad one had not been.
        """
        image = self.ready(image)
        with uploaded_once(image):
            found = self.base.track(image)
            box, confident = self.accept(found)
            refined = self.refiner.refine(image, box, learn=confident)
        return prediction_of(box, found, refined)

    def ready(self, image: np.ndarray) -> np.ndarray:
        """The image as it is worked on, if it can be."""
        if self._image_size is None:
            raise InputError("track() was called before initialize(): give the first frame and its region first.")
        image = as_rgb_image(image)
        if image.shape[:2] != self._image_size:
            raise InputError(
                f"The frame is {image.shape[1]} x {image.shape[0]} pixels, the first one was "
                f"{self._image_size[1]} x {self._image_size[0]}: scale the frames of a video to one size."
            )
        if self._learned_on != self.refiner.device:
            self._start_again()  # another target, which shares the networks, has moved them
        return image

    def accept(self, found: BaseResult) -> tuple[np.ndarray, bool]:
        """The base tracker's box, clipped and given back to it, and whether it is confident."""
        box = clip_box(found.box, self._image_size, self.profile.minimum_side)
        self.base.correct(box)
        self._last_box = box
        return box, found.score is None or found.score >= self.profile.confident_score

    @property
    def in_batches(self) -> bool:
        """Whether several targets go through the networks faster in one batch: on a GPU, with SuperDiMP as the base."""
        graphs = getattr(self.base, "graphs", None)
        return graphs is not None and graphs.active and self.refiner.graphs.active

    def move_to_cpu(self) -> bool:
        """Go on on the CPU; False where that is so already."""
        if self.refiner.device == CPU:
            return False
        self.refiner.move_to(CPU)
        if isinstance(self.base, Movable):
            self.base.move_to(CPU)
        self._start_again()
        return True

    def _learn(self, image: np.ndarray, region: Region, box: np.ndarray) -> None:
        self.base.initialize(image, box)
        self.refiner.initialize(image, region)
        self._learned_on = self.refiner.device

    def _start_again(self) -> None:
        if self._start is None:
            return
        (image, region), self._start = self._start, None
        self._learn(image, region, region_box(region, image.shape[:2]))
        if self._last_box is not None:
            self.base.correct(self._last_box)

    def __copy__(self) -> AlphaRefineTracker:
        """A tracker with the same networks and settings that has yet to be given its target."""
        # What base tracker and refiner know of a target they put beside their networks anew in `initialize`.
        return AlphaRefineTracker(copy.copy(self.base), copy.copy(self.refiner), self.profile)


def prediction_of(box: np.ndarray, found: BaseResult, refined: Refinement) -> Prediction:
    """What a frame's result is, of the clipped box and what both parts of the tracker said."""
    return Prediction(box, refined.mask, refined.score if found.score is None else found.score, refined.probabilities)


def build_tracker(
    profile: str = "vot2020",
    device: str = "auto",
    checkpoint: str | PathLike[str] | None = None,
    seed: int = 0,
    base: BaseTracker | None = None,
    fast: bool = True,
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
    from tracker_ar.base.dimp import SuperDiMPTracker
    from tracker_ar.weights.store import find_checkpoints, load_into
    from tracker_ar.models.dimp import build_super_dimp

    settings = _profile(profile)
    if base is not None:
        return AlphaRefineTracker(base, build_refiner(profile, device, checkpoint, fast), settings)
    where = _device(device)
    base_path, refiner_path = find_checkpoints(profile, checkpoint)
    network = build_super_dimp(settings.base.network)
    load_into(network, base_path)

    def assemble(device: torch.device) -> AlphaRefineTracker:
        base = SuperDiMPTracker(network, settings.base, device, seed, fast)
        return AlphaRefineTracker(base, _load_refiner(settings, refiner_path, device, fast), settings)

    try:
        return assemble(where)
    except RuntimeError as error:
        if where == CPU or not is_out_of_memory(error):
            raise
        announce(error)
    return assemble(CPU)


def build_refiner(
    profile: str = "vot2020",
    device: str = "auto",
    checkpoint: str | PathLike[str] | None = None,
    fast: bool = True,
) -> Refiner:
    """The refiner of a profile, with its weights loaded, to stand behind a tracker of one's own.

    Arguments and errors as of `build_tracker`; only the refiner's checkpoint is needed.
    """
    from tracker_ar.weights.store import find_refiner_checkpoint

    settings = _profile(profile)
    return _load_refiner(settings, find_refiner_checkpoint(profile, checkpoint), _device(device), fast)


def _load_refiner(settings: Profile, path: Path, device: torch.device, fast: bool) -> Refiner:
    from tracker_ar.weights.store import load_into
    from tracker_ar.models.alpha_refine import build_mask_refiner

    network = build_mask_refiner(settings.refiner.network)
    load_into(network, path)
    return Refiner(network, settings.refiner, device, fast)


def _profile(name: str) -> Profile:
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
