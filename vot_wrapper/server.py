"""The TraX loop around one tracker, which follows all objects of a session.

Every ``initialize`` request starts over, so one process serves all anchors of a sequence. (The metadata
``vot=python`` would make the toolkit start a process per anchor; it is not sent.) Objects that come with a
later frame join the others. The toolkit treats a session with one object as that of a single-object tracker.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import trax

from tracker_ar.errors import DataError, InputError
from tracker_ar.geometry import Region
from tracker_ar.images import read_image
from tracker_ar.prediction import Prediction, Tracker, listed, without_overlap
from vot_wrapper.protocol import ProtocolChannel
from vot_wrapper.regions import decode_region, encode_box, encode_mask

Report = Literal["masks", "boxes"]


def serve(
    make_tracker: Callable[[], Tracker], channel: ProtocolChannel, report: Report | None = None
) -> int:
    """Build the tracker, say hello, answer requests until the client quits or goes away.

    The weights are loaded before the hello because the toolkit's timeout does not count the handshake. A
    tracker that cannot be built says hello all the same and gives the reason when it is asked to start, since
    the toolkit hides what happens before. Returns the exit status: 0, or 1 after a failure.
    """
    failure = ""
    try:
        session = Session(make_tracker(), report)
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
            multiobject=True,
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
                states = session.answer(request)
            except Exception as error:
                traceback.print_exc()
                failure = _reason(error)
        if failure:
            channel.end_log()
        try:
            with channel.lock:
                if failure:
                    server.quit(failure)
                    return 1
                server.status(states)
        except trax.TraxException:
            return 0


class Session:
    """The targets of one client and the last states that were reported of them."""

    def __init__(self, tracker: Tracker, report: Report | None = None) -> None:
        """report: what is sent of each target; None for what the tracker's profile says."""
        self.tracker = tracker
        self._report = report or getattr(tracker.profile, "report", "masks")
        self._predictions: list[Prediction] = []
        self._image_size = (0, 0)

    def answer(self, request: trax.server.Request) -> list[tuple[trax.Region, dict[str, str]]]:
        """The states for one request, one of each object in the order in which they came.

        A mask of its image's size or a box, ``confidence`` 0..1, the profile's name. A frame that cannot be
        read or used repeats the last states with confidence 0 and a line on stderr. Raises InputError when an
        object, or the frame that it comes with, is unusable: there is no state to repeat then.
        """
        path = request.image[trax.image.ImageChannel.COLOR].path()
        regions = [region for region, _ in request.objects or []]
        if request.type == trax.TraxStatus.INITIALIZE:
            self._predictions = self._initialize(path, regions)
        elif not self._predictions:
            raise InputError("a frame before the first 'initialize' request; send that request first")
        else:
            self._predictions = self._track(path, regions)
        return [self._encode(prediction) for prediction in self._predictions]

    def _initialize(self, path: str, regions: list[trax.Region]) -> list[Prediction]:
        image = read_frame(path)
        self._image_size = image.shape[:2]
        return self.tracker.initialize(image, self._decode(regions))

    def _track(self, path: str, new: list[trax.Region]) -> list[Prediction]:
        try:
            image = read_frame(path)
            self._image_size = image.shape[:2]
            predictions = listed(self.tracker.track(image))
            if not new:
                return predictions
            return without_overlap([*predictions, *(self.tracker.add(image, region) for region in self._decode(new))])
        except InputError as error:
            if new:
                raise
            print(f"AlphaRefine: {error}; the last state is repeated", file=sys.stderr)
            return [replace(prediction, score=0.0) for prediction in self._predictions]

    def _decode(self, regions: list[trax.Region]) -> list[Region]:
        return [decode_region(region, self._image_size) for region in regions]

    def _encode(self, prediction: Prediction) -> tuple[trax.Region, dict[str, str]]:
        properties = {"confidence": f"{prediction.score:.6f}", "profile": self.tracker.profile.name}
        if self._report == "boxes":
            return encode_box(prediction), properties
        return encode_mask(prediction.mask, self._image_size), properties


def read_frame(path: str) -> np.ndarray:
    """As `images.read_image`, but a file that cannot be used is an InputError."""
    try:
        return read_image(path)
    except DataError as error:
        raise InputError(f"cannot read the image {error}") from error


def _reason(error: Exception) -> str:
    """One line for the toolkit, which prints it as the cause of the failure. TraX takes nothing but ASCII."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line.encode("ascii", "backslashreplace").decode()
