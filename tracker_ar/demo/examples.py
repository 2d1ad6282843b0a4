"""The rendered sequences as examples: a person without a video sees it work in one click."""

from __future__ import annotations

import functools
from collections.abc import Generator

import cv2

from tracker_ar.data.synthetic.procedural import FPS, LENGTH, Scene, render, synthetic_scenes
from tracker_ar.demo.clips import Clip
from tracker_ar.demo.limits import Refused
from tracker_ar.geometry import box_from_mask
from tracker_ar.video.sources import Frame, Source

# name of the scene -> what the page calls it and what is hard about it; how well it goes depends on the weights
WORDS = {
    "made_scaled": ("Growing and turning", "Four times as large after a second, in changing light"),
    "made_articulated": ("Walking", "Swinging limbs, and it touches a distractor"),
    "made_occluded": ("Passing behind", "Hidden by a pillar, with a distractor on this side"),
    "made_deforming": ("Changing shape", "It swells and bends in the colours behind it"),
}


@functools.cache
def _scenes() -> dict[str, Scene]:
    return {scene.name: scene for scene in synthetic_scenes()}


def descriptions() -> list[dict[str, str]]:
    """Name, title and a line about every example."""
    return [{"name": name, "title": title, "note": note} for name, (title, note) in WORDS.items()]


@functools.cache
def thumbnail(name: str) -> bytes:
    """The first frame as a JPEG file. Raises Refused for an unknown name."""
    image = render(_scene(name), 0)[0]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def open_example(name: str) -> Clip:
    """The example with its target proposed. Raises Refused for an unknown name."""
    scene = _scene(name)
    image, mask = render(scene, 0)
    box = tuple(float(value) for value in box_from_mask(mask))

    def frames(start: int) -> Generator[Frame, None, None]:
        for number in range(start, LENGTH + 1):
            yield Frame(number, "", render(scene, number - 1)[0])

    def open_frames(start: int) -> Source:
        return Source(name, FPS, LENGTH - start + 1, frames(start))

    return Clip("example", image, LENGTH, LENGTH, FPS, open_frames, (box,))


def _scene(name: str) -> Scene:
    if name not in WORDS:
        raise Refused(404, "There is no such example.")
    return _scenes()[name]
