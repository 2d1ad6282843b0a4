"""The refiner with branches: which branch is computed, what becomes of boxes that cannot be used, several targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from trace_notes import Notes

from tracker_ar.engine.runner import Runner
from tracker_ar.errors import InputError
from tracker_ar.frame import Frame
from tracker_ar.geometry import box_from_largest_part, box_from_mask
from tracker_ar.models.branch_refiner import BranchRefiner, BranchRefinerConfig
from tracker_ar.models.branch_selector import BRANCHES, BranchSelector
from tracker_ar.refine.box_refiner import SELECTED, BoxRefiner, BoxRefinerSettings, selecting_refiner
from tracker_ar.trace import listening

CPU = torch.device("cpu")
# The published networks, smaller.
SMALL = BranchRefinerConfig(
    block="basic", depths=(1, 1, 1), pool_box=True, post_correlation=True, non_local=True, pixel_corners=True,
    box_branch=True, width=8, num_classes=None, pool_size=2, input_size=64,
)
IMAGE = Frame(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
BOX = np.array([40.0, 30, 32, 16])


class Says(nn.Module):
    """Stands in for a head."""

    def __init__(self, *answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer if len(answer) > 1 else answer[0]

    def forward(self, *inputs: object) -> object:
        return self.answer


def network(config: BranchRefinerConfig = SMALL, **heads: nn.Module) -> BranchRefiner:
    torch.manual_seed(0)
    made = BranchRefiner(config).eval()
    for name, head in heads.items():
        setattr(made, name, head)
    return made


def refiner(branch: str, masks: bool = False, **heads: nn.Module) -> BoxRefiner:
    settings = BoxRefinerSettings(network=SMALL, branch=branch, masks=masks, threshold=0.5)
    return BoxRefiner(Runner(network(**heads), CPU), settings)


def corners(*values: float) -> Says:
    return Says(torch.tensor([values]), torch.tensor([0.75]))


def mask_logits(rows: slice, columns: slice) -> Says:
    logits = torch.full((1, 1, 64, 64), -9.0)
    logits[..., rows, columns] = 9
    return Says(logits)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("branch", [*BRANCHES, SELECTED])
def test_only_the_branch_that_counts_is_computed(branch: str, masks: bool) -> None:
    selector = Says(torch.tensor([[0.0, 1.0, 0.5]]))
    heads = {"mask_head": mask_logits(slice(10, 50), slice(10, 50)), "selector": selector}
    engine = refiner(branch, masks, **heads)
    with listening(notes := Notes()):
        found = engine.look(IMAGE, engine.start(IMAGE, BOX), BOX)
    chosen = "corner" if branch == SELECTED else branch
    heads_run = {name.removesuffix(" head") for name in notes.stages if name.endswith(" head")}
    assert heads_run == {chosen} | ({"mask"} if masks else set())
    assert (found.mask is not None) == (found.probabilities is not None) == masks
    assert notes["branch"] == (["corner"] if branch == SELECTED else [])


@pytest.mark.parametrize(("said", "box", "score"), [
    ((16, 16, 48, 48), [40, 30, 32, 16], 0.75), ((0, 0, 64, 64), [24, 22, 64, 32], 0.75),
    ((48, 16, 16, 48), BOX.tolist(), 0.0), ((16, 48, 48, 16), BOX.tolist(), 0.0),  # exchanged
    ((16, 16, 16.5, 48), BOX.tolist(), 0.0), ((float("nan"), 0, 64, 64), BOX.tolist(), 0.0),
])
def test_a_box_that_cannot_be_used_leaves_the_one_that_was_given(
    said: tuple[float, ...], box: list[float], score: float
) -> None:
    engine = refiner("corner", corner_head=corners(*said))
    found = engine.look(IMAGE, engine.start(IMAGE, BOX), BOX)
    assert found.box.tolist() == box and found.score == score and found.mask is None


@pytest.mark.parametrize(("rows", "box"), [
    (slice(16, 48), [32, 30, 48, 16]), (slice(16, 17), [40, 30, 32, 16]),  # too thin: the corner branch's
])
def test_the_mask_branch_gives_the_box_of_its_largest_part_or_leaves_it_to_the_corners(
    rows: slice, box: list[float]
) -> None:
    heads = {"mask_head": mask_logits(rows, slice(8, 56)), "corner_head": corners(16, 16, 48, 48)}
    engine = refiner("mask", **heads)
    found = engine.look(IMAGE, engine.start(IMAGE, BOX), BOX)
    assert np.abs(found.box - box).max() <= 1
    assert found.mask is None


def test_a_mask_beside_a_box_is_that_of_the_threshold() -> None:
    heads = {"mask_head": mask_logits(slice(16, 48), slice(8, 56)), "corner_head": corners(0, 0, 64, 64)}
    engine = refiner("corner", True, **heads)
    found = engine.look(IMAGE, engine.start(IMAGE, BOX), BOX)
    assert found.mask is not None and found.mask.dtype == np.uint8 and found.mask.flags.c_contiguous
    assert np.abs(box_from_mask(found.mask) - [32, 30, 48, 16]).max() <= 1
    assert found.box.tolist() == [24, 22, 64, 32] and 0.9 < found.score <= 1


def test_several_targets_are_refined_as_each_alone() -> None:
    torch.manual_seed(1)
    settings = BoxRefinerSettings(network=SMALL, branch=SELECTED, masks=True)
    engine = selecting_refiner(Runner(network(), CPU), Runner(BranchSelector(4, 4).eval(), CPU), settings)
    boxes = [BOX, np.array([5.0, 5, 30, 40]), np.array([70.0, 40, 60, 60])]
    targets = [engine.start(IMAGE, box) for box in boxes]
    together = engine.refine(IMAGE, targets, boxes, [True] * 3)
    for target, box, found in zip(targets, boxes, together):
        alone = engine.look(IMAGE, target, box)
        assert alone.box.tolist() == found.box.tolist() and np.array_equal(alone.mask, found.mask)
    assert engine.refine(IMAGE, [], [], []) == []


def test_a_mask_as_region_counts_by_its_box() -> None:
    engine = refiner("corner")
    mask = np.zeros(IMAGE.size, np.uint8)
    mask[30:46, 40:72] = 1
    mask[35:40, 50:60] = 0
    assert torch.equal(engine.start(IMAGE, mask).kernel, engine.start(IMAGE, BOX).kernel)


@pytest.mark.parametrize(("config", "branch", "says"), [
    (SMALL, "corners", "no branch 'corners'"), (SMALL, SELECTED, "no branch selector is loaded"),
    (replace(SMALL, box_branch=False), "box", "no box branch"),
    (replace(SMALL, box_branch=False), SELECTED, "no box branch"),
])
def test_branches_that_are_not_there(config: BranchRefinerConfig, branch: str, says: str) -> None:
    runner = Runner(network(config), CPU)
    with pytest.raises(InputError, match=says):
        BoxRefiner(runner, BoxRefinerSettings(network=config, branch=branch))


def test_training_reaches_every_parameter_of_every_version() -> None:
    for config in (SMALL, replace(SMALL, pool_box=False, non_local=False, pixel_corners=False, box_branch=False)):
        made = network(config).train()
        images = torch.randn(2, 3, 64, 64)
        found = made(images, torch.tensor([[16.0, 16, 32, 32]] * 2), images.flip(0))
        parts = [found.corners, found.logits] + ([] if found.deltas is None else [found.deltas])
        sum(part.square().mean() for part in parts).backward()
        assert all(parameter.grad is not None for parameter in made.parameters())


@pytest.mark.parametrize(("size", "box"), [((12, 12), [3, 4, 12, 12]), ((11, 11), None), ((2, 80), None)])
def test_the_largest_part_must_be_large(size: tuple[int, int], box: list[int] | None) -> None:
    mask = np.zeros((90, 120), np.uint8)
    mask[4 : 4 + size[0], 3 : 3 + size[1]] = 1
    mask[40:50, 50:60] = 1
    found = box_from_largest_part(mask)
    assert (None if found is None else found.tolist()) == box
