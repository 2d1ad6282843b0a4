"""Sequences that the project renders itself: textured scenes with exact masks, the same on every machine.

Each shows one difficulty (deformation, occlusion, change of scale with rotation, articulated motion) in front
of a moving textured background on which a distractor wanders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tracker_ar.run_lengths import encode_mask_line

WIDTH, HEIGHT, LENGTH, FPS = 320, 240, 60, 20
ANCHOR_STEP = 30
_OVERSAMPLING = 4
_TEXTURE_SIDE = 128

Outline = Callable[[float], list[np.ndarray]]
"""Time 0..1 -> polygons (N, 2), their union being the shape, in units of the object's radius."""


@dataclass(frozen=True)
class Pose:
    """Where a sprite is in the image, in pixels and radians."""

    x: float
    y: float
    radius: float
    angle: float = 0.0


@dataclass(frozen=True)
class Sprite:
    """A textured shape on its way."""

    texture: np.ndarray
    outline: Outline
    pose: Callable[[float], Pose]


@dataclass(frozen=True)
class Scene:
    """One sequence. Sprites are painted in the order distractor, target, occluder."""

    name: str
    background: np.ndarray
    camera: Callable[[float], tuple[float, float]]
    distractor: Sprite
    target: Sprite
    occluder: Sprite | None = None
    brightness: Callable[[float], float] = lambda t: 1.0


def synthetic_scenes() -> list[Scene]:
    """Every scene, ready to be rendered."""
    return [_deforming(), _occluded(), _scaled(), _articulated()]


def write_synthetic_sequences(folder: Path) -> list[str]:
    """Render every scene into ``folder`` in the VOT layout, over earlier renderings; returns the names."""
    scenes = synthetic_scenes()
    for scene in scenes:
        _write_scene(scene, folder / scene.name)
    return [scene.name for scene in scenes]


def render(scene: Scene, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """One frame, RGB uint8 (HEIGHT, WIDTH, 3), and the visible part of the target, uint8 {0,1}."""
    t = frame / (LENGTH - 1)
    image = _crop(scene.background, *scene.camera(t))
    for sprite in (scene.distractor, scene.target):
        coverage = _coverage(sprite, t)
        image = _blend(image, _warp_texture(sprite, t), coverage)
    if scene.occluder is not None:
        hidden = _coverage(scene.occluder, t)
        image = _blend(image, _warp_texture(scene.occluder, t), hidden)
        coverage = coverage * (1 - hidden)
    noise = np.random.default_rng(frame).normal(0, 2, image.shape)
    image = np.clip(image * scene.brightness(t) + noise, 0, 255).astype(np.uint8)
    return image, (coverage >= 0.5).astype(np.uint8)


def anchor_values(length: int, step: int = ANCHOR_STEP) -> list[int]:
    """Anchors as in VOT2020: every ``step`` frames and the last; forward in the first half, else backward."""
    anchors = [0] * length
    for frame in [*range(0, length, step), length - 1]:
        anchors[frame] = 1 if 2 * frame < length - 1 else -1
    return anchors


def _write_scene(scene: Scene, folder: Path) -> None:
    (folder / "color").mkdir(parents=True, exist_ok=True)
    lines = []
    for frame in range(LENGTH):
        image, mask = render(scene, frame)
        lines.append(encode_mask_line(mask))
        path = folder / "color" / f"{frame + 1:08d}.jpg"
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        path.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    metadata = {"channel.default": "color", "format": "default", "name": scene.name, "fps": FPS,
                "length": LENGTH, "width": WIDTH, "height": HEIGHT}
    (folder / "groundtruth.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "anchor.value").write_text("".join(f"{value}\n" for value in anchor_values(LENGTH)))
    (folder / "sequence").write_text("".join(f"{key}={value}\n" for key, value in metadata.items()))


def _deforming() -> Scene:
    coat = _texture(11, (70, 110, 60), (190, 200, 120))
    return Scene(
        "made_deforming", _texture(12, (60, 80, 70), (160, 150, 110), (420, 560), cell=14),
        camera=lambda t: (60 + 90 * t, 60 + 20 * np.sin(5 * t)),
        distractor=Sprite(coat, _blob(4, 0.15),
                          lambda t: Pose(285 - 230 * t, 60 + 20 * np.cos(7 * t), 22, 3 * t)),
        target=Sprite(coat, _blob(3, 0.35),
                      lambda t: Pose(70 + 170 * t, 130 + 55 * np.sin(7 * t), 34, 1.5 * np.sin(4 * t))),
    )


def _occluded() -> Scene:
    coat = _texture(21, (150, 60, 40), (240, 190, 150))
    pillar = Sprite(_texture(24, (50, 50, 60), (120, 120, 125)),
                    lambda t: [np.array([(-0.2, -3.0), (0.2, -3.0), (0.2, 3.0), (-0.2, 3.0)])],
                    lambda t: Pose(175 - 20 * t, 120, 85))
    return Scene(
        "made_occluded", _texture(22, (90, 70, 60), (190, 160, 130), (420, 560), cell=20),
        camera=lambda t: (150 - 80 * t, 70 + 10 * np.sin(6 * t)),
        distractor=Sprite(coat, _blob(5, 0.1), lambda t: Pose(40 + 60 * t, 195 - 20 * t, 20, -2 * t)),
        target=Sprite(coat, _blob(2, 0.25),
                      lambda t: Pose(167.5 - 107.5 * np.cos(np.pi * t), 115 + 25 * np.sin(6 * t), 33, t)),
        occluder=pillar,
    )


def _scaled() -> Scene:
    coat = _texture(31, (120, 90, 40), (240, 220, 130))
    return Scene(
        "made_scaled", _texture(32, (50, 70, 110), (150, 170, 170), (420, 560), cell=10),
        camera=lambda t: (100 + 60 * np.sin(3 * t), 50 + 60 * t),
        distractor=Sprite(coat, _polygon_star(5),
                          lambda t: Pose(50 + 40 * np.sin(5 * t), 50 + 140 * t, 20, 2 * t)),
        target=Sprite(coat, _polygon_star(6),
                      lambda t: Pose(170 + 60 * np.sin(4 * t), 120 - 30 * np.sin(3 * t),
                                     36 * 2.0 ** np.sin(2 * np.pi * t - 0.6), 2.5 * t)),
        brightness=lambda t: 1.0 - 0.35 * np.sin(np.pi * t),
    )


def _articulated() -> Scene:
    coat = _texture(41, (120, 40, 100), (230, 170, 200))
    return Scene(
        "made_articulated", _texture(42, (70, 90, 60), (150, 140, 160), (420, 560), cell=16),
        camera=lambda t: (40 + 150 * t, 90),
        distractor=Sprite(coat, _walker(5), lambda t: Pose(260 - 60 * t, 70 + 10 * np.sin(9 * t), 30)),
        target=Sprite(coat, _walker(8),
                      lambda t: Pose(80 + 130 * np.sin(2.2 * t), 140 + 12 * np.sin(14 * t),
                                     48, 0.2 * np.sin(8 * t))),
    )


def _blob(lobes: int, depth: float) -> Outline:
    """A closed curve whose lobes swell and turn."""
    around = np.linspace(0, 2 * np.pi, 72, endpoint=False)

    def outline(t: float) -> list[np.ndarray]:
        radius = 1 + depth * np.sin(lobes * around + 6 * t) + depth / 2 * np.sin(2 * around - 9 * t)
        stretch = 1 + depth * np.sin(8 * t)
        return [np.stack([stretch * radius * np.cos(around), radius * np.sin(around)], axis=1)]

    return outline


def _polygon_star(points: int) -> Outline:
    """A rigid star."""
    around = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False)
    radius = np.where(np.arange(2 * points) % 2, 0.6, 1.0)
    corners = np.stack([radius * np.cos(around), radius * np.sin(around)], axis=1)
    return lambda t: [corners]


def _walker(steps: int) -> Outline:
    """A body, a head and four swinging limbs."""

    def outline(t: float) -> list[np.ndarray]:
        swing = 0.6 * np.sin(2 * np.pi * steps / 4 * t)
        legs = [(-0.1, 0.3, swing), (0.1, 0.3, -swing)]
        arms = [(-0.2, -0.35, 0.8 * swing + 0.5), (0.2, -0.35, 0.8 * swing - 0.5)]
        return [_ellipse(0, 0, 0.3, 0.5), _ellipse(0, -0.7, 0.22, 0.24),
                *(_ellipse(x + 0.35 * np.sin(angle), y + 0.35 * np.cos(angle), 0.11, 0.45, -angle)
                  for x, y, angle in legs + arms)]

    return outline


def _ellipse(x: float, y: float, width: float, height: float, angle: float = 0.0) -> np.ndarray:
    around = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    points = np.stack([width * np.cos(around), height * np.sin(around)], axis=1)
    return points @ _rotation(angle).T + (x, y)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _coverage(sprite: Sprite, t: float) -> np.ndarray:
    """How much of every pixel the shape covers, 0..1, float32."""
    pose = sprite.pose(t)
    canvas = np.zeros((HEIGHT * _OVERSAMPLING, WIDTH * _OVERSAMPLING), np.uint8)
    for polygon in sprite.outline(t):
        points = (polygon @ _rotation(pose.angle).T * pose.radius + (pose.x, pose.y)) * _OVERSAMPLING
        cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], 255)
    return cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _warp_texture(sprite: Sprite, t: float) -> np.ndarray:
    """The texture as it lies on the shape, float32 (HEIGHT, WIDTH, 3); it turns and grows with it."""
    pose = sprite.pose(t)
    turn = _rotation(pose.angle) * pose.radius / (_TEXTURE_SIDE / 4)
    shift = np.array([pose.x, pose.y]) - turn @ np.full(2, _TEXTURE_SIDE / 2)
    matrix = np.concatenate([turn, shift[:, None]], axis=1)
    return cv2.warpAffine(sprite.texture, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)


def _blend(image: np.ndarray, paint: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    return image + coverage[..., None] * (paint - image)


def _crop(background: np.ndarray, x: float, y: float) -> np.ndarray:
    """The part of the background that the camera sees, at sub-pixel positions."""
    centre = (x + (WIDTH - 1) / 2, y + (HEIGHT - 1) / 2)
    return cv2.getRectSubPix(background, (WIDTH, HEIGHT), centre)


def _texture(seed: int, dark: tuple[int, int, int], light: tuple[int, int, int],
             size: tuple[int, int] = (_TEXTURE_SIDE, _TEXTURE_SIDE), cell: int = 8) -> np.ndarray:
    """Noise of five octaves between two colours, float32 (H, W, 3), 0..255; the coarsest spans 4 cells."""
    random = np.random.default_rng(seed)
    noise = np.zeros(size, np.float32)
    for octave in range(5):
        step = max(4 * cell >> octave, 1)
        grid = random.random((size[0] // step + 2, size[1] // step + 2), dtype=np.float32)
        noise += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) * 0.7**octave
    # Saturated, so that there are edges to hold on to and not only clouds.
    noise = 0.5 + 0.5 * np.tanh(1.0 * (noise - noise.mean()) / noise.std())
    mixed = noise[..., None] * np.subtract(light, dark) + dark
    return np.clip(mixed + 25 * (random.random(3) - 0.5), 0, 255).astype(np.float32)
