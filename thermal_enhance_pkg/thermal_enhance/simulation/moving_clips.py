"""Moving clips made from stills: camera motion, objects of their own motion, slow heating (METHODS 2.10).

There is little thermal video with a moving camera to learn from; there are many sharp stills. A clip is the
view of a camera that pans, turns, nears and shakes over one of them, with pieces of another moving through.
Noise belongs to the low-resolution frames made from it (`low_resolution`), not to these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


@dataclass(frozen=True)
class MovingClipConfig:
    """How clips move. Pixels are those of the clip, ranges are (low, high).

    Attributes:
        static_probability: clips whose camera stands still.
        pan_px: speed of the camera, pixels a frame.
        turn: largest change of the velocity over the clip, as a share of it, either way.
        zoom: how many pixels of the still a pixel covers at the start.
        zoom_rate: largest change of the zoom a frame, either way, as a share.
        rotation_deg: largest rotation a frame, either way.
        shake_probability: clips of a camera in a hand or on a rough road.
        shake_px: standard deviation of its jolts, pixels.
        objects: number of pieces that move on their own.
        object_size: of their side, in shares of the clip's shorter side.
        object_px: their speed, pixels a frame.
        object_levels: largest difference of their mean level to that of the place they are cut from.
        ramp_probability: how often an object, or a region of the background, heats or cools.
        ramp_levels: largest change of it a frame.
    """

    static_probability: float = 0.15
    pan_px: tuple[float, float] = (0.2, 8.0)
    turn: float = 0.4
    zoom: tuple[float, float] = (1.0, 1.3)
    zoom_rate: float = 0.006
    rotation_deg: float = 0.4
    shake_probability: float = 0.3
    shake_px: tuple[float, float] = (0.2, 1.5)
    objects: tuple[int, int] = (0, 3)
    object_size: tuple[float, float] = (0.06, 0.35)
    object_px: tuple[float, float] = (0.5, 8.0)
    object_levels: float = 50.0
    ramp_probability: float = 0.3
    ramp_levels: float = 1.5

    def __post_init__(self) -> None:
        for name in ("pan_px", "zoom", "shake_px", "objects", "object_size", "object_px"):
            low, high = getattr(self, name)
            if not (math.isfinite(high) and 0 <= low <= high):
                raise ValueError(f"moving.{name} must be a range within 0 <= low <= high: {low}, {high}")
        if self.zoom[0] <= 0 or self.object_size[0] <= 0:
            raise ValueError(
                f"moving.zoom and object_size must be greater than 0: {self.zoom}, {self.object_size}"
            )
        for name in ("static_probability", "shake_probability", "ramp_probability", "turn"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"moving.{name} must be within 0..1, not {getattr(self, name)}")
        for name in ("zoom_rate", "rotation_deg", "object_levels", "ramp_levels"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"moving.{name} must be at least 0, not {getattr(self, name)}")


def moving_clip(
    still: NDArray[Any],
    frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    config: MovingClipConfig,
    pieces: NDArray[Any] | None = None,
    full_scale: float = 255.0,
    times: Sequence[float] | None = None,
) -> NDArray[np.float32]:
    """A clip from a still.

    Args:
        still: (H, W) of any real dtype, 0 to full_scale; where the path leaves it, its mirror image goes on.
        frames: number of frames, at least 1.
        size: (width, height) of the clip.
        rng: source of randomness; the same state gives the same clip.
        config: how it moves.
        pieces: (H, W) still that objects are cut from; None for the same.
        full_scale: largest value.
        times: make the clip at these times alone, 0 to frames - 1, fractions too; None for every frame.

    Returns:
        (number of times, height, width) float32, 0 to full_scale.

    Raises:
        ValueError: no frame, or a size below 8.
    """
    if frames < 1 or min(size) < 8:
        raise ValueError(f"a moving clip needs a frame and 8 pixels a side, not {frames} of {size}")
    wanted = np.asarray(range(frames) if times is None else times, np.float64)
    middle = (frames - 1) / 2
    # All frames, whichever are wanted: where the path fits into the still depends on the whole of it.
    every = np.concatenate([np.arange(frames), [middle], wanted])
    path = _camera_path((still.shape[1], still.shape[0]), frames, size, rng, config, every)
    halfway, views = path[frames], path[frames + 1 :]
    world, corner = _cut(still, path, size)
    views[:, :, 2] -= corner
    halfway[:, 2] -= corner
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    seen = [cv2.warpAffine(world, v, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101) for v in views]
    clip = np.stack(seen).astype(np.float32, copy=False)
    level, time = full_scale / 255.0, wanted - middle
    if rng.random() < config.ramp_probability:
        _warm_region(clip, views, halfway, time, rng, config.ramp_levels * level)
    source = still if pieces is None else pieces
    for _ in range(int(rng.integers(config.objects[0], config.objects[1] + 1))):
        _add_object(clip, source, time, rng, config, level)
    return np.clip(clip, 0, np.float32(full_scale), out=clip)


def _camera_path(
    still: tuple[int, int],
    frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    c: MovingClipConfig,
    wanted: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(number of times, 2, 3) matrices from clip pixels to still pixels."""
    time = wanted - (frames - 1) / 2
    # The same draws in either case, so that a seed's clips differ in nothing else.
    moves = float(rng.random() >= c.static_probability)
    heading, speed = rng.uniform(0, 2 * math.pi), rng.uniform(*c.pan_px) * moves
    velocity = speed * np.array([math.cos(heading), math.sin(heading)])
    change = rng.uniform(-c.turn, c.turn, 2) * speed / max(frames - 1, 1)
    centre = np.outer(time, velocity) + np.outer(time**2 / 2, change)
    zoom = rng.uniform(*c.zoom) * np.exp(rng.uniform(-c.zoom_rate, c.zoom_rate) * moves * time)
    angle = math.radians(rng.uniform(-c.rotation_deg, c.rotation_deg) * moves) * time
    jolts = rng.normal(0, 1, (frames, 2)) * rng.uniform(*c.shake_px)
    if moves and rng.random() < c.shake_probability:
        # A camera has mass: between frames it moves evenly.
        centre = centre + np.stack([np.interp(wanted, np.arange(frames), j) for j in jolts.T], 1)
    centre = centre * zoom[:, None]
    half = np.array(size) * zoom.max() / 2
    # The whole path inside the still where it fits, in the middle where it does not.
    low, high = half - centre.min(axis=0), np.array(still) - half - centre.max(axis=0)
    start = np.where(low < high, low + rng.random(2) * np.maximum(high - low, 0), (low + high) / 2)
    centre = centre + start
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    linear = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)
    middle = (np.array(size, np.float64) - 1) / 2
    offset = centre - 0.5 - linear @ middle
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def _cut(
    still: NDArray[Any], views: NDArray[np.float64], size: tuple[int, int]
) -> tuple[Image, tuple[int, int]]:
    """What a path sees of the still, as float32 (the rest is not converted), and its corner (x, y)."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [size[0], size[1], 1]], np.float64)
    seen = np.einsum("fij,kj->fki", views, corners)
    low = np.maximum(np.floor(seen.min(axis=(0, 1))).astype(int) - 8, 0)
    high = np.ceil(seen.max(axis=(0, 1))).astype(int) + 8
    left, top = (int(min(v, n - 2)) for v, n in zip(low, (still.shape[1], still.shape[0])))
    part = np.asarray(still[top : max(int(high[1]), top + 2), left : max(int(high[0]), left + 2)], np.float32)
    return part, (left, top)


def _warm_region(
    clip: NDArray[np.float32],
    views: NDArray[np.float64],
    halfway: NDArray[np.float64],
    time: NDArray[np.float64],
    rng: np.random.Generator,
    most: float,
) -> None:
    """Heat or cool a soft spot of the background, which stays where it is in the world."""
    height, width = clip.shape[1:]
    sigma = rng.uniform(0.08, 0.3) * min(height, width)
    spot = halfway @ np.array([rng.uniform(0, width), rng.uniform(0, height), 1.0])
    rate = rng.uniform(-most, most)
    for index, view in enumerate(views):
        x, y = np.linalg.solve(view[:, :2], spot - view[:, 2])
        across = np.exp(-0.5 * ((np.arange(width) - x) / sigma) ** 2)
        down = np.exp(-0.5 * ((np.arange(height) - y) / sigma) ** 2)
        clip[index] += np.outer(down, across * (rate * time[index])).astype(np.float32)


def _add_object(
    clip: NDArray[np.float32],
    source: NDArray[Any],
    time: NDArray[np.float64],
    rng: np.random.Generator,
    config: MovingClipConfig,
    level: float,
) -> None:
    """Move a soft-edged piece of a still through the clip."""
    height, width = clip.shape[1:]
    side = max(6, round(rng.uniform(*config.object_size) * min(height, width)))
    side = min(side, *source.shape)
    top, left = (int(rng.integers(n - side + 1)) for n in source.shape)
    piece = np.asarray(source[top : top + side, left : left + side], np.float32)
    piece = piece + np.float32(rng.uniform(-config.object_levels, config.object_levels) * level)
    mask = _blob(side, rng)
    heading, speed = rng.uniform(0, 2 * math.pi), rng.uniform(*config.object_px)
    path = np.outer(time, speed * np.array([math.cos(heading), math.sin(heading)]))
    path += rng.random(2) * (width, height)
    turn, grow = rng.uniform(-2, 2), rng.uniform(-0.01, 0.01)
    ramp = rng.uniform(-1, 1) * config.ramp_levels * level
    ramp *= float(rng.random() < config.ramp_probability)
    for index, (x, y) in enumerate(path):
        scale = math.exp(grow * time[index])
        reach = math.ceil(0.75 * side * scale) + 2
        x0, y0 = max(math.floor(x) - reach, 0), max(math.floor(y) - reach, 0)
        x1, y1 = min(math.floor(x) + reach, width), min(math.floor(y) + reach, height)
        if x0 >= x1 or y0 >= y1:
            continue
        matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn * time[index], scale)
        matrix[:, 2] += (x - x0 - (side - 1) / 2, y - y0 - (side - 1) / 2)
        area = (x1 - x0, y1 - y0)
        alpha = cv2.warpAffine(mask, matrix, area, flags=cv2.INTER_LINEAR)
        picture = cv2.warpAffine(
            piece, matrix, area, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ) + np.float32(ramp * time[index])
        behind = clip[index, y0:y1, x0:x1]
        behind += (picture - behind) * alpha


def _blob(side: int, rng: np.random.Generator) -> Image:
    """(side, side) float32 in 0..1: an irregular shape with a soft edge, 0 at the border."""
    coarse = rng.random((5, 5)).astype(np.float32)
    field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    radius = np.hypot(ramp[None, :] / np.float32(rng.uniform(0.6, 1.0)), ramp[:, None])
    inside = (field * np.float32(0.5) + np.float32(0.55) - radius) * np.float32(side / 2)
    mask = np.clip(inside / np.float32(2.0) + np.float32(0.5), 0, 1)
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    return np.asarray(mask, np.float32)
