"""The mask refiner against recorded outputs of the authors' network, stage by stage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recipe import MASK_REFINER, net_input
from recorded import Reference, key_shapes
from torch import Tensor

from tracker_ar.models.alpha_refine import MASK_REFINER_LITE, MaskRefiner, build_mask_refiner
from tracker_ar.ops.resizing import double

LEVELS = ("layer5", "layer4", "layer3", "layer2")
BOX = (95.5, 95.5, 192.0, 192.0)


@pytest.fixture(scope="module")
def outputs(mask_refiner: MaskRefiner) -> dict[str, Tensor]:
    """Every intermediate result of one reference and one search image, named as in the reference file."""
    seen: dict[str, Tensor] = {}
    handles = []

    def record(name: str, module: torch.nn.Module) -> None:
        handles.append(module.register_forward_hook(lambda *call: seen.update({name: call[-1]})))

    record("se", mask_refiner.neck.channel_attention)
    record("neck", mask_refiner.neck)
    for level in LEVELS:
        for block in ("TSE", "RRB1", "CAB", "RRB2"):
            record(f"{block}.{level}", getattr(mask_refiner.refiner, block)[level])
    with torch.inference_mode():
        target = mask_refiner.learn(torch.from_numpy(net_input(386, 384)), torch.tensor([BOX]))
        kernel = target.kernel
        search = torch.from_numpy(net_input(384, 384))
        logits = mask_refiner.segment(target, search).logits
        features = mask_refiner.feature_extractor(search, ("layer3",))["layer3"]
        seen["corr"] = mask_refiner.neck.correlate(kernel, features)
        seen["up1"] = double(seen["RRB2.layer2"])
    for handle in handles:
        handle.remove()
    seen.update({f"TSE.{level}": seen[f"TSE.{level}"][0] for level in LEVELS})
    return seen | {"ref_kernel": kernel, "logits": logits, "prob": torch.sigmoid(logits)}


BLOCKS = [f"{block}.{level}" for level in LEVELS for block in ("TSE", "RRB1", "CAB", "RRB2")]


@pytest.mark.parametrize("name", ["ref_kernel", "corr", "se", "neck", *BLOCKS, "up1", "logits", "prob"])
def test_stage(name: str, outputs: dict[str, Tensor], reference: Callable[[str], Reference]) -> None:
    reference("ar_net").check(name, outputs[name])


def test_state_dict_has_the_keys_and_shapes_of_the_published_checkpoint(mask_refiner: MaskRefiner) -> None:
    shapes = {key: tuple(value.shape) for key, value in mask_refiner.state_dict().items()}
    assert shapes == key_shapes(MASK_REFINER)


def test_training_forward_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    network = build_mask_refiner(MASK_REFINER_LITE)
    images = torch.randn(2, 3, 128, 128)
    boxes = torch.tensor([[32.0, 32.0, 64.0, 64.0], [20.0, 40.0, 80.0, 50.0]])
    found = network(images, boxes, images.flip(0), torch.ones(2, 1, 128, 128))
    assert found.logits.shape == (2, 1, 128, 128)
    assert found.logits.abs().mean() < 5.0
    sum(part.square().mean() for part in (found.logits, found.corners, found.judgement)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_kernels_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    network = build_mask_refiner(MASK_REFINER_LITE).eval()
    images = torch.randn(2, 3, 128, 128)
    boxes = torch.tensor([[32.0, 32.0, 64.0, 64.0], [20.0, 40.0, 80.0, 50.0]])
    with torch.inference_mode():
        both = network(images, boxes, images).logits
        alone = [network(images[i : i + 1], boxes[i : i + 1], images[i : i + 1]).logits for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-3, atol=1e-3)
