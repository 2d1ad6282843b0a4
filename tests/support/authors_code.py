"""The authors' public code as a tracker, imported from a checkout that the user fetched, without changing it.

What it needs and this project has no use for (a CUDA extension, torchvision, visdom, ...) is stood in for in
`sys.modules`. Weights come from the parity tests' recipe. For a process of its own: `.cuda()` does nothing.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from recipe import MASK_REFINER, SUPER_DIMP
from recorded import load_recipe
from torch import nn

from tracker_ar.errors import InputError
from tracker_ar.ops.prroi_pool import prroi_pool2d
from tracker_ar.speed.stages import REST, StageMeter

FOLDER = "AlphaRefine_submit"
ENTRY = "pytracking/VOT2020_super_only_mask_384_HP/dimp_alpha_seg_class.py"
NEEDED = (
    ENTRY, "pytracking/ARcm_seg.py", "pytracking/tracker/dimp/dimp.py",
    "pytracking/parameter/dimp/super_dimp.py", "ltr/models/tracking/dimpnet.py",
    "ltr/models/AR_seg_mask/AR_seg_mask.py",
)
HOW = "git clone --branch vot2020 https://github.com/MasterBin-IIAU/AlphaRefine"
# The published settings of the target filter's network; what is left out is the code's own default.
SUPER_DIMP_NETWORK = dict(
    filter_size=4, backbone_pretrained=False, optim_iter=5, clf_feat_norm=True, clf_feat_blocks=0,
    final_conv=True, out_feature_dim=512, optim_init_step=0.9, optim_init_reg=0.1, init_gauss_sigma=22 / 24,
    num_dist_bins=100, bin_displacement=0.1, mask_init_factor=3.0, target_mask_act="sigmoid",
    score_act="relu",
)


class ExactPooling(nn.Module):
    """Precise RoI pooling where the authors' code expects its CUDA extension; gradients by autograd."""

    def __init__(self, rows: int, columns: int, scale: float) -> None:
        super().__init__()
        self.bins, self.scale = (rows, columns), scale

    def forward(self, features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        return prroi_pool2d(features, rois, self.bins, self.scale).contiguous()


class AttributeDict(dict):
    """A dictionary whose keys are attributes too."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


def find_code(folder: Path) -> Path:
    """The folder that holds `ltr` and `pytracking`. Raises InputError where files are missing."""
    root = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    for name in NEEDED:
        if not (root / name).is_file():
            raise InputError(f"{folder} is not a checkout of the authors' entry, {root / name} is missing: "
                             f"fetch it with '{HOW}' and give that folder.")
    return root.resolve()


def build_authors(folder: Path) -> Any:
    """The authors' tracker as in the entry, with `initialize(image, mask)` and `track(image)`.

    Raises InputError for a folder that is not a checkout of it.
    """
    root = find_code(folder)
    sys.dont_write_bytecode = True  # the checkout stays as it is
    _stand_in()
    sys.path.insert(0, str(root))
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *arguments, **keywords: self
    try:
        crops = importlib.import_module("pytracking.features.preprocessing")
        crops.sample_patch = _dividing_as_then(crops.sample_patch)
        name = ENTRY.removesuffix(".py").replace("/", ".")
        entry = importlib.import_module(name)
        return entry.DIMP_ALPHA("dimp", "super_dimp", "ARcm_coco_seg_only_mask_384", 0.65)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The authors' code in {root} cannot be used ({error}): check out its branch vot2020."
        ) from error


@dataclass(frozen=True)
class Call:
    """The callable `name` of an object or module does the work of `stage`."""

    stage: str
    owner: Any
    name: str


@contextmanager
def watched(calls: Iterable[Call], meter: StageMeter) -> Iterator[None]:
    """Tell the meter of these calls in here, also where they are another tracker's than ours."""
    with ExitStack() as replacements:
        for call in calls:
            told = _telling(getattr(call.owner, call.name), meter, call.stage)
            replacements.enter_context(replaced(call.owner, call.name, told))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for an attribute of an object or module; afterwards as it was, inherited or its own."""
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own or isinstance(owner, ModuleType):
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _telling(function: Callable[..., Any], meter: StageMeter, stage: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def told(*arguments: Any, **keywords: Any) -> Any:
        with meter.stage(stage):
            return function(*arguments, **keywords)

    return told


def calls_of_authors(tracker: Any) -> list[Call]:
    """What is called in which stage, named as ours are."""
    wrapper, refiner = tracker.dimp.params.net, tracker.alpha.refine_network
    network, dimp = wrapper.net, sys.modules["pytracking.tracker.dimp.dimp"]
    refining = sys.modules["pytracking.ARcm_seg"]
    return [
        Call(REST, tracker, "track"),
        Call("base crop", dimp, "sample_patch_multiscale"),
        Call("base crop", wrapper, "preprocess_image"),
        Call("base backbone", network, "extract_backbone_features"),
        Call("classification features", network, "extract_classification_feat"),
        Call("target scores", network.classifier, "classify"),
        Call("localisation", tracker.dimp, "localize_target"),
        Call("IoU features", network.bb_regressor, "get_iou_feat"),
        Call("box refinement", tracker.dimp, "refine_target_box"),
        Call("model update", network.classifier.filter_optimizer, "forward"),
        Call("refiner crop", refining, "sample_target_SE"),
        Call("refiner crop", tracker.alpha, "img_preprocess"),
        Call("refiner backbone", refiner.feature_extractor, "forward"),
        Call("correlation", refiner.neck, "fuse_feat"),
        Call("mask head", refiner.refiner, "forward"),
        Call("paste back", tracker.alpha, "get_mask"),
    ]


def _dividing_as_then(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with `/` between integer tensors truncating, as in the torch of the authors' time."""
    divide = torch.Tensor.__truediv__

    def division(dividend: torch.Tensor, divisor: Any) -> torch.Tensor:
        if dividend.is_floating_point() or isinstance(divisor, float):
            return divide(dividend, divisor)
        if isinstance(divisor, torch.Tensor) and divisor.is_floating_point():
            return divide(dividend, divisor)
        return torch.div(dividend, divisor, rounding_mode="trunc")

    def call(*arguments: Any, **keywords: Any) -> Any:
        with replaced(torch.Tensor, "__truediv__", division):
            return function(*arguments, **keywords)

    return call


def _network(path: str | Path, **_: Any) -> nn.Module:
    """In place of reading a checkpoint: the network that the path names, with the recipe's weights."""
    if "super_dimp" in str(path):
        module = importlib.import_module("ltr.models.tracking.dimpnet")
        return load_recipe(module.dimpnet50(**SUPER_DIMP_NETWORK), SUPER_DIMP)
    module = importlib.import_module("ltr.models.AR_seg_mask.AR_seg_mask")
    network = module.ARnet_seg_mask_resnet50(backbone_pretrained=False, used_layers=["layer4"], pool_size=12)
    return load_recipe(network, MASK_REFINER)


def _tracker_info(name: str, parameters: str, run: int | None) -> SimpleNamespace:
    """In place of the evaluation package, which wants data sets and a file of local paths."""

    def get_parameters() -> Any:
        params = importlib.import_module(f"pytracking.parameter.{name}.{parameters}").parameters()
        params.use_gpu, params.device = False, "cpu"
        return params

    tracker_class = importlib.import_module(f"pytracking.tracker.{name}").DiMP
    return SimpleNamespace(get_parameters=get_parameters, tracker_class=tracker_class)


def _stand_in() -> None:
    def module(name: str, **contents: Any) -> None:
        made = ModuleType(name)
        made.__path__ = []
        vars(made).update(contents)
        sys.modules[name] = made

    for name in ("torchvision", "torchvision.models", "ltr.external", "ltr.external.PreciseRoIPooling",
                 "ltr.external.PreciseRoIPooling.pytorch", "vot", "visdom", "visdom.server", "pandas"):
        module(name)
    module("torchvision.models.resnet", model_urls={}, BasicBlock=nn.Module, Bottleneck=nn.Module)
    module("torch._six", string_classes=(str, bytes), int_classes=int)
    module("jpeg4py")
    module("lvis")
    module("easydict", EasyDict=AttributeDict)
    module("ltr.external.PreciseRoIPooling.pytorch.prroi_pool", PrRoIPool2D=ExactPooling)
    drawing = dict.fromkeys(("show_tensor", "plot_graph", "show_image_with_boxes", "overlay_mask"))
    module("pytracking.utils.plotting", **drawing)
    module("pytracking.utils.loading", load_network=_network)
    module("pytracking.evaluation", Tracker=_tracker_info)
    module("pytracking.run_tracker", run_tracker=None)
    module("pytracking.run_webcam", run_webcam=None)
