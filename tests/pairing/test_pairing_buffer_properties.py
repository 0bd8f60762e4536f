"""The pair buffer under random streams: nothing lost unseen, nothing late, nothing better left behind."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from thermal_enhance.pairing.buffer import Pair, PairBuffer, PairConfig, Stamped

MS = 1_000_000
times = st.integers(0, 400).map(lambda t: t * MS)
offsets = st.integers(-50, 50).map(lambda t: t * MS)


class PairBufferMachine(RuleBasedStateMachine):
    """A node feeding the buffer: time moves on, frames of any stamp arrive, every deadline is polled."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer: PairBuffer[int, int] = PairBuffer(PairConfig(jump_ns=100 * MS))
        self.now = 0
        self.serial = 0
        self.added: set[int] = set()
        self.released: list[Pair[int, int]] = []
        self.pending_change = False

    def take(self, pairs: list[Pair[int, int]]) -> None:
        config = self.buffer.config
        for pair in pairs:
            if pair.skew_ns is not None and pair.color is not None:
                assert pair.skew_ns == pair.color.stamp_ns + config.offset_ns - pair.thermal.stamp_ns
                assert abs(pair.skew_ns) <= config.slop_ns
            if not self.pending_change:
                assert 0 <= pair.waited_ns <= config.wait_ns
        self.released += pairs
        self.pending_change = False

    @rule(step=st.integers(0, 60))
    def wait(self, step: int) -> None:
        end = self.now + step * MS
        while (deadline := self.buffer.next_deadline_ns()) is not None and deadline <= end:
            self.take(self.buffer.poll(max(deadline, self.now)))
            self.now = max(deadline, self.now)
        self.now = end
        self.take(self.buffer.poll(self.now))

    @rule(stamp=times)
    def thermal(self, stamp: int) -> None:
        self.serial += 1
        self.added.add(self.serial)
        self.buffer.add_thermal(Stamped(stamp, self.now, self.serial))
        self.take(self.buffer.poll(self.now))

    @rule(stamp=times)
    def color(self, stamp: int) -> None:
        self.buffer.add_color(Stamped(stamp, self.now, 0))
        self.take(self.buffer.poll(self.now))

    @rule(lag=st.integers(0, 30), count=st.integers(1, 6))
    def steady(self, lag: int, count: int) -> None:
        """Both cameras at 30 Hz, so that a rhythm is learned."""
        for _ in range(count):
            stamp = self.now
            self.thermal(stamp)
            self.wait(lag)
            self.color(stamp)
            self.wait(33 - lag)

    @rule(
        slop=st.integers(0, 40),
        offset=offsets,
        reuse=st.booleans(),
        wait=st.booleans(),
        room=st.integers(1, 5),
    )
    def configure(self, slop: int, offset: int, reuse: bool, wait: bool, room: int) -> None:
        self.buffer.configure(
            PairConfig(
                slop_ns=slop * MS,
                offset_ns=offset,
                reuse_color=reuse,
                wait_for_color=wait,
                jump_ns=100 * MS,
                thermal_capacity=room,
                color_capacity=room,
            )
        )
        self.pending_change = True  # what waited under the old limits may leave later than the new allow
        self.take(self.buffer.poll(self.now))

    @rule()
    def reset(self) -> None:
        self.buffer.reset("deactivated")

    @invariant()
    def every_thermal_frame_is_accounted_for(self) -> None:
        dropped = sum(self.buffer.thermal_drops.values())
        assert len(self.added) == len(self.released) + dropped + self.buffer.waiting
        counts = self.buffer.counts
        assert counts["thermal_in"] == len(self.added)
        assert counts["thermal_paired"] + counts["thermal_alone"] == len(self.released)
        assert all(n >= 0 for n in counts.values())
        assert counts["color_in"] >= counts["color_used"] + sum(self.buffer.color_drops.values())

    @invariant()
    def each_leaves_once_and_in_order(self) -> None:
        items = [p.thermal.item for p in self.released]
        assert len(items) == len(set(items)) and self.added.issuperset(items)
        lines: dict[int, list[int]] = defaultdict(list)
        for pair in self.released:
            lines[pair.timeline].append(pair.thermal.stamp_ns)
        assert [p.timeline for p in self.released] == sorted(p.timeline for p in self.released)
        for stamps in lines.values():
            assert all(a < b for a, b in pairwise(stamps))


TestPairBufferMachine = PairBufferMachine.TestCase
TestPairBufferMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@settings(max_examples=150, deadline=None)
@given(
    thermal=st.lists(times, min_size=1, max_size=20, unique=True),
    color=st.lists(times, max_size=25, unique=True),
    slop=st.integers(0, 60).map(lambda t: t * MS),
    offset=offsets,
    shuffle=st.randoms(use_true_random=False),
)
def test_with_all_rgb_there_every_pair_is_the_best(
    thermal: list[int], color: list[int], slop: int, offset: int, shuffle: object
) -> None:
    buffer: PairBuffer[None, None] = PairBuffer(
        PairConfig(
            slop_ns=slop, offset_ns=offset, color_capacity=25, thermal_capacity=20, jump_ns=10_000 * MS
        )
    )
    arrivals = list(color)
    shuffle.shuffle(arrivals)  # type: ignore[attr-defined]
    for stamp in arrivals:
        buffer.add_color(Stamped(stamp, 0, None))
    pairs: list[Pair[None, None]] = []
    for k, stamp in enumerate(sorted(thermal)):
        buffer.add_thermal(Stamped(stamp, k, None))
        pairs += buffer.poll(k)
    pairs += buffer.flush()
    assert [p.thermal.stamp_ns for p in pairs] == sorted(thermal)
    for pair in pairs:
        skews = [abs(s + offset - pair.thermal.stamp_ns) for s in color]
        best = min(skews, default=slop + 1)
        assert (abs(pair.skew_ns) if pair.skew_ns is not None else None) == (best if best <= slop else None)
    assert buffer.counts["color_in"] == len(color)
    assert buffer.color_drops.keys() <= {"unused"}


@settings(max_examples=80, deadline=None)
@given(
    back=st.integers(534, 10**6),
    phase=st.integers(-10, 10),
    lag=st.integers(0, 25),
    color_first=st.booleans(),
    before=st.integers(1, 20),
)
def test_after_any_jump_back_pairing_goes_on(
    back: int, phase: int, lag: int, color_first: bool, before: int
) -> None:
    """The first frame of the new timeline pairs already, whichever stream jumps first."""
    buffer: PairBuffer[None, None] = PairBuffer(PairConfig(slop_ns=40 * MS, jump_ns=500 * MS))
    events: list[tuple[int, int, str, int]] = []
    for k in range(before + 20):
        shift = back if k >= before else 0
        events.append((33 * k + 2, 1, "t", 33 * k - shift))
        events.append((33 * k + (1 if color_first else 2 + lag), 0, "c", 33 * k + phase - shift))
    pairs: list[Pair[None, None]] = []
    for arrival, _, kind, stamp in sorted(events):
        while (deadline := buffer.next_deadline_ns()) is not None and deadline <= arrival * MS:
            pairs += buffer.poll(deadline)
        add = buffer.add_thermal if kind == "t" else buffer.add_color
        add(Stamped(stamp * MS, arrival * MS, None))
        pairs += buffer.poll(arrival * MS)
    pairs += buffer.flush()
    fresh = [p for p in pairs if p.timeline == 1]
    assert len(fresh) == 20 and len(pairs) == before + 20
    assert all(p.skew_ns == phase * MS for p in fresh[:-1])
    assert fresh[-1].color is not None
