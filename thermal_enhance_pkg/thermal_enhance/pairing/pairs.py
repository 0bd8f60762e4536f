"""What the pair buffer is told and what it hands out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C")

MS = 1_000_000


@dataclass(frozen=True)
class PairConfig:
    """How frames are paired. All times in nanoseconds.

    Attributes:
        slop_ns: largest |skew| of a pair, inclusive (0: only equal stamps pair).
        offset_ns: added to an RGB stamp to bring it into the thermal camera's clock.
        max_wait_ns: longest time a thermal frame waits for RGB after its own arrival; None for `slop_ns`.
            More than the slop is only useful for tightly synchronised cameras whose RGB is slow to arrive.
        wait_for_color: False to never wait: thermal leaves with the best RGB that is already there.
        accept_ns: an RGB frame this near is good enough to stop waiting for a nearer one.
        reuse_color: may one RGB frame serve several thermal frames (thermal faster than RGB)?
        thermal_capacity: most thermal frames held; beyond it the oldest is dropped as superseded.
        color_capacity: most RGB frames held; beyond it the oldest is dropped as overflow.
        jump_ns: a stamp this far behind the stream's newest starts a new timeline (and ten times this far
            ahead, see `JumpDetector`); less is a frame out of order.
        dead_after_periods: RGB is taken for stopped when it has been silent for this many of its own
            periods; thermal then does not wait at all.
        color_timeout_ns: the same while the RGB period is not known yet.

    Raises:
        ValueError: a value is out of range; the message names the parameter.
    """

    slop_ns: int = 40 * MS
    offset_ns: int = 0
    max_wait_ns: int | None = None
    wait_for_color: bool = True
    accept_ns: int = 0
    reuse_color: bool = True
    thermal_capacity: int = 8
    color_capacity: int = 8
    jump_ns: int = 500 * MS
    dead_after_periods: float = 4.0
    color_timeout_ns: int = 1000 * MS

    def __post_init__(self) -> None:
        for name in ("slop_ns", "accept_ns"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.max_wait_ns is not None and self.max_wait_ns < 0:
            raise ValueError(f"max_wait_ns must not be negative, not {self.max_wait_ns}; None for slop_ns")
        for name in ("thermal_capacity", "color_capacity", "color_timeout_ns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.jump_ns <= 2 * self.slop_ns:
            # Otherwise RGB of the old timeline could pair with thermal of the new one.
            raise ValueError(f"jump_ns ({self.jump_ns}) must be over twice slop_ns ({self.slop_ns})")
        if self.dead_after_periods < 1:
            raise ValueError(f"dead_after_periods must be at least 1, not {self.dead_after_periods}")

    @property
    def wait_ns(self) -> int:
        """Longest wait in effect."""
        if not self.wait_for_color:
            return 0
        return self.slop_ns if self.max_wait_ns is None else self.max_wait_ns


@dataclass(frozen=True)
class Stamped(Generic[T]):
    """A frame with its times.

    Attributes:
        stamp_ns: acquisition time as the camera's driver stamped it.
        arrival_ns: when it reached us, on a clock that never goes back (time.monotonic_ns).
        item: the frame; never looked at.
    """

    stamp_ns: int
    arrival_ns: int
    item: T = field(compare=False)


@dataclass(frozen=True)
class Pair(Generic[T, C]):
    """A thermal frame leaving the buffer.

    Attributes:
        thermal: the frame.
        color: the RGB frame that goes with it, or None: thermal goes alone.
        skew_ns: RGB stamp plus offset minus thermal stamp; None without RGB.
        waited_ns: time the thermal frame spent in the buffer.
        timeline: grows by one with every thermal time jump or reset; stamps rise strictly within one.
    """

    thermal: Stamped[T]
    color: Stamped[C] | None
    skew_ns: int | None
    waited_ns: int
    timeline: int
