"""Tiny sequences in the VOT layout, a stack, and the toolkit's command line on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.data.synthetic.procedural import anchor_values
from tracker_ar.run_lengths import encode_mask_line

ROOT = Path(__file__).resolve().parents[2]
LENGTH, SIZE = 12, (60, 80)
# A stack of the shortest experiment there is.
UNSUPERVISED = """\
title: Short videos
experiments:
  unsupervised:
    type: unsupervised
    repetitions: 1
    analyses:
      - type: average_accuracy
        name: accuracy
        burnin: 1
"""


def write_sequence(folder: Path, step: int) -> None:
    """A square that moves ``step`` pixels per frame."""
    (folder / "color").mkdir(parents=True)
    lines = []
    for frame in range(LENGTH):
        mask = np.zeros(SIZE, np.uint8)
        left = 10 + step * frame
        mask[20:40, left:left + 20] = 1
        cv2.imwrite(str(folder / "color" / f"{frame + 1:08d}.jpg"), 40 + 180 * mask)
        lines.append(encode_mask_line(mask))
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    (folder / "anchor.value").write_text("\n".join(map(str, anchor_values(LENGTH))) + "\n")
    (folder / "sequence").write_text(f"fps=20\nname={folder.name}\nlength={LENGTH}\n")


def vot(workspace: Path, *arguments: str) -> str:
    """A command as typed by hand in the workspace."""
    done = subprocess.run([sys.executable, "-m", "vot", *arguments], cwd=workspace, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    return done.stdout
