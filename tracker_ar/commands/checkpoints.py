"""The command `alpharefine checkpoints`: which checkpoints are there, and installing the authors'."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracker_ar.places import checkpoint_file
from tracker_ar.weights.header import read_header
from tracker_ar.weights.slots import SLOTS, Slot, where_to_get
from tracker_ar.weights.store import checkpoint_dir, install, problem_with
from tracker_ar.zoo import BEST, REFINERS, best_installed, lacks, names, slots_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands `list` and `install`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="show which checkpoints are installed, and where the others are published",
                       description="Show which checkpoints are installed, and where the others are published.")
    installer = actions.add_parser(
        "install", help="check downloaded checkpoints, recognise them and put them in place",
        description="Check downloaded checkpoints, recognise them by their content and put them in place.",
        epilog=where_to_get(slots_of(BEST[0])) + "\nAll others: alpharefine checkpoints list",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    installer.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a downloaded .pth or .pth.tar file")
    installer.add_argument("--force", action="store_true", help="replace checkpoints that are there")


def run(args: argparse.Namespace) -> int:
    """Run `list` or `install`; raises CheckpointError."""
    if args.action == "install":
        return _install(args.paths, args.force)
    return _list()


def _list() -> int:
    print(f"Checkpoints in {checkpoint_dir()}")
    problems = {slot: problem_with(slot) for slot in SLOTS}
    for slot, problem in problems.items():
        print(f"  {slot.file_name:30}{problem or 'is there' + _origin(checkpoint_file(slot.file_name))}")
    print(f"\nThe tracker AlphaRefine runs {best_installed()}; all trackers: alpharefine trackers")
    if missing := [slot for slot, problem in problems.items() if problem]:
        print(f"\n{where_to_get(missing)}")
    return 0


def _origin(path: Path) -> str:
    metadata = read_header(path)[1]
    if "source" not in metadata:
        return ""
    return f", from {metadata['source']} (SHA-256 {metadata.get('source_sha256', '?')})"


def _install(paths: list[Path], force: bool) -> int:
    folder = checkpoint_dir()
    done = install(paths, folder, force)
    for item in done:
        print(f"{item.source}: {item.slot.published}, every key and shape fits; "
              f"{'was installed before as' if item.already else 'installed as'} {item.path}")
    for item in done:
        _say_what_it_is_for(item.slot)
    print(f"AlphaRefine now runs {best_installed()}.")
    return 0


def _say_what_it_is_for(slot: Slot) -> None:
    """The trackers that need a file: those that can run now, and what the others lack."""
    users = [name for name in names() if slot in slots_of(name)]
    refiners = [name for name, part in REFINERS.items() if slot in part.slots]
    ready = [name for name in users if not lacks(name)]
    ready += [f"BASE+{name} with any base tracker" for name in refiners if not REFINERS[name].lacks()]
    if ready:
        print(f"{slot.kind} unlocks {', '.join(ready)}.")
    for name in users:
        if lacks(name):
            missing = [each for each in slots_of(name) if problem_with(each)]
            print(f"For {name} there is still to be installed:\n{where_to_get(missing)}")
    if not users and not refiners:
        print(f"No tracker of this version uses {slot.kind} yet.")
