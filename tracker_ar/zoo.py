"""Every named tracker: base tracker, refiner, settings, weights; and building them.

A name is one of `NAMED` ('vot2020', 'lite', ...), a base tracker alone ('super_dimp', 'csrt'), or any base tracker with
any refiner behind it ('csrt+lite'). To add a tracker, add a `Part` here and, for weights that users install, a slot in
`weights/slots.py`. Nothing heavy is imported before something is built.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from tracker_ar.errors import InputError
from tracker_ar.profile import Feedback, Profile, Report
from tracker_ar.weights.onnx import NANOTRACK, VITTRACK, Model
from tracker_ar.weights.slots import SLOT, Slot, look_up
from tracker_ar.weights.store import find_checkpoints, load_into, problem_with

if TYPE_CHECKING:
    import torch

    from tracker_ar.prediction import BaseTracker, Refiner
    from tracker_ar.tracker import AlphaRefineTracker

Folder = str | PathLike[str] | None


@dataclass(frozen=True)
class Part:
    """A base tracker or a refiner.

    title: as in its paper. engine: import path 'module:class' of the engine, made as `Engine(*runners, settings)`, a
    base tracker with `seed=`; of an engine without weights, as `Engine(*arguments)`. settings: import path
    'module:object'. kinds: of the slots that hold its weights, a network and a runner for each. packages: of which one
    must be installed. models: ONNX files that users bring. scores: published, alone. minimum_side: of the boxes of a
    base tracker (see `Profile`). feedback: of a refiner, which box its authors gave back to the base tracker.
    """

    title: str
    engine: str
    settings: str = ""
    kinds: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    scores: str = ""
    minimum_side: float = 10.0
    feedback: Feedback = "base"

    @property
    def slots(self) -> list[Slot]:
        """Where its weights are."""
        return [SLOT[kind] for kind in self.kinds]

    @property
    def needs(self) -> list[str]:
        """The files and packages that it needs."""
        files = [*(slot.file_name for slot in self.slots), *(model.published for model in self.models)]
        return files + list(self.packages[:1])

    def lacks(self, directory: Folder = None) -> list[str]:
        """Those of `needs` that are not installed, or not as they should be."""
        files = [slot.file_name for slot in self.slots if problem_with(slot, directory)]
        files += [model.published for model in self.models if not model.candidates(directory)]
        return files if not self.packages or any(map(_is_installed, self.packages)) else [*files, self.packages[0]]


_CONTRIB = ("opencv-contrib-python", "opencv-contrib-python-headless")
# Published scores: pytracking's MODEL_ZOO.md; Alpha-Refine's README and VOT2020 analysis; PySOT's MODEL_ZOO.md.
BASES: Mapping[str, Part] = {
    "super_dimp": Part("SuperDiMP", "tracker_ar.base.dimp:DiMPTracker", "tracker_ar.base.dimp:SUPER_DIMP",
                       ("super_dimp",), scores="LaSOT 63.1, TrackingNet 78.1, OTB 70.1"),
    "lite_dimp": Part("SuperDiMP, scaled down", "tracker_ar.base.dimp:DiMPTracker", "tracker_ar.base.dimp:LITE",
                      ("lite_super_dimp",)),
    "lite_base": Part("DiMP's classifier on EfficientNet-Lite0", "tracker_ar.base.lite:LiteTracker",
                      "tracker_ar.base.lite:LITE", ("lite_base",), minimum_side=4.0),
    "dimp50": Part("DiMP-50", "tracker_ar.base.dimp:DiMPTracker", "tracker_ar.base.dimp:DIMP_50", ("dimp50",),
                   scores="VOT2018 EAO 0.440, LaSOT 56.9, TrackingNet 74.0, OTB 68.4"),
    "dimp18": Part("DiMP-18", "tracker_ar.base.dimp:DiMPTracker", "tracker_ar.base.dimp:DIMP_18", ("dimp18",),
                   scores="VOT2018 EAO 0.402, LaSOT 53.5, TrackingNet 72.3, OTB 66.0"),
    "prdimp50": Part("PrDiMP-50", "tracker_ar.base.dimp:DiMPTracker", "tracker_ar.base.dimp:PRDIMP_50",
                     ("prdimp50",), scores="VOT2018 EAO 0.442, LaSOT 59.8, TrackingNet 75.8, OTB 69.6"),
    "prdimp18": Part("PrDiMP-18", "tracker_ar.base.dimp:DiMPTracker", "tracker_ar.base.dimp:PRDIMP_18",
                     ("prdimp18",), scores="VOT2018 EAO 0.385, LaSOT 56.4, TrackingNet 75.0, OTB 68.0"),
    "atom": Part("ATOM", "tracker_ar.base.atom:ATOMTracker", "tracker_ar.base.atom:ATOM_DEFAULT", ("atom",),
                 scores="VOT2018 EAO 0.401, LaSOT 51.5, TrackingNet 70.3, OTB 66.3"),
    "siamrpn++": Part("SiamRPN++", "tracker_ar.base.siam_rpn:SiamRPNTracker", "tracker_ar.base.siam_rpn:SIAM_RPN",
                      ("siamrpn",), scores="VOT2018 EAO 0.415, TrackingNet 73.3"),
    "rt-mdnet": Part("RT-MDNet", "tracker_ar.base.rt_mdnet:RTMDNetTracker", "tracker_ar.base.rt_mdnet:RT_MDNET",
                     ("rtmdnet",), scores="TrackingNet 58.4"),
    "eco": Part("ECO, deep features", "tracker_ar.base.eco:ECOTracker", "tracker_ar.base.eco:ECO", ("eco",),
                scores="TrackingNet 61.2"),
    "csrt": Part("CSRT of OpenCV", "tracker_ar.base.opencv:opencv_tracker", arguments=("csrt",), packages=_CONTRIB),
    "kcf": Part("KCF of OpenCV", "tracker_ar.base.opencv:opencv_tracker", arguments=("kcf",), packages=_CONTRIB),
    "mil": Part("MIL of OpenCV", "tracker_ar.base.opencv:opencv_tracker", arguments=("mil",)),
    "nanotrack": Part("NanoTrack v2 of OpenCV", "tracker_ar.base.opencv:opencv_tracker", arguments=("nanotrack",),
                      models=NANOTRACK),
    "vittrack": Part("VitTrack of OpenCV", "tracker_ar.base.opencv:opencv_tracker", arguments=("vittrack",),
                     models=VITTRACK),
    "static": Part("a box that never moves", "tracker_ar.base.static:StaticTracker", minimum_side=1.0),
}
REFINERS: Mapping[str, Part] = {
    "vot2020": Part("mask branch at 384, VOT2020", "tracker_ar.refine.refiner:SegmentingRefiner",
                    "tracker_ar.refine.refiner:VOT2020", ("mask_refiner_384",)),
    "lite": Part("mask branch, scaled down", "tracker_ar.refine.refiner:SegmentingRefiner",
                 "tracker_ar.refine.refiner:LITE", ("lite_mask_refiner",)),
    "ar34": Part("corner and mask branch, ResNet-34, CVPR 2021", "tracker_ar.refine.box_refiner:BoxRefiner",
                 "tracker_ar.refine.box_refiner:AR_34", ("ar34",), feedback="refined"),
    "ar18": Part("corner and mask branch, ResNet-18, CVPR 2021", "tracker_ar.refine.box_refiner:BoxRefiner",
                 "tracker_ar.refine.box_refiner:AR_18", ("ar18",), feedback="refined"),
    "ar_base": Part("box, corner and mask branch, selector, 2020", "tracker_ar.refine.box_refiner:selecting_refiner",
                    "tracker_ar.refine.box_refiner:AR_BASE", ("ar_base", "ar_selector"), feedback="refined"),
}

# Names of their own: name -> (base tracker, refiner, published scores).
NAMED: Mapping[str, tuple[str, str, str]] = {
    "vot2020": ("super_dimp", "vot2020", "VOT2020 EAO 0.493, real time 0.499"),
    "lite": ("lite_base", "lite", ""),
}
# Scores of other combinations, by name.
PUBLISHED: Mapping[str, str] = {
    "super_dimp+ar34": "LaSOT 65.4",
    "dimp50+ar34": "LaSOT 60.2",
    "siamrpn+++ar34": "LaSOT 55.9",
    "siamrpn+++ar18": "LaSOT 55.0",
    "dimp50+ar_base": "TrackingNet 77.5",
    "atom+ar_base": "TrackingNet 75.9",
    "siamrpn+++ar_base": "TrackingNet 76.2",
    "eco+ar_base": "TrackingNet 73.2",
    "rt-mdnet+ar_base": "TrackingNet 73.1",
}
# What is taken where no tracker is named: the first whose weights are installed.
BEST = ("vot2020", "lite")
# The best that is installed, by a name; the second reports the box around each mask.
BEST_NAMES: Mapping[str, Report] = {"alpharefine": "masks", "alpharefine-box": "boxes"}


# ---- names


def best_installed(directory: Folder = None) -> str:
    """The name of the best tracker whose weights are installed; of the last one where none is. Raises nothing."""
    return next((name for name in BEST if not lacks(name, directory)), BEST[-1])


def parts_of(name: str) -> tuple[str, str]:
    """(base tracker, refiner or '') of a tracker's name. Raises InputError, with names that are near, for another."""
    if name in NAMED:
        return NAMED[name][:2]
    base, plus, refiner = (name, "", "") if name in BASES else name.rpartition("+")
    if base in BASES and (refiner in REFINERS if plus else True):
        return base, refiner
    known = [*BEST_NAMES, *NAMED, *BASES, *(f"{base}+{refiner}" for base in BASES for refiner in REFINERS)]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(f"There is no tracker {name!r}.{meant} Names are {', '.join([*BEST_NAMES, *NAMED])}, a base "
                     f"tracker ({', '.join(BASES)}), or BASE+REFINER with a refiner ({', '.join(REFINERS)}).")


def slots_of(name: str) -> list[Slot]:
    """The weights of a tracker, the base tracker's first. Raises InputError for an unknown name."""
    return [slot for part in _parts(name) for slot in part.slots]


def _parts(name: str) -> list[Part]:
    base, refiner = parts_of(name)
    return [BASES[base], REFINERS[refiner]] if refiner else [BASES[base]]


def needs(name: str) -> list[str]:
    """The files and packages that a tracker needs."""
    return [each for part in _parts(name) for each in part.needs]


def lacks(name: str, directory: Folder = None) -> list[str]:
    """Those of `needs` that are not installed, or not as they should be."""
    return [each for part in _parts(name) for each in part.lacks(directory)]


def names() -> list[str]:
    """The trackers to show: those with a name of their own, combinations with published scores, base trackers alone."""
    return [*NAMED, *PUBLISHED, *BASES]


def weight_files(name: str, directory: Folder = None) -> list[Any]:
    """The installed files (`Path`) of a tracker, the base tracker's first. Raises CheckpointError for missing ones."""
    return find_checkpoints(slots_of(name), f"The tracker {name}", directory)


def published_scores(name: str) -> str:
    """What its authors measured, as 'LaSOT 63.1, OTB 70.1' (percent unless EAO); '' where nothing is published."""
    if name in NAMED:
        return NAMED[name][2]
    base, refiner = parts_of(name)
    return PUBLISHED.get(name, "") if refiner else BASES[base].scores


def profile(name: str, directory: Folder = None) -> Profile:
    """The profile of a name; 'alpharefine' and 'alpharefine-box' become the best that is installed in `directory`.

    Raises InputError for an unknown name.
    """
    report = BEST_NAMES.get(name, "masks")
    if name in BEST_NAMES:
        name = best_installed(directory)
    base, refiner = parts_of(name)
    name = next((own for own, (*parts, _) in NAMED.items() if parts == [base, refiner]), name)
    last = REFINERS[refiner] if refiner else BASES[base]
    settings = _settings(BASES[base]), _settings(REFINERS[refiner]) if refiner else None
    return Profile(name, *settings, base, refiner, BASES[base].minimum_side, feedback=last.feedback, report=report)


def _is_installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def _settings(part: Part) -> Any:
    return look_up(part.settings) if part.settings else None


# ---- building


def build_tracker(
    name: str | Profile | None = None,
    device: str = "auto",
    checkpoint: Folder = None,
    seed: int = 0,
    base: BaseTracker | None = None,
    fast: bool = True,
    random_weights: bool = False,
) -> AlphaRefineTracker:
    """A tracker with its weights loaded; its `.profile.name` says which it is.

    name: see the module, or a profile with settings of one's own; None for the best that is installed: 'vot2020', the
    challenge entry with the authors' checkpoints, else 'lite', with ours. device: 'auto' (the GPU where there is one),
    'cpu', 'cuda', 'cuda:1', ... checkpoint: the folder of the weights; None for the installed ones. seed: of everything
    random, applied anew for each target. base: an engine to take the place of the named base tracker (see
    `AdaptedTracker`). fast: False runs the networks as they are trained, layer by layer, in float32, to compare with;
    the results are the same up to rounding, which on a GPU is that of TF32. random_weights: those that torch gives new
    networks, in place of a file's; to measure speed.
    Raises InputError for an unknown name or device, CheckpointError for missing or unfit weights.
    """
    from tracker_ar.tracker import AlphaRefineTracker

    chosen = name if isinstance(name, Profile) else profile(name or "alpharefine", checkpoint)
    first = BASES[chosen.base_name]
    second = REFINERS[chosen.refiner_name] if chosen.refiner_name else None
    parts = [part for part in (first if base is None else None, second) if part is not None]
    networks = _networks(parts, f"The tracker {chosen.name}", checkpoint, random_weights)

    def assemble(where: torch.device) -> AlphaRefineTracker:
        finder = base
        if finder is None and first.kinds:
            finder = _engine(first, chosen.base, networks, where, fast, seed=seed)
        elif finder is None:
            # Files of others, which the engine finds itself, lie where the weights do.
            folder = {"directory": checkpoint} if first.models else {}
            finder = look_up(first.engine)(*first.arguments, **folder)
        refiner = None if second is None else _engine(second, chosen.refiner, networks, where, fast)
        return AlphaRefineTracker(finder, refiner, chosen)

    return _on_a_device(assemble, device)


def build_refiner(
    name: str | None = None,
    device: str = "auto",
    checkpoint: Folder = None,
    fast: bool = True,
) -> Refiner:
    """A refiner with its weights loaded, to stand behind a tracker of one's own.

    name: in `REFINERS`, or a tracker's name, for its refiner; None for that of the best that is installed. Other
    arguments and errors as of `build_tracker`; only the refiner's weights are needed.
    """
    name = name or next((best for best in BEST if not REFINERS[NAMED[best][1]].lacks(checkpoint)), BEST[-1])
    refiner = name if name in REFINERS else profile(name, checkpoint).refiner_name
    if not refiner:
        raise InputError(f"The tracker {name} has no refiner: choose one of {', '.join(REFINERS)}.")
    part = REFINERS[refiner]
    networks = _networks([part], f"The refiner {refiner}", checkpoint)
    return _on_a_device(lambda where: _engine(part, _settings(part), networks, where, fast), device)


def _networks(parts: Sequence[Part], what: str, directory: Folder,
              random_weights: bool = False) -> dict[str, torch.nn.Module]:
    """The networks of some parts by the kind of their slots, on the CPU."""
    slots = [slot for part in parts for slot in part.slots]
    paths = [None] * len(slots) if random_weights else find_checkpoints(slots, what, directory)
    networks = {}
    for slot, path in zip(slots, paths):
        networks[slot.kind] = slot.build()
        if path is not None:
            load_into(networks[slot.kind], path, slot=slot)
    return networks


def _engine(part: Part, settings: Any, networks: Mapping[str, torch.nn.Module], device: torch.device, fast: bool,
            **options: Any) -> Any:
    from tracker_ar.engine.runner import Runner

    runners = [Runner(networks[kind], device, fast) for kind in part.kinds]
    return look_up(part.engine)(*runners, settings, **options)


def _on_a_device(assemble: Callable[[torch.device], Any], name: str) -> Any:
    """On the device of this name, or with a warning on the CPU when the GPU is full."""
    import torch

    from tracker_ar.engine.fallback import announce, is_out_of_memory

    device, cpu = _device(name), torch.device("cpu")
    try:
        return assemble(device)
    except RuntimeError as error:
        if device == cpu or not is_out_of_memory(error):
            raise
        announce(error)
    return assemble(cpu)


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {name!r} cannot be used ({error}): use 'auto' or 'cpu'.") from None
    return device
