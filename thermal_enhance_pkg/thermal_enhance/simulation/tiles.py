"""Fixed surfaces cut and resampled for one camera, and warped into its picture."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.simulation.camera import NEAR_M, View
from thermal_enhance.simulation.textures import Surface

Region = tuple[slice, slice]

_COARSE = 4
_SPLIT_RATIO = 1.5
"""Far over near distance of one tile: the resolution wanted varies by its square on the ground."""


@dataclass(frozen=True)
class Tile:
    """A piece of a surface at the resolution a camera sees it at.

    Attributes:
        origin: (3,) world point of the centre of the first texel.
        u_step: (3,) world step from column to column.
        v_step: (3,) world step from row to row.
        pixels: (h, w) float32 kelvin or (h, w, 3) uint8 RGB, multiplied by alpha.
        alpha: (h, w) float32 or uint8 (255 is solid) coverage.
        depth_m: painting order, far first.
        backdrop: behind every actor.
        solid: covers its rectangle fully, and its border needs no blending.
        smooth: covers its whole region, with texels so coarse that a quarter of the resolution shows them.
    """

    origin: NDArray[np.float64]
    u_step: NDArray[np.float64]
    v_step: NDArray[np.float64]
    pixels: NDArray[Any]
    alpha: NDArray[Any]
    depth_m: float
    backdrop: bool
    solid: bool
    smooth: bool


@dataclass(frozen=True)
class Placed:
    """A tile in one view.

    Attributes:
        tile: the tile.
        region: rows and columns of the picture that it may touch.
        homography: (3, 3) from texels to pixels of that region.
    """

    tile: Tile
    region: Region
    homography: NDArray[np.float64]

    def warp(self, source: NDArray[Any]) -> NDArray[Any]:
        """One of the tile's layers as seen in the region; zero outside the tile."""
        size = (self.region[1].stop - self.region[1].start, self.region[0].stop - self.region[0].start)
        return cv2.warpPerspective(source, self.homography, size, flags=cv2.INTER_LINEAR)

    def paint(self, picture: NDArray[Any]) -> None:
        """Paint a solid tile straight into the picture."""
        target = picture[self.region]
        height, width = target.shape[:2]
        if self.tile.smooth:
            small = (-(-width // _COARSE), -(-height // _COARSE))
            shift = 0.5 / _COARSE - 0.5
            shrink = np.array([[1 / _COARSE, 0, shift], [0, 1 / _COARSE, shift], [0, 0, 1]])
            rough = cv2.warpPerspective(
                self.tile.pixels, shrink @ self.homography, small, borderMode=cv2.BORDER_REPLICATE
            )
            whole = (small[0] * _COARSE, small[1] * _COARSE)
            target[...] = cv2.resize(rough, whole, interpolation=cv2.INTER_LINEAR)[:height, :width]
            return
        cv2.warpPerspective(
            self.tile.pixels,
            self.homography,
            (width, height),
            dst=target,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )


class TileSet:
    """All tiles of a world for one camera, far first."""

    def __init__(self, tiles: list[Tile]) -> None:
        self.tiles = tiles
        corners = []
        for tile in tiles:
            height, width = tile.alpha.shape
            ends = np.array([(i, j) for i in (-1, width) for j in (-1, height)], float)
            corners.append(tile.origin + ends[:, :1] * tile.u_step + ends[:, 1:] * tile.v_step)
        self._corners = np.array(corners).reshape(-1, 4, 3)
        planes = [np.stack([tile.u_step, tile.v_step, tile.origin], axis=1) for tile in tiles]
        self._planes = np.array(planes).reshape(-1, 3, 3)

    def place(self, view: View) -> list[Placed]:
        """Tiles in sight, far first."""
        if not self.tiles:
            return []
        pixels, depth = view.project(self._corners.reshape(-1, 3))
        pixels = np.clip(pixels.reshape(-1, 4, 2), -1e6, 1e6)
        before = depth.reshape(-1, 4).min(axis=1) > NEAR_M
        starts = (np.floor(pixels.min(axis=1)).astype(int) - 1).tolist()
        stops = (np.ceil(pixels.max(axis=1)).astype(int) + 2).tolist()
        homographies = view.planes(self._planes)
        placed = []
        for n, tile in enumerate(self.tiles):
            region = _clip(starts[n], stops[n], view) if before[n] else None
            if region is None:
                continue
            homography = homographies[n]
            homography[0] -= region[1].start * homography[2]
            homography[1] -= region[0].start * homography[2]
            placed.append(Placed(tile, region, homography))
        return placed


def pixel_region(pixels: NDArray[np.float64], view: View, margin: int = 1) -> Region | None:
    """Rows and columns of the view that hold all points (N, 2) and a margin; None if there are none."""
    start = (np.floor(pixels.min(axis=0)).astype(int) - margin).tolist()
    stop = (np.ceil(pixels.max(axis=0)).astype(int) + margin + 1).tolist()
    return _clip(start, stop, view)


def _clip(start: list[int], stop: list[int], view: View) -> Region | None:
    x0, y0, x1, y1 = max(start[0], 0), max(start[1], 0), min(stop[0], view.width), min(stop[1], view.height)
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def build_tiles(surfaces: list[Surface], reference: View, thermal: bool) -> TileSet:
    """Cut all surfaces for a camera, far first.

    The resolution of each tile is that of the camera standing at `reference`, so it does not change while
    the rig moves (no popping), and a far surface is averaged down instead of aliasing.

    Args:
        surfaces: fixed surfaces of the world, far first.
        reference: the camera at rest.
        thermal: cut the thermal material, else the colours.
    """
    tiles = []
    for surface in surfaces:
        for u0, u1, v0, v1 in _pieces(surface):
            tiles.append(_cut(surface, (u0, u1, v0, v1), reference, thermal))
    return TileSet(tiles)


def _pieces(surface: Surface) -> list[tuple[float, float, float, float]]:
    """Rectangles (u0, u1, v0, v1) in metres, far first; each reaches a little under the nearer one."""
    width, height = surface.size_m
    if not surface.split:
        return [(0.0, width, 0.0, height)]
    length = height if surface.split == "v" else width
    start = float(surface.origin[2])
    cuts = [0.0]
    while cuts[-1] < length - 1e-9:
        following = (start + cuts[-1]) * _SPLIT_RATIO - start
        cuts.append(length if following > length * 0.97 else following)
    pieces = []
    for near, far in pairwise(cuts):
        under = max(0.0, near - 0.12 * (start + near))
        pieces.append((0.0, width, under, far) if surface.split == "v" else (under, far, 0.0, height))
    return pieces[::-1]


def _cut(surface: Surface, piece: tuple[float, float, float, float], reference: View, thermal: bool) -> Tile:
    u0, u1, v0, v1 = piece
    ppm = surface.pixels_per_m
    rows = slice(round(v0 * ppm), max(round(v1 * ppm), round(v0 * ppm) + 1))
    cols = slice(round(u0 * ppm), max(round(u1 * ppm), round(u0 * ppm) + 1))
    texture = surface.temperature_k if thermal else surface.color
    pixels: NDArray[Any] = texture[rows, cols]
    height, width = pixels.shape[:2]
    corner = surface.origin + surface.u_axis * (cols.start / ppm) + surface.v_axis * (rows.start / ppm)
    wanted_u, wanted_v = _pixels_per_m(surface, corner, (width / ppm, height / ppm), reference)
    new_width = max(min(width, round(width / ppm * wanted_u)), 1)
    new_height = max(min(height, round(height / ppm * wanted_v)), 1)
    solid = surface.alpha is None and surface.backdrop
    alpha: NDArray[Any] = (
        np.full((height, width), 255, np.uint8) if surface.alpha is None else surface.alpha[rows, cols]
    )
    # Averaged and interpolated in premultiplied form: what is transparent must not bleed into what is not.
    weight = alpha.astype(np.float32) / 255
    size = (new_width, new_height)
    weighted = (pixels * (weight if thermal else weight[..., None])).astype(np.float32)
    mean: NDArray[Any] = cv2.resize(weighted, size, interpolation=cv2.INTER_AREA)
    cover: NDArray[Any] = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    u_step = surface.u_axis * (width / ppm / new_width)
    v_step = surface.v_axis * (height / ppm / new_height)
    return Tile(
        origin=corner + 0.5 * u_step + 0.5 * v_step,
        u_step=u_step,
        v_step=v_step,
        pixels=mean if thermal else np.rint(mean).astype(np.uint8),
        alpha=cover if thermal else np.rint(cover * 255).astype(np.uint8),
        depth_m=surface.depth_m,
        backdrop=surface.backdrop,
        solid=solid,
        smooth=surface.smooth and min(wanted_u, wanted_v) >= _COARSE * ppm,
    )


def _pixels_per_m(
    surface: Surface, corner: NDArray[np.float64], size_m: tuple[float, float], reference: View
) -> tuple[float, float]:
    """Finest resolution along u and v at which the camera sees a piece, pixels per metre."""
    step = 0.01
    best_u = best_v = 0.0
    for u in np.linspace(0, size_m[0], 9):
        for v in (0.0, size_m[1] / 2, size_m[1]):
            point = corner + surface.u_axis * u + surface.v_axis * v
            points = np.stack([point, point + surface.u_axis * step, point + surface.v_axis * step])
            pixels, depth = reference.project(points)
            inside = -0.3 * reference.width < pixels[0, 0] < 1.3 * reference.width
            if depth.min() < 0.5 or not inside:
                continue
            best_u = max(best_u, float(np.hypot(*(pixels[1] - pixels[0]))) / step)
            best_v = max(best_v, float(np.hypot(*(pixels[2] - pixels[0]))) / step)
    full = surface.pixels_per_m
    return (best_u or full, best_v or full)
