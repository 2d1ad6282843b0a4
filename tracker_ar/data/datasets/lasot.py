"""LaSOT (Fan et al., 2019): 1,400 long videos of 70 classes with boxes."""

from __future__ import annotations

from pathlib import Path

from tracker_ar.data.datasets.files import BoxTrack, existing, names_in, positive, read_flags, read_numbers
from tracker_ar.errors import DataError

LAYOUT = """  ROOT/airplane/airplane-1/img/00000001.jpg ...   (ROOT may also hold all this in LaSOTBenchmark/)
  ROOT/airplane/airplane-1/groundtruth.txt, full_occlusion.txt, out_of_view.txt"""

# The test set of the paper's protocol II: four of the twenty videos of every class; the others train.
_TEST = """
airplane 1 9 13 15, basketball 1 6 7 11, bear 2 4 6 17, bicycle 2 7 9 18, bird 2 3 15 17, boat 3 4 12 17,
book 3 10 11 19, bottle 1 12 14 18, bus 2 5 17 19, car 2 6 9 17, cat 1 3 18 20, cattle 2 7 12 13,
chameleon 3 6 11 20, coin 3 6 7 18, crab 3 6 12 18, crocodile 3 4 10 14, cup 1 4 7 17, deer 4 8 10 14,
dog 1 7 15 19, drone 2 7 13 15, electricfan 1 10 18 20, elephant 1 12 16 18, flag 2 3 5 9, fox 2 3 5 20,
frog 3 4 9 20, gametarget 1 2 7 13, gecko 1 5 16 19, giraffe 2 10 13 15, goldfish 3 7 8 10,
gorilla 4 6 9 13, guitar 3 8 10 16, hand 2 3 9 16, hat 1 2 5 18, helmet 5 11 13 19, hippo 1 7 9 20,
horse 1 4 12 15, kangaroo 2 5 11 14, kite 4 6 10 15, leopard 1 7 16 20, licenseplate 6 12 13 15,
lion 1 5 12 20, lizard 1 3 6 13, microphone 2 6 14 16, monkey 3 4 9 17, motorcycle 1 3 9 18,
mouse 1 8 9 17, person 1 5 10 12, pig 2 10 13 18, pool 3 7 12 15, rabbit 10 13 17 19, racing 10 15 16 20,
robot 1 5 8 19, rubicCube 1 6 14 19, sepia 6 8 13 16, shark 2 3 5 6, sheep 3 5 7 9, skateboard 3 8 16 19,
spider 14 16 18 20, squirrel 8 11 13 19, surfboard 4 5 8 12, swing 10 14 17 20, tank 6 9 14 16,
tiger 4 6 12 18, train 1 7 11 20, truck 3 6 7 16, turtle 5 8 9 16, umbrella 2 9 17 19,
volleyball 1 13 18 19, yoyo 7 15 17 19, zebra 10 14 16 17,
"""


class LaSOT:
    """The split "train" (1,120 videos), "test" (280) or "all", as far as the folder holds them.

    Raises:
        DataError: the folder holds no sequence of the split in the layout above.
    """

    name = "LaSOT"
    is_video = True
    has_masks = False

    def __init__(self, root: str | Path, split: str = "train") -> None:
        folder = existing(root, ("LaSOTBenchmark", "."), self.name, LAYOUT)
        test = names_of_test_set()
        self.folders: list[Path] = []
        for category in names_in(folder):
            if not (folder / category).is_dir():
                continue
            for name in names_in(folder / category):
                wanted = split == "all" or (name in test) == (split == "test")
                if wanted and name.startswith(f"{category}-"):
                    self.folders.append(folder / category / name)
        if not self.folders:
            raise DataError(f"{self.name}: {folder} holds no {split} sequence. Expected layout:\n{LAYOUT}")

    def __len__(self) -> int:
        return len(self.folders)

    def track(self, index: int) -> BoxTrack:
        folder = self.folders[index]
        boxes = read_numbers(folder / "groundtruth.txt", 4)
        count = len(boxes)
        hidden = read_flags(folder / "full_occlusion.txt", count) > 0
        hidden |= read_flags(folder / "out_of_view.txt", count) > 0
        images = [folder / "img" / f"{number:08d}.jpg" for number in range(1, count + 1)]
        # Pixels count from 1, as in the MATLAB toolkit.
        return BoxTrack(f"{self.name}/{folder.name}", images, boxes - [1, 1, 0, 0], ~hidden & positive(boxes))


def names_of_test_set() -> set[str]:
    """The names of the 280 test sequences."""
    names = set()
    for entry in _TEST.replace("\n", " ").split(","):
        category, *numbers = entry.split() or [""]
        names |= {f"{category}-{number}" for number in numbers}
    return names
