"""Motion between consecutive frames, and where a thing seen at some time lies in each of them.

A kernel over time cannot move pixels: averaging two frames of a moving robot gives two ghosts, not the frame
between (METHODS 2.4). So content is brought to the wanted time first. A flow f from a to b is (h, w, 2)
float32 (dx, dy) in pixels: a(x, y) looks like b(x + dx, y + dy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Flow = NDArray[np.float32]

METHODS = ("dense", "global", "none")
MIN_SIDE = 16
_SAME_TIME = 1e-4
_ROUNDING = np.float32(4.0)
"""Squared levels below which one flow explains no better than another."""


@dataclass(frozen=True)
class MotionConfig:
    """How motion is estimated.

    Attributes:
        method: "dense" for a flow of every pixel (DIS, Kroeger et al., 2016); "global" for the one
            homography that most corners of it follow, steadier where only the camera moves; "none" for no
            motion at all.
        patch_stride: pixels between the patches of DIS, 1 to 8.
        iterations: of its gradient descent.
        refinements: variational refinement steps of DIS: slow, and of no use at these sizes.
        still: how much worse than usual standing still must explain the frames before motion counts at all,
            in shares of the usual squared difference: below the first the flow is 0, from the second on it
            is as estimated. A flow fitted to noise would blur what two noisy frames agree on.
        still_sigma_px: neighbourhood over which that is judged.
        still_floor: smallest difference that is usual, levels: that of rounding.
    """

    method: str = "dense"
    patch_stride: int = 4
    iterations: int = 16
    refinements: int = 0
    still: tuple[float, float] = (1.0, 3.0)
    still_sigma_px: float = 2.0
    still_floor: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"motion.method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if not 1 <= self.patch_stride <= 8 or self.iterations < 1 or self.refinements < 0:
            raise ValueError(
                "motion.patch_stride must be within 1..8, iterations at least 1 and refinements at least 0: "
                f"{self.patch_stride}, {self.iterations}, {self.refinements}"
            )
        if not 0 <= self.still[0] < self.still[1]:
            raise ValueError(f"motion.still must be two numbers of at least 0 that rise, not {self.still}")
        if not (self.still_sigma_px > 0 and self.still_floor > 0):
            raise ValueError(
                "motion.still_sigma_px and still_floor must be greater than 0: "
                f"{self.still_sigma_px}, {self.still_floor}"
            )


@dataclass(frozen=True)
class Motion:
    """Motion between a frame and the next.

    Attributes:
        forward: (h, w, 2) float32, flow from the earlier frame to the later.
        backward: (h, w, 2) float32, from the later to the earlier.
        forward_error: (h, w) float32, squared difference of the two frames along `forward`, smoothed, levels
            squared; None where unknown. Decides which flow is believed where they differ.
        backward_error: the same of `backward`.
    """

    forward: Flow
    backward: Flow
    forward_error: Image | None = None
    backward_error: Image | None = None

    @classmethod
    def none(cls, height: int, width: int) -> Motion:
        """No motion, for frames of this size."""
        return cls(np.zeros((height, width, 2), np.float32), np.zeros((height, width, 2), np.float32))


@dataclass
class MotionEstimator:
    """Estimates the motion between two frames, both ways. Not for two threads at once.

    Attributes:
        config: see `MotionConfig`.
    """

    config: MotionConfig = field(default_factory=MotionConfig)

    def __post_init__(self) -> None:
        self._method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        # Finer than the presets: small images and faint edges need patches at full resolution.
        self._method.setFinestScale(0)
        self._method.setPatchStride(self.config.patch_stride)
        self._method.setGradientDescentIterations(self.config.iterations)
        self._method.setVariationalRefinementIterations(self.config.refinements)

    def __call__(self, a: NDArray[Any], b: NDArray[Any]) -> Motion:
        """Estimate.

        Args:
            a: (h, w) levels, at least 16 pixels a side; finite.
            b: (h, w), the next frame.

        Raises:
            ValueError: sizes differ or are too small.
        """
        if a.shape != b.shape or a.ndim != 2 or min(a.shape) < MIN_SIDE:
            raise ValueError(
                f"motion needs two frames (h, w) of one size of at least {MIN_SIDE}, not {a.shape}, {b.shape}"
            )
        if self.config.method == "none":
            return Motion.none(*a.shape)
        first, second = (np.ascontiguousarray(frame, np.float32) for frame in (a, b))
        low = float(min(first.min(), second.min()))
        # One scale for both, and never stretched beyond the noise of a featureless picture.
        gain = 255.0 / max(float(max(first.max(), second.max())) - low, 16.0)
        grays = [
            np.rint((frame - np.float32(low)) * np.float32(gain)).astype(np.uint8)
            for frame in (first, second)
        ]
        start = np.zeros((*a.shape, 2), np.float32)
        forward = np.asarray(self._method.calc(grays[0], grays[1], start), np.float32)
        backward = np.asarray(self._method.calc(grays[1], grays[0], start.copy()), np.float32)
        if self.config.method == "global":
            forward, backward = (
                _homography_flow(gray, flow) for gray, flow in zip(grays, (forward, backward))
            )
        forward, forward_error = self._steady(first, second, forward)
        backward, backward_error = self._steady(second, first, backward)
        return Motion(forward, backward, forward_error, backward_error)

    def _steady(self, a: Image, b: Image, flow: Flow) -> tuple[Flow, Image]:
        """`flow`, brought to 0 where standing still explains the frames as well as usual; and its error."""
        c = self.config
        moved, rested = (
            cv2.GaussianBlur(np.square(a - other), (0, 0), c.still_sigma_px) for other in (sample(b, flow), b)
        )
        usual = max(float(np.median(moved)), c.still_floor**2)
        gain = (rested - moved) / np.float32(usual)
        share = np.clip((gain - np.float32(c.still[0])) / np.float32(c.still[1] - c.still[0]), 0, 1)
        # Once most of the picture moves it is the camera, and featureless areas move along.
        floor = min(max(4.0 * float(share.mean()) - 1.0, 0.0), 1.0)
        share = np.maximum(share, np.float32(floor))
        steady = np.asarray(flow * share[..., None], np.float32)
        return steady, np.asarray(rested + (moved - rested) * share, np.float32)


def sample(image: NDArray[np.float32], displacement: Flow) -> NDArray[np.float32]:
    """Look up (h, w) or (h, w, c) at p + displacement(p), bilinearly, replicated at the border."""
    points = pixel_grid(*displacement.shape[:2]) + displacement
    found = cv2.remap(  # type: ignore[call-overload]
        image, points, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found, np.float32)


def pixel_grid(height: int, width: int) -> Flow:
    """(height, width, 2) float32 (x, y) of every pixel."""
    grid = np.empty((height, width, 2), np.float32)
    grid[..., 0] = np.arange(width, dtype=np.float32)
    grid[..., 1] = np.arange(height, dtype=np.float32)[:, None]
    return grid


def disagreement(motion: Motion) -> tuple[Image, Image]:
    """Forward-backward gap: how far from where it started a pixel comes back, pixels.

    Large where something is seen in one of the frames only.

    Returns:
        (h, w) float32 of the earlier frame, and of the later.
    """
    there, back = motion.forward, motion.backward
    return tuple(  # type: ignore[return-value]
        np.asarray(cv2.magnitude(*cv2.split(one + sample(other, one))), np.float32)
        for one, other in ((there, back), (back, there))
    )


def split_time(tau: float, frames: int) -> tuple[int, float]:
    """(index, fraction): tau = index + fraction; fraction is exactly 0 at a frame.

    Raises:
        ValueError: tau is outside 0..frames - 1.
    """
    if not -_SAME_TIME <= tau <= frames - 1 + _SAME_TIME:
        raise ValueError(f"tau must lie within the window, 0..{frames - 1}, not {tau}")
    nearest = round(tau)
    if abs(tau - nearest) <= _SAME_TIME:
        return int(nearest), 0.0
    return math.floor(tau), tau - math.floor(tau)


def displacements(tau: float, motions: Sequence[Motion]) -> list[Flow]:
    """Where the content seen at time tau lies, in every frame of a window.

    Between frames, motion is taken to be even: what is at p at a fraction t of the way came from that x0 of
    the earlier frame with x0 + t f(x0) = p, which a fixed-point iteration finds; the later frame's flow says
    it once more, and the mean of both is taken, weighted by how well each explains the frames. Frames further
    off follow by chaining flows.

    Args:
        tau: time in frames, 0 to len(motions).
        motions: between frames i and i + 1.

    Returns:
        For each of len(motions) + 1 frames x, (h, w, 2) float32 d: the picture at tau, at p, looks like
        frame x at p + d(p).

    Raises:
        ValueError: tau is outside, or there is no motion.
    """
    if not motions:
        raise ValueError("a window needs at least two frames, and so one motion")
    frames = len(motions) + 1
    index, part = split_time(tau, frames)
    found: list[Flow | None] = [None] * frames
    if part == 0.0:
        found[index] = np.zeros_like(motions[0].forward)
        last = index
    else:
        motion, last = motions[index], index + 1
        found[index], found[last] = _between(motion, part)
    for x in range(last + 1, frames):
        found[x] = _chain(found[x - 1], motions[x - 1].forward)
    for x in range(index - 1, -1, -1):
        found[x] = _chain(found[x + 1], motions[x].backward)
    return [d for d in found if d is not None]


def displacement(tau: float, x: int, motions: Sequence[Motion]) -> Flow:
    """The one of `displacements` for frame x."""
    return displacements(tau, motions)[x]


def _between(motion: Motion, part: float) -> tuple[Flow, Flow]:
    """Displacements from a fraction of the way to the frame before and the frame after."""
    t, rest = np.float32(part), np.float32(1.0 - part)
    before = _origin(motion.forward, t)
    after = _origin(motion.backward, rest)
    share: np.float32 | Image = np.float32(0.5)
    if motion.forward_error is not None and motion.backward_error is not None:
        first = np.square(sample(motion.forward_error, before) + _ROUNDING)
        second = np.square(sample(motion.backward_error, after) + _ROUNDING)
        share = (second / (first + second))[..., None]
    # What the later frame's flow says of the earlier frame, and the other way round.
    mirrored_before, mirrored_after = after * (-t / rest), before * (-rest / t)
    return (
        mirrored_before + (before - mirrored_before) * share,
        after + (mirrored_after - after) * share,
    )


def _origin(flow: Flow, part: np.float32, steps: int = 2) -> Flow:
    """Find d with d(p) = -part * flow(p + d(p))."""
    d = flow * -part
    for _ in range(steps):
        d = sample(flow, d) * -part
    return d


def _chain(so_far: Flow | None, flow: Flow) -> Flow:
    assert so_far is not None
    return so_far + sample(flow, so_far)


def _homography_flow(gray: NDArray[np.uint8], flow: Flow) -> Flow:
    """The flow of the one homography that most of the corners in `flow` follow; 0 where there is none."""
    height, width = gray.shape
    corners = cv2.goodFeaturesToTrack(gray, 400, 0.01, 3)
    grid = pixel_grid(height, width)
    matrix = None
    if corners is not None and len(corners) >= 12:
        points = corners.reshape(-1, 2)
        columns, rows = np.rint(points).astype(int).T
        moved = points + flow[rows, columns]
        # RANSAC draws from OpenCV's own generator, which it seeds alike each time.
        matrix, _ = cv2.findHomography(points, moved, cv2.RANSAC, 0.75)
    if matrix is None:
        return np.zeros_like(flow)
    places = cv2.perspectiveTransform(grid.reshape(1, -1, 2), matrix).reshape(height, width, 2)
    return np.asarray(places - grid, np.float32)
