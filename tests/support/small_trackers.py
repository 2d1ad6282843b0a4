"""Every tracker of the zoo with networks that are small and have random weights: what runs is its own engine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tracker_ar import zoo
from tracker_ar.base.atom import ATOMSettings
from tracker_ar.base.candidates import Spread
from tracker_ar.base.dimp import DiMPSettings
from tracker_ar.base.eco import DEEP, SHALLOW, ECOSettings
from tracker_ar.base.hard_negatives import TrainingSettings
from tracker_ar.base.rt_mdnet import (
    FirstFrameSettings,
    RegressionSettings,
    RTMDNetSettings,
    SampleSettings,
    UpdateSettings,
)
from tracker_ar.base.scenes import SceneSettings
from tracker_ar.base.settings import AugmentationSettings
from tracker_ar.engine.runner import Runner
from tracker_ar.models.alpha_refine import build_mask_refiner
from tracker_ar.models.atom import ATOM
from tracker_ar.models.branch_refiner import build_branch_refiner
from tracker_ar.models.branch_selector import build_branch_selector
from tracker_ar.models.dimp import build_dimp
from tracker_ar.models.eco_features import with_unit_power
from tracker_ar.models.fourier_filter import SolverSettings
from tracker_ar.models.iou_net import IoUNet
from tracker_ar.models.lite_base import build_lite_base
from tracker_ar.models.mdnet import MDNet
from tracker_ar.models.resnet import ResNet
from tracker_ar.refine.refiner import RefinerSettings
from tracker_ar.tracker import AlphaRefineTracker
from tracker_ar.weights.slots import look_up

CPU = torch.device("cpu")
FEW = SampleSettings(20, 60, (0, 0.5), Spread("uniform", 1, 2, 1.1))
# Everything that happens in the real settings happens in these, too, but less of it.
SMALL_MDNET = RTMDNetSettings(
    candidates=40,
    scene=SceneSettings(object_size=50),
    training=TrainingSettings(8, 20, 50),
    first_frame=FirstFrameSettings(FEW, ((0, 0, 1), (-4, 0, 1.1)), crops=2, iterations=2),
    regression=RegressionSettings(20),
    update=UpdateSettings(SampleSettings(10, 20, (0, 0.3), FEW.negative_spread), interval=2, iterations=2),
)
SMALL_ECO = ECOSettings(
    layers=(replace(SHALLOW, channels=3), replace(DEEP, channels=6)), rotations=(10, -10), blur_sigmas=((2, 2),),
    dropout_samples=2, memory_capacity=12, update_interval=3, solver=SolverSettings(gauss_newton_steps=3),
)


class TinySiamRPN(nn.Module):
    """Has the parts of `SiamRPN` and its shapes; colours are its features."""

    def backbone(self, crop: Tensor) -> Tensor:
        return F.avg_pool2d(crop / 128 - 1, 8)

    def neck(self, features: Tensor) -> Tensor:
        return features

    def template(self, crop: Tensor) -> tuple[Tensor]:
        return (self.backbone(crop)[:, :, 4:11, 4:11],)

    def rpn_head(self, kernels: tuple[Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
        likeness = torch.cat([F.conv2d(one[None], kernel[None]) for one, kernel in zip(features, kernels[0])]) / 10
        classes = torch.cat((-likeness.expand(-1, 5, -1, -1), likeness.expand(-1, 5, -1, -1)), dim=1)
        return classes, 0.1 * torch.sin(likeness).expand(-1, 20, -1, -1)


class SmallFeatures(nn.Module):
    """In place of `ECOFeatures`: random filters at strides 4 and 16."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.fine = nn.Parameter(torch.randn(6, 3, 4, 4, generator=generator))
        self.coarse = nn.Parameter(torch.randn(12, 6, 4, 4, generator=generator))

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = F.relu(F.conv2d(images, self.fine, stride=4))
        coarse = F.relu(F.conv2d(fine, self.coarse, stride=4))
        return with_unit_power(fine), with_unit_power(coarse)


def lively(network: nn.Module) -> nn.Module:
    """The network with weights, always the same, that keep the strength of what they are given."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * (2 / parameter[0].numel()) ** 0.5
    return network.eval()


def small_base(name: str) -> tuple[list[nn.Module], Any]:
    """Networks and settings of a base tracker."""
    settings = zoo.profile(name).base
    if name == "siamrpn++":
        return [TinySiamRPN()], settings
    if name == "rt-mdnet":
        return [lively(MDNet())], SMALL_MDNET
    if name == "eco":
        return [SmallFeatures()], SMALL_ECO
    if name == "lite_base":
        small = replace(settings.network, channels=8, hidden=16)
        return [lively(build_lite_base(small))], replace(settings, network=small, input_size=96)
    assert isinstance(settings, DiMPSettings | ATOMSettings)
    settings = replace(
        settings, input_size=96, localization=replace(settings.localization, not_found_threshold=-1.0),
        augmentation=AugmentationSettings(relative_shifts=((0.6, 0.6),), blur_sigmas=((2, 2),), rotations=(10,)),
        memory=replace(settings.memory, capacity=8, update_interval=2),
    )
    if isinstance(settings, ATOMSettings):
        network = ATOM()
        network.feature_extractor = ResNet("basic", (1, 1, 1), 8)
        network.bb_regressor = IoUNet((16, 32), 16, 16, (16, 16), (16, 16))
        return [lively(network)], replace(settings, filter=replace(settings.filter, channels=8, initial_steps=(3, 3)))
    few = replace(settings.network, depths=(1, 1, 1), width=8, num_classes=None, classification_channels=24,
                  iou_reference_channels=16, iou_hidden_channels=16, iou_channels=(16, 16),
                  iou_predictor_channels=(16, 16))
    return [lively(build_dimp(few))], replace(settings, network=few)


def small_refiner(name: str) -> tuple[list[nn.Module], Any]:
    """Networks and settings of a refiner."""
    settings = zoo.profile(f"static+{name}").refiner
    few = replace(settings.network, depths=(1, 1, 1, 1), width=8, num_classes=None)
    if isinstance(settings, RefinerSettings):
        few = replace(few, input_size=128)
        return [lively(build_mask_refiner(few))], replace(settings, network=few, input_size=128)
    selector = [lively(build_branch_selector())] if name == "ar_base" else []
    return [lively(build_branch_refiner(few)), *selector], replace(settings, network=few)


def make_small(name: str, seed: int = 0) -> AlphaRefineTracker:
    """A tracker of its own by any name of the zoo."""
    profile = zoo.profile(name)
    first = zoo.BASES[profile.base_name]
    networks, settings = small_base(profile.base_name) if first.kinds else ([], None)
    runners = [Runner(network, CPU) for network in networks]
    base = look_up(first.engine)(*runners, settings, seed=seed) if runners else look_up(first.engine)(*first.arguments)
    refiner = None
    if profile.refiner_name:
        networks, settings = small_refiner(profile.refiner_name)
        refiner = look_up(zoo.REFINERS[profile.refiner_name].engine)(
            *(Runner(network, CPU) for network in networks), settings)
    return AlphaRefineTracker(base, refiner, profile)


@cache
def _engines(name: str) -> AlphaRefineTracker:
    return make_small(name)


def small_tracker(name: str) -> AlphaRefineTracker:
    """A tracker with engines that all of its name share: they do not change while they track."""
    shared = _engines(name)
    return AlphaRefineTracker(shared.base, shared.refiner, shared.profile)
