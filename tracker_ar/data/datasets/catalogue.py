"""Data sets by name, as recipes and the command line ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tracker_ar.data.datasets.coco import COCO
from tracker_ar.data.datasets.davis import DAVIS
from tracker_ar.data.datasets.got10k import GOT10k
from tracker_ar.data.datasets.lasot import LaSOT
from tracker_ar.data.datasets.saliency import Saliency
from tracker_ar.data.datasets.trackingnet import TrackingNet
from tracker_ar.data.datasets.youtube_vos import YouTubeVOS
from tracker_ar.data.sequence import Dataset
from tracker_ar.data.synthetic.dataset import SyntheticVideos
from tracker_ar.data.synthetic.library import ImageLibrary
from tracker_ar.data.synthetic.scenes import SceneSampler
from tracker_ar.errors import DataError


@dataclass(frozen=True)
class _Entry:
    """`folder`: where the set is looked for under the data folder; splits of one set share it."""

    folder: str
    open: Callable[[Path], Dataset]


def _synthetic(split: str) -> Callable[[Path], Dataset]:
    return lambda root: SyntheticVideos(SceneSampler(ImageLibrary(root, split)), seed=split == "validation")


CATALOGUE: Mapping[str, _Entry] = {
    "lasot": _Entry("LaSOT", LaSOT),
    "got10k": _Entry("GOT-10k", lambda root: _got10k(root, "train")),
    "got10k-val": _Entry("GOT-10k", lambda root: _got10k(root, "val")),
    "trackingnet": _Entry("TrackingNet", lambda root: TrackingNet(root, range(4))),
    "coco": _Entry("COCO", COCO),
    "coco-val": _Entry("COCO", lambda root: COCO(root, "val")),
    "youtube-vos": _Entry("YouTube-VOS", YouTubeVOS),
    "davis2016": _Entry("DAVIS", lambda root: DAVIS(root, "train", 2016)),
    "davis2017": _Entry("DAVIS", lambda root: DAVIS(root, "train", 2017)),
    "msra10k": _Entry("MSRA10K", lambda root: Saliency(root, "MSRA10K")),
    "duts": _Entry("DUTS", lambda root: Saliency(root, "DUTS")),
    "ecssd": _Entry("ECSSD", lambda root: Saliency(root, "ECSSD")),
    "hku-is": _Entry("HKU-IS", lambda root: Saliency(root, "HKU-IS")),
    "synthetic": _Entry("synthetic", _synthetic("train")),
    "synthetic-val": _Entry("synthetic", _synthetic("validation")),
}


def open_dataset(name: str, data: Path, places: Mapping[str, Path] | None = None) -> Dataset:
    """Open a set by its name in `CATALOGUE`.

    Args:
        data: the folder that holds the sets, each under its usual name.
        places: folders of sets that are elsewhere, by name.

    Raises:
        DataError: there is no set of this name, or its folder is missing or not in the published layout.
    """
    if name not in CATALOGUE:
        raise DataError(f"there is no data set {name!r}; there are {', '.join(CATALOGUE)}")
    entry = CATALOGUE[name]
    elsewhere = (places or {}).get(name)
    root = data / entry.folder if elsewhere is None else elsewhere
    if not root.is_dir():
        fix = f"unpack it there, or say where it is with --dataset {name}=FOLDER"
        raise DataError(f"{root}: no such folder for the data set {name!r}; {fix}")
    return entry.open(root)


def _got10k(root: Path, split: str) -> Dataset:
    """Without the training videos that the VOT committee rules out, where their list lies beside the set."""
    exclusion = root / "vot_exclude.txt"
    return GOT10k(root, split, without=exclusion if split == "train" and exclusion.is_file() else None)
