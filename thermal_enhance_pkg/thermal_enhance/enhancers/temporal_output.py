"""Frames that nobody measured: which ones to make between two real ones, and what bounds their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.upsampling import Image
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.motion import Motion

MAX_BETWEEN = 8
"""Interpolated frames for one input frame, at most."""
MAX_REACH_PX = 24
"""Motion beyond this, in input pixels, does not widen the envelope further."""
ROUNDING_NS = 2_000
"""A frame this near to the grid lies on it: stamps are rounded, to microseconds by many cameras."""
STILL_PX = 0.1
"""Motion at which a place counts as half moving, about, input pixels."""
_NANO = 1_000_000_000


def stamps_between(before_ns: int, after_ns: int, fps_out: float = 0.0) -> tuple[int, ...]:
    """Stamps of the frames to make between two real ones.

    Args:
        before_ns: stamp of the earlier frame, nanoseconds.
        after_ns: of the later.
        fps_out: 0 for the exact middle (twice the rate); else frames on a fixed grid of `fps_out` a second,
            counted from stamp 0, so that they are where they were in any other run.

    Returns:
        Stamps strictly between the two, rising; at most `MAX_BETWEEN`, spread evenly where the grid has more.
        A place of the grid that a real frame holds, but for `ROUNDING_NS`, is left to it.
    """
    if fps_out == 0.0:
        middle = (before_ns + after_ns) // 2
        return (middle,) if before_ns < middle < after_ns else ()
    # Exact: a float of nanoseconds since 1970 is off by hundreds of them.
    rate = Fraction(fps_out).limit_denominator(1_000_000) / _NANO
    first = math.floor((before_ns + ROUNDING_NS) * rate) + 1
    last = math.ceil((after_ns - ROUNDING_NS) * rate) - 1
    count = max(last - first + 1, 0)
    numbers: Sequence[int] = range(first, last + 1)
    if count > MAX_BETWEEN:
        numbers = [first + (2 * i + 1) * count // (2 * MAX_BETWEEN) for i in range(MAX_BETWEEN)]
    found = (math.floor(number / rate) for number in numbers)
    return tuple(stamp for stamp in found if before_ns < stamp < after_ns)


def reach(motion: Motion) -> int:
    """How far things move between two frames, whole input pixels, at most `MAX_REACH_PX`.

    All but the farthest half percent of the pixels: a few stray vectors must not open the envelope.
    """
    largest = 0.0
    for flow in (motion.forward, motion.backward):
        length = cv2.magnitude(np.ascontiguousarray(flow[..., 0]), np.ascontiguousarray(flow[..., 1]))
        largest = max(largest, float(np.quantile(length[::2, ::2], 0.995)))
    return min(math.ceil(largest - 1e-3), MAX_REACH_PX)


def stillness(motion: Motion, before: Image, after: Image) -> Image:
    """Where a scene stands still between two frames.

    Args:
        motion: between them; may be larger than they are (padding on the right and below).
        before: (h, w) float32.
        after: (h, w) float32, in the same unit.

    Returns:
        (h, w) float32: 1 where nothing moves and the frames differ by no more than is usual in the picture,
        down to 0.
    """
    height, width = before.shape
    flows = (motion.forward[:height, :width], motion.backward[:height, :width])
    squared = [np.square(flow).sum(axis=2) for flow in flows]
    still = np.exp(np.maximum(*squared) / np.float32(-(STILL_PX**2)))
    change = cv2.blur(np.abs(after - before), (3, 3))
    usual = 2.0 * float(np.median(change)) + 1e-6
    beyond = np.maximum(change / np.float32(usual) - 1, 0)
    return np.asarray(still * np.exp(-np.square(beyond)), np.float32)


def hold_still_means(middle: Image, target: Image, still: Image, scale: int) -> None:
    """Give an interpolated frame the block means that lie between its neighbours', where nothing moves.

    The observed frames meet the block means of their inputs. Left to itself a frame between them does not
    quite, and a scene that stands still would flicker at the frame rate.

    Args:
        middle: (H, W) float32, changed in place.
        target: (h, w) float32, the inputs around it mixed by nearness; in the unit of `middle`.
        still: (h, w) float32 from `stillness`.
        scale: output over input size.
    """
    size = (middle.shape[1], middle.shape[0])
    for method in (cv2.INTER_LINEAR, cv2.INTER_NEAREST):
        gap = np.asarray((target - area_down(middle, scale)) * still, np.float32)
        np.add(middle, cv2.resize(gap, size, interpolation=method), out=middle)


def bound_by_neighbours(
    middle: Image, before: NDArray[Any], after: NDArray[Any], scale: int, reach_px: int
) -> Image:
    """Bound an interpolated frame by the enhanced frames around it (DESIGN 3: never a new extreme).

    A pixel stays within the smallest and the largest value that either neighbour has as far around it as
    things move between them, and a pixel more; the envelope is made of whole input pixels.

    Args:
        middle: (H, W) float32, changed in place; finite.
        before: (H, W) enhanced frame before; a non-finite pixel bounds nothing.
        after: (H, W) enhanced frame after.
        scale: output over input size; divides H and W.
        reach_px: how far things move between the two, input pixels.

    Returns:
        `middle`; NaN where both neighbours have NaN only, a whole input pixel wide.
    """
    lows, highs = zip(*(_block_extremes(np.asarray(frame, np.float32), scale) for frame in (before, after)))
    low, high = np.fmin(*lows), np.fmax(*highs)
    unknown = np.isnan(low)
    low[unknown], high[unknown] = np.inf, -np.inf
    kernel = np.ones((2 * reach_px + 3, 2 * reach_px + 3), np.uint8)
    low, high = cv2.erode(low, kernel), cv2.dilate(high, kernel)
    nothing = low > high
    low[nothing], high[nothing] = -np.inf, np.inf
    size = (middle.shape[1], middle.shape[0])
    np.maximum(middle, cv2.resize(low, size, interpolation=cv2.INTER_NEAREST), out=middle)
    np.minimum(middle, cv2.resize(high, size, interpolation=cv2.INTER_NEAREST), out=middle)
    if unknown.any():
        middle[np.repeat(np.repeat(unknown, scale, axis=0), scale, axis=1)] = np.nan
    return middle


def _block_extremes(frame: Image, scale: int) -> tuple[Image, Image]:
    """(h, w) smallest and largest of each block of scale x scale pixels; NaN where all are."""
    low = high = frame
    for axis in (0, 1):
        parts = [(low[i::scale], high[i::scale]) if axis == 0 else (low[:, i::scale], high[:, i::scale])
                 for i in range(scale)]  # fmt: skip
        low, high = parts[0]
        for smaller, larger in parts[1:]:
            low, high = np.fmin(low, smaller), np.fmax(high, larger)
    return np.ascontiguousarray(low), np.ascontiguousarray(high)
