"""What a stream's stamps say about its clock: jumps, and when its next frames may come."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from statistics import median

FORWARD_FACTOR = 10
"""A gap forwards is usually an outage, not a new timeline, so it takes this much more to call it a jump."""

LEARNED = 4
"""Stamps needed before a rhythm is believed."""


class Jump(str, Enum):
    """How a stamp relates to the ones before it."""

    NONE = "none"
    BACKWARD = "backward"
    FORWARD = "forward"


class JumpDetector:
    """Finds the places where a stream starts a new timeline (looped bag, reset clock, corrupt stamp).

    Stamps are compared with the newest one of the present timeline, so frames that merely overtake one
    another by less than the threshold are no jump.

    Args:
        threshold_ns: a stamp more than this behind the newest is a jump backward, nanoseconds, > 0.
        forward_threshold_ns: a stamp more than this ahead is a jump forward; None for
            `FORWARD_FACTOR` x threshold_ns.

    Raises:
        ValueError: a threshold is not positive.
    """

    def __init__(self, threshold_ns: int, forward_threshold_ns: int | None = None) -> None:
        self.configure(threshold_ns, forward_threshold_ns)
        self._newest: int | None = None

    def configure(self, threshold_ns: int, forward_threshold_ns: int | None = None) -> None:
        """Change the thresholds, the timeline goes on; arguments and errors as of the class."""
        if threshold_ns <= 0:
            raise ValueError(f"threshold_ns must be positive, not {threshold_ns}")
        if forward_threshold_ns is not None and forward_threshold_ns <= 0:
            raise ValueError(f"forward_threshold_ns must be positive, not {forward_threshold_ns}")
        self.threshold_ns = threshold_ns
        self.forward_threshold_ns = forward_threshold_ns or FORWARD_FACTOR * threshold_ns

    @property
    def newest_ns(self) -> int | None:
        """Newest stamp of the present timeline; None before the first."""
        return self._newest

    def update(self, stamp_ns: int) -> Jump:
        """Take one stamp in order of arrival and say whether it starts a new timeline."""
        newest = self._newest
        if newest is None:
            self._newest = stamp_ns
            return Jump.NONE
        if stamp_ns < newest - self.threshold_ns:
            self._newest = stamp_ns
            return Jump.BACKWARD
        self._newest = max(newest, stamp_ns)
        return Jump.FORWARD if stamp_ns > newest + self.forward_threshold_ns else Jump.NONE

    def reset(self) -> None:
        """Forget the timeline; the next stamp starts one."""
        self._newest = None


class Cadence:
    """The rhythm of a stream, learned from its last frames: period, jitter and how late it arrives.

    It answers one question: is it worth waiting for a frame near a given stamp? Doubt always counts for
    waiting, because waiting is bounded elsewhere while a missed pair cannot be had back. Stamps and
    arrivals may be in different clocks; only the difference between frames is used.

    Args:
        window: how many recent frames the rhythm is learned from, at least 4.
    """

    def __init__(self, window: int = 16) -> None:
        if window < LEARNED:
            raise ValueError(f"window must be at least {LEARNED} frames, not {window}")
        self._recent: deque[tuple[int, int]] = deque(maxlen=window)  # (stamp, arrival - stamp)
        self._stamps: list[int] = []  # of _recent, sorted
        self._least_delay = 0
        self._period: int | None = None
        self._arrival_period: int | None = None
        self._tolerance = 0

    @property
    def period_ns(self) -> int | None:
        """Median distance of neighbouring stamps; None until learned."""
        return self._period

    @property
    def arrival_period_ns(self) -> int | None:
        """Median time between arrivals, never less than `period_ns`; longer in a slowed-down replay."""
        return self._arrival_period

    def observe(self, stamp_ns: int, arrival_ns: int) -> None:
        """Take one frame, in order of arrival."""
        self._recent.append((stamp_ns, arrival_ns - stamp_ns))
        self._learn()

    def clear(self) -> None:
        """Forget everything (outage, new timeline)."""
        self._recent.clear()
        self._learn()

    def nearest(self, stamp_ns: int) -> int | None:
        """Recent stamp nearest to `stamp_ns`, whether its frame is still held anywhere or not."""
        return min(self._stamps, key=lambda stamp: abs(stamp - stamp_ns), default=None)

    def may_bring(self, target_ns: int, reach_ns: int, latest_arrival_ns: int) -> bool:
        """Can a frame stamped within `reach_ns` of `target_ns` still arrive in time?

        Args:
            target_ns: stamp to be near to, in this stream's clock.
            reach_ns: largest useful distance; negative if nothing would be an improvement.
            latest_arrival_ns: arrivals after this are of no use.

        Returns:
            True when such a frame is due, or overtaken by a later one but not given up, or when too
            little is known to rule it out.
        """
        if reach_ns < 0:
            return False
        place = bisect_left(self._stamps, target_ns)
        before = self._stamps[place - 1] if place > 0 else None
        after = self._stamps[place] if place < len(self._stamps) else None
        if self._period is None:
            return after is None
        if before is None:
            return False  # the stream is ahead of the target already, and frames come roughly in order
        # Half a period of doubt about the arrival: a replay faster than real time brings frames closer.
        lead = self._least_delay - self._period // 2
        return any(
            abs(due - target_ns) <= reach_ns + self._tolerance and due + lead <= latest_arrival_ns
            for due in _due_around(target_ns, before, after, self._period)
        )

    def _learn(self) -> None:
        self._stamps = sorted(stamp for stamp, _ in self._recent)
        self._period = self._arrival_period = None
        steps = [b - a for a, b in pairwise(self._stamps)]
        if len(self._stamps) < LEARNED:
            return
        period = int(median(steps))
        if period <= 0:
            return
        # A lost frame is a step of two periods: jitter is the distance to the nearest multiple.
        jitter = max(abs(step - round(step / period) * period) for step in steps)
        self._period = period
        self._tolerance = min(period // 2, max(period // 16, 2 * jitter))
        self._least_delay = min(delay for _, delay in self._recent)
        arrivals = [stamp + delay for stamp, delay in self._recent]
        self._arrival_period = max(period, int(median(b - a for a, b in pairwise(arrivals))))


def _due_around(target: int, before: int, after: int | None, period: int) -> Iterator[int]:
    """Expected, not yet seen stamps next to `target`, extrapolated or in the gap between two seen ones."""
    count: int | None = None
    step = float(period)
    if after is not None:
        count = round((after - before) / period)
        if count < 2:
            return
        step = (after - before) / count
    index = int((target - before) / step)
    for k in (index, index + 1):
        if k >= 1 and (count is None or k < count):
            yield before + round(k * step)
