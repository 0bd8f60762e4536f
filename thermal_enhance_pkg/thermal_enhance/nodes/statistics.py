"""What happened to every frame: counts by reason, latency by stage, rates, tiers, pair skew."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WINDOW = 2000
"""Samples kept for percentiles: about a minute at 30 Hz, and bounded however long the robot runs."""


def percentiles(samples: Any) -> dict[str, float]:
    """p50, p95 and p99 of the samples (same unit), NaN-free; empty without samples."""
    values = np.asarray(list(samples), dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {}
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "p99": round(float(p99), 3)}


@dataclass
class _Rate:
    """Events a second over the last few seconds."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=64))

    def tick(self, now: float) -> None:
        self.times.append(now)

    def value(self, now: float, window_s: float = 5.0) -> float:
        recent = [t for t in self.times if now - t <= window_s]
        if len(recent) < 2:
            return 0.0
        # Up to now rather than to the last event, so that a stopped stream's rate falls to zero.
        span = max(
            recent[-1] - recent[0], now - recent[0] - 1.5 * (recent[-1] - recent[0]) / (len(recent) - 1)
        )
        return (len(recent) - 1) / span if span > 0 else 0.0


class FrameStatistics:
    """Thread-safe account of a node's frames.

    Invariant: frames_in == frames_out + sum(dropped) + frames in flight.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start counting anew (on activate)."""
        with self._lock:
            self._in = 0
            self._out = 0
            self._interpolated = 0
            self._colors = 0
            self._dropped: Counter[str] = Counter()
            self._events: Counter[str] = Counter()
            self._tiers: Counter[str] = Counter()
            self._tasks: Counter[str] = Counter()
            self._reasons: Counter[str] = Counter()
            self._stages: dict[str, deque[float]] = {}
            self._skews: deque[float] = deque(maxlen=WINDOW)
            self._paired = 0
            self._rates = {"thermal": _Rate(), "rgb": _Rate(), "out": _Rate(), "interpolated": _Rate()}
            self._started = time.monotonic()

    def thermal_in(self) -> None:
        """A thermal message arrived, readable or not."""
        with self._lock:
            self._in += 1
            self._rates["thermal"].tick(time.monotonic())

    def color_in(self) -> None:
        """An RGB message arrived."""
        with self._lock:
            self._colors += 1
            self._rates["rgb"].tick(time.monotonic())

    def drop(self, reason: str, count: int = 1) -> None:
        """`count` thermal frames will not come out, for `reason`."""
        if count:
            with self._lock:
                self._dropped[reason] += count

    def event(self, name: str, count: int = 1) -> None:
        """Something worth counting that costs no thermal frame (a bad RGB message, a reset)."""
        if count:
            with self._lock:
                self._events[name] += count

    def frame_out(
        self, tier: str, tier_reason: str, task: str, stages_ms: dict[str, float], skew_s: float | None
    ) -> None:
        """A thermal frame was published."""
        with self._lock:
            self._out += 1
            self._rates["out"].tick(time.monotonic())
            self._tiers[tier] += 1
            self._tasks[task or "none"] += 1
            if tier_reason:
                self._reasons[tier_reason] += 1
            for stage, value in stages_ms.items():
                self._stages.setdefault(stage, deque(maxlen=WINDOW)).append(value)
            if skew_s is not None:
                self._paired += 1
                self._skews.append(abs(skew_s) * 1e3)

    def interpolated_out(self, count: int = 1) -> None:
        """Frames between two real ones were published."""
        with self._lock:
            self._interpolated += count
            for _ in range(count):
                self._rates["interpolated"].tick(time.monotonic())

    def totals(self) -> tuple[int, int, dict[str, int]]:
        """(frames_in, frames_out, dropped by reason), cheap."""
        with self._lock:
            return self._in, self._out, dict(self._dropped)

    def snapshot(self) -> dict[str, Any]:
        """Everything, as plain JSON-ready values."""
        with self._lock:
            now = time.monotonic()
            stages = {name: percentiles(values) for name, values in self._stages.items()}
            total = stages.pop("total", {})
            return {
                "active_s": round(now - self._started, 3),
                "frames_in": self._in,
                "frames_out": self._out,
                "interpolated_out": self._interpolated,
                "rgb_in": self._colors,
                "dropped": dict(sorted(self._dropped.items())),
                "latency_ms": {**total, "by_stage": stages},
                "rates_hz": {name: round(rate.value(now), 2) for name, rate in self._rates.items()},
                "mean_rates_hz": {
                    "thermal": round(self._in / max(now - self._started, 1e-9), 2),
                    "rgb": round(self._colors / max(now - self._started, 1e-9), 2),
                    "out": round(self._out / max(now - self._started, 1e-9), 2),
                },
                "tiers": dict(self._tiers),
                "tier_reasons": dict(self._reasons),
                "tasks": dict(self._tasks),
                "paired": self._paired,
                "pair_skew_ms": percentiles(self._skews),
                "events": dict(sorted(self._events.items())),
            }
