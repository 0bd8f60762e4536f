"""When frames are exposed, stamped and delivered, and when the shutter closes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thermal_enhance.imaging.frames import FfcState
from thermal_enhance.simulation.sensor import stream_rng

NANO = 1_000_000_000
_SLACK = 1e-6
"""Slots this close (in slots) before a moment count as at it: floats do not hit 1/30 exactly."""


@dataclass(frozen=True)
class FfcConfig:
    """Flat-field corrections: the shutter closes, the stream freezes, then the offset is another one.

    Attributes:
        period_s: from one to the next, seconds; 0 for never.
        first_s: start of the first, seconds.
        freeze_s: how long the last frame is repeated, seconds.
        imminent_s: how long before it the camera announces it, seconds.
        jump_k: the picture's offset is `jump_k` after odd corrections and 0 after even ones, kelvin.
    """

    period_s: float = 0.0
    first_s: float = 12.0
    freeze_s: float = 0.5
    imminent_s: float = 1.0
    jump_k: float = 0.8

    def __post_init__(self) -> None:
        if not (self.period_s == 0 or self.period_s > self.freeze_s):
            raise ValueError(
                f"ffc.period_s must be 0 (never) or longer than ffc.freeze_s: "
                f"{self.period_s}, {self.freeze_s}"
            )
        if not (self.first_s > 0 and self.freeze_s >= 0 and self.imminent_s >= 0):
            raise ValueError(
                "ffc.first_s must be greater than 0, ffc.freeze_s and ffc.imminent_s not negative: "
                f"{self.first_s}, {self.freeze_s}, {self.imminent_s}"
            )

    def started(self, t_s: float) -> int:
        """Number of corrections started at or before a time."""
        if self.period_s == 0 or t_s < self.first_s:
            return 0
        return int((t_s - self.first_s) / self.period_s + _SLACK) + 1

    def start(self, event: int) -> float:
        """Start of correction number `event` (1 is the first), seconds."""
        return self.first_s + (event - 1) * self.period_s

    def in_progress(self, t_s: float) -> bool:
        """Is the shutter closed?"""
        event = self.started(t_s)
        return event > 0 and t_s < self.start(event) + self.freeze_s

    def state(self, t_s: float) -> FfcState:
        """Shutter state as a camera's telemetry has it."""
        if self.in_progress(t_s):
            return FfcState.IN_PROGRESS
        event = self.started(t_s)
        if self.period_s and 0 < self.start(event + 1) - t_s <= self.imminent_s:
            return FfcState.IMMINENT
        return FfcState.COMPLETE if event else FfcState.NEVER

    def epoch(self, t_s: float) -> tuple[int, float]:
        """Corrections finished by a time, and seconds since the last of them (or since the start)."""
        event = self.started(t_s)
        if event and t_s < self.start(event) + self.freeze_s:
            event -= 1
        return event, t_s - (self.start(event) + self.freeze_s if event else 0.0)

    def offset_k(self, event: int) -> float:
        """Offset of the picture after correction number `event`, kelvin."""
        return self.jump_k if event % 2 else 0.0


@dataclass(frozen=True)
class TimingConfig:
    """How one camera's frames reach the graph.

    Attributes:
        stamp_offset_s: stamp minus exposure time, seconds (a driver that stamps late: positive).
        latency_s: from exposure to delivery, seconds.
        jitter_s: further delay, uniform within 0..jitter_s, seconds.
        drop: share of frames lost, 0..1.
        gaps: (start, duration) intervals without any frame, seconds.
    """

    stamp_offset_s: float = 0.0
    latency_s: float = 0.0
    jitter_s: float = 0.0
    drop: float = 0.0
    gaps: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and self.jitter_s >= 0):
            raise ValueError(
                f"timing.latency_s and jitter_s must not be negative: {self.latency_s}, {self.jitter_s}"
            )
        if not 0 <= self.drop <= 1:
            raise ValueError(f"timing.drop must be within 0..1, not {self.drop}")
        if not math.isfinite(self.stamp_offset_s):
            raise ValueError(f"timing.stamp_offset_s must be finite, not {self.stamp_offset_s}")
        if any(len(gap) != 2 or not gap[1] >= 0 for gap in self.gaps):
            raise ValueError(f"timing.gaps must be (start, duration) pairs in seconds, not {self.gaps}")

    def in_gap(self, t_s: float) -> bool:
        """Is a frame exposed at this time missing?"""
        return any(start <= t_s < start + duration for start, duration in self.gaps)


@dataclass(frozen=True)
class Arrival:
    """One frame as delivered.

    Attributes:
        index: slot in the camera's schedule; what `CameraRig.thermal_frame` and `color_frame` take.
        exposure_s: time of the slot, seconds.
        arrival_s: time of delivery, seconds.
        stamp_ns: its header stamp, nanoseconds.
    """

    index: int
    exposure_s: float
    arrival_s: float
    stamp_ns: int


def slot_at(t_s: float, rate_hz: float) -> int:
    """Slot nearest to a time, at least 0."""
    return max(0, math.floor(t_s * rate_hz + 0.5))


def slots(duration_s: float, start_s: float, rate_hz: float) -> range:
    """Slots with start <= time < start + duration."""
    first = max(0, math.ceil(start_s * rate_hz - _SLACK))
    return range(first, max(first, math.ceil((start_s + duration_s) * rate_hz - _SLACK)))


def slot_stamp_ns(
    index: int, rate_hz: float, offset_s: float, epoch_ns: int, jumps: tuple[tuple[float, float], ...]
) -> int:
    """Stamp of a slot, nanoseconds.

    Args:
        index: the slot.
        rate_hz: slots a second.
        offset_s: the stream's stamp offset, seconds.
        epoch_ns: stamp of time 0.
        jumps: (time, jump) pairs: from that time on, the clock is `jump` seconds off (negative: behind).
    """
    t_s = index / rate_hz
    shift = sum(round(jump * NANO) for at, jump in jumps if t_s >= at - _SLACK / rate_hz)
    return epoch_ns + round(index * NANO / rate_hz) + round(offset_s * NANO) + shift


def arrivals(
    indices: range,
    rate_hz: float,
    timing: TimingConfig,
    *,
    epoch_ns: int,
    jumps: tuple[tuple[float, float], ...],
    seed: int,
    stream: int,
) -> list[Arrival]:
    """Deliveries of the given slots in order of arrival, without the frames that are lost."""
    delivered = []
    for index in indices:
        t_s = index / rate_hz
        rng = stream_rng(seed, stream, index)
        lost, delay = rng.random() < timing.drop, rng.random() * timing.jitter_s
        if lost or timing.in_gap(t_s):
            continue
        stamp = slot_stamp_ns(index, rate_hz, timing.stamp_offset_s, epoch_ns, jumps)
        delivered.append(Arrival(index, t_s, t_s + timing.latency_s + delay, stamp))
    return sorted(delivered, key=lambda arrival: arrival.arrival_s)
