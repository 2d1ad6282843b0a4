"""OpenCV's trackers as base trackers: CSRT, KCF, MIL, and NanoTrack and VitTrack with files that the user brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tracker_ar.base.adapted import AdaptedTracker
from tracker_ar.errors import InputError
from tracker_ar.geometry import clip_box
from tracker_ar.places import checkpoint_dir
from tracker_ar.quiet import quiet_opencv
from tracker_ar.weights.onnx import NANOTRACK, VITTRACK, Model

Folder = str | PathLike[str] | None


@dataclass(frozen=True)
class OpenCVTracker:
    """title: as in its paper. module: the class in `cv2`, without 'Tracker'. models: files that it needs, and page,
    where they are published. parameters: (object of `cv2.Tracker..._Params`, paths of the models) -> nothing, changes
    OpenCV's own values. contrib: whether it lives in the contrib modules; since: the first version of OpenCV that has
    it.
    smallest: side of a target, pixels."""

    title: str
    module: str
    contrib: bool = False
    since: str = "4.5.1"
    smallest: int = 1
    models: tuple[Model, ...] = ()
    page: str = ""
    parameters: Callable[[Any, list[Path]], None] | None = None


def _kcf(parameters: Any, models: list[Path]) -> None:
    """It never gives up, as in its paper: with OpenCV's threshold it fails after some frames of most videos and never
    recovers."""
    parameters.detect_thresh = 0.0


def _nanotrack(parameters: Any, models: list[Path]) -> None:
    parameters.backbone, parameters.neckhead = map(str, models)


def _vittrack(parameters: Any, models: list[Path]) -> None:
    parameters.net = str(models[0])


OPENCV_TRACKERS: Mapping[str, OpenCVTracker] = {
    "csrt": OpenCVTracker("CSRT (Lukezic et al., CVPR 2017)", "CSRT", contrib=True),
    "kcf": OpenCVTracker("KCF (Henriques et al., TPAMI 2015)", "KCF", contrib=True, parameters=_kcf),
    "mil": OpenCVTracker("MIL (Babenko et al., CVPR 2009)", "MIL", smallest=10),  # never returns from very small ones
    "nanotrack": OpenCVTracker(
        "NanoTrack v2", "Nano", since="4.7", parameters=_nanotrack,
        models=NANOTRACK,
        page="https://github.com/HonglinChu/SiamTrackers/tree/master/NanoTrack/models/nanotrackv2",
    ),
    "vittrack": OpenCVTracker(
        "VitTrack", "Vit", since="4.9", parameters=_vittrack,
        models=VITTRACK,
        page="https://github.com/opencv/opencv_zoo/tree/main/models/object_tracking_vittrack",
    ),
}


def opencv_tracker(name: str, directory: Folder = None) -> AdaptedTracker:
    """A base tracker of OpenCV by its name in `OPENCV_TRACKERS`.

    directory: of the ONNX files; None for the folder of the checkpoints. All go on from their own box, since none
    can be told of a better one without starting anew. Raises InputError where this OpenCV lacks the tracker, and for
    ONNX files that are missing or not the ones that it needs.
    """
    kind = _kind(name)
    if not hasattr(cv2, f"Tracker{kind.module}"):
        raise InputError(_how_to_install(kind))
    models = [_find(kind, model, _folder(directory)) for model in kind.models]

    def create() -> OpenCVConventions:
        with quiet_opencv():
            if kind.parameters is None:
                return OpenCVConventions(getattr(cv2, f"Tracker{kind.module}").create(), kind.smallest)
            parameters = getattr(cv2, f"Tracker{kind.module}_Params")()
            kind.parameters(parameters, models)
            return OpenCVConventions(getattr(cv2, f"Tracker{kind.module}").create(parameters), kind.smallest)

    if models:
        _try_out(kind, create, models)
    return AdaptedTracker(create)


class OpenCVConventions:
    """Between our images and boxes and a tracker of OpenCV, which takes BGR and whole pixels, and does not check that
    the box lies in the image."""

    def __init__(self, tracker: Any, smallest: int = 1) -> None:
        """smallest: side in pixels of the targets that it can follow."""
        self._tracker = tracker
        self._smallest = smallest

    def init(self, image: np.ndarray, box: np.ndarray) -> None:
        """Raises InputError for a target that OpenCV refuses."""
        inside = tuple(int(value) for value in np.rint(clip_box(box, image.shape[:2], min_side=1.0)))
        try:
            if min(inside[2:]) < self._smallest:
                raise cv2.error(f"the smallest side is {self._smallest} pixels")
            with quiet_opencv():
                self._tracker.init(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), inside)
        except cv2.error as error:
            name, size = type(self._tracker).__name__, f"{inside[2]} x {inside[3]}"
            raise InputError(f"OpenCV's {name} cannot follow a target of {size} pixels here ({_reason(error)}): give a "
                             "larger region, or choose another tracker.") from error

    def update(self, image: np.ndarray) -> tuple[Any, Any]:
        """(box, score) from a tracker with a score, else (found, box). A frame that OpenCV fails in has no target."""
        try:
            with quiet_opencv():
                found, box = self._tracker.update(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        except cv2.error:
            return False, (0, 0, 0, 0)
        score = getattr(self._tracker, "getTrackingScore", lambda: -1.0)()
        return (box, score) if found and score >= 0 else (found, box)  # -1: knows none


# ---- what may be missing


def _kind(name: str) -> OpenCVTracker:
    if name not in OPENCV_TRACKERS:
        raise InputError(f"There is no OpenCV tracker {name!r} here: choose one of {', '.join(OPENCV_TRACKERS)}.")
    return OPENCV_TRACKERS[name]


def _folder(directory: Folder) -> Path:
    return checkpoint_dir() if directory is None else Path(directory).absolute()


def _how_to_install(kind: OpenCVTracker) -> str:
    lacks = f"OpenCV {cv2.__version__} as installed has no {kind.title.partition(' ')[0]}: "
    if kind.contrib:
        return (f"{lacks}it is in opencv-contrib-python, which takes the place of opencv-python. Install it with pip "
                f"install --force-reinstall --no-deps 'opencv-contrib-python=={cv2.__version__}.*'.")
    return f"{lacks}it comes with version {kind.since}. Install it with pip install 'opencv-python>={kind.since}'."


def _find(kind: OpenCVTracker, model: Model, folder: Path) -> Path:
    found = model.candidates(folder)
    if len(found) > 1:
        raise InputError(f"Which of {', '.join(path.name for path in found)} in {folder} is meant for {kind.title}? "
                         f"Name one of them {model.published}.")
    if not found:
        raise InputError(f"{kind.title} needs the file {model.published}, which is not in {folder}.\n"
                         f"{_where_to_get(kind)}")
    return found[0]


def _where_to_get(kind: OpenCVTracker) -> str:
    names = " and ".join(model.published for model in kind.models)
    return (f"Download {names} from\n  {kind.page}\nand put what you get into the folder of the checkpoints, or let "
            "ALPHAREFINE_CHECKPOINTS name its folder.")


def _try_out(kind: OpenCVTracker, create: Callable[[], OpenCVConventions], models: list[Path]) -> None:
    """Other networks are found out only when they run."""
    image = np.zeros((64, 64, 3), np.uint8)
    names = " and ".join(str(path) for path in models)
    try:
        tracker = create()
        with quiet_opencv():
            tracker._tracker.init(image, (16, 16, 32, 32))
            tracker._tracker.update(image)
    except cv2.error as error:
        are = "is" if len(models) == 1 else "are"
        raise InputError(f"{names} {are} not what {kind.title} needs ({_reason(error)}).\n"
                         f"{_where_to_get(kind)}") from error


def _reason(error: cv2.error) -> str:
    """What OpenCV says, without the places in its source."""
    said = str(error).strip().replace("\n", " ")
    return said.rpartition("error: ")[2].rpartition(" in function ")[0][:200] or said[:200]
