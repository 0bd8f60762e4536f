"""The parts of a quality ladder: its parameters, its rungs, and what it tells of itself."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from thermal_enhance.enhancers.base import EnhancedFrame, Enhancer, EnhanceRequest, LoadingEnhancer
from thermal_enhance.enhancers.worker import TierWorker

Factory = Callable[[], Enhancer]


@dataclass(frozen=True)
class LadderConfig:
    """Parameters of `QualityLadder`.

    Attributes:
        deadline_s: time for one frame, all tiers together; None for no deadline (offline).
        climb_after_s: how long a tier that failed is left alone the first time.
        backoff_factor: how much longer each further time.
        backoff_cap_s: and at most how long.
        hang_timeout_s: a call that runs longer has hung; its worker is abandoned.
        build_timeout_s: the same for building a tier anew.
        max_respawns: how often a hung tier is built anew before it is disabled.
        window: calls over which an inline tier's 95th percentile, and a model's mean time, are taken.
        hold_rate: step down from a model whose mean time is more than a frame period; otherwise it works on
            the newest frame and the others are lost.
        pin: name of the one tier to use, without deadlines or backing off; empty for the whole ladder.
    """

    deadline_s: float | None = 0.1
    climb_after_s: float = 2.0
    backoff_factor: float = 2.0
    backoff_cap_s: float = 60.0
    hang_timeout_s: float = 10.0
    build_timeout_s: float = 300.0
    max_respawns: int = 1
    window: int = 20
    hold_rate: bool = True
    pin: str = ""

    def __post_init__(self) -> None:
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ValueError(f"deadline_s must be positive (None for no deadline), not {self.deadline_s}")
        for name in ("climb_after_s", "backoff_cap_s", "hang_timeout_s", "build_timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if self.backoff_factor < 1 or self.max_respawns < 0 or self.window < 4:
            raise ValueError("backoff_factor must be at least 1, max_respawns 0, window 4")


@dataclass(frozen=True)
class TierStatus:
    """One tier as diagnostics see it.

    Attributes:
        name: of the tier.
        state: ok, busy, backing_off or disabled.
        reason: why it is not ok, or the last trouble it had.
        retry_in_s: seconds until it is tried again; 0 unless backing off.
        frames: how many frames it made.
        troubles: how many frames it did not make, by reason.
        late_results: results that came after their deadline.
        p95_ms: 95th percentile of its recent times, milliseconds; NaN before the first.
        detail: which model it runs, on what; empty for tiers without one and before it is loaded.
        counters: what the tier counts of itself (its attribute `counters`), by name.
    """

    name: str
    state: str
    reason: str
    retry_in_s: float
    frames: int
    troubles: dict[str, int]
    late_results: int
    p95_ms: float
    detail: str = ""
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LadderStatus:
    """The ladder as diagnostics see it.

    Attributes:
        current: tier that made the latest frame; empty before the first.
        reason: why it was not the top one; empty if it was.
        tiers: best first.
    """

    current: str
    reason: str
    tiers: tuple[TierStatus, ...]


@dataclass(eq=False)
class Rung:
    """A tier and what has happened to it."""

    enhancer: Enhancer
    factory: Factory | None
    window: int
    worker: TierWorker | None = None
    failures: int = 0
    failed_at: float = -math.inf
    retry_at: float = -math.inf
    reason: str = ""
    disabled: str = ""
    respawns: int = 0
    building: bool = False
    running: bool = False
    removed: bool = False
    frames: int = 0
    late: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    times: deque[float] = field(default_factory=deque)
    loads: bool = False

    def __post_init__(self) -> None:
        self.times = deque(maxlen=self.window)
        self.loads = isinstance(self.enhancer, LoadingEnhancer)

    @property
    def name(self) -> str:
        """Of its tier."""
        return self.enhancer.name

    def p95(self) -> float:
        """95th percentile of its recent times, seconds; NaN before the first."""
        return float(np.percentile(self.times, 95)) if self.times else math.nan

    def status(self, now: float) -> TierStatus:
        """What diagnostics are told at this time, monotonic seconds."""
        wait = max(0.0, self.retry_at - now)
        state, reason = "ok", self.reason
        if self.disabled:
            state, reason = "disabled", self.disabled
        elif self.worker is not None and self.worker.busy and not self.running:
            state = "busy"
            if self.building:
                reason = "starting anew" if self.respawns else "loading"
        elif wait > 0:
            state = "backing_off"
        enhancer = self.worker.enhancer if self.worker is not None else self.enhancer
        return TierStatus(
            self.name,
            state,
            reason,
            0.0 if self.disabled else wait,
            self.frames,
            dict(self.troubles),
            self.late + (self.worker.late_results if self.worker is not None else 0),
            self.p95() * 1e3,
            enhancer.description if isinstance(enhancer, LoadingEnhancer) else "",
            dict(getattr(enhancer, "counters", {})),
        )

    def close(self) -> None:
        """Never waits: an isolated tier closes on its own thread, when that comes back."""
        if self.worker is not None:
            self.worker.close()
        elif not self.running:
            self.enhancer.close()


def defect(frame: EnhancedFrame, request: EnhanceRequest) -> str:
    """Why a tier's result must not leave; empty for a valid one.

    Non-finite pixels are allowed where the input had none finite to offer either.
    """
    given, made = frame.observed or request.thermal, frame.thermal
    if given.stamp_ns > request.thermal.stamp_ns:
        return "error: output is of an input that has not come yet"
    size = (given.size[0] * request.scale, given.size[1] * request.scale)
    if made.size != size:
        return f"error: output is {made.size[0]}x{made.size[1]}, not {size[0]}x{size[1]}"
    if made.data.dtype != given.data.dtype:
        return f"error: output is {made.data.dtype}, not {given.data.dtype}"
    if (made.stamp_ns, made.frame_id, made.units) != (given.stamp_ns, given.frame_id, given.units):
        return "error: output has another stamp, frame_id or unit than its input"
    if made.data.dtype == np.float32 and not np.isfinite(made.data).all():
        bad = ~np.isfinite(given.data)
        blocks = np.repeat(np.repeat(bad, request.scale, axis=0), request.scale, axis=1)
        if not bad.any() or (~np.isfinite(made.data) & ~blocks).any():
            return "non_finite"
    return _defect_between(frame)


def _defect_between(frame: EnhancedFrame) -> str:
    """Why its interpolated frames must not leave; empty when they may."""
    made, last_ns = frame.thermal, None
    for extra in frame.extra:
        if (extra.size, extra.data.dtype) != (made.size, made.data.dtype):
            return "error: an interpolated frame has another size or type than its output"
        if (extra.frame_id, extra.units) != (made.frame_id, made.units):
            return "error: an interpolated frame has another frame_id or unit than its output"
        if not (last_ns is None or last_ns < extra.stamp_ns) or extra.stamp_ns >= made.stamp_ns:
            return "error: interpolated frames must come in order, before their output"
        last_ns = extra.stamp_ns
        floats = extra.data.dtype == np.float32
        if floats and not np.isfinite(extra.data).all() and np.isfinite(made.data).all():
            return "non_finite"
    return ""


def reserve(below: list[Rung]) -> float:
    """Time to keep back for the inline tier that would have to step in."""
    inline = [rung.p95() for rung in below if rung.worker is None and not rung.disabled and rung.times]
    return max(inline, default=0.0)
