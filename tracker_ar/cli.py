"""The command `alpharefine`."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence

from tracker_ar import __version__
from tracker_ar.calm import calm
from tracker_ar.errors import AlphaRefineError

calm()

# name -> (module with `configure(parser)` and `run(args) -> int`, one line of help)
COMMANDS = {
    "track": ("tracker_ar.commands.track", "follow targets through your own video"),
    "demo": ("tracker_ar.commands.demo", "try it in the browser, on a video, the camera or an example"),
    "explain": ("tracker_ar.commands.explain", "show what every stage does in one frame of a video"),
    "evaluate": ("tracker_ar.commands.evaluate", "evaluate a tracker with the VOT toolkit and show the results"),
    "report": ("tracker_ar.commands.report", "make one HTML page from an evaluated workspace"),
    "benchmark": ("tracker_ar.commands.benchmark", "measure how accurate and how fast a tracker is"),
    "sequences": ("tracker_ar.evaluate.vot_workspace", "make, link or list the sequences of a workspace"),
    "trackers": ("tracker_ar.commands.trackers", "list the trackers, what they need and what is installed"),
    "checkpoints": ("tracker_ar.commands.checkpoints", "list or install checkpoints"),
    "doctor": ("tracker_ar.commands.doctor", "say what is installed, what works, and how to fix what does not"),
    "train": ("tracker_ar.commands.train", "train the networks"),
    "validate": ("tracker_ar.commands.validate", "run the tracker of lite on held-out clips"),
}
NEED_THE_TOOLKIT = ("evaluate", "report", "benchmark")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status: 0, 1 after an error that was reported, 2 for wrong usage."""
    arguments = _with_negative_boxes(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack letters that a path has
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="alpharefine", description="Precise masks of a tracked target in real time.")
    parser.add_argument("--version", action="version", version=f"alpharefine {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}.")
        if name == asked:  # only the one that runs is imported
            try:
                if name in NEED_THE_TOOLKIT:
                    importlib.import_module("tracker_ar.evaluate.fit_toolkit").require_toolkit()
                command = importlib.import_module(module)
            except AlphaRefineError as error:
                print(f"alpharefine {name}: {error}", file=sys.stderr)
                return 1
            command.configure(subparser)
    args = parser.parse_args(arguments)
    try:
        return command.run(args)
    except AlphaRefineError as error:
        print(f"alpharefine {args.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output, `head` for example, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"alpharefine {args.command}: {where}{error.strerror or error}. Free space or choose another folder, "
              "if it is about writing; look at the path and its rights otherwise.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"alpharefine {args.command}: stopped", file=sys.stderr)
        return 130


def _with_negative_boxes(arguments: Sequence[str]) -> list[str]:
    """`--box -5,10,40,40` as `--box=-5,10,40,40`: argparse takes what begins with a minus for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--box" and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


if __name__ == "__main__":
    sys.exit(main())
