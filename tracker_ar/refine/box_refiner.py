"""Alpha-Refine as in its papers: image and boxes in, more precise boxes out, and masks where they are wanted.

The reference is never updated (Alpha-Refine, section 3.1). One branch gives the box: always the same, or the one that
the selector of the base version (Yan et al. 2020, arXiv 2007.02024) chooses; the others are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracker_ar.crops import RefinerCrop, box_to_image, normalized_pixels, paste_back, refiner_crop
from tracker_ar.engine.runner import Runner
from tracker_ar.errors import InputError
from tracker_ar.frame import Frame
from tracker_ar.geometry import Region, box_from_largest_part, region_box
from tracker_ar.models.branch_refiner import (
    BRANCH_REFINER_18,
    BRANCH_REFINER_34,
    BRANCH_REFINER_50,
    BranchRefiner,
    BranchRefinerConfig,
)
from tracker_ar.models.branch_selector import BRANCHES
from tracker_ar.prediction import Refinement
from tracker_ar.refine.masks import described
from tracker_ar.trace import note, stage

MASK_BOX_THRESHOLD = 0.5  # of the pixels around which the mask branch puts its box, whatever mask is reported
SMALLEST_SIDE = 1.0  # pixels: of a box that can be tracked on
SELECTED = "selected"


@dataclass(frozen=True)
class BoxRefinerSettings:
    """Everything a refiner with branches needs besides its weights; values of the authors' trackers, pytracking/
    refine_modules and pytracking/tracker on the master branch."""

    network: BranchRefinerConfig = BRANCH_REFINER_34
    branch: str = "corner"  # which gives the box: box, corner, mask, or SELECTED
    masks: bool = True  # also report masks, as in VOT2020; the benchmarks score boxes and leave them out
    search_factor: float = 2.0  # side of the refiner's crop / side of the target, along both axes
    threshold: float = 0.65  # mask probability above which a pixel is target, in the VOT2020 scripts


AR_34 = BoxRefinerSettings()  # CVPR 2021: "all" branches, of which the corner branch gives the box
AR_18 = BoxRefinerSettings(network=BRANCH_REFINER_18)
AR_BASE = BoxRefinerSettings(network=BRANCH_REFINER_50, branch=SELECTED)  # arXiv 2007.02024, July 2020


@dataclass(frozen=True)
class BoxTarget:
    """All that is known of one target. kernel: (1, C, p, p), of the first frame."""

    kernel: Tensor


@dataclass
class _View:
    """One target in one crop. fused, laterals: what the branches read. refined: (4,) x, y, w, h in the image, of any
    size.
    probabilities: (H, W) of the image, where the mask branch was computed."""

    crop: RefinerCrop
    box: np.ndarray
    fused: Tensor
    laterals: tuple[Tensor, ...]
    branch: str
    refined: np.ndarray | None = None
    score: float = 1.0
    probabilities: np.ndarray | None = None


class BoxRefiner:
    """The engine; see `tracker_ar.prediction.Refiner`. It learns nothing after the first frame.

    `Refinement.box` is the refined box before clipping. Corners may come out exchanged, which the authors' system takes
    for a box of negative size; here such a box, or one with a side under a pixel, counts as nothing seen: the box
    that was given stands, with score 0. The score is the mean probability of the mask where the mask branch was
    computed, else how much of the heat lies near the corners, and 1 for the box branch, which has no such thing.
    """

    def __init__(self, runner: Runner, settings: BoxRefinerSettings) -> None:
        """runner: of a `BranchRefiner`. Raises InputError for a branch that it does not have."""
        network: BranchRefiner = runner.network
        if settings.branch not in (*BRANCHES, SELECTED):
            raise InputError(f"There is no branch {settings.branch!r}: choose {', '.join(BRANCHES)} or {SELECTED}.")
        if network.bbox_head is None and settings.branch in (BRANCHES[0], SELECTED):
            raise InputError(f"This refiner has no box branch, which {settings.branch!r} needs: choose corner or mask.")
        if network.selector is None and settings.branch == SELECTED:
            raise InputError("The branch is to be selected, but no branch selector is loaded: load its weights, too, "
                             "or choose box, corner or mask.")
        self.runner = runner
        self.settings = settings

    @torch.inference_mode()
    def start(self, frame: Frame, region: Region) -> BoxTarget:
        """Remember a target by the box of its region; a mask counts by its box. Raises InputError for a region that
        cannot be used."""
        crop = self._crop(frame, region_box(region, frame.size))
        note("reference crop", crop)
        boxes = torch.as_tensor(crop.box_in_crop, dtype=torch.float32)[None].to(self.runner.device)
        return BoxTarget(self.runner.network.learn(self._input(crop), boxes))

    @torch.inference_mode()
    def refine(
        self, frame: Frame, targets: Sequence[BoxTarget], boxes: Sequence[np.ndarray], learn: Sequence[bool] = ()
    ) -> list[Refinement]:
        """The refined box of every target near its box, (4,) x, y, w, h in pixels. Raises InputError for a box that
        cannot be used."""
        views = self._views(frame, targets, [np.asarray(box, dtype=np.float64) for box in boxes])
        by_mask = [view for view in views if view.branch == "mask"]
        self._add_masks(frame, views if self.settings.masks else by_mask)
        for view in by_mask:
            assert view.probabilities is not None
            view.refined = box_from_largest_part(view.probabilities > MASK_BOX_THRESHOLD)
        self._add_boxes([view for view in views if view.branch == "box"])
        self._add_corners([view for view in views if view.refined is None])
        refinements = [self._refinement(view) for view in views]
        for view, refinement in zip(views, refinements):
            note("refined", (view.crop, refinement))
        return refinements

    def look(self, frame: Frame, target: BoxTarget, box: np.ndarray) -> Refinement:
        """The refined box of one target."""
        return self.refine(frame, [target], [box])[0]

    # ---- from the image to the neck

    def _crop(self, frame: Frame, box: np.ndarray) -> RefinerCrop:
        return refiner_crop(frame.pixels, box, self.settings.search_factor, self.settings.network.input_size)

    def _input(self, crop: RefinerCrop) -> Tensor:
        return normalized_pixels(crop.pixels).to(self.runner.device)

    def _views(self, frame: Frame, targets: Sequence[BoxTarget], boxes: Sequence[np.ndarray]) -> list[_View]:
        with stage("refiner crop"):
            crops = [self._crop(frame, box) for box in boxes]
            inputs = [(self._input(crop), target.kernel) for crop, target in zip(crops, targets)]
        views = []
        for crop, box, (fused, laterals, scores) in zip(crops, boxes, self.runner.run(see, inputs)):
            branch = self.settings.branch
            if branch == SELECTED:
                branch = BRANCHES[int(scores.argmax())]
                note("branch", branch)
            views.append(_View(crop, box, fused, laterals, branch))
        return views

    # ---- the branches

    def _add_masks(self, frame: Frame, views: Sequence[_View]) -> None:
        found = self.runner.run(segment, [(view.fused, view.laterals) for view in views])
        for view, probabilities in zip(views, found):
            with stage("paste back"):
                view.probabilities = paste_back(probabilities[0, 0].float().cpu().numpy(), view.crop, frame.size)

    def _add_boxes(self, views: Sequence[_View]) -> None:
        for view, corners in zip(views, self.runner.run(move_box, [(view.fused,) for view in views])):
            view.refined = self._in_image(view, corners)

    def _add_corners(self, views: Sequence[_View]) -> None:
        for view, (corners, sure) in zip(views, self.runner.run(find_corners, [(view.fused,) for view in views])):
            view.refined, view.score = self._in_image(view, corners), float(sure)

    def _in_image(self, view: _View, corners: Tensor) -> np.ndarray:
        near, far = corners.double().cpu().numpy().reshape(2, 2)
        return box_to_image([*near, *(far - near)], view.crop.zoom, view.box, self.settings.search_factor)

    def _refinement(self, view: _View) -> Refinement:
        assert view.refined is not None
        box, score, mask = view.refined, view.score, None
        if view.probabilities is not None:
            found = described(view.probabilities, view.crop.window, view.box, self.settings.threshold)
            score, mask = found.score, found.mask
        if not min(box[2:]) >= SMALLEST_SIDE:
            box, score = view.box, 0.0
        if not self.settings.masks:
            return Refinement(box, None, score)
        return Refinement(box, mask, score, view.probabilities)


def selecting_refiner(runner: Runner, selector: Runner, settings: BoxRefinerSettings) -> BoxRefiner:
    """The engine with a branch selector, whose network, here in a runner of its own, becomes part of the refiner's."""
    runner.network.selector = selector.network
    return BoxRefiner(runner, settings)


# ---- the parts of a frame that the runner executes


def see(
    network: BranchRefiner, images: Tensor, kernel: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
    """Search crops (N, 3, S, S), ImageNet-normalised, and kernels of their targets -> the neck's maps, the backbone's
    of strides 2, 4, 8, and the selector's scores (N, 3), where there is one."""
    with stage("refiner backbone"):
        *laterals, features = network.levels(images)
    with stage("correlation"):
        fused = network.neck(kernel, features)
    with stage("branch selector"):
        scores = None if network.selector is None else network.selector(fused)
    return fused, tuple(laterals), scores


def move_box(network: BranchRefiner, fused: Tensor) -> Tensor:
    """Corners (N, 4) x1, y1, x2, y2 in pixels of the crop."""
    with stage("box head"):
        return network.boxes(fused)


def find_corners(network: BranchRefiner, fused: Tensor) -> tuple[Tensor, Tensor]:
    """See `CornerHead.forward`."""
    with stage("corner head"):
        return network.corner_head(fused)


def segment(network: BranchRefiner, fused: Tensor, laterals: tuple[Tensor, ...]) -> Tensor:
    """Probabilities (N, 1, S, S)."""
    with stage("mask head"):
        return torch.sigmoid(network.mask(fused, laterals))
