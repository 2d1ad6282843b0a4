"""GOT-10k (Huang, Zhao, Huang, 2019): 9,335 training and 180 validation videos with boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracker_ar.data.datasets.files import BoxTrack, existing, positive, read_flags, read_lines, read_numbers
from tracker_ar.errors import DataError

LAYOUT = """  ROOT/train/list.txt                           (ROOT may be the folder train itself)
  ROOT/train/GOT-10k_Train_000001/00000001.jpg ...
  ROOT/train/GOT-10k_Train_000001/groundtruth.txt, absence.label, cover.label"""


class GOT10k:
    """The split "train" or "val".

    Args:
        root: the data set's folder.
        only, without: files that name the sequences to keep or to leave out, one a line: a name, or its place
            in list.txt counted from 0. The VOT committee asks to leave out about 1,000 training videos that
            it took sequences from; the `vottrain` and `votval` splits of published trackers are such lists.

    Raises:
        DataError: the folder or a list is missing, or a list names what list.txt does not have.
    """

    name = "GOT-10k"
    is_video = True
    has_masks = False

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        only: str | Path | None = None,
        without: str | Path | None = None,
    ) -> None:
        index = existing(root, (f"{split}/list.txt", "list.txt"), self.name, LAYOUT)
        self.folder = index.parent
        names = read_lines(index)
        kept = set(names) if only is None else _chosen(Path(only), names)
        left_out = set() if without is None else _chosen(Path(without), names)
        self.names = [name for name in names if name in kept - left_out]

    def __len__(self) -> int:
        return len(self.names)

    def track(self, index: int) -> BoxTrack:
        name = self.names[index]
        folder = self.folder / name
        boxes = read_numbers(folder / "groundtruth.txt", 4)
        count = len(boxes)
        # absence: 1 where the target is out of view or fully covered; cover: visible eighths, 0 to 8.
        present = read_flags(folder / "absence.label", count) == 0
        present &= read_flags(folder / "cover.label", count) > 0
        images = [folder / f"{number:08d}.jpg" for number in range(1, count + 1)]
        # Pixels count from 1: the toolkit's own SiamFC takes 1 off.
        return BoxTrack(f"{self.name}/{name}", images, boxes - [1, 1, 0, 0], present & positive(boxes))


def _chosen(path: Path, names: list[str]) -> set[str]:
    lines = read_lines(path)
    if lines and np.char.isdigit(lines).all():
        numbers = [int(line) for line in lines]
        if max(numbers) >= len(names):
            raise DataError(f"{path}: asks for sequence {max(numbers)}, but there are {len(names)}, from 0")
        return {names[number] for number in numbers}
    unknown = sorted(set(lines) - set(names))
    if unknown:
        raise DataError(f"{path}: {len(unknown)} of its names are not in list.txt, as {unknown[0]!r}")
    return set(lines)
