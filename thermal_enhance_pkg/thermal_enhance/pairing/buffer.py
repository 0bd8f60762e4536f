"""The pair buffer: for every thermal frame the best RGB frame that comes in time, or none.

It does what ApproximateTimeSynchronizer does not: best pair instead of first fit, inclusive slop, every
loss counted, life after a backward time jump, and no thermal frame held hostage by a stopped RGB camera.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from typing import Generic

from thermal_enhance.pairing.clock import Cadence, Jump, JumpDetector
from thermal_enhance.pairing.pairs import C, Pair, PairConfig, Stamped, T

THERMAL_DROPS = ("superseded", "out_of_order", "duplicate_stamp")
COLOR_DROPS = ("unused", "overflow", "late", "jump", "duplicate_stamp")


class PairBuffer(Generic[T, C]):
    """Pairs thermal frames with the RGB frames nearest in time.

    Add frames as they arrive and `poll` after each one and at `next_deadline_ns`. A thermal frame leaves

     - at once, when no nearer RGB frame can come in time: an equal stamp is there, RGB has passed it with
       no frame missing in between, RGB's own rhythm rules one out (9 Hz RGB beside 30 Hz thermal), or RGB
       has stopped;
     - else after `PairConfig.wait_ns` by the arrival clock, with the best RGB frame within the slop or alone.

    Thermal frames leave in stamp order; every one added leaves once, is counted in `thermal_drops`, or is
    still waiting. On a jump of the thermal clock those waiting leave with what is there and the new
    timeline starts clean; a jump of the RGB clock only forgets RGB. Methods may be called from any thread.
    """

    def __init__(self, config: PairConfig | None = None) -> None:
        self._lock = threading.Lock()
        self._config = config or PairConfig()
        self._counts: Counter[str] = Counter()
        self._timeline = 0
        self._forget()

    def _forget(self) -> None:
        self._waiting: list[Stamped[T]] = []  # undecided, by stamp
        self._ready: deque[Pair[T, C]] = deque()  # decided, to leave with the next poll
        self._color: list[Stamped[C]] = []  # by stamp
        self._used: set[int] = set()  # stamps of held RGB frames that have served
        self._left: int | None = None  # newest thermal stamp decided in this timeline
        self._color_ahead = False  # has RGB jumped and thermal not yet?
        self._miss: int | None = None
        self._first_arrival: int | None = None
        self._last_color_arrival: int | None = None
        self._thermal_clock = JumpDetector(self._config.jump_ns)
        self._color_clock = JumpDetector(self._config.jump_ns)
        self._cadence = Cadence()

    @property
    def config(self) -> PairConfig:
        """Configuration in effect."""
        return self._config

    @property
    def counts(self) -> dict[str, int]:
        """Everything counted since construction.

        `thermal_in` = `thermal_paired` + `thermal_alone` + drops (`thermal_dropped_<reason>`) + waiting;
        `color_in` = `color_used` + drops (`color_dropped_<reason>`) + held and not used yet;
        `thermal_jumps` and `color_jumps` are time jumps.
        """
        fixed = ["thermal_in", "thermal_paired", "thermal_alone", "thermal_jumps"]
        fixed += ["color_in", "color_used", "color_jumps"]
        fixed += [f"thermal_dropped_{reason}" for reason in THERMAL_DROPS]
        fixed += [f"color_dropped_{reason}" for reason in COLOR_DROPS]
        with self._lock:
            return {**dict.fromkeys(fixed, 0), **self._counts}

    @property
    def thermal_drops(self) -> dict[str, int]:
        """Thermal frames dropped, by reason; only reasons that occurred."""
        return self._drops("thermal_dropped_")

    @property
    def color_drops(self) -> dict[str, int]:
        """RGB frames that were never paired, by reason; only reasons that occurred."""
        return self._drops("color_dropped_")

    @property
    def waiting(self) -> int:
        """Thermal frames held."""
        with self._lock:
            return len(self._waiting) + len(self._ready)

    @property
    def nearest_miss_ns(self) -> int | None:
        """Skew of the RGB stamp nearest to the last thermal frame that left alone.

        For the warning "nearest RGB is 83 ms away, slop 40 ms". None when it left with RGB or no RGB frame
        was known; within the slop when that RGB frame came too late or was dropped.
        """
        with self._lock:
            return self._miss

    def configure(self, config: PairConfig) -> None:
        """Change the configuration; frames held are judged by the new one from the next poll on."""
        with self._lock:
            self._config = config
            self._thermal_clock.configure(config.jump_ns)
            self._color_clock.configure(config.jump_ns)
            self._bound()

    def add_thermal(self, frame: Stamped[T]) -> None:
        """Take a thermal frame as it arrives."""
        with self._lock:
            self._counts["thermal_in"] += 1
            if self._first_arrival is None:
                self._first_arrival = frame.arrival_ns
            newest = self._thermal_clock.newest_ns
            if self._thermal_clock.update(frame.stamp_ns) is not Jump.NONE and newest is not None:
                self._leave_thermal_timeline(newest, frame)
            stamps = [waiting.stamp_ns for waiting in self._waiting]
            place = bisect_left(stamps, frame.stamp_ns)
            if frame.stamp_ns == self._left or frame.stamp_ns in stamps[place : place + 1]:
                self._counts["thermal_dropped_duplicate_stamp"] += 1
            elif self._left is not None and frame.stamp_ns < self._left:
                self._counts["thermal_dropped_out_of_order"] += 1
            else:
                self._waiting.insert(place, frame)
                self._bound()

    def add_color(self, frame: Stamped[C]) -> None:
        """Take an RGB frame as it arrives."""
        with self._lock:
            self._counts["color_in"] += 1
            if self._stopped(frame.arrival_ns):
                self._cadence.clear()  # it comes back with another phase, perhaps another rate
            newest = self._color_clock.newest_ns
            if self._color_clock.update(frame.stamp_ns) is not Jump.NONE and newest is not None:
                self._leave_color_timeline(newest, frame)
            self._last_color_arrival = frame.arrival_ns
            self._cadence.observe(frame.stamp_ns, frame.arrival_ns)
            stamps = [held.stamp_ns for held in self._color]
            place = bisect_left(stamps, frame.stamp_ns)
            if frame.stamp_ns in stamps[place : place + 1]:
                self._counts["color_dropped_duplicate_stamp"] += 1
            elif self._useless(frame.stamp_ns):
                self._counts["color_dropped_late"] += 1
            else:
                self._color.insert(place, frame)
                self._bound()

    def poll(self, now_ns: int) -> list[Pair[T, C]]:
        """Let go every thermal frame that need not or may not wait any longer.

        Args:
            now_ns: present time on the arrival clock.

        Returns:
            Pairs in stamp order (after a time jump: those of the old timeline first).
        """
        with self._lock:
            while self._waiting and (now_ns >= self._deadline() or not self._worth_waiting(now_ns)):
                self._decide(now_ns)
            return self._let_go()

    def flush(self, now_ns: int | None = None) -> list[Pair[T, C]]:
        """Let go everything that waits, e.g. at the end of a bag; `now_ns` None: the moment of arrival."""
        with self._lock:
            while self._waiting:
                self._decide(self._waiting[0].arrival_ns if now_ns is None else now_ns)
            return self._let_go()

    def next_deadline_ns(self) -> int | None:
        """When to poll next if nothing arrives before; None while no thermal frame waits."""
        with self._lock:
            if self._ready:
                return self._ready[0].thermal.arrival_ns
            return self._deadline() if self._waiting else None

    def reset(self, reason: str) -> None:
        """Drop everything held and forget the streams' past; what is dropped is counted under `reason`."""
        with self._lock:
            self._counts[f"thermal_dropped_{reason}"] += len(self._waiting) + len(self._ready)
            self._counts[f"color_dropped_{reason}"] += sum(c.stamp_ns not in self._used for c in self._color)
            self._timeline += 1
            self._forget()

    # Everything below runs under the lock.

    def _drops(self, prefix: str) -> dict[str, int]:
        with self._lock:
            found = {name: n for name, n in sorted(self._counts.items()) if name.startswith(prefix) and n}
        return {name[len(prefix) :]: n for name, n in found.items()}

    def _target(self, stamp_ns: int) -> int:
        """A thermal stamp in the RGB clock."""
        return stamp_ns - self._config.offset_ns

    def _deadline(self) -> int:
        # A frame that arrived late but is older must not hold back those that came before it.
        return min(frame.arrival_ns for frame in self._waiting) + self._config.wait_ns

    def _stopped(self, now_ns: int) -> bool:
        """Has RGB been silent for so long that waiting for it makes no sense?"""
        since = self._first_arrival if self._last_color_arrival is None else self._last_color_arrival
        if since is None:
            return False
        limit: float = self._config.color_timeout_ns
        if self._cadence.arrival_period_ns is not None:
            limit = max(
                self._config.dead_after_periods * self._cadence.arrival_period_ns, self._config.slop_ns
            )
        return now_ns - since > limit

    def _worth_waiting(self, now_ns: int) -> bool:
        """Can an RGB frame nearer to the oldest waiting thermal frame than the present best still come?"""
        reach = self._config.slop_ns
        _, skew = self._best(self._waiting[0])
        if skew is not None:
            reach = abs(skew) - 1
            if reach < self._config.accept_ns:
                return False
        if self._stopped(now_ns):
            return False
        return self._cadence.may_bring(self._target(self._waiting[0].stamp_ns), reach, self._deadline())

    def _best(self, thermal: Stamped[T]) -> tuple[Stamped[C] | None, int | None]:
        """Nearest RGB frame within the slop and its skew; of two equally near ones the older."""
        target = self._target(thermal.stamp_ns)
        best: Stamped[C] | None = None
        for color in self._color:
            distance = abs(color.stamp_ns - target)
            if distance > self._config.slop_ns or (
                best is not None and distance >= abs(best.stamp_ns - target)
            ):
                continue
            if self._config.reuse_color or not any(
                abs(color.stamp_ns - self._target(other.stamp_ns)) < distance for other in self._waiting
            ):
                best = color
        return best, None if best is None else best.stamp_ns - target

    def _decide(self, now_ns: int) -> None:
        """Settle the oldest waiting thermal frame with the RGB that is there."""
        thermal = self._waiting[0]
        color, skew = self._best(thermal)
        del self._waiting[0]
        self._left = thermal.stamp_ns
        self._miss = None
        if color is None:
            target = self._target(thermal.stamp_ns)
            nearest = self._cadence.nearest(target)
            self._miss = None if nearest is None else nearest - target
        elif color.stamp_ns not in self._used:
            self._counts["color_used"] += 1
            self._used.add(color.stamp_ns)
        waited = max(0, now_ns - thermal.arrival_ns)
        self._ready.append(Pair(thermal, color, skew, waited, self._timeline))
        if color is not None and not self._config.reuse_color:
            self._discard(color, "unused")
        for held in [held for held in self._color if self._useless(held.stamp_ns)]:
            self._discard(held, "unused")

    def _let_go(self) -> list[Pair[T, C]]:
        pairs, self._ready = list(self._ready), deque()
        for pair in pairs:
            self._counts["thermal_alone" if pair.color is None else "thermal_paired"] += 1
        return pairs

    def _useless(self, stamp_ns: int) -> bool:
        """Can an RGB frame be the best of no thermal frame still to leave?"""
        if self._left is None or self._color_ahead:
            return False
        left = self._target(self._left)
        if stamp_ns < left - self._config.slop_ns:
            return True
        return self._config.reuse_color and any(stamp_ns < held.stamp_ns <= left for held in self._color)

    def _discard(self, color: Stamped[C], reason: str) -> None:
        self._color.remove(color)
        if color.stamp_ns in self._used:
            self._used.discard(color.stamp_ns)
        else:
            self._counts[f"color_dropped_{reason}"] += 1

    def _leave_thermal_timeline(self, newest_ns: int, frame: Stamped[T]) -> None:
        self._counts["thermal_jumps"] += 1
        while self._waiting:
            self._decide(frame.arrival_ns)
        color, target = self._color_clock.newest_ns, self._target(frame.stamp_ns)
        if color is not None and abs(color - target) > abs(color - self._target(newest_ns)):
            self._forget_color()  # else RGB is in the new timeline already
        self._left = self._miss = None
        self._color_ahead = False
        self._timeline += 1

    def _leave_color_timeline(self, newest_ns: int, frame: Stamped[C]) -> None:
        self._counts["color_jumps"] += 1
        while self._waiting and self._nearer(newest_ns, frame.stamp_ns, self._waiting[0].stamp_ns):
            self._decide(frame.arrival_ns)
        self._forget_color()
        # Thermal may follow or not; until it does, its stamps say nothing about these.
        self._color_ahead = self._left is not None and self._nearer(newest_ns, frame.stamp_ns, self._left)

    def _nearer(self, color_ns: int, than_ns: int, thermal_ns: int) -> bool:
        target = self._target(thermal_ns)
        return abs(color_ns - target) < abs(than_ns - target)

    def _forget_color(self) -> None:
        for held in list(self._color):
            self._discard(held, "jump")
        self._cadence.clear()

    def _bound(self) -> None:
        """Keep memory bounded even if nobody polls."""
        while len(self._waiting) + len(self._ready) > self._config.thermal_capacity:
            if self._ready:
                self._ready.popleft()
            else:
                del self._waiting[0]
            self._counts["thermal_dropped_superseded"] += 1
        while len(self._color) > self._config.color_capacity:
            self._discard(self._color[0], "overflow")
