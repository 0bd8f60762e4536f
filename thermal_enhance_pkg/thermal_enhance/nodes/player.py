"""Plays a recording on its own clock: every message at its moment, paused, faster, slower, over and over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from thermal_enhance.nodes.bag_reader import BagMessage

RATE_LIMITS = (0.01, 100.0)
LATE_S = 0.02
"""A message is counted as late when it leaves this much after its moment: most of a frame time at 30 Hz."""

_NANO = 1_000_000_000
_NAP_S = 0.1
"""Longest sleep at a time, so that a changed rate or a stop is noticed."""


class Playable(Protocol):
    """What is asked of a recording here."""

    start_ns: int
    end_ns: int

    def messages(
        self, topics: Sequence[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Serialized messages in order of time."""


@dataclass(frozen=True)
class PlayerCounts:
    """What was played so far.

    Attributes:
        messages: messages handed out.
        late: of these, more than 20 ms after their moment.
        worst_lateness: largest lateness, seconds.
        loops: how often the recording was begun.
    """

    messages: int = 0
    late: int = 0
    worst_lateness: float = 0.0
    loops: int = 0


class Player:
    """Iterating over a player waits for each message's moment and hands it out.

    Nothing is skipped: a consumer that is too slow gets the messages as fast as it takes them, and the
    lateness is counted. Time in the recording runs on meanwhile, as the world would. In a loop it begins
    again at the start, so that stamps jump back, as they do when rosbag2 loops. One thread iterates; the
    other methods may be called from any thread.

    Args:
        recording: what to play.
        rate: seconds of the recording per second, 0.01 to 100.
        loop: begin again at the end, until stopped.
        start_offset: seconds to leave out at the beginning.
        duration: seconds to play (of the recording); None or 0: to its end.
        topics: play only these; None for all.
        clock: seconds that never go back.
        sleep: waits that many seconds; by default one that `stop`, `pause`, ... cut short.

    Raises:
        ValueError: a rate, offset or duration out of range.
    """

    def __init__(
        self,
        recording: Playable,
        *,
        rate: float = 1.0,
        loop: bool = False,
        start_offset: float = 0.0,
        duration: float | None = None,
        topics: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        length = (recording.end_ns - recording.start_ns) / _NANO
        if start_offset < 0 or (start_offset > length and start_offset > 0):
            raise ValueError(f"start_offset {start_offset} s is outside the recording of {length:.2f} s")
        if duration is not None and duration < 0:
            raise ValueError(f"duration must not be negative, not {duration}")
        self._recording = recording
        self._topics = topics
        self.loop = loop
        self.start_ns = recording.start_ns + round(start_offset * _NANO)
        self.stop_ns = self.start_ns + round(duration * _NANO) if duration else recording.end_ns + 1
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._sleep = sleep or self._nap
        self._rate = _checked_rate(rate)
        self._paused = False
        self._stopped = False
        self._running = False
        self._anchor_ns = self.start_ns
        self._anchor_s = clock()
        self.counts = PlayerCounts()

    @property
    def rate(self) -> float:
        """Seconds of the recording per second."""
        return self._rate

    @property
    def paused(self) -> bool:
        """Does time stand still?"""
        return self._paused

    def now_ns(self) -> int:
        """Time in the recording; never past its end."""
        with self._lock:
            return self._now_ns()

    def pause(self) -> None:
        """Stop time; the message being waited for comes after `resume`."""
        with self._lock:
            self._anchor()
            self._paused = True
        self._wake.set()

    def resume(self) -> None:
        """Let time go on from where it was stopped."""
        with self._lock:
            self._anchor()
            self._paused = False
        self._wake.set()

    def set_rate(self, rate: float) -> None:
        """Play faster or slower from now on.

        Raises:
            ValueError: outside 0.01 to 100.
        """
        rate = _checked_rate(rate)
        with self._lock:
            self._anchor()
            self._rate = rate
        self._wake.set()

    def stop(self) -> None:
        """End the iteration, in a wait too."""
        self._stopped = True
        self._wake.set()

    def __iter__(self) -> Iterator[BagMessage]:
        while not self._stopped:
            before = self.counts.messages
            self._begin()
            for message in self._recording.messages(self._topics, self.start_ns, self.stop_ns):
                lateness = self._wait_for(message.timestamp_ns)
                if lateness is None:
                    break
                self._count(lateness)
                yield message
            # A recording without messages in this part would spin.
            if not self.loop or self.counts.messages == before:
                break
        with self._lock:
            self._anchor()
            self._running = False

    def _begin(self) -> None:
        with self._lock:
            self._anchor_ns, self._anchor_s = self.start_ns, self._clock()
            self._running = True
            counts = self.counts
            self.counts = PlayerCounts(counts.messages, counts.late, counts.worst_lateness, counts.loops + 1)

    def _count(self, lateness: float) -> None:
        counts = self.counts
        self.counts = PlayerCounts(
            counts.messages + 1,
            counts.late + (lateness > LATE_S),
            max(counts.worst_lateness, lateness),
            counts.loops,
        )

    def _wait_for(self, moment_ns: int) -> float | None:
        """Wait for a moment of the recording; returns the lateness in seconds, or None when stopped."""
        while not self._stopped:
            self._wake.clear()
            with self._lock:
                paused = self._paused
                due_s = self._anchor_s + (moment_ns - self._anchor_ns) / _NANO / self._rate
                remaining = due_s - self._clock()
            if not paused and remaining <= 0:
                return -remaining
            if not self._stopped:
                self._sleep(_NAP_S if paused else min(remaining, _NAP_S))
        return None

    def _nap(self, seconds: float) -> None:
        self._wake.wait(seconds)

    def _now_ns(self) -> int:
        if self._paused or not self._running:
            return self._anchor_ns
        elapsed = (self._clock() - self._anchor_s) * self._rate
        return min(self._anchor_ns + round(elapsed * _NANO), self.stop_ns)

    def _anchor(self) -> None:
        self._anchor_ns, self._anchor_s = self._now_ns(), self._clock()


def _checked_rate(rate: float) -> float:
    low, high = RATE_LIMITS
    if not low <= rate <= high:
        raise ValueError(f"rate must be {low:g} to {high:g}, not {rate}")
    return rate
