"""The TraX loop around one tracker.

Every ``initialize`` request starts over, so one process serves all anchors of a sequence. (The metadata
``vot=python`` would make the toolkit start a process per anchor; it is not sent.)
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Callable, Protocol

import cv2
import numpy as np
import trax

from tracker_ar.errors import InputError
from vot_wrapper.protocol import ProtocolChannel
from vot_wrapper.regions import decode_region, encode_mask, region_to_mask


class Profile(Protocol):
    name: str


class Prediction(Protocol):
    mask: np.ndarray
    score: float


class Tracker(Protocol):
    """What is served: the public face of ``tracker_ar.AlphaRefineTracker``."""

    profile: Profile

    def initialize(self, image: np.ndarray, region: np.ndarray) -> None: ...

    def track(self, image: np.ndarray) -> Prediction: ...


def serve(make_tracker: Callable[[], Tracker], channel: ProtocolChannel) -> int:
    """Build the tracker, say hello, answer requests until the client quits or goes away.

    The weights are loaded before the hello because the toolkit's timeout does not count the handshake. A
    tracker that cannot be built says hello all the same and gives the reason when it is asked to start, since
    the toolkit hides what happens before. Returns the exit status: 0, or 1 after a failure.
    """
    failure = ""
    try:
        session = Session(make_tracker())
        profile = session.tracker.profile.name
        print(f"AlphaRefine: running profile {profile}", file=sys.stderr)
    except Exception as error:
        traceback.print_exc()
        failure, profile = _reason(error), "none"

    with channel.lock:
        server = trax.Server(
            [trax.Region.MASK, trax.Region.RECTANGLE, trax.Region.POLYGON],
            [trax.Image.PATH],
            tracker_name="AlphaRefine",
            tracker_description=f"AlphaRefine, profile {profile}",
            tracker_family="AlphaRefine",
            metadata={"profile": profile},
        )
    while True:
        try:
            request = server.wait()
        except trax.TraxException as error:
            cause = channel.gate.refusal or f"a request, or a region in it, that libtrax cannot use ({error})"
            failure = failure or f"InputError: {cause}"
            print(f"AlphaRefine: {failure}", file=sys.stderr)
        else:
            if request.type == trax.TraxStatus.QUIT:
                return 0
        if not failure:
            try:
                state = session.answer(request)
            except Exception as error:
                traceback.print_exc()
                failure = _reason(error)
        try:
            with channel.lock:
                if failure:
                    server.quit(failure)
                    return 1
                server.status([state])
        except trax.TraxException:
            return 0


class Session:
    """One tracker and the last state that it reported."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._mask: np.ndarray | None = None
        self._image_size = (0, 0)

    def answer(self, request: trax.server.Request) -> tuple[trax.Mask, dict[str, str]]:
        """The state for one request: a mask of its image's size, ``confidence`` 0..1, the profile's name.

        A frame that cannot be read or used repeats the last mask with confidence 0 and a line on stderr.
        Raises InputError when the first frame or its region is unusable: there is no state to repeat then.
        """
        path = request.image[trax.image.ImageChannel.COLOR].path()
        if request.type == trax.TraxStatus.INITIALIZE:
            confidence = self._initialize(path, request.objects[0][0])
        elif self._mask is None:
            raise InputError("a frame before the first 'initialize' request; send that request first")
        else:
            confidence = self._track(path)
        properties = {"confidence": f"{confidence:.6f}", "profile": self.tracker.profile.name}
        return encode_mask(self._mask, self._image_size), properties

    def _initialize(self, path: str, region: trax.Region) -> float:
        image = read_image(path)
        self._image_size = image.shape[:2]
        start = decode_region(region, self._image_size)
        self.tracker.initialize(image, start)
        self._mask = region_to_mask(start, self._image_size)
        return 1.0

    def _track(self, path: str) -> float:
        try:
            image = read_image(path)
            self._image_size = image.shape[:2]
            prediction = self.tracker.track(image)
        except InputError as error:
            print(f"AlphaRefine: {error}; the last state is repeated", file=sys.stderr)
            return 0.0
        self._mask = prediction.mask
        return float(prediction.score)


def read_image(path: str) -> np.ndarray:
    """An image file as RGB uint8 (H, W, 3); grey ones are spread over three channels.

    Raises InputError when the file is missing or cannot be decoded.
    """
    try:
        if not os.path.isfile(path):  # a device or a pipe might never end
            raise OSError(path)
        # Not cv2.imread, which cannot open non-ASCII paths on Windows.
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise InputError(f"cannot read the image {path}: the file is missing, damaged or not an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _reason(error: Exception) -> str:
    """One line for the toolkit, which prints it as the cause of the failure. TraX takes nothing but ASCII."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line.encode("ascii", "backslashreplace").decode()
