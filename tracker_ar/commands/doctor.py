"""The command `alpharefine doctor`: what is installed, what works, what does not, and how to fix it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tracker_ar import places
from tracker_ar.doctor import installation, machine, report, workspace
from tracker_ar.doctor.report import Examination, Row, examine

FPS = 20.0
TIMEOUT = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `alpharefine doctor`."""
    parser.description = ("Say what is installed, what works, what does not, and how to fix it. Downloads "
                          "nothing.")
    parser.add_argument("--workspace", type=Path, default=places.workspace(),
                        help="a toolkit workspace (default: %(default)s)")
    parser.add_argument("--tracker", default="AlphaRefine", help="id, as in trackers.ini (default: %(default)s)")
    parser.add_argument("--fps", type=_positive, default=FPS,
                        help="the frame rate that counts as real time (default: %(default)g)")
    parser.add_argument("--timeout", type=_positive, default=TIMEOUT,
                        help="seconds for the tracker's start and for each answer (default: %(default)g)")
    parser.add_argument("--quick", action="store_true", help="do not start the tracker")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Examine everything; returns 0 when nothing failed, else 1."""
    rows = []
    for name, examination in _examinations(args):
        # What the packages print on being imported must not get into the report.
        with contextlib.redirect_stdout(sys.stderr):
            found = examine(name, examination)
        rows += found
        if not args.json:
            print(*map(report.as_text, found), sep="\n", flush=True)
    print(report.as_json(rows) if args.json else f"\n{report.summary(rows)}")
    return report.exit_status(rows)


def _examinations(args: argparse.Namespace) -> Iterator[tuple[str, Examination]]:
    folder = places.expanded(args.workspace).absolute()
    yield "Python", lambda: [installation.python_version()]
    yield "packages", lambda: installation.packages(
        installation.installed_versions(), installation.read_constraints(places.CONSTRAINTS))
    yield "imports", lambda: [installation.imports()]
    yield "modules", lambda: installation.shadows(installation.search_folders(folder))
    yield "OpenCV video", lambda: [installation.opencv_video()]
    yield "OpenCV windows", lambda: [installation.opencv_window()]
    yield "CPU", _cpu
    yield "GPU", lambda: [machine.gpu()]
    yield "checkpoints", _checkpoints
    yield "workspace", lambda: workspace.workspace(folder)
    yield "tracker", lambda: _tracker(args, folder)


def _cpu() -> list[Row]:
    import torch

    return [machine.cpu(torch.get_num_threads(), machine.usable_cores(), os.environ)]


def _checkpoints() -> Iterator[Row]:
    from tracker_ar.weights.store import checkpoint_dir

    return machine.checkpoints(checkpoint_dir())


def _tracker(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    launch, row = workspace.find_tracker(folder, args.tracker)
    yield row
    if args.quick or launch is None:
        return
    if not tempfile.gettempdir().isascii():
        yield report.failed("TraX hello", f"not tried: {tempfile.gettempdir()}",
                            "TraX cannot send paths with letters beyond ASCII.",
                            "export TMPDIR=/tmp, or another folder with a plain name")
        return
    from tracker_ar.doctor import handshake

    yield from handshake.rows(handshake.converse(launch, args.timeout), launch, args.fps)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
