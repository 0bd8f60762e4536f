"""The pair buffer: single behaviours. Properties are in test_pairing_buffer_properties.py."""

from __future__ import annotations

import dataclasses

import pytest

from thermal_enhance.pairing.buffer import Pair, PairBuffer, PairConfig, Stamped

MS = 1_000_000
Buffer = PairBuffer[str, str]


def frame(stamp: float, arrival: float | None = None, item: str = "") -> Stamped[str]:
    return Stamped(round(stamp * MS), round((stamp if arrival is None else arrival) * MS), item)


def ms(pairs: list[Pair[str, str]]) -> list[tuple[int, int | None]]:
    return [(p.thermal.stamp_ns // MS, None if p.color is None else p.color.stamp_ns // MS) for p in pairs]


def replay(buffer: Buffer, events: list[tuple[float, str, float]]) -> list[Pair[str, str]]:
    """Feed (arrival, "t" | "c", stamp) in ms as a node would: poll after each and at each deadline."""
    out: list[Pair[str, str]] = []

    def due(until: int | None) -> None:
        while (deadline := buffer.next_deadline_ns()) is not None and (until is None or deadline <= until):
            out.extend(buffer.poll(deadline))

    for arrival, stream, stamp in sorted(events):
        due(round(arrival * MS))
        (buffer.add_thermal if stream == "t" else buffer.add_color)(frame(stamp, arrival))
        out.extend(buffer.poll(round(arrival * MS)))
    due(None)
    return out


def stream(
    kind: str, period: float, count: int, delay: float, start: float = 0
) -> list[tuple[float, str, float]]:
    return [(start + k * period + delay, kind, start + k * period) for k in range(count)]


def test_best_pair_not_first_fit() -> None:
    buffer = Buffer(PairConfig(slop_ns=40 * MS))
    buffer.add_color(frame(70))
    buffer.add_thermal(frame(100, 101))
    assert buffer.poll(101 * MS) == []  # 70 would do, a nearer one may come
    buffer.add_color(frame(95, 105))
    buffer.add_color(frame(110, 120))
    (pair,) = buffer.poll(120 * MS)
    assert (pair.color and pair.color.stamp_ns, pair.skew_ns) == (95 * MS, -5 * MS)
    assert pair.waited_ns == 19 * MS


def test_equal_stamp_leaves_at_once() -> None:
    buffer = Buffer(PairConfig())
    buffer.add_color(frame(100))
    buffer.add_thermal(frame(100, 110))
    assert buffer.next_deadline_ns() == 150 * MS
    (pair,) = buffer.poll(110 * MS)
    assert (pair.skew_ns, pair.waited_ns) == (0, 0)
    assert buffer.next_deadline_ns() is None


@pytest.mark.parametrize(("skew", "paired"), [(40 * MS, True), (40 * MS + 1, False), (-40 * MS, True)])
def test_slop_is_inclusive(skew: int, paired: bool) -> None:
    buffer = Buffer(PairConfig(slop_ns=40 * MS))
    buffer.add_thermal(frame(1000))
    buffer.add_color(Stamped(1000 * MS + skew, 1000 * MS, ""))
    (pair,) = buffer.flush()
    assert (pair.color is not None) is paired
    assert buffer.nearest_miss_ns == (None if paired else skew)


def test_slop_zero_pairs_equal_stamps() -> None:
    buffer = Buffer(PairConfig(slop_ns=0))
    buffer.add_color(frame(100))
    buffer.add_thermal(frame(100))
    assert ms(buffer.poll(100 * MS)) == [(100, 100)]


def test_offset_brings_rgb_into_the_thermal_clock() -> None:
    buffer = Buffer(PairConfig(slop_ns=5 * MS, offset_ns=-60 * MS))
    buffer.add_color(frame(162, 100))
    buffer.add_thermal(frame(100))
    buffer.add_color(frame(195, 130))
    (pair,) = buffer.poll(130 * MS)
    assert pair.skew_ns == 2 * MS and pair.color is not None and pair.color.stamp_ns == 162 * MS


def test_without_rgb_thermal_waits_the_slop_and_after_a_while_not_at_all() -> None:
    pairs = replay(Buffer(PairConfig(slop_ns=40 * MS)), stream("t", 33, 60, 2))
    assert len(pairs) == 60 and all(p.color is None for p in pairs)
    assert pairs[0].waited_ns == 40 * MS
    assert {p.waited_ns for p in pairs if p.thermal.arrival_ns > 1002 * MS + 2 * MS} == {0}


def test_rgb_that_stops_adds_no_latency_and_waiting_resumes_when_it_comes_back() -> None:
    thermal = stream("t", 33, 120, 2)
    color = stream("c", 33, 30, 15) + stream("c", 33, 60, 15, start=60 * 33)
    pairs = replay(Buffer(PairConfig(slop_ns=20 * MS)), thermal + color)
    assert len(pairs) == 120
    by_index = {p.thermal.stamp_ns // (33 * MS): p for p in pairs}
    assert all(by_index[k].skew_ns == 0 for k in [*range(30), *range(61, 90)])
    silent = [by_index[k] for k in range(36, 60)]  # four periods after the last RGB frame
    assert all(p.color is None and p.waited_ns == 0 for p in silent)
    assert by_index[75].waited_ns == 13 * MS


def test_slow_rgb_is_not_waited_for_where_none_can_come() -> None:
    """30 Hz thermal, 9 Hz RGB: only a third of the thermal frames have RGB within 20 ms."""
    thermal = stream("t", 33, 300, 2)
    pairs = replay(Buffer(PairConfig(slop_ns=20 * MS)), thermal + stream("c", 111, 100, 15))
    late = pairs[30:]  # once learned
    alone = [p for p in late if p.color is None]
    assert len(alone) > 100
    assert sum(p.waited_ns == 0 for p in alone) > 0.7 * len(alone)
    stamps = range(0, 100 * 111, 111)
    for pair in late:
        best = min(stamps, key=lambda s: abs(s - pair.thermal.stamp_ns // MS))
        in_time = best * MS + 15 * MS <= pair.thermal.arrival_ns + 20 * MS
        if in_time and abs(best * MS - pair.thermal.stamp_ns) <= 20 * MS:
            assert pair.color is not None and pair.color.stamp_ns == best * MS


def test_rgb_slower_than_the_longest_wait_is_not_waited_for() -> None:
    events = stream("t", 33, 90, 2) + stream("c", 33, 90, 80)
    pairs = replay(Buffer(PairConfig(slop_ns=20 * MS)), events)
    assert {p.waited_ns for p in pairs[10:]} == {0}
    patient = replay(Buffer(PairConfig(slop_ns=20 * MS, max_wait_ns=90 * MS)), events)
    assert {(p.skew_ns, p.waited_ns) for p in patient[10:]} == {(0, 78 * MS)}


def test_never_wait_takes_what_is_there() -> None:
    buffer = Buffer(PairConfig(wait_for_color=False))
    buffer.add_color(frame(80))
    buffer.add_thermal(frame(100))
    assert ms(buffer.poll(100 * MS)) == [(100, 80)]


def test_good_enough_ends_the_wait() -> None:
    buffer = Buffer(PairConfig(accept_ns=20 * MS))
    buffer.add_color(frame(80))
    buffer.add_thermal(frame(100))
    assert ms(buffer.poll(100 * MS)) == [(100, 80)]


def test_one_rgb_frame_serves_several_thermal_frames() -> None:
    events = [(99, "c", 99), *stream("t", 16, 4, 1, start=84), (200, "c", 200)]
    assert ms(replay(Buffer(PairConfig(slop_ns=20 * MS)), events))[:3] == [(84, 99), (100, 99), (116, 99)]


def test_without_reuse_an_rgb_frame_goes_to_its_nearest_thermal_frame() -> None:
    buffer = Buffer(PairConfig(reuse_color=False))
    for stamp in (84, 100, 116):
        buffer.add_thermal(frame(stamp, 116))
    buffer.add_color(frame(99, 118))
    assert ms(buffer.flush()) == [(84, None), (100, 99), (116, None)]
    assert buffer.counts["color_used"] == 1


def test_overtaken_rgb_frame_is_waited_for() -> None:
    events = stream("t", 33, 20, 2) + stream("c", 33, 20, 15)
    swapped = [
        (arrival + 25 if stamp == 330 and kind == "c" else arrival, kind, stamp)
        for arrival, kind, stamp in events
    ]
    swapped = [
        (arrival - 15 if stamp == 363 and kind == "c" else arrival, kind, stamp)
        for arrival, kind, stamp in swapped
    ]
    assert {p.skew_ns for p in replay(Buffer(PairConfig()), swapped)} == {0}


def test_overtaken_thermal_frame_leaves_in_order_and_holds_nobody_back() -> None:
    buffer = Buffer(PairConfig(slop_ns=40 * MS))
    buffer.add_thermal(frame(133, 135))
    buffer.add_thermal(frame(100, 160))
    assert buffer.next_deadline_ns() == 175 * MS
    assert buffer.poll(174 * MS) == []
    assert ms(buffer.poll(175 * MS)) == [(100, None), (133, None)]


def test_thermal_older_than_what_left_and_repeated_stamps_are_counted() -> None:
    buffer = Buffer(PairConfig())
    buffer.add_thermal(frame(100))
    buffer.add_thermal(frame(100))
    assert ms(buffer.flush()) == [(100, None)]
    buffer.add_thermal(frame(100))
    buffer.add_thermal(frame(90))
    assert buffer.flush() == []
    assert buffer.thermal_drops == {"duplicate_stamp": 2, "out_of_order": 1}


def test_rgb_losses_are_counted_by_reason() -> None:
    buffer = Buffer(PairConfig(color_capacity=2))
    for stamp in (10, 10, 20, 30):
        buffer.add_color(frame(stamp))
    assert buffer.color_drops == {"duplicate_stamp": 1, "overflow": 1}
    buffer.add_thermal(frame(200))
    buffer.flush()
    assert buffer.color_drops == {"duplicate_stamp": 1, "overflow": 1, "unused": 2}
    buffer.add_color(frame(150, 210))
    assert buffer.color_drops["late"] == 1


def test_memory_is_bounded_when_nobody_polls() -> None:
    buffer = Buffer(PairConfig(thermal_capacity=3))
    for k in range(10):
        buffer.add_thermal(frame(33 * k))
    assert buffer.waiting == 3 and buffer.thermal_drops == {"superseded": 7}
    assert ms(buffer.flush()) == [(231, None), (264, None), (297, None)]


def test_pairing_goes_on_after_stamps_jump_back() -> None:
    """A looped bag: arrivals go on, stamps of both streams start over."""
    first = stream("t", 33, 60, 2, start=9000) + stream("c", 33, 60, 15, start=9005)
    second = [
        (arrival + 11_000, kind, stamp)
        for arrival, kind, stamp in stream("t", 33, 60, 2) + stream("c", 33, 60, 15, start=5)
    ]
    buffer = Buffer(PairConfig())
    pairs = replay(buffer, first + second)
    assert len(pairs) == 120 and all(p.skew_ns == 5 * MS for p in pairs)
    assert [p.timeline for p in pairs] == [0] * 60 + [1] * 60
    assert buffer.counts["thermal_jumps"] == 1 and buffer.counts["color_jumps"] == 1
    assert buffer.thermal_drops == {}


@pytest.mark.parametrize("first", ["t", "c"])
def test_either_stream_may_jump_first(first: str) -> None:
    buffer = Buffer(PairConfig())
    for k in range(6):
        buffer.add_color(frame(9000 + 33 * k))
        buffer.add_thermal(frame(9000 + 33 * k))
        buffer.poll((9000 + 33 * k) * MS)
    buffer.add_thermal(frame(9198, 9198))  # waits for its RGB when the jump comes
    late: list[tuple[float, str, float]] = [(9200, "t", 0), (9201, "c", 1)]
    if first == "c":
        late = [(9200, "c", 1), (9201, "t", 0)]
    assert ms(replay(buffer, late)) == [(9198, 9165), (0, 1)]


def test_rgb_clock_stepping_alone_keeps_thermal_going() -> None:
    thermal = stream("t", 33, 90, 2)
    color = stream("c", 33, 30, 15) + [(a, k, s - 700_000) for a, k, s in stream("c", 33, 60, 15, start=990)]
    buffer = Buffer(PairConfig())
    pairs = replay(buffer, thermal + color)
    assert [p.thermal.stamp_ns // MS for p in pairs] == [33 * k for k in range(90)]
    assert {p.waited_ns for p in pairs[45:]} == {0}
    assert buffer.nearest_miss_ns is not None and buffer.nearest_miss_ns < -600_000 * MS
    assert buffer.counts["color_jumps"] == 1 and buffer.counts["thermal_jumps"] == 0


def test_one_corrupt_stamp_does_no_lasting_harm() -> None:
    events = stream("t", 33, 60, 2) + stream("c", 33, 60, 15)
    corrupt = [(a, k, 10**9 if s == 660 and k == "t" else s) for a, k, s in events]
    pairs = replay(Buffer(PairConfig()), corrupt)
    assert len(pairs) == 60
    assert sum(p.skew_ns == 0 for p in pairs) >= 58


def test_reset_drops_and_counts_under_its_reason() -> None:
    buffer = Buffer(PairConfig())
    buffer.add_thermal(frame(100))
    buffer.add_color(frame(30))
    buffer.reset("deactivated")
    assert buffer.thermal_drops == {"deactivated": 1} and buffer.color_drops == {"deactivated": 1}
    assert buffer.flush() == [] and buffer.next_deadline_ns() is None
    buffer.add_thermal(frame(50))  # an older stamp is welcome now
    assert [p.timeline for p in buffer.flush()] == [1]


def test_configuration_changes_live() -> None:
    buffer = Buffer(PairConfig(slop_ns=40 * MS))
    buffer.add_thermal(frame(100))
    buffer.add_color(frame(85))
    buffer.configure(dataclasses.replace(buffer.config, slop_ns=10 * MS))
    assert buffer.next_deadline_ns() == 110 * MS
    assert ms(buffer.poll(110 * MS)) == [(100, None)]
    assert buffer.nearest_miss_ns == -15 * MS


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"slop_ns": -1}, "slop_ns"),
        ({"max_wait_ns": -1}, "max_wait_ns"),
        ({"accept_ns": -1}, "accept_ns"),
        ({"thermal_capacity": 0}, "thermal_capacity"),
        ({"color_capacity": 0}, "color_capacity"),
        ({"color_timeout_ns": 0}, "color_timeout_ns"),
        ({"jump_ns": 80 * MS}, "jump_ns"),
        ({"dead_after_periods": 0.5}, "dead_after_periods"),
    ],
)
def test_configuration_errors_name_the_parameter(change: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        PairConfig(**change)
