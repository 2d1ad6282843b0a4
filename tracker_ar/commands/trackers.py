"""The command `alpharefine trackers`: every named tracker, what it needs, and whether it can run."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tracker_ar.weights.store import checkpoint_dir
from tracker_ar.zoo import BASES, REFINERS, best_installed, lacks, names, needs, parts_of, published_scores

HEADINGS = ("NAME", "BASE", "REFINER", "INSTALLED", "NEEDS", "PUBLISHED SCORES")
GAP = 2
INDENT = "    "
WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
MAXIMUM_WIDTH = 160


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="weights folder (default: the installed ones)")


def run(args: argparse.Namespace) -> int:
    """Print the table and how other combinations are named."""
    folder = checkpoint_dir() if args.checkpoint is None else args.checkpoint.absolute()
    width = min(shutil.get_terminal_size((100, 24)).columns, MAXIMUM_WIDTH)
    rows = [_row(name, folder) for name in names()]
    print(*table(HEADINGS, rows, width), sep="\n")
    ready = [name for name, part in REFINERS.items() if not part.lacks(folder)]
    paragraphs = (
        f"Any base tracker with any refiner is a name too: BASE+REFINER, for example csrt+lite. Base trackers: "
        f"{', '.join(BASES)}. Refiners: {', '.join(f'{name} ({part.title})' for name, part in REFINERS.items())}; "
        f"installed: {', '.join(ready) or 'none'}.",
        f"Without a name, {best_installed(folder)} runs. Weights are in {folder}; where files are published, "
        "`alpharefine checkpoints list` says.",
    )
    for paragraph in paragraphs:
        print("", *textwrap.wrap(paragraph, width, **WHOLE_WORDS), sep="\n")
    return 0


def _row(name: str, folder: Path) -> tuple[str, ...]:
    base, refiner = parts_of(name)
    installed = "no" if lacks(name, folder) else "yes"
    scores = published_scores(name).replace(", ", "\n")
    return name, base, refiner or "-", installed, "\n".join(needs(name)) or "-", scores or "-"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> list[str]:
    """Lines of at most `width` columns. Cells are split at line breaks; columns for which the width does not suffice go
    below their row, indented."""
    rows = [headings, *rows]
    widths = [max(len(line) for row in rows for line in row[column].split("\n")) for column in range(len(headings))]
    fits = len(headings)
    while fits > 1 and sum(widths[:fits]) + GAP * (fits - 1) > width:
        fits -= 1
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.split("\n") for cell in row]
        height = max(len(cell) for cell in cells[:fits])
        for line in range(height):
            texts = [cell[line] if line < len(cell) else "" for cell in cells[:fits]]
            padded = (text.ljust(wide) for text, wide in zip(texts, widths))
            lines.append((" " * GAP).join(padded).rstrip())
        if fits < len(headings) and number > 0:
            below = zip(headings[fits:], cells[fits:])
            for text in (f"{heading.lower()}: {', '.join(cell)}" for heading, cell in below if cell != ["-"]):
                lines += textwrap.wrap(text, width, initial_indent=INDENT, subsequent_indent=2 * INDENT, **WHOLE_WORDS)
        if number == 0:
            lines.append("-" * min(width, sum(widths[:fits]) + GAP * (fits - 1)))
    return lines
