"""The command `alpharefine checkpoints`: which checkpoints are there, and installing the authors'."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracker_ar.weights.containers import read_header
from tracker_ar.weights.store import (
    SLOTS,
    WHERE_TO_GET,
    checkpoint_dir,
    install,
    installed_profile,
    problem_with,
)

PROFILES = {
    "vot2020": "the challenge entry, with the authors' weights",
    "lite": "for CPUs, with the project's weights",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands `list` and `install`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="show which checkpoints are installed and which profile runs",
                       description="Show which checkpoints are installed and which profile runs.")
    installer = actions.add_parser(
        "install", help="check the authors' downloaded checkpoints and put them in place",
        description="Check the authors' downloaded checkpoints and put them in place.",
        epilog=WHERE_TO_GET, formatter_class=argparse.RawDescriptionHelpFormatter)
    installer.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a downloaded .pth.tar file")
    installer.add_argument("--force", action="store_true", help="replace checkpoints that are there")


def run(args: argparse.Namespace) -> int:
    """Run `list` or `install`; raises CheckpointError."""
    if args.action == "install":
        return _install(args.paths, args.force)
    return _list()


def _list() -> int:
    folder = checkpoint_dir()
    print(f"Checkpoints in {folder}")
    for profile, description in PROFILES.items():
        print(f"\n{profile}: {description}")
        for slot in (slot for slot in SLOTS if slot.profile == profile):
            problem = problem_with(slot, folder)
            print(f"  {slot.file_name:30}{problem or 'is there' + _origin(folder / slot.file_name)}")
    runs = installed_profile(folder)
    print(f"\nThe tracker AlphaRefine runs the profile {runs}.")
    if runs == "lite":
        print(f"\n{WHERE_TO_GET}")
    return 0


def _origin(path: Path) -> str:
    metadata = read_header(path)[1]
    if "source" not in metadata:
        return ""
    return f", from {metadata['source']} (SHA-256 {metadata.get('source_sha256', '?')})"


def _install(paths: list[Path], force: bool) -> int:
    folder = checkpoint_dir()
    for item in install(paths, folder, force):
        print(f"{item.source}: every key and shape fits; "
              f"{'was installed before as' if item.already else 'installed as'} {item.path}")
    missing = [slot for slot in SLOTS if slot.published and problem_with(slot, folder)]
    for slot in missing:
        print(f"{slot.published} is still to be installed; until then AlphaRefine runs the profile lite.")
    if missing:
        print(WHERE_TO_GET)
    else:
        print("Both are there: AlphaRefine now runs the challenge entry (profile vot2020).")
    return 0
