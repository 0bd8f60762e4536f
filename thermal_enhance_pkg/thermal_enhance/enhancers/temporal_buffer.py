"""The ring buffer of the temporal tier (METHODS 2.13): a stream's last frames, and what is known of them.

What costs time is done once for each frame: its features when it comes, and its motion from the frame before.
That is possible because levels mean the same in all frames of the ring: their value range is frozen, and
where the stream's own range has moved away from it, everything is computed anew, once.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from thermal_enhance.enhancers.observation import Observation
from thermal_enhance.enhancers.upsampling import Image
from thermal_enhance.imaging.frames import ThermalFrame
from thermal_enhance.imaging.shutter import identical

MotionT = TypeVar("MotionT")

_STEPS = 9
"""Frame intervals whose median is the stream's rhythm: a new rate is known after five frames."""


@dataclass(frozen=True, kw_only=True)
class RingConfig:
    """Parameters of `FrameRing`.

    Attributes:
        capacity: frames kept: X, the model's window.
        gap_factor: an interval longer than this many times the median one is a gap.
        longest_step_s: and so is one longer than this, whatever the rhythm, seconds.
        jump_s: a stamp this far behind the newest is a new timeline (a looped bag, a reset clock), seconds.
        patience: stamps behind the newest in a row that are one too, however near they are.
        range_tolerance: how far an end of the stream's value range may be from the frozen one, as a share of
            the span, before the ring is computed anew.
        keep_repeats: take a picture that is the one before, bit for bit, as a frame of its own.
    """

    capacity: int = 3
    gap_factor: float = 1.75
    longest_step_s: float = 1.0
    jump_s: float = 0.5
    patience: int = 3
    range_tolerance: float = 0.1
    keep_repeats: bool = False

    def __post_init__(self) -> None:
        if self.capacity < 2 or self.patience < 1:
            raise ValueError("ring.capacity must be at least 2, ring.patience at least 1")
        for name, least in (("gap_factor", 1.0), ("longest_step_s", 0.0), ("jump_s", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > least):
                raise ValueError(f"ring.{name} must be finite and more than {least:g}, not {value}")
        if not 0.0 <= self.range_tolerance < 1.0:
            raise ValueError(f"ring.range_tolerance must lie in 0..1, not {self.range_tolerance}")


@dataclass(eq=False)
class RingFrame(Generic[MotionT]):
    """One frame of the ring.

    Attributes:
        thermal: the input.
        seen: what was read in it, over the ring's frozen range.
        levels: (h, w) float32, 0 to 255 over that range, as the encoder was given it.
        features: what the encoder made of them.
        motion: from the frame before to this one; None for the oldest of a sequence.
        enhanced: the enhanced picture, dtype of the input, once there is one.
    """

    thermal: ThermalFrame
    seen: Observation
    levels: Image
    features: NDArray[Any]
    motion: MotionT | None
    enhanced: NDArray[Any] | None = None

    @property
    def stamp_ns(self) -> int:
        """Of the input, nanoseconds."""
        return self.thermal.stamp_ns


class FrameRing(Generic[MotionT]):
    """The last `capacity` frames of one uninterrupted stretch of a stream. Belongs to one thread.

    For each frame: `admit` says whether it goes on from those before, and starts over where it does not;
    `push` takes an admitted one in.

    Args:
        config: see `RingConfig`.
        levels: (h, w) levels of a frame for encoder and motion (padding, clipping).
        encode: features of such levels.
        estimate: motion from one frame's levels to the next one's.
    """

    def __init__(
        self,
        config: RingConfig,
        levels: Callable[[Observation], Image],
        encode: Callable[[Image], NDArray[Any]],
        estimate: Callable[[Image, Image], MotionT],
    ) -> None:
        self.config = config
        self._levels = levels
        self._encode = encode
        self._estimate = estimate
        self._frames: deque[RingFrame[MotionT]] = deque(maxlen=config.capacity)
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self._last: ThermalFrame | None = None
        self._newest_ns = 0
        self._behind = 0
        self.range: tuple[float, float] | None = None
        """(low, high) that levels 0 and 255 stand for, frozen; None while the ring is empty."""
        self.resets: Counter[str] = Counter()
        """How often the ring started over, by reason."""
        self.refused: Counter[str] = Counter()
        """Frames not admitted, by reason."""
        self.reencodes = 0
        """How often a change of range had the whole ring computed anew."""
        self.encoded = 0
        """Frames encoded so far, repetitions counted."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def frames(self) -> tuple[RingFrame[MotionT], ...]:
        """The frames, oldest first."""
        return tuple(self._frames)

    @property
    def period_ns(self) -> int | None:
        """Median interval of the stream; None before there is one."""
        return int(median(self._steps)) if self._steps else None

    def reset(self, reason: str) -> None:
        """Forget all frames; the rhythm stays, but for a new format."""
        if self._frames or self._last is not None:
            self.resets[reason] += 1
        self._frames.clear()
        self._last, self.range, self._behind = None, None, 0
        if reason == "format":
            self._steps.clear()

    def admit(self, frame: ThermalFrame) -> str:
        """Does a frame go on from those before?

        Starts over where it is the first of something new: another size, type, unit or frame_id ("format"), a
        clock that went back ("clock_jump"), a pause ("gap").

        Returns:
            "" for a frame to be pushed. Otherwise why it is not: "duplicate" (of a stamp), "out_of_order",
            "stale" (older than the whole ring), "repeat" (the picture before, bit for bit: a camera that
            sends each frame several times, or a closed shutter). Repeats that last longer than a gap
            ("freeze") leave nothing to go on from.
        """
        last = self._last
        if last is None:
            return ""
        if _format(last) != _format(frame):
            self.reset("format")
            return ""
        step = frame.stamp_ns - self._newest_ns
        if step <= 0:
            return self._behind_newest(frame, step)
        self._behind = 0
        since = frame.stamp_ns - self._frames[-1].stamp_ns if self._frames else 0
        gap = self._is_gap(since)
        if not self.config.keep_repeats and identical(last.data, frame.data):
            self._newest_ns = frame.stamp_ns
            if gap:
                self.reset("freeze")
                self._last = last
            return self._refuse("repeat")
        if gap:
            if since <= self.config.longest_step_s * 1e9:
                # Perhaps the first step at a new rate, which is the rhythm after a few more.
                self._steps.append(since)
            self.reset("gap")
        return ""

    def push(self, thermal: ThermalFrame, seen: Observation) -> RingFrame[MotionT]:
        """Take in an admitted frame: encode it, and find its motion from the one before.

        Args:
            thermal: the input.
            seen: what was read in it, over the stream's present range.

        Raises:
            Exception: whatever encoder or motion raise; the ring is then as it was, without the frame.
        """
        wanted = (seen.low, seen.high)
        frozen = self.range
        if not self._frames or frozen is None:
            frozen = wanted
        elif self._departs(frozen, wanted):
            frozen = wanted
            self._compute_anew(wanted)
        # The driver may use its memory again.
        thermal = dataclasses.replace(thermal, data=thermal.data.copy())
        entry = self._made(thermal, seen, frozen, self._frames[-1] if self._frames else None)
        if self._frames:
            self._steps.append(thermal.stamp_ns - self._frames[-1].stamp_ns)
        self._frames.append(entry)
        # What is no longer there cannot be where motion comes from.
        self._frames[0].motion = None
        self.range, self._last, self._newest_ns, self._behind = frozen, thermal, thermal.stamp_ns, 0
        return entry

    def invalidate(self) -> None:
        """Compute features and motion of all frames anew (what a window without a ring would cost)."""
        if self.range is not None:
            self._compute_anew(self.range)

    def counters(self) -> dict[str, int]:
        """What happened so far, for diagnostics."""
        return {
            "ring_length": len(self._frames),
            "reencodes": self.reencodes,
            **{f"resets_{reason}": count for reason, count in self.resets.items()},
            **{f"refused_{reason}": count for reason, count in self.refused.items()},
        }

    def _behind_newest(self, frame: ThermalFrame, step: int) -> str:
        if step == 0:
            return self._refuse("duplicate")
        self._behind += 1
        if step < -self.config.jump_s * 1e9 or self._behind >= self.config.patience:
            self.reset("clock_jump")
            return ""
        older = bool(self._frames) and frame.stamp_ns < self._frames[0].stamp_ns
        return self._refuse("stale" if older else "out_of_order")

    def _refuse(self, reason: str) -> str:
        self.refused[reason] += 1
        return reason

    def _is_gap(self, step_ns: int) -> bool:
        if step_ns > self.config.longest_step_s * 1e9:
            return True
        period = self.period_ns
        return period is not None and step_ns > self.config.gap_factor * period

    def _departs(self, frozen: tuple[float, float], wanted: tuple[float, float]) -> bool:
        room = self.config.range_tolerance * (frozen[1] - frozen[0])
        return any(abs(now - then) > room for now, then in zip(wanted, frozen))

    def _compute_anew(self, limits: tuple[float, float]) -> None:
        """All frames over another range; they are replaced when all are done."""
        made: list[RingFrame[MotionT]] = []
        for old in self._frames:
            entry = self._made(old.thermal, old.seen, limits, made[-1] if made else None)
            entry.enhanced = old.enhanced
            made.append(entry)
        self._frames.clear()
        self._frames.extend(made)
        self.range = limits
        self.reencodes += 1

    def _made(
        self,
        thermal: ThermalFrame,
        seen: Observation,
        limits: tuple[float, float],
        before: RingFrame[MotionT] | None,
    ) -> RingFrame[MotionT]:
        seen = dataclasses.replace(seen, low=limits[0], high=limits[1])
        levels = self._levels(seen)
        features = self._encode(levels)
        self.encoded += 1
        motion = None if before is None else self._estimate(before.levels, levels)
        return RingFrame(thermal, seen, levels, features, motion)


def _format(frame: ThermalFrame) -> tuple[object, ...]:
    return frame.size, frame.data.dtype, frame.units, frame.frame_id
