"""Random scenes: cut-out things in motion over other images, and whole images with their own masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracker_ar.data.synthetic.library import Cutout, ImageLibrary
from tracker_ar.data.synthetic.photometry import tone_table
from tracker_ar.data.synthetic.scene import Layer, Scene
from tracker_ar.data.synthetic.sprites import Sprite, cut_object, draw_sprite

_SMALLEST_SIDE, _LARGEST_SIDE = 22.0, 200.0
_LARGEST_ENLARGEMENT = 1.6
_SMALLEST_PART = 150  # pixels


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are drawn; shares are probabilities, motion is relative to the size of things.

    part_share: of the objects of whole images that are cut down to a part of them, as a head on a body.
    """

    real_share: float = 0.5
    region_share: float = 0.3
    copy_share: float = 0.35
    clutter: float = 0.5
    occluder_share: float = 0.25
    elastic_share: float = 0.5
    target_relight: float = 0.25
    part_share: float = 0.0


class SceneSampler:
    """Draws scenes from a library; everything random comes from the generator handed in."""

    def __init__(self, library: ImageLibrary, settings: SceneSettings = SceneSettings()) -> None:
        self.library = library
        self.settings = settings

    def sample(self, rng: np.random.Generator, frames: int) -> Scene:
        """A scene of the given number of frames with one target; it is near or in the frame throughout."""
        if rng.random() < self.settings.real_share:
            return self._real_scene(rng, frames)
        return self._composed_scene(rng, frames)

    def _composed_scene(self, rng: np.random.Generator, frames: int) -> Scene:
        frame_size = _frame_size(rng)
        times = np.sort(rng.random(frames))
        sprite = draw_sprite(self.library, rng)
        side = _target_side(sprite, frame_size, rng)
        path = _Path.draw(frame_size, times, side, rng)
        layers = [self._backdrop(frame_size, times, rng)]
        layers += self._others(sprite, path, frame_size, times, rng)
        relight = rng.random() * self.settings.target_relight
        layers.append(self._sprite_layer(sprite, path, rng, relight, is_target=True))
        if rng.random() < self.settings.occluder_share:
            layers.append(self._occluder(path, rng))
        return Scene(frame_size, layers)

    def _real_scene(self, rng: np.random.Generator, frames: int) -> Scene:
        """An image moves as a whole; the target is one of its objects or regions, at its real boundary."""
        cutout, of_regions = self._real_target(rng)
        image = self.library.images[cutout.image].pixels
        mask = self.library.mask_of(cutout, of_regions) * 255
        height, width = mask.shape
        x0, y0, x1, y1 = cutout.box
        area = cutout.area
        # Without parts nothing is drawn for them, so that samples stay what they were.
        if self.settings.part_share > 0 and not of_regions and rng.random() < self.settings.part_share:
            mask, (x0, y0, x1, y1) = _part(mask, cutout.box, rng)
            area = np.count_nonzero(mask)
        centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        matrices = np.stack([_shake(centre, (height, width), rng) for _ in range(frames)])
        layers = [
            Layer([image] * frames, None, matrices),
            Layer(None, [mask] * frames, matrices, is_target=True),
        ]
        side = float(np.sqrt(area))
        places = np.einsum("nij,j->ni", matrices, np.append(centre, 1.0))[:, :2]
        path = _Path(places, np.full(frames, side), np.ones(frames), np.zeros(frames))
        if rng.random() < 0.5 * self.settings.copy_share:
            copy = path.beside(rng, 1.1, 2.2, times=np.sort(rng.random(frames)))
            layers.append(self._sprite_layer(cut_object(self.library, rng), copy, rng, 0.0))
        if rng.random() < 0.6 * self.settings.occluder_share:
            layers.append(self._occluder(path, rng))
        return Scene((height, width), layers)

    def _real_target(self, rng: np.random.Generator) -> tuple[Cutout, bool]:
        if self.library.regions and rng.random() < self.settings.region_share:
            for _ in range(8):
                region = self.library.draw_region(rng)
                assert region is not None
                x0, y0, x1, y1 = region.box
                compact = region.area > 0.4 * (x1 - x0) * (y1 - y0)
                if compact and region.area < 0.25 * self.library.images[region.image].pixels[..., 0].size:
                    return region, True
        return self.library.draw_object(rng), False

    def _backdrop(self, frame_size: tuple[int, int], times: np.ndarray, rng: np.random.Generator) -> Layer:
        image = self.library.draw_image(rng).pixels
        height, width = image.shape[:2]
        cover = max(frame_size[0] / height, frame_size[1] / width) * rng.uniform(1.05, 1.7)
        drift = rng.normal(0, 0.12, 2) * max(frame_size)
        zoom = rng.normal(0, 0.12)
        tilt = np.deg2rad(rng.normal(0, 4))
        turn = np.deg2rad(rng.normal(0, 6))
        flip = -1.0 if rng.random() < 0.5 else 1.0
        room = np.maximum(0.0, np.array([width, height]) * cover - frame_size[::-1]) / 2
        start = np.array(frame_size[::-1]) / 2 + rng.uniform(-1, 1, 2) * room
        matrices = [
            _placement(
                (width / 2, height / 2), start + drift * t, cover * np.exp(zoom * t), flip, tilt + turn * t
            )
            for t in times
        ]
        tone = tone_table(rng, 0.7)
        return Layer([image] * len(times), None, np.stack(matrices), [tone] * len(times))

    def _others(
        self,
        sprite: Sprite,
        path: _Path,
        frame_size: tuple[int, int],
        times: np.ndarray,
        rng: np.random.Generator,
    ) -> list[Layer]:
        """Look-alikes of the target near it, and unrelated things anywhere, all behind the target."""
        layers = []
        for _ in range(rng.poisson(self.settings.clutter)):
            other = draw_sprite(self.library, rng)
            side = _target_side(other, frame_size, rng)
            layers.append(self._sprite_layer(other, _Path.draw(frame_size, times, side, rng), rng, 0.3))
        if rng.random() < self.settings.copy_share:
            for _ in range(rng.integers(1, 3)):
                copy = path.beside(rng, 0.9, 3.0, times)
                layers.append(self._sprite_layer(sprite, copy, rng, 0.3 * rng.random()))
        return layers

    def _occluder(self, path: _Path, rng: np.random.Generator) -> Layer:
        """A thing in front of the target; in the first frame it is still off to the side."""
        cover = path.beside(rng, 0.35, 0.9, times=np.linspace(0, 1, len(path.places)))
        away = rng.normal(size=2)
        away /= np.linalg.norm(away) + 1e-6
        cover.places[0] = path.places[0] + away * path.sides[0] * rng.uniform(1.6, 2.4)
        cover.sides[:] *= rng.uniform(0.4, 0.9)
        return self._sprite_layer(draw_sprite(self.library, rng), cover, rng, 0.2)

    def _sprite_layer(
        self, sprite: Sprite, path: _Path, rng: np.random.Generator, relight: float, is_target: bool = False
    ) -> Layer:
        frames = len(path.places)
        perspective = rng.normal(0, 0.12, (frames, 2)) * (rng.random() < 0.4)
        matrices = np.stack(
            [
                _placement(
                    sprite.centre,
                    path.places[i],
                    path.sides[i] / sprite.side,
                    path.aspects[i],
                    path.turns[i],
                    perspective[i] / max(sprite.pixels.shape),
                )
                for i in range(frames)
            ]
        )
        pixels, alpha = [sprite.pixels] * frames, [sprite.alpha] * frames
        bends = _bends(sprite, frames, rng) if rng.random() < self.settings.elastic_share else None
        tones: list[np.ndarray | None] = [tone_table(rng, 0.5)] * frames
        if relight > 0:
            tones = [tone_table(rng, relight) for _ in range(frames)]
        return Layer(pixels, alpha, matrices, tones, is_target, bends)


@dataclass(frozen=True)
class _Path:
    """Where a thing is: centres (n, 2) in frame pixels; root areas, aspects, turns (radians), each (n,)."""

    places: np.ndarray
    sides: np.ndarray
    aspects: np.ndarray
    turns: np.ndarray

    @staticmethod
    def draw(
        frame_size: tuple[int, int], times: np.ndarray, side: float, rng: np.random.Generator
    ) -> _Path:
        extent = np.array(frame_size[::-1], dtype=np.float64)
        start = rng.uniform(0.12, 0.88, 2) * extent
        velocity = rng.normal(0, 0.3, 2) * extent.mean()
        frames = len(times)
        places = start + velocity * (times - times[0])[:, None] + rng.normal(0, 0.15 * side, (frames, 2))
        low, high = (0.1, 0.9) if rng.random() < 0.75 else (0.0, 1.0)
        places = np.clip(places, low * extent, high * extent)
        sides = side * np.exp(rng.normal(0, 0.3) * (times - times[0]) + rng.normal(0, 0.06, frames))
        aspects = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.1, frames))
        base = rng.uniform(0, 2 * np.pi) if rng.random() < 0.2 else np.deg2rad(rng.normal(0, 12))
        spin = np.deg2rad(rng.normal(0, 25)) * (times - times[0])
        return _Path(places, sides, aspects, base + spin + np.deg2rad(rng.normal(0, 4, frames)))

    def beside(self, rng: np.random.Generator, near: float, far: float, times: np.ndarray) -> _Path:
        """A path that keeps `near` to `far` times this one's size away from it and turns around it."""
        angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, 1.5) * times
        distance = rng.uniform(near, far) * self.sides
        offset = np.stack((np.cos(angle), np.sin(angle)), 1) * distance[:, None]
        turns = self.turns + np.deg2rad(rng.normal(0, 15))
        return _Path(self.places + offset, self.sides * rng.uniform(0.8, 1.25), self.aspects.copy(), turns)


def _frame_size(rng: np.random.Generator) -> tuple[int, int]:
    aspect = np.exp(rng.uniform(np.log(0.75), np.log(1.85)))
    width = 400 * np.sqrt(aspect)
    return int(width / aspect), int(width)


def _target_side(sprite: Sprite, frame_size: tuple[int, int], rng: np.random.Generator) -> float:
    largest = min(_LARGEST_SIDE, 0.5 * min(frame_size), _LARGEST_ENLARGEMENT * sprite.side)
    return float(np.exp(rng.uniform(np.log(_SMALLEST_SIDE), np.log(max(largest, _SMALLEST_SIDE + 1)))))


def _placement(
    centre: tuple[float, float],
    place: np.ndarray,
    scale: float,
    aspect: float,
    turn: float,
    perspective: np.ndarray | None = None,
) -> np.ndarray:
    """Layer to frame: the layer's centre to `place`, scaled, stretched, turned.

    The aspect is width over height; a negative one mirrors.
    """
    stretch = np.sqrt(abs(aspect))
    cos, sin = np.cos(turn), np.sin(turn)
    shape = np.diag([scale * stretch * np.sign(aspect), scale / stretch, 1.0])
    rotate = np.array([[cos, -sin, place[0]], [sin, cos, place[1]], [0, 0, 1.0]])
    back = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1.0]])
    tilt = np.eye(3)
    if perspective is not None:
        tilt[2, :2] = perspective
    return rotate @ shape @ tilt @ back


def _part(
    mask: np.ndarray, box: tuple[int, int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """What of an object's mask lies in a random window of its box x0, y0, x1, y1, and the box of that; the whole where
    the window holds too little. Half of the windows are at the upper end, where heads are."""
    x0, y0, x1, y1 = box
    shares = rng.uniform((0.4, 0.2), (0.9, 0.5))
    width, height = (max(8, round(share * side)) for share, side in zip(shares, (x1 - x0, y1 - y0)))
    left = x0 + int(rng.integers(0, max(1, x1 - x0 - width + 1)))
    top = y0 if rng.random() < 0.5 else y0 + int(rng.integers(0, max(1, y1 - y0 - height + 1)))
    part = np.zeros_like(mask)
    part[top : top + height, left : left + width] = mask[top : top + height, left : left + width]
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if np.count_nonzero(part) < _SMALLEST_PART:
        return mask, box
    return part, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _shake(centre: np.ndarray, frame_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A camera's view of a still image: turned, scaled, stretched and shifted about the target."""
    place = centre + rng.normal(0, 0.06, 2) * max(frame_size)
    place = np.clip(place, 0, np.array(frame_size[::-1]))
    perspective = rng.normal(0, 0.1, 2) / max(frame_size) if rng.random() < 0.4 else None
    scale, aspect = np.exp(rng.normal(0, 0.15)), np.exp(rng.normal(0, 0.12))
    return _placement(tuple(centre), place, scale, aspect, np.deg2rad(rng.normal(0, 8)), perspective)


def _bends(sprite: Sprite, frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Smooth non-rigid motion: a coarse grid of displacements that changes from frame to frame."""
    strength = rng.uniform(0.01, 0.05) * max(sprite.alpha.shape)
    grid = int(rng.integers(3, 6))
    return [rng.normal(0, strength, (2, grid, grid)).astype(np.float32) for _ in range(frames)]
