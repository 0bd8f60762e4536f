"""Tone curve of a thermal stream: measured values to [0, 1] and back, and to an 8-bit picture.

One curve serves a whole stream and moves slowly. Stretching each frame by its own extremes makes the picture
flicker whenever something hot walks in, and makes a network see heating where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from thermal_enhance.imaging.consistency import to_dtype

TONE_MODES = ("linear", "local")
_CELL_SAMPLES = 12
"""Samples along each side of a cell of the local mode's grid."""


@dataclass(frozen=True)
class ToneConfig:
    """How values become gray levels.

    Attributes:
        mode: "linear": one straight line for the whole picture; "local": a line that varies over the
            picture, for viewing only (`ToneCurve.to_view8`); everything else stays linear.
        low_percentile: share of pixels, in percent, that may fall below the range.
        high_percentile: percentile that is mapped to 1.
        time_constant_s: how slowly the range follows the scene, seconds of stream time; 0 follows at once.
        hysteresis: an end of the range starts to move once the scene is off by more than this fraction of
            the span, and rests again when it has come within a quarter of it.
        fixed_range: (low, high) that never moves, in the units of the frame; (0, 255) suits a camera with
            its own gain control.
        min_span: smallest span of the range, in the units of the frame; None for 1 in integer frames and
            one ten-thousandth of the value (at least of 1) in float frames.
        samples: about how many pixels are looked at per frame.
        local_grid: cells along each side of the picture (local mode).
        local_gain: how many times steeper than the global line a local one may be, at least 1.
        local_suppression: how far the extreme of a cell may stand out from its neighbours' mean, as a
            fraction of the global span.
        local_passes: how often neighbouring cells are balanced; more means smoother.
        gamma: exponent applied to the view; above 1 darkens the middle.
        clahe_clip: contrast limit of an adaptive histogram equalisation of the local view; 0 for none.
    """

    mode: str = "linear"
    low_percentile: float = 0.5
    high_percentile: float = 99.5
    time_constant_s: float = 2.0
    hysteresis: float = 0.03
    fixed_range: tuple[float, float] | None = None
    min_span: float | None = None
    samples: int = 16384
    local_grid: int = 8
    local_gain: float = 6.0
    local_suppression: float = 0.3
    local_passes: int = 4
    gamma: float = 1.0
    clahe_clip: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in TONE_MODES:
            raise ValueError(f"tone.mode must be one of {TONE_MODES}, not {self.mode!r}")
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError(
                "tone.low_percentile and tone.high_percentile must be ordered within 0..100, "
                f"not {self.low_percentile} and {self.high_percentile}"
            )
        limits: dict[str, tuple[float, float]] = {
            "time_constant_s": (0, 1e6),
            "hysteresis": (0, 1),
            "samples": (16, 1e9),
            "local_grid": (2, 64),
            "local_gain": (1, 1e6),
            "local_suppression": (0, 1e6),
            "local_passes": (0, 100),
            "gamma": (0.05, 20),
            "clahe_clip": (0, 1e3),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"tone.{name} must be within {least}..{most}, not {value}")
        if self.min_span is not None and not (math.isfinite(self.min_span) and self.min_span > 0):
            raise ValueError(f"tone.min_span must be above 0, not {self.min_span}")
        if self.fixed_range is not None and not (
            all(math.isfinite(end) for end in self.fixed_range) and self.fixed_range[0] < self.fixed_range[1]
        ):
            raise ValueError(f"tone.fixed_range must be (low, high) with low < high, not {self.fixed_range}")


class ToneCurve:
    """The tone curve of one stream. Not thread-safe: one thread updates and applies it.

    `update` it with every input frame, then apply it to that frame and to what was made of it; a frame of
    any size may be normalised or viewed.
    """

    def __init__(self, config: ToneConfig | None = None) -> None:
        self.config = config or ToneConfig()
        self.last_reset_reason = ""
        """Why `reset` was last called, or "" if it never was."""
        self._frozen = False
        self._forget()

    def _forget(self) -> None:
        self._range: _Slewed | None = None
        self._fields: _Slewed | None = None
        self._stamp_ns = 0
        self._dtype: np.dtype[Any] | None = None

    @property
    def range(self) -> tuple[float, float] | None:
        """(low, high) now in force, in the units of the stream; None before the first frame."""
        if self.config.fixed_range is not None:
            return self.config.fixed_range
        return None if self._range is None else (float(self._range.value[0]), float(self._range.value[1]))

    @property
    def frozen(self) -> bool:
        """Is the curve held (see `freeze`)?"""
        return self._frozen

    def freeze(self) -> None:
        """Hold the curve as it is, for example while the shutter is closed; a first frame still sets it."""
        self._frozen = True

    def unfreeze(self) -> None:
        """Let the curve follow the scene again."""
        self._frozen = False

    def reset(self, reason: str) -> None:
        """Forget the stream's past: the next frame sets the curve anew."""
        self._forget()
        self.last_reset_reason = reason

    def update(self, data: NDArray[Any], stamp_ns: int) -> tuple[float, float]:
        """Let the curve follow one frame.

        Args:
            data: (H, W) frame of any real dtype; non-finite pixels are ignored. A dtype other than the
                last one's resets the curve.
            stamp_ns: stream time. A stamp that does not advance moves nothing.

        Returns:
            (low, high), the values that map to 0 and 1; low < high. (0, 1) while no finite pixel was seen.

        Raises:
            ValueError: data is not a non-empty (H, W) array.
        """
        if data.ndim != 2 or not data.size:
            raise ValueError(f"a tone curve takes non-empty (H, W) frames, not {data.shape}")
        if self._dtype is not None and self._dtype != data.dtype:
            self.reset(f"dtype changed from {self._dtype} to {data.dtype}")
        self._dtype = data.dtype
        elapsed_s = max(stamp_ns - self._stamp_ns, 0) * 1e-9
        self._stamp_ns = stamp_ns
        if self.config.fixed_range is None and not (self._frozen and self._range is not None):
            self._follow_range(data, elapsed_s)
        current = self.range
        if current is None:
            return 0.0, 1.0
        if self.config.mode == "local" and not (self._frozen and self._fields is not None):
            self._follow_fields(data, current, elapsed_s)
        return current

    def normalise(self, data: NDArray[Any], clip: bool = True) -> NDArray[np.float32]:
        """Map values to [0, 1] by the linear curve, in either mode.

        Args:
            data: array of any shape, in the units of the stream.
            clip: cut values outside the range; without, `denormalise` restores them.

        Returns:
            float32 of the same shape; NaN pixels become 0.

        Raises:
            RuntimeError: no frame has set the curve yet.
        """
        low, high = self._require_range()
        # The low end goes first: a product of the full value would lose the last digits of a kelvin.
        x = np.subtract(data, low, dtype=np.float64 if data.dtype.itemsize > 4 else np.float32)
        x = x.astype(np.float32, copy=False)
        x *= np.float32(1.0 / (high - low))
        if data.dtype.kind == "f":
            x[np.isnan(x)] = 0.0
        return np.clip(x, 0.0, 1.0, out=x) if clip else x

    def denormalise(self, x: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
        """Map [0, 1] back to values, the inverse of `normalise`.

        Args:
            x: array of any shape; values outside [0, 1] extrapolate.
            dtype: dtype wanted; integers are rounded and saturated.

        Returns:
            Array of that dtype in the units of the stream.

        Raises:
            RuntimeError: no frame has set the curve yet.
            ValueError: x has non-finite pixels and dtype is an integer.
        """
        low, high = self._require_range()
        return to_dtype(x * np.float32(high - low) + np.float32(low), dtype)

    def to_view8(self, data: NDArray[Any]) -> NDArray[np.uint8]:
        """An 8-bit gray picture of a frame.

        Args:
            data: (H, W) frame in the units of the stream, at any resolution; NaN pixels become black.

        Returns:
            (H, W) uint8.

        Raises:
            RuntimeError: no frame has set the curve yet.
        """
        self._require_range()
        local = self.config.mode == "local" and self._fields is not None
        x = self._normalise_locally(data) if local else self.normalise(data)
        if self.config.gamma != 1.0:
            cv2.pow(x, self.config.gamma, dst=x)
        x *= np.float32(255.0)
        x += np.float32(0.5)
        view = x.astype(np.uint8)
        if local and self.config.clahe_clip > 0:
            cv2.createCLAHE(self.config.clahe_clip, (8, 8)).apply(view, dst=view)
        return view

    def _require_range(self) -> tuple[float, float]:
        current = self.range
        if current is None:
            raise RuntimeError("the tone curve has seen no frame with finite pixels yet: call update first")
        return current

    def _follow_range(self, data: NDArray[Any], elapsed_s: float) -> None:
        sample = _sample(data, self.config.samples)
        if not sample.size:
            return
        low, high = _percentiles(sample, self.config.low_percentile, self.config.high_percentile)
        span = self.config.min_span
        if span is None:
            span = 1.0 if data.dtype.kind in "iub" else 1e-4 * max(1.0, abs(low), abs(high))
        target = _widened(np.array([low, high]), span)
        if self._range is None:
            self._range = _Slewed(target)
            return
        now = self._range.value
        threshold = self.config.hysteresis * max(float(now[1] - now[0]), span)
        self._range.follow(target, threshold, self._weight(elapsed_s))
        # The ends move on their own: one may rest while the other comes too close.
        self._range.value = _widened(self._range.value, span)

    def _follow_fields(self, data: NDArray[Any], current: tuple[float, float], elapsed_s: float) -> None:
        target = _local_fields(data, current, self.config)
        if self._fields is None:
            self._fields = _Slewed(target)
            return
        threshold = self.config.hysteresis * (current[1] - current[0])
        self._fields.follow(target, threshold, self._weight(elapsed_s))

    def _weight(self, elapsed_s: float) -> float:
        """Share of the way to go in `elapsed_s`: two halves of a step go as far as the whole."""
        tau = self.config.time_constant_s
        return 1.0 if tau == 0 else -math.expm1(-elapsed_s / tau)

    def _normalise_locally(self, data: NDArray[Any]) -> NDArray[np.float32]:
        assert self._fields is not None
        origin, end = self._require_range()
        size = (data.shape[1], data.shape[0])
        low, high = (
            cv2.resize((field - origin).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
            for field in self._fields.value
        )
        x = np.subtract(data, origin, dtype=np.float64 if data.dtype.itemsize > 4 else np.float32)
        x = x.astype(np.float32, copy=False)
        x -= low
        high -= low
        x /= np.maximum(high, np.float32(0.5 * (end - origin) / self.config.local_gain), out=high)
        if data.dtype.kind == "f":
            x[np.isnan(x)] = 0.0
        return np.clip(x, 0.0, 1.0, out=x)


class _Slewed:
    """Values that follow a target slowly, and rest while it stays close (a Schmitt trigger each)."""

    def __init__(self, value: NDArray[np.float64]) -> None:
        self.value = value
        self._moving = np.zeros(value.shape, bool)

    def follow(self, target: NDArray[np.float64], threshold: float, weight: float) -> None:
        off = target - self.value
        self._moving = np.abs(off) > np.where(self._moving, 0.25 * threshold, threshold)
        self.value = np.where(self._moving, self.value + weight * off, self.value)


def _sample(data: NDArray[Any], count: int) -> NDArray[Any]:
    """About `count` finite pixels from a regular grid, flat."""
    stride = max(1, math.isqrt(max(data.size // count, 1)))
    flat = data[::stride, ::stride].ravel()
    return flat[np.isfinite(flat)] if data.dtype.kind == "f" else flat


def _percentiles(sample: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    ranks = [round(share / 100 * (sample.size - 1)) for share in (low, high)]
    ordered = np.partition(sample, ranks)
    return float(ordered[ranks[0]]), float(ordered[ranks[1]])


def _local_fields(
    data: NDArray[Any], current: tuple[float, float], config: ToneConfig
) -> NDArray[np.float64]:
    """Low and high end for each cell of a coarse grid: (2, grid, grid).

    In the manner of Fieldscale (Gil, Jeon and Kim, 2024): local extremes on a grid, extremes that stand out
    from their neighbours suppressed, then balanced between neighbours into smooth fields.
    """
    grid, cell = config.local_grid, _CELL_SAMPLES
    if data.dtype.name not in ("uint8", "uint16", "int16", "float32"):
        data = data.astype(np.float32)
    small = cv2.resize(data, (grid * cell, grid * cell), interpolation=cv2.INTER_NEAREST)
    values = small.astype(np.float64)
    values[~np.isfinite(values)] = 0.5 * (current[0] + current[1])
    cells = values.reshape(grid, cell, grid, cell).swapaxes(1, 2).reshape(grid, grid, cell * cell)
    # Second from the end rather than the extreme: one dead pixel must not set a cell.
    ordered = np.partition(cells, (1, cell * cell - 2), axis=-1)
    # Never beyond the global range, which moves slowly: what just walked in must not darken its surroundings.
    low, high = np.clip(ordered[..., 1], *current), np.clip(ordered[..., -2], *current)

    span = current[1] - current[0]
    reach = config.local_suppression * span
    high = np.minimum(high, _mean3(high) + reach)
    low = np.maximum(low, _mean3(low) - reach)
    for _ in range(config.local_passes):
        high = np.maximum(high, _mean3(high))
        low = np.minimum(low, _mean3(low))
    low, high = _mean3(low), _mean3(high)

    return _widened(np.stack([low, high]), span / config.local_gain)


def _widened(ends: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """(low, high) with a span of at least `least`, about the same middle."""
    middle = 0.5 * (ends[0] + ends[1])
    half = 0.5 * np.maximum(ends[1] - ends[0], least)
    return np.stack([middle - half, middle + half])


def _mean3(field: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.blur(field, (3, 3), borderType=cv2.BORDER_REPLICATE), dtype=np.float64)
