"""Pictures of any size through graphs of a few fixed sizes: padded up to one, or in overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Run = Callable[[dict[str, Image]], Image]
"""(name -> (C, h, w) float32 of exactly the profile's size) -> (h, w) float32."""

OVERLAP = 64
"""Pixels that neighbouring tiles share at least."""


@dataclass(frozen=True)
class Axis:
    """Where tiles lie along one side of the picture.

    Attributes:
        length: of the picture, pixels.
        tile: side of a tile.
        starts: first pixel of each tile; the last may end beyond the picture, on padding.
    """

    length: int
    tile: int
    starts: tuple[int, ...]

    @property
    def padded(self) -> int:
        """Length that the tiles cover, at least that of the picture."""
        return self.starts[-1] + self.tile

    def weights(self) -> list[NDArray[np.float32]]:
        """Each tile's share along the side, (tile,) float32 each; those of a pixel sum to 1.

        A raised cosine over what two neighbours share: a tile counts least at its border, where a network
        sees least of the surroundings.
        """
        shares = np.zeros((len(self.starts), self.padded))
        for index, start in enumerate(self.starts):
            share = np.ones(self.tile)
            if index > 0:
                _fade_in(share, self.starts[index - 1] + self.tile - start)
            if index + 1 < len(self.starts):
                _fade_in(share[::-1], start + self.tile - self.starts[index + 1])
            shares[index, start : start + self.tile] = share
        shares /= shares.sum(axis=0)
        return [
            shares[index, start : start + self.tile].astype(np.float32)
            for index, start in enumerate(self.starts)
        ]


@dataclass(frozen=True)
class TilePlan:
    """How a picture goes through a graph.

    Attributes:
        profile: (width, height) of the graph.
        x, y: tiles along the width and along the height.
    """

    profile: tuple[int, int]
    x: Axis
    y: Axis

    @property
    def tiles(self) -> int:
        """How often the graph runs."""
        return len(self.x.starts) * len(self.y.starts)

    @property
    def pixels(self) -> int:
        """How many pixels it works on in all."""
        return self.tiles * self.profile[0] * self.profile[1]


def plan_tiles(
    size: tuple[int, int], profiles: Sequence[tuple[int, int]], overlap: int = OVERLAP, step: int = 32
) -> TilePlan:
    """The plan that costs the fewest pixels; of equals the one with the fewest tiles.

    Args:
        size: (width, height) of the picture.
        profiles: (width, height) of the graphs there are.
        overlap: pixels that neighbouring tiles share at least.
        step: tiles start at multiples of it, the network's own stride: they then see the picture on the same
            grid as one large graph would.

    Raises:
        ValueError: no profile, an empty picture, or a picture beyond every profile where none is large
            enough to be a tile.
    """
    if not profiles or min(size) < 1:
        raise ValueError(f"cannot plan tiles for {size[0]}x{size[1]} pixels with {len(profiles)} profiles")
    plans = []
    for profile in profiles:
        axes = [_axis(length, tile, overlap, step) for length, tile in zip(size, profile)]
        if axes[0] is not None and axes[1] is not None:
            plans.append(TilePlan(profile, axes[0], axes[1]))
    if not plans:
        raise ValueError(
            f"{size[0]}x{size[1]} pixels are beyond every profile, and tiles of "
            f"{', '.join(f'{w}x{h}' for w, h in profiles)} cannot overlap by {overlap} pixels"
        )
    return min(plans, key=lambda plan: (plan.pixels, plan.tiles))


def run_tiled(plan: TilePlan, pictures: Mapping[str, Image], run: Run) -> Image:
    """Run a graph over a whole picture.

    Args:
        plan: made for the pictures' size.
        pictures: name -> (C, H, W) float32, all of one H and W.
        run: the graph, for one tile.

    Returns:
        (H, W) float32.
    """
    padded = {name: pad(picture, plan.x.padded, plan.y.padded) for name, picture in pictures.items()}
    if plan.tiles == 1:
        made = run(padded)
    else:
        width, height = plan.profile
        made = np.zeros((plan.y.padded, plan.x.padded), np.float32)
        columns = list(zip(plan.x.starts, plan.x.weights()))
        for top, vertical in zip(plan.y.starts, plan.y.weights()):
            for left, horizontal in columns:
                window = (slice(top, top + height), slice(left, left + width))
                tile = run({name: picture[:, window[0], window[1]] for name, picture in padded.items()})
                made[window] += tile * (vertical[:, None] * horizontal[None, :])
    return made[: plan.y.length, : plan.x.length]


def pad(picture: Image, width: int, height: int) -> Image:
    """Grow (C, H, W) to the right and below: mirrored, or replicated where that takes more than there is."""
    right, below = width - picture.shape[2], height - picture.shape[1]
    if right == 0 and below == 0:
        return picture
    mirrored = right < picture.shape[2] and below < picture.shape[1]
    border = cv2.BORDER_REFLECT_101 if mirrored else cv2.BORDER_REPLICATE
    return np.stack([cv2.copyMakeBorder(plane, 0, below, 0, right, border) for plane in picture])


def _axis(length: int, tile: int, overlap: int, step: int) -> Axis | None:
    """Evenly spread tiles along a side; None where the tile is too small to overlap."""
    if length <= tile:
        return Axis(length, tile, (0,))
    if tile - overlap < step:
        return None
    count = math.ceil((length - overlap) / (tile - overlap))
    while True:
        # The last one may end up to a step beyond the picture.
        last = math.ceil((length - tile) / step) * step
        starts = tuple(math.floor(last * index / (count - 1) / step) * step for index in range(count))
        if all(after - before <= tile - overlap for before, after in pairwise(starts)):
            return Axis(length, tile, starts)
        count += 1


def _fade_in(share: NDArray[np.float64], shared: int) -> None:
    """Multiply the first `shared` values by a raised cosine that rises from almost 0 to almost 1."""
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(shared) + 0.5) / shared)
    share[:shared] *= ramp
