"""What the temporal network is fed, the same in training, live and offline.

Each frame is encoded once, by itself. The body then gets, for every wanted time, the places to look up in
each frame's features (they follow the motion), what the two nearest frames say of each other there (the
cues), and the base that it adds to: the observed frame enlarged, or the two frames around a new one brought
to its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.motion import (
    Flow,
    Image,
    Motion,
    disagreement,
    displacements,
    pixel_grid,
    sample,
    split_time,
)

CHANNELS = ("level", "contrast")
"""Of a frame, as the encoder sees it."""
CUES = ("contrast", "difference", "gap", "outside")
"""Of an output, as the body sees it."""
AMPLIFICATION = 5.0
"""Of contrasts and differences, which would drown in the brightness otherwise."""
CONTRAST_SIGMA_PX = 2.0
STRIDE = 2
"""Of the features that `TemporalBodyInput.grid` looks up."""

_HALF = np.float32(127.5)
_AMPLIFY = np.float32(AMPLIFICATION) / _HALF
_LEAST = np.float32(1e-3)


@dataclass(frozen=True)
class TemporalBodyInput:
    """What the body is fed for one window of X frames and T wanted times.

    Attributes:
        grid: (T, X, h / 2, w / 2, 2) float32 in [-1, 1], for grid_sample with align_corners=False: where in
            frame x's features the content of output t is found.
        tau: (T,) float32, times in frames.
        cues: (T, 4, h, w) float32, see `CUES`: contrast of the mixed picture and signed difference of the two
            nearest frames, later minus earlier, both amplified (the difference within -1..1);
            forward-backward gap in pixels within 0..1; 1 where one of the two frames does not show the place.
        base: (T, H, W) float32 levels, 0 to 255 but for overshoots of the bicubic kernel.
    """

    grid: NDArray[np.float32]
    tau: NDArray[np.float32]
    cues: NDArray[np.float32]
    base: NDArray[np.float32]


@dataclass(frozen=True)
class TemporalInputBuilder:
    """Makes the network's input from frames in 0..255 of the stream's range.

    Attributes:
        scale: output size over input size.
        gap_px: forward-backward gap at which a frame's weight in the base has halved.
    """

    scale: int = 4
    gap_px: float = 8.0

    def __post_init__(self) -> None:
        if self.scale not in (1, 2, 4, 8):
            raise ValueError(f"scale must be 1, 2, 4 or 8, not {self.scale}")
        if not self.gap_px > 0:
            raise ValueError(f"gap_px must be greater than 0, not {self.gap_px}")

    def encode(self, levels: Image) -> NDArray[np.float32]:
        """A frame for the encoder.

        Args:
            levels: (h, w) float32, 0 to 255.

        Returns:
            (2, h, w) float32: the level in [-1, 1], and its local contrast, amplified.
        """
        return np.stack([levels / _HALF - np.float32(1.0), _contrast(levels)])

    def __call__(
        self, window: Sequence[Image], motions: Sequence[Motion], taus: Sequence[float]
    ) -> TemporalBodyInput:
        """Build.

        Args:
            window: X >= 2 frames (h, w) float32 levels, oldest first; h and w even, at least 16.
            motions: X - 1, between consecutive frames.
            taus: T wanted times, 0 to X - 1.

        Raises:
            ValueError: numbers or sizes do not fit, or a time is outside the window.
        """
        frames = [np.ascontiguousarray(frame, np.float32) for frame in window]
        height, width = _check(frames, motions, taus)
        gaps: dict[int, tuple[Image, Image]] = {}
        outputs = [self._output(frames, motions, gaps, float(tau)) for tau in taus]
        grid = np.stack([_grid(found, height, width) for found, _, _ in outputs])
        cues = np.stack([entry for _, entry, _ in outputs])
        base = np.stack([picture for _, _, picture in outputs])
        return TemporalBodyInput(grid, np.asarray(taus, np.float32), cues, base)

    def _output(
        self, frames: list[Image], motions: Sequence[Motion], gaps: dict[int, tuple[Image, Image]], tau: float
    ) -> tuple[list[Flow], NDArray[np.float32], Image]:
        found = displacements(tau, motions)
        index, part = split_time(tau, len(frames))
        # The two nearest frames; of an observed time, itself and the one before it.
        first = index if part else max(index - 1, 0)
        pair = (first, first + 1)
        if first not in gaps:
            gaps[first] = disagreement(motions[first])
        seen = [sample(frames[x], found[x]) for x in pair]
        gap = [sample(gaps[first][side], found[x]) for side, x in enumerate(pair)]
        inside = [_inside(found[x]) for x in pair]
        if part:
            weight = self._weight(gap, inside, part)
            mixed = seen[1] + (seen[0] - seen[1]) * weight
            base = self._blend(frames, found, pair, weight)
        else:
            mixed = frames[index]
            base = _enlarge(mixed, self.scale)
        cues = np.stack(
            [
                _contrast(mixed),
                np.clip((seen[1] - seen[0]) * _AMPLIFY, -1, 1),
                np.clip(np.maximum(gap[0], gap[1]), 0, 1),
                (np.minimum(inside[0], inside[1]) < 0.5).astype(np.float32),
            ]
        )
        return found, cues, base

    def _weight(self, gap: list[Image], inside: list[Image], part: float) -> Image:
        """(h, w) weight of the earlier frame, 0 to 1."""
        scale = np.float32(1.0 / self.gap_px)
        seen = [np.maximum(i, _LEAST) / (1 + np.square(g * scale)) for g, i in zip(gap, inside)]
        first, second = seen[0] * np.float32(1.0 - part), seen[1] * np.float32(part)
        return first / (first + second)

    def _blend(self, frames: list[Image], found: list[Flow], pair: tuple[int, int], weight: Image) -> Image:
        """Both frames looked up straight on the fine grid: interpolated once, not twice."""
        height, width = (n * self.scale for n in weight.shape)
        points = _fine_points(height, width, self.scale)
        looked_up = []
        for x in pair:
            # In place: fresh pages for arrays of this size take as long as the arithmetic.
            places = cv2.resize(found[x], (width, height), interpolation=cv2.INTER_LINEAR)
            cv2.add(places, points, dst=places)
            looked_up.append(
                cv2.remap(  # type: ignore[call-overload]
                    frames[x], places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
                )
            )
        blended = looked_up[0]
        blended -= looked_up[1]
        blended *= cv2.resize(weight, (width, height), interpolation=cv2.INTER_LINEAR)
        blended += looked_up[1]
        return np.asarray(blended, np.float32)


def to_levels(base: NDArray[np.float32], residual: NDArray[np.float32]) -> NDArray[np.float32]:
    """Base in levels plus the network's residual in units of [-1, 1]: levels."""
    return np.asarray(base + residual * _HALF, np.float32)


def _enlarge(levels: Image, scale: int) -> Image:
    size = (levels.shape[1] * scale, levels.shape[0] * scale)
    return np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_CUBIC), np.float32)


def _contrast(levels: Image) -> Image:
    return (levels - np.asarray(cv2.GaussianBlur(levels, (0, 0), CONTRAST_SIGMA_PX), np.float32)) * _AMPLIFY


@lru_cache(maxsize=4)
def _fine_points(height: int, width: int, scale: int) -> Flow:
    """(height, width, 2): centres of fine pixels on the low-resolution grid. Not to be changed."""
    points = (pixel_grid(height, width) + np.float32(0.5)) / np.float32(scale) - np.float32(0.5)
    points.setflags(write=False)
    return points


def _inside(found: Flow) -> Image:
    """(h, w) float32: 1 where the place lies in the frame, 0 from half a pixel outside on."""
    height, width = found.shape[:2]
    x, y = cv2.split(pixel_grid(height, width) + found)
    beyond = np.maximum(np.maximum(-x, x - np.float32(width - 1)), np.maximum(-y, y - np.float32(height - 1)))
    return np.clip(1 - 2 * beyond, 0, 1)


def _grid(found: list[Flow], height: int, width: int) -> NDArray[np.float32]:
    """(X, h / 2, w / 2, 2) lookup of features at stride 2."""
    rows, columns = height // STRIDE, width // STRIDE
    centres = pixel_grid(rows, columns) * np.float32(STRIDE) + np.float32(STRIDE / 2)
    places = [centres + cv2.resize(flow, (columns, rows), interpolation=cv2.INTER_AREA) for flow in found]
    span = np.array([2.0 / width, 2.0 / height], np.float32)
    return np.clip(np.stack(places) * span - np.float32(1.0), -1, 1)


def _check(frames: list[Image], motions: Sequence[Motion], taus: Sequence[float]) -> tuple[int, int]:
    if len(frames) < 2 or len(motions) != len(frames) - 1 or not len(taus):
        raise ValueError(
            "a window needs at least two frames, one motion fewer and at least one time, not "
            f"{len(frames)}, {len(motions)} and {len(taus)}"
        )
    height, width = frames[0].shape
    if height % STRIDE or width % STRIDE or min(height, width) < 16:
        raise ValueError(f"frames must have even sides of at least 16 pixels, not {width}x{height}")
    shapes = {frame.shape for frame in frames} | {m.forward.shape[:2] for m in motions}
    if shapes != {(height, width)}:
        raise ValueError(f"frames and motions must be of one size, not {sorted(shapes)}")
    return height, width
