"""``alpharefine report``: one HTML page from a workspace of the VOT toolkit."""

from __future__ import annotations

import argparse
import webbrowser
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from tracker_ar import __version__, places
from tracker_ar.atomic import write_atomically
from tracker_ar.errors import EvaluationError

PAGE = Path("reports/alpharefine.html")
SHEETS = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alpharefine report``."""
    parser.description = ("Make one self-contained HTML page from a workspace that was evaluated with the "
                          "VOT toolkit, by `alpharefine evaluate` or by hand.")
    parser.add_argument("workspace", type=Path, nargs="?", default=places.workspace(), metavar="WORKSPACE",
                        help="default: %(default)s")
    parser.add_argument("--tracker", nargs="+", default=[], metavar="NAME",
                        help="trackers to show (default: every one with results)")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: WORKSPACE/{PAGE}")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")


def run(args: argparse.Namespace) -> int:
    """Make the page; print where it is and what is missing in it.

    Raises EvaluationError with cause and fix when the workspace cannot be read or has nothing to show.
    """
    page, notes = write_page(places.expanded(args.workspace).resolve(), args.tracker, args.out)
    for note in notes:
        print(note)
    print(f"page: {page}")
    if args.open and not webbrowser.open(page.as_uri()):
        print("No browser could be started; open the file by hand.")
    return 0


def write_page(workspace: Path, trackers: list[str], out: Path | None = None) -> tuple[Path, list[str]]:
    """Write the page of some trackers, or of all with results; returns its path and what is missing in it."""
    from tracker_ar.evaluate.vot_results import collect, find_trackers, open_workspace
    from tracker_ar.report.page import render
    from tracker_ar.report.sheets import contact_sheets

    loaded = open_workspace(workspace)
    found, notes = find_trackers(loaded, trackers)
    steps = len(found) * sum(len(one.transform(list(loaded.dataset))) for one in loaded.stack)
    with tqdm(total=steps, unit="runs", desc="analysing", leave=False) as progress:
        def advance(_: str) -> None:
            progress.update()

        results = collect(loaded, found, notes, advance)
    entries = {tracker.reference: tracker for tracker in found}
    in_order = {name: entries[name] for name in results.trackers}
    made = (f"alpharefine {__version__} with vot-toolkit {version('vot-toolkit')}, "
            f"{datetime.now():%Y-%m-%d %H:%M}")
    page = (places.expanded(out) if out else workspace / PAGE).resolve()
    text = render(results, contact_sheets(loaded, results, in_order, SHEETS), made)
    try:
        write_atomically(page, text.encode())
    except OSError as error:
        raise EvaluationError(f"the page cannot be written to {page} ({error.strerror}); "
                              "choose another file with --out") from error
    return page, results.notes
