"""Painter's algorithm: the world as one camera sees it, in kelvin or in colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.simulation.actors import Actor, Part
from thermal_enhance.simulation.camera import NEAR_M, Pose, View
from thermal_enhance.simulation.tiles import Placed, Region, build_tiles, pixel_region
from thermal_enhance.simulation.world import World, WorldState

_OVERSAMPLE = 2
"""Actors are drawn at this many times the picture's resolution and averaged down, so outlines are smooth."""
_SHIFT = 4
"""Fraction bits of OpenCV's polygon coordinates."""
_SHADOW = 0.45
"""How much light a contact shadow takes."""


@dataclass(frozen=True)
class Sighting:
    """An actor in a rendered picture.

    Attributes:
        track_id: value of the actor in the instance map.
        label: "person" or "car".
        extent: (x0, y0, x1, y1) of its whole outline, pixel edges, not clipped to the picture.
        pixels: pixels it would cover inside the picture if nothing stood before it.
    """

    track_id: int
    label: str
    extent: tuple[float, float, float, float]
    pixels: int


@dataclass(frozen=True)
class Patch:
    """A blended piece of a picture: pixels multiplied by alpha, and alpha."""

    region: Region
    pixels: NDArray[Any]
    alpha: NDArray[Any]

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Where the patch covers more than half of a pixel."""
        return self.alpha > (0.5 if self.alpha.dtype == np.float32 else 127)


class Renderer:
    """Renders a world for one camera at one resolution.

    Keeps the fixed part of the last picture for a rig that stands still; that changes no result.

    Args:
        world: what to render.
        width: columns.
        height: rows.
        k: (3, 3) intrinsics for that size.
        rest: pose of the camera while the rig is at rest.
        thermal: render temperatures; else colours.
    """

    def __init__(
        self, world: World, width: int, height: int, k: NDArray[np.float64], *, rest: Pose, thermal: bool
    ) -> None:
        self._world = world
        self._width, self._height, self._k = width, height, k
        self._thermal = thermal
        self._tiles = build_tiles(world.surfaces, View(width, height, k, rest), thermal)
        self._fixed: tuple[bytes, NDArray[Any], list[tuple[float, Patch]]] | None = None

    def picture(self, state: WorldState, pose: Pose) -> NDArray[Any]:
        """The scene: (H, W) float32 kelvin, or (H, W, 3) uint8 RGB."""
        return self._render(state, pose, None)[0]

    def labelled(
        self, state: WorldState, pose: Pose
    ) -> tuple[NDArray[Any], NDArray[np.uint8], list[Sighting]]:
        """The scene, (H, W) uint8 track ids of visible actors (0: none), and where each actor is."""
        instances = np.zeros((self._height, self._width), np.uint8)
        picture, sightings = self._render(state, pose, instances)
        return picture, instances, sightings

    def _render(
        self, state: WorldState, pose: Pose, instances: NDArray[np.uint8] | None
    ) -> tuple[NDArray[Any], list[Sighting]]:
        view = View(self._width, self._height, self._k, pose)
        backdrop, props = self._fixed_part(view)
        picture = backdrop + np.float32(state.heating_k) if self._thermal else backdrop.copy()
        if not self._thermal:
            for actor in state.actors:
                self._shadow(picture, actor, view)
        sightings: list[Sighting] = []
        waiting = list(props)
        for actor in state.actors:
            while waiting and waiting[0][0] >= actor.z:
                self._prop(picture, waiting.pop(0)[1], state.heating_k, instances)
            self._actor(picture, actor, view, instances, sightings)
        for _, patch in waiting:
            self._prop(picture, patch, state.heating_k, instances)
        return picture, sightings

    def _fixed_part(self, view: View) -> tuple[NDArray[Any], list[tuple[float, Patch]]]:
        key = view.pose.rotation.tobytes() + view.pose.position.tobytes()
        if self._fixed is None or self._fixed[0] != key:
            shape = (self._height, self._width) if self._thermal else (self._height, self._width, 3)
            start = self._world.config.ambient_k if self._thermal else 128
            backdrop: NDArray[Any] = np.full(shape, start, self._dtype)
            props = []
            for placed in self._tiles.place(view):
                if not placed.tile.backdrop:
                    props.append((placed.tile.depth_m, _warp(placed)))
                elif placed.tile.solid:
                    placed.paint(backdrop)
                else:
                    _blend(backdrop, _warp(placed))
            self._fixed = (key, backdrop, props)
        return self._fixed[1], self._fixed[2]

    @property
    def _dtype(self) -> type:
        return np.float32 if self._thermal else np.uint8

    def _prop(
        self, picture: NDArray[Any], patch: Patch, heating_k: float, instances: NDArray[np.uint8] | None
    ) -> None:
        if self._thermal:
            warmed = patch.pixels + np.float32(heating_k) * patch.alpha
            _blend(picture, Patch(patch.region, warmed, patch.alpha))
        else:
            _blend(picture, patch)
        if instances is not None:
            instances[patch.region][patch.covered] = 0

    def _actor(
        self,
        picture: NDArray[Any],
        actor: Actor,
        view: View,
        instances: NDArray[np.uint8] | None,
        sightings: list[Sighting],
    ) -> None:
        outlines = _project_parts(actor, self._world.ground_y, view)
        if outlines is None:
            return
        points = outlines.points
        region = pixel_region(points, view)
        if region is None:
            return
        patch = self._draw(actor.parts, outlines, region)
        self._texture(patch, actor, view)
        _blend(picture, patch)
        if instances is not None:
            covered = patch.covered
            instances[region][covered] = actor.track_id
            x0, y0 = points.min(axis=0) + 0.5
            x1, y1 = points.max(axis=0) + 0.5
            extent = (float(x0), float(y0), float(x1), float(y1))
            sightings.append(Sighting(actor.track_id, actor.label, extent, int(covered.sum())))

    def _draw(self, parts: tuple[Part, ...], outlines: _Outlines, region: Region) -> Patch:
        height = region[0].stop - region[0].start
        width = region[1].stop - region[1].start
        n = _OVERSAMPLE
        shape = (height * n, width * n) if self._thermal else (height * n, width * n, 3)
        pixels: NDArray[Any] = np.zeros(shape, self._dtype)
        alpha: NDArray[Any] = np.zeros((height * n, width * n), np.uint8)
        corner = np.array([region[1].start, region[0].start], float)
        fine = n * (outlines.points - corner + 0.5) - 0.5
        # OpenCV's fill includes the outline itself: half a (fine) pixel is taken back on all sides.
        fixed = np.rint(outlines.inset(fine, 0.5) * (1 << _SHIFT)).astype(np.int32)
        for part, start, stop in zip(parts, outlines.starts, outlines.stops):
            value = part.temperature_k if self._thermal else part.color
            if value is None:
                continue
            cv2.fillConvexPoly(pixels, fixed[start:stop], value, cv2.LINE_8, _SHIFT)
            cv2.fillConvexPoly(alpha, fixed[start:stop], 255, cv2.LINE_8, _SHIFT)
        mean = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        cover = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA)
        if self._thermal:
            # The same four samples make both averages, so their quotient is a temperature at every rim.
            return Patch(region, mean, np.rint(cover * (n * n / 255)).astype(np.float32) / (n * n))
        return Patch(region, mean, cover)

    def _texture(self, patch: Patch, actor: Actor, view: View) -> None:
        """Fine texture that moves with the actor: temperature, or a little light and shade."""
        x, y, z = actor.x, self._world.ground_y, actor.z
        pixels, _ = view.project(np.array([[x, y, z], [x + 1, y, z], [x, y - 1, z]]))
        to_pixels = np.stack([pixels[1] - pixels[0], pixels[2] - pixels[0]], axis=1)
        to_cloth = 128.0 * np.linalg.inv(to_pixels)
        corner = np.array([patch.region[1].start, patch.region[0].start], float)
        start = to_cloth @ (corner - pixels[0]) + 40.0 * actor.track_id
        cloth: NDArray[Any] = cv2.warpAffine(
            self._world.cloth_k if self._thermal else self._world.cloth_light,
            np.column_stack([to_cloth, start]),
            (patch.alpha.shape[1], patch.alpha.shape[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        if self._thermal:
            patch.pixels[...] += cloth * patch.alpha
        else:
            light = cv2.cvtColor(cloth, cv2.COLOR_GRAY2RGB)
            cv2.multiply(patch.pixels, light, dst=patch.pixels, scale=1 / 128)
            cv2.min(patch.pixels, cv2.cvtColor(patch.alpha, cv2.COLOR_GRAY2RGB), dst=patch.pixels)

    def _shadow(self, picture: NDArray[np.uint8], actor: Actor, view: View) -> None:
        angle = np.arange(24) * (2 * np.pi / 24)
        ring = np.stack(
            [
                actor.x + 0.06 + actor.shadow[0] * np.cos(angle),
                np.full(24, self._world.ground_y),
                actor.z + 0.05 + actor.shadow[1] * np.sin(angle),
            ],
            axis=1,
        )
        points, depth = view.project(ring)
        region = pixel_region(points, view, margin=3)
        if depth.min() <= NEAR_M or region is None:
            return
        target = picture[region]
        light: NDArray[Any] = np.full(target.shape[:2], 255, np.uint8)
        local = points - (region[1].start, region[0].start)
        fixed = np.rint(local * (1 << _SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(light, fixed, round(255 * (1 - _SHADOW)), cv2.LINE_8, _SHIFT)
        light = cv2.blur(light, (3, 3))
        cv2.multiply(target, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), dst=target, scale=1 / 255)


@dataclass(frozen=True)
class _Outlines:
    """Projected outlines of all parts of an actor: pixels (N, 2), and where each part starts and stops."""

    points: NDArray[np.float64]
    starts: NDArray[np.intp]
    stops: NDArray[np.intp]

    def inset(self, points: NDArray[np.float64], by: float) -> NDArray[np.float64]:
        """Every outline moved inwards, never past its middle."""
        counts = (self.stops - self.starts)[:, None]
        center = np.repeat(np.add.reduceat(points, self.starts) / counts, counts[:, 0], axis=0)
        out = points - center
        reach = np.maximum.reduceat(np.abs(out), self.starts)
        shrink = 1 - np.minimum(by / np.maximum(reach, by), 0.8)
        return center + out * np.repeat(shrink, counts[:, 0], axis=0)


def _project_parts(actor: Actor, ground_y: float, view: View) -> _Outlines | None:
    """None where a part of the actor is behind the near plane."""
    flat = np.concatenate([part.outline for part in actor.parts])
    world = np.empty((len(flat), 3))
    world[:, 0] = actor.x + flat[:, 0]
    world[:, 1] = ground_y - flat[:, 1]
    world[:, 2] = actor.z
    pixels, depth = view.project(world)
    if depth.min() <= NEAR_M:
        return None
    stops = np.cumsum([len(part.outline) for part in actor.parts])
    return _Outlines(pixels, np.concatenate([[0], stops[:-1]]), stops)


def _warp(placed: Placed) -> Patch:
    return Patch(placed.region, placed.warp(placed.tile.pixels), placed.warp(placed.tile.alpha))


def _blend(picture: NDArray[Any], patch: Patch) -> None:
    """Lay a patch over the picture, in place: picture (1 - alpha) + pixels."""
    target = picture[patch.region]
    if picture.dtype == np.float32:
        cv2.multiply(target, 1 - patch.alpha, dst=target)
        cv2.add(target, patch.pixels, dst=target)
    else:
        through = cv2.cvtColor(cv2.bitwise_not(patch.alpha), cv2.COLOR_GRAY2RGB)
        cv2.multiply(target, through, dst=target, scale=1 / 255)
        cv2.add(target, patch.pixels, dst=target)
