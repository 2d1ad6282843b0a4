"""``alpharefine evaluate``: sequences, VOT toolkit, table, report and picture in one go."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracker_ar import places
from tracker_ar.commands.report import write_page
from tracker_ar.errors import EvaluationError
from tracker_ar.evaluate import vot_toolkit as toolkit
from tracker_ar.evaluate.vot_workspace import prepare_workspace
from tracker_ar.report.mask_sheets import write_overview
from tracker_ar.report.vot_table import eao_interval, format_table, read_scores

STATIC_TRACKER = "StaticBox"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alpharefine evaluate``."""
    parser.description = ("Evaluate a tracker with the VOT toolkit: baseline, realtime and unsupervised. "
                          "A workspace without sequences gets those that the project renders.")
    parser.add_argument("--tracker", default="AlphaRefine", help="id, as in trackers.ini (default: %(default)s)")
    parser.add_argument("--workspace", type=Path, default=places.workspace(),
                        help="a toolkit workspace, created if missing (default: %(default)s)")
    parser.add_argument("--sequences", type=Path, metavar="DIR",
                        help="evaluate on the VOT-layout sequences with masks in DIR instead of those listed")
    parser.add_argument("--with-static", action="store_true", help="compare with a box that never moves")
    parser.add_argument("--force", action="store_true", help="run again what already has results")


def run(args: argparse.Namespace) -> int:
    """Evaluate; print the table and where report, picture and page are.

    Raises EvaluationError with the cause when the toolkit or the tracker failed, DataError for bad sequences.
    """
    workspace = args.workspace.resolve()
    prepare_workspace(workspace, args.sequences)
    trackers = list(dict.fromkeys([args.tracker, *([STATIC_TRACKER] if args.with_static else [])]))

    loaded = toolkit.load_workspace(workspace)
    toolkit.check_stack(loaded)
    toolkit.evaluate(workspace, trackers, force=args.force)
    profile = _only_profile(toolkit.reported_profiles(loaded, args.tracker), args.tracker)
    analysis = toolkit.analyse(workspace, trackers, args.tracker)
    report = toolkit.report(workspace, trackers, args.tracker)
    picture = write_overview(loaded, args.tracker, report.with_name("overview.png"))

    low, high = eao_interval(analysis)
    longest = max(len(sequence) for sequence in loaded.dataset)
    summary = "\n".join([
        f"{args.tracker}, profile {profile}, {len(loaded.dataset)} sequences, "
        f"EAO over {low} to {high} frames",
        "",
        format_table({tracker: read_scores(analysis, tracker) for tracker in trackers}),
        *short_note(longest, high),
    ])
    report.with_name("summary.txt").write_text(f"{summary}\n")
    page, _ = write_page(workspace, trackers)
    print(f"\n{summary}\n\nreport:  {report}\npicture: {picture}\npage:    {page}")
    return 0


def short_note(longest: int, high: int) -> list[str]:
    """Lines about an interval of EAO that ends beyond the longest sequence (frames), or none."""
    if longest >= high:
        return []
    return ["", f"The longest sequence has {longest} frames, but EAO is averaged up to {high}:",
            "beyond, only runs that failed have values. EAO says little here; set low and high in the stack to",
            "lengths that the sequences have."]


def _only_profile(profiles: set[str], tracker: str) -> str:
    if len(profiles) > 1:
        names = ", ".join(sorted(profiles))
        raise EvaluationError(f"the results of {tracker} come from several profiles ({names}), because "
                              "checkpoints came or went in between; use --force to run all again")
    return next(iter(profiles), "not reported")
