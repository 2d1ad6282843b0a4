"""`alpharefine demo`: a page in the browser to try the tracker on."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import webbrowser
from dataclasses import replace
from pathlib import Path

from tracker_ar.commands.options import DEVICE_HELP, TRACKER, TRACKER_HELP
from tracker_ar.errors import InputError
from tracker_ar.interrupts import Interruption, interruptible
from tracker_ar.places import how_to_install

DEFAULT_PORT = 8020
NEEDED = ("starlette", "uvicorn")
# Read by OpenCV when it is imported: damaged uploads are reported on the page and not in the terminal as
# well, and no video can make FFmpeg open a connection.
OPENCV_SETTINGS = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8",
                   "OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = ("Serve a page on which to choose a video, drag boxes around targets, watch their "
                          "masks and download the result. Nothing leaves this computer. Ctrl-C ends it.")
    parser.add_argument("--host", default="127.0.0.1",
                        help="address to listen on; others than the default let other computers use the "
                             "page, without encryption or password (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT,
                        help="port to listen on; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(*TRACKER, metavar="NAME", help=TRACKER_HELP)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="weights folder (default: the installed ones)")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument("--max-upload", type=int, default=512, metavar="MB", help="per upload (default: %(default)s)")
    parser.add_argument("--max-frames", type=int, default=3000, metavar="N",
                        help="most frames to track in one video (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns 0. Raises InputError and CheckpointError with cause and fix."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"The page needs {' and '.join(missing)}, which are not installed: "
                         f"{how_to_install('demo')} adds them.")
    if min(args.max_upload, args.max_frames) < 1:
        raise InputError("--max-upload and --max-frames must be at least 1.")
    if not 0 <= args.port < 2**16:
        raise InputError(f"--port {args.port} cannot be: ports go up to {2**16 - 1}, and 0 takes a free one.")
    listening = _listen(args.host, args.port)
    try:
        with interruptible() as interruption:
            return _serve(args, listening, interruption)
    finally:
        listening.close()


def _serve(args: argparse.Namespace, listening: socket.socket, interruption: Interruption) -> int:
    for name, value in OPENCV_SETTINGS.items():
        os.environ.setdefault(name, value)
    from tracker_ar.demo.guard import is_loopback
    from tracker_ar.demo.limits import Limits
    from tracker_ar.demo.server import serve
    from tracker_ar.zoo import build_tracker

    print("Loading the networks ...", flush=True)
    tracker = build_tracker(args.tracker, args.device, args.checkpoint)
    interruption.check()
    limits = replace(Limits(), upload_bytes=args.max_upload * 2**20, frames=args.max_frames)

    def ready(address: str) -> None:
        print(f"AlphaRefine is at {address}   (Ctrl-C ends it)", flush=True)
        if not is_loopback(args.host):
            print("Other computers can use it as well: there is no password and no encryption.", flush=True)
        if args.open:
            webbrowser.open(address)

    serve(tracker, f"tracker {tracker.profile.name}", args.host, listening, limits, ready, interruption)
    print("stopped; temporary files are deleted")
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)  # a port that is taken shows before the networks are loaded
    except OSError as error:
        raise InputError(f"The page cannot be served at {host}, port {port} ({error.strerror}): choose "
                         "another --port (0 takes a free one) or --host.") from None
    return listening
