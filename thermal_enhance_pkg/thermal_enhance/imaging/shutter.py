"""Shutter (flat-field correction, FFC) seen from the pictures: duplicates, freezes, offset jumps.

An uncooled camera closes a shutter now and then to learn its pattern of offsets anew. Its stream then
repeats one frame for 1 to 3 s (or stops), and comes back with another offset. What was averaged over time
before is worthless afterwards. Where the camera tells its FFC state (telemetry rows, a topic), that wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.frames import FfcState


@dataclass(frozen=True)
class ShutterConfig:
    """When pictures are taken as signs of the shutter.

    Attributes:
        freeze_s: bit-identical frames for at least this long, seconds of stream time, are a freeze. A
            camera that repeats each frame (Lepton over UVC: 27 frames/s of a 9 Hz sensor) stays below.
        freeze_frames: and at least so many repetitions, so that a slow stream needs more than one.
        max_ffc_s: a freeze that lasts longer than `freeze_s` and this is no FFC but a still or stuck source.
        jump_k: an offset between frames is a jump if it exceeds this many times the spread of the
            difference (robust standard deviation over the picture).
        jump_fraction: and this fraction of the picture's span (1st to 99th percentile).
        jump_min: and this many units of the frame.
        jump_agreement: share of the regions of the picture (a 4 x 4 grid) that must have moved the same way
            by at least half the offset: a large moving object does not, the shutter moves all of them.
        samples: about how many pixels are compared for a jump.
    """

    freeze_s: float = 0.35
    freeze_frames: int = 3
    max_ffc_s: float = 6.0
    jump_k: float = 4.0
    jump_fraction: float = 0.05
    jump_min: float = 0.0
    jump_agreement: float = 0.9
    samples: int = 4096

    def __post_init__(self) -> None:
        for name in ("freeze_s", "max_ffc_s", "jump_k", "jump_fraction", "jump_min"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"shutter.{name} must not be negative, not {getattr(self, name)}")
        if self.freeze_frames < 1:
            raise ValueError(f"shutter.freeze_frames must be at least 1, not {self.freeze_frames}")
        if not 0 <= self.jump_agreement <= 1:
            raise ValueError(f"shutter.jump_agreement must be within 0..1, not {self.jump_agreement}")
        if self.samples < 256:
            raise ValueError(f"shutter.samples must be at least 256, not {self.samples}")


@dataclass(frozen=True)
class ShutterEvent:
    """What one frame tells.

    Attributes:
        duplicate: bit-identical to the frame before. Only a flag: a still synthetic scene repeats itself too.
        frozen: part of a freeze.
        ffc_state: as told by the camera, else as guessed from the pictures.
        offset_jump: the whole picture's offset changed since the last distinct frame.
        reset: drop what was learned over time (averages, tone curve, motion); True once per cause: an FFC
            ended, the offset jumped, or size or dtype changed.
        offset: median of the difference to the last distinct frame before, in the units of the frame; 0 for
            duplicates, without such a frame, and while the camera says that the shutter is closed.
    """

    duplicate: bool
    frozen: bool
    ffc_state: FfcState
    offset_jump: bool
    reset: bool
    offset: float


class ShutterDetector:
    """Watches one stream. Not thread-safe."""

    def __init__(self, config: ShutterConfig | None = None) -> None:
        self.config = config or ShutterConfig()
        self.reset()

    def reset(self) -> None:
        """Forget the stream (clock jump, new source)."""
        self._previous: NDArray[Any] | None = None
        self._reference: NDArray[np.float32] | None = None
        self._state = FfcState.NEVER
        self._begin_run(0)

    def _begin_run(self, stamp_ns: int) -> None:
        """A run of bit-identical frames starts."""
        self._run_start_ns = stamp_ns
        self._last_stamp_ns = stamp_ns
        self._run_length = 1
        self._was_frozen = False
        self._state_before_freeze = self._state

    def update(self, data: NDArray[Any], stamp_ns: int, ffc: FfcState | None = None) -> ShutterEvent:
        """Judge one frame.

        Args:
            data: (H, W) frame without telemetry rows; it is copied.
            stamp_ns: stream time. If it goes back, the freeze is timed anew from there.
            ffc: the camera's own word on this frame; None where it gives none.

        Returns:
            The event; see `ShutterEvent`.

        Raises:
            ValueError: data is not a non-empty (H, W) array.
        """
        if data.ndim != 2 or not data.size:
            raise ValueError(f"the shutter detector takes non-empty (H, W) frames, not {data.shape}")
        previous = self._previous
        changed = previous is not None and (previous.shape != data.shape or previous.dtype != data.dtype)
        if changed:
            self._previous = self._reference = previous = None
            self._begin_run(stamp_ns)
        if previous is not None and identical(previous, data):
            return self._repeated(stamp_ns, ffc)
        return self._distinct(data, stamp_ns, ffc, changed)

    def _repeated(self, stamp_ns: int, ffc: FfcState | None) -> ShutterEvent:
        if stamp_ns < self._last_stamp_ns:
            self._run_start_ns = stamp_ns
        self._last_stamp_ns = stamp_ns
        self._run_length += 1
        lasted_s = (stamp_ns - self._run_start_ns) * 1e-9
        frozen = lasted_s >= self.config.freeze_s and self._run_length > self.config.freeze_frames
        self._was_frozen = self._was_frozen or frozen
        ended = False
        if ffc is not None:
            ended = self._hear(ffc)
        elif self._was_frozen:
            still = lasted_s > self.config.freeze_s + self.config.max_ffc_s
            self._state = self._state_before_freeze if still else FfcState.IN_PROGRESS
        return ShutterEvent(True, self._was_frozen, self._state, False, ended, 0.0)

    def _distinct(
        self, data: NDArray[Any], stamp_ns: int, ffc: FfcState | None, changed: bool
    ) -> ShutterEvent:
        thawed = self._was_frozen
        ended = False
        if ffc is not None:
            ended = self._hear(ffc)
        elif thawed or self._state is FfcState.IN_PROGRESS:
            # Told or guessed, an FFC nobody reports any more is over once the picture moves again.
            self._state = FfcState.COMPLETE
            ended = True
        self._previous = data.copy()
        offset, jump = 0.0, False
        if not (ffc is not None and self._state is FfcState.IN_PROGRESS):
            # With the shutter closed there is no scene: the frame before it stays the one to compare with.
            sample = _grid_sample(data, self.config.samples)
            if self._reference is not None:
                offset, jump = self._offset(self._reference, sample)
            self._reference = sample
        if jump and ffc is None:
            self._state = FfcState.COMPLETE
        self._begin_run(stamp_ns)
        return ShutterEvent(False, False, self._state, jump, changed or ended or jump or thawed, offset)

    def _hear(self, ffc: FfcState) -> bool:
        """Take the camera's word; did an FFC end with it?"""
        before, self._state = self._state, FfcState(ffc)
        ended = before is FfcState.IN_PROGRESS and self._state is not FfcState.IN_PROGRESS
        missed = before is FfcState.IMMINENT and self._state is FfcState.COMPLETE
        return ended or missed

    def _offset(self, before: NDArray[np.float32], now: NDArray[np.float32]) -> tuple[float, bool]:
        """Median difference of two samples, and whether it is a jump of the whole picture."""
        with np.errstate(invalid="ignore", over="ignore"):
            difference = now - before
        finite = np.isfinite(difference)
        if finite.mean() < 0.5:
            return 0.0, False
        known = difference[finite]
        offset = float(np.median(known))
        size = abs(offset)
        spread = 1.4826 * float(np.median(np.abs(known - offset)))
        low, high = np.percentile(before[np.isfinite(before)], (1, 99))
        config = self.config
        least = max(config.jump_k * spread, config.jump_fraction * float(high - low), config.jump_min)
        # A flat, noise-free picture has no spread and no span: rounding must not count as a jump.
        least = max(least, 1e-5 * float(max(abs(low), abs(high))))
        if size <= least:
            return offset, False
        agreeing, regions = 0, 0
        for band in np.array_split(np.where(finite, difference, np.nan), min(4, len(difference)), axis=0):
            for region in np.array_split(band, min(4, band.shape[1]), axis=1):
                region_known = region[np.isfinite(region)]
                if region_known.size:
                    regions += 1
                    agreeing += float(np.median(region_known)) / offset >= 0.5
        return offset, agreeing >= config.jump_agreement * regions


def identical(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Are two arrays of one dtype the same, bit for bit, so that a NaN equals itself?"""
    if a.dtype.kind == "f":
        bits = np.dtype(f"u{a.dtype.itemsize}")
        a, b = np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits)
    # A glance at one row settles nearly all cases.
    middle = len(a) // 2
    return bool(np.array_equal(a[middle], b[middle]) and np.array_equal(a, b))


def _grid_sample(data: NDArray[Any], count: int) -> NDArray[np.float32]:
    stride = max(1, int((data.size / count) ** 0.5))
    return data[::stride, ::stride].astype(np.float32)
