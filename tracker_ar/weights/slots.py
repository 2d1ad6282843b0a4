"""Every file of weights that can be installed: how it is recognised, which network it is for, where it is published."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Shapes = Mapping[str, tuple[int, ...]]

_COUNTER = r"(.*\.)?num_batches_tracked"  # of a batch norm: files of torch < 0.4.1 lack it, tracking never reads it
_UNUSED_STAGES = r"feature_extractor\.(layer4|fc)\..*"  # of the ImageNet classifier, behind what the trackers look at

PYTRACKING = "https://github.com/visionml/pytracking/blob/master/MODEL_ZOO.md"
ALPHA_REFINE = "https://github.com/MasterBin-IIAU/AlphaRefine"


@dataclass(frozen=True)
class Slot:
    """The place of one network's weights.

    kind: its name; the installed file is KIND.safetensors and says so in its metadata. network: import path of
    what builds the network, 'module:function' or 'module:function:CONFIGURATION'. published, link, page: for the
    weights that users install, the file's published name, where it can be had (empty: from its authors only) and the
    page that says so. layout: the digest (`layout_of`) of the keys and shapes that the tracker needs; None for the
    project's own. prefix: stands before the network's keys, but not before the published file's. unneeded: pattern of
    keys that may be there or not. actor: tells apart files with the same keys: what the file says under 'actor_type'.
    """

    kind: str
    network: str
    published: str | None = None
    link: str = ""
    page: str = ""
    layout: str | None = None
    prefix: str = ""
    unneeded: str = ""
    actor: str = ""

    @property
    def file_name(self) -> str:
        """Of the installed file."""
        return f"{self.kind}.safetensors"

    def is_needed(self, key: str) -> bool:
        """Whether the tracker needs what stands under a key of the network."""
        return not self.unneeded or re.fullmatch(self.unneeded, key) is None

    def layout_of(self, shapes: Shapes) -> str:
        """A digest of the needed keys and shapes: a network to compare with takes seconds to build."""
        needed = sorted((key, tuple(shape)) for key, shape in shapes.items() if self.is_needed(key))
        return hashlib.sha256(repr(needed).encode()).hexdigest()

    def build(self) -> nn.Module:
        """The network, with the weights that torch gives it."""
        module, function, *configuration = self.network.split(":")
        arguments = [look_up(f"{module}:{name}") for name in configuration]
        return look_up(f"{module}:{function}")(*arguments)


def look_up(path: str) -> Any:
    """What 'module:name' names; the module is imported for it."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _published(kind: str, network: str, published: str, link: str, page: str, layout: str, unneeded: str = "",
               prefix: str = "", actor: str = "") -> Slot:
    pattern = "|".join(filter(None, (_COUNTER, unneeded)))
    return Slot(kind, network, published, link, page, layout, prefix, pattern, actor)


def _drive(identifier: str) -> str:
    return f"https://drive.google.com/open?id={identifier}"


SLOTS = (
    _published("super_dimp", "tracker_ar.models.dimp:build_dimp", "super_dimp.pth.tar",
               _drive("1qDptswis2FxihLRYLVRGDvx6aUoAVVLv"), PYTRACKING,
               "a0062fde70d27b40ecf32fee559b5f950c320ca327d01b0554ad83616a037320", _UNUSED_STAGES, actor="KLDiMPActor"),
    _published("mask_refiner_384", "tracker_ar.models.alpha_refine:build_mask_refiner", "ARnet_seg_mask_ep0040.pth.tar",
               _drive("1qOQRfaRMbQ2nmgX1NFjoQHfXOAn609QM"), f"{ALPHA_REFINE}/tree/vot2020/AlphaRefine_submit",
               "4672dd7f80f846435951fb17eb253493228b0ca6fd151f8cfaab354c4fa4bf19", _UNUSED_STAGES),
    Slot("lite_super_dimp", "tracker_ar.models.dimp:build_dimp:SUPER_DIMP_LITE"),
    Slot("lite_base", "tracker_ar.models.lite_base:build_lite_base:LITE_BASE"),
    Slot("lite_mask_refiner", "tracker_ar.models.alpha_refine:build_mask_refiner:MASK_REFINER_LITE"),
    _published("dimp18", "tracker_ar.models.dimp:build_dimp:DIMP_18", "dimp18.pth",
               _drive("1MAjrRJDCbL0DSjUKFyDkUuYS1-cYBNjk"), PYTRACKING,
               "e0ba1e799e0e8ce93f7841f5b65ca770be9c47eae10086eac8c0050b37387b04", _UNUSED_STAGES),
    _published("dimp50", "tracker_ar.models.dimp:build_dimp:DIMP_50", "dimp50.pth",
               _drive("1qgachgqks2UGjKx-GdO1qylBDdB1f9KN"), PYTRACKING,
               "a0062fde70d27b40ecf32fee559b5f950c320ca327d01b0554ad83616a037320", _UNUSED_STAGES, actor="DiMPActor"),
    _published("prdimp18", "tracker_ar.models.dimp:build_dimp:PRDIMP_18", "prdimp18.pth.tar",
               _drive("1ycm3Uu63j-uCkz4qt0SG6rY_k5UFlhVo"), PYTRACKING,
               "3190ca36a2b1216c55c0bde546a692117a4378a3821a7bdae853f8bd293031b8", _UNUSED_STAGES),
    _published("prdimp50", "tracker_ar.models.dimp:build_dimp:PRDIMP_50", "prdimp50.pth.tar",
               _drive("1zbQUVXKsGvBEOc-I1NuGU6yTMPth_aI5"), PYTRACKING,
               "1e9f9a1aabe3d242c487ca7a146891b27e13f74ff64421f2ee83fb92eefa818e", _UNUSED_STAGES),
    _published("atom", "tracker_ar.models.atom:build_atom", "atom_default.pth",
               _drive("1VNyr-Ds0khjM0zaq6lU-xfY74-iWxBvU"), PYTRACKING,
               "ef3086e1f53bf59ca73383629496cc4fcb4c463c7159d87bd16e8a1cfcdc2687", _UNUSED_STAGES),
    _published("ar34", "tracker_ar.models.branch_refiner:build_branch_refiner:BRANCH_REFINER_34",
               "SEcmnet_ep0040-c.pth.tar",
               "https://drive.google.com/file/d/1drLqNq4r9g4ZqGtOGuuLCmHJDh20Fu1m/view", ALPHA_REFINE,
               "584c2c57eb7c39803186a4131f04c17d7e931e179e88d2e50c095371fc24ac8c", _UNUSED_STAGES),
    # The authors do not state the name of the ResNet-18 file; this is the one that their scripts look for.
    _published("ar18", "tracker_ar.models.branch_refiner:build_branch_refiner:BRANCH_REFINER_18",
               "SEcmnet_ep0040-a.pth.tar (SEcm_r18)",
               "https://drive.google.com/file/d/1ANf0KCvlFBbGQPpvT-3WNiy414ANkgLZ/view", ALPHA_REFINE,
               "0e6719b3bc36f9c86984bce071cee4569b8a0eca1b7c488aa7ae7dce8e6a5d2b", _UNUSED_STAGES),
    _published("ar_base", "tracker_ar.models.branch_refiner:build_branch_refiner:BRANCH_REFINER_50",
               "SEbcmnet_ep0040.pth.tar", "", ALPHA_REFINE,
               "4c311f5f1071e0be65a8882e9e0ecab957527e16a30ad3bdbddfc9e7a639b019", _UNUSED_STAGES),
    _published("ar_selector", "tracker_ar.models.branch_selector:build_branch_selector",
               "Branch_Selector_ep0030.pth.tar", "", ALPHA_REFINE,
               "65b5b8b4e2e46d2bc071218275c74728e78c1e426e1160e1e13c5d37f9891b71"),
    _published("siamrpn", "tracker_ar.models.siam_rpn:SiamRPN", "siamrpn_r50_l234_dwxcorr.pth",
               _drive("1Q4-1563iPwV6wSf_lBHDj5CPFiGSlEPG"), "https://github.com/STVIR/pysot/blob/master/MODEL_ZOO.md",
               "920a6d29d82c4d5cafddbb315771d0512cd2225b6816989efa00206c19116f56"),
    # The last layer is drawn anew for each target.
    _published("rtmdnet", "tracker_ar.models.mdnet:MDNet", "rt-mdnet.pth",
               "https://www.dropbox.com/s/lr8uft05zlo21an/rt-mdnet.pth?dl=0", "https://github.com/IlchaeJung/RT-MDNet",
               "3e86dde5e9e2d2bb1bdd1c6c9ae61a39a5b12d49e1579f59ba057a458588d1e6", r"branches\..*", prefix="layers."),
    _published("eco", "tracker_ar.models.eco_features:ECOFeatures", "resnet18_vggmconv1.pth",
               "https://drive.google.com/uc?id=1aWC4waLv_te-BULoy0k-n_zS-ONms21S",
               "https://github.com/visionml/pytracking/blob/master/INSTALL.md",
               "063fc53ea3d048b82228e6f1d2643190454340f6cd23d3359cb8b5140dbc0e86", r"(layer4|fc)\..*"),
)
SLOT = {slot.kind: slot for slot in SLOTS}


def where_to_get(slots: Iterable[Slot]) -> str:
    """How to come by the files of these slots, in lines for a terminal."""
    slots = list(slots)
    lines = []
    if own := [slot.file_name for slot in slots if slot.published is None]:
        comes = "comes" if len(own) == 1 else "come"
        lines.append(f"{' and '.join(own)} {comes} with the project: restore its checkpoints/ folder, or let "
                     "ALPHAREFINE_CHECKPOINTS name the folder that holds them.")
    published = [slot for slot in slots if slot.published]
    for page in dict.fromkeys(slot.page for slot in published):
        lines.append(f"Published on {page}:")
        for slot in published:
            if slot.page == page:
                lines.append(f"  {slot.published}\n    {slot.link or 'not published there; ask its authors'}")
    if published:
        names = " ".join((slot.published or "").partition(" ")[0] for slot in published)
        lines.append("Download in a browser, do not unpack, and run\n"
                     f"  alpharefine checkpoints install {names if len(published) < 4 else 'FILE ...'}")
    return "\n".join(lines)
