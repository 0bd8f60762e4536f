"""Slots, stamps, deliveries and shutter events."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from thermal_enhance.imaging.frames import FfcState
from thermal_enhance.simulation.schedule import (
    NANO,
    FfcConfig,
    TimingConfig,
    arrivals,
    slot_at,
    slot_stamp_ns,
    slots,
)

rates = st.sampled_from([9.0, 8.7, 25.0, 27.0, 30.0, 60.0])


def deliver(timing, indices=range(300), rate=30.0, jumps=(), seed=0):
    return arrivals(indices, rate, timing, epoch_ns=0, jumps=jumps, seed=seed, stream=4)


@given(st.integers(0, 10**6), rates, st.integers(-(10**9), 10**9))
def test_stamp_is_slot_time_plus_offset_to_the_nanosecond(index, rate, offset_ns):
    plain = slot_stamp_ns(index, rate, 0.0, 123, ())
    assert plain == 123 + round(index * NANO / rate)
    assert slot_stamp_ns(index, rate, offset_ns / NANO, 123, ()) == plain + offset_ns


@given(st.integers(0, 10**5), rates)
def test_slot_time_finds_its_slot(index, rate):
    assert slot_at(index / rate, rate) == index
    assert slot_at((index + 0.4) / rate, rate) == index


@given(rates, st.lists(st.floats(0.01, 5), min_size=1, max_size=6))
def test_windows_in_a_row_have_every_slot_once(rate, lengths):
    start, found = 0.0, []
    for length in lengths:
        found += slots(length, start, rate)
        start += length
    assert found == list(range(len(found)))
    assert abs(len(found) - start * rate) <= 1


def test_slots_on_exact_boundaries():
    assert list(slots(0.1, 0.2, 30.0)) == [6, 7, 8]
    assert len(slots(1.0, 7.0, 27.0)) == 27


def test_latency_and_jitter_delay_delivery_but_not_the_stamp():
    late = deliver(TimingConfig(latency_s=0.02, jitter_s=0.005))
    delays = [arrival.arrival_s - arrival.exposure_s for arrival in late]
    assert min(delays) >= 0.02 and max(delays) <= 0.025 and max(delays) - min(delays) > 0.003
    assert [a.stamp_ns for a in late] == [slot_stamp_ns(i, 30.0, 0, 0, ()) for i in range(300)]
    assert late == deliver(TimingConfig(latency_s=0.02, jitter_s=0.005))


def test_large_jitter_reorders_but_delivers_in_order_of_arrival():
    shuffled = deliver(TimingConfig(jitter_s=0.2))
    times = [arrival.arrival_s for arrival in shuffled]
    assert times == sorted(times)
    assert [arrival.index for arrival in shuffled] != list(range(300))
    assert sorted(arrival.index for arrival in shuffled) == list(range(300))


def test_drops_and_gaps():
    kept = deliver(TimingConfig(drop=0.3), range(3000))
    assert 0.66 < len(kept) / 3000 < 0.74
    assert deliver(TimingConfig(drop=1.0)) == []
    gap = {arrival.index for arrival in deliver(TimingConfig(gaps=((1.0, 0.5), (8.0, 0.1))))}
    assert set(range(300)) - gap == set(range(30, 45)) | {240, 241, 242}


def test_deliveries_do_not_depend_on_the_window():
    timing = TimingConfig(jitter_s=0.003, drop=0.2)
    whole = deliver(timing)
    parts = deliver(timing, range(100)) + deliver(timing, range(100, 300))
    assert sorted(parts, key=lambda a: a.index) == sorted(whole, key=lambda a: a.index)


def test_clock_jumps_add_up():
    stamps = [slot_stamp_ns(i, 10.0, 0.0, 0, ((1.0, -5.0), (2.0, 7.0))) for i in range(30)]
    assert stamps[9] == 900_000_000
    assert stamps[10] == 1_000_000_000 - 5 * NANO
    assert stamps[19] < stamps[9]
    assert stamps[20] == 2 * NANO + 2 * NANO


def test_shutter_states_in_order():
    ffc = FfcConfig(period_s=10, first_s=5, freeze_s=1, imminent_s=2)
    expected = {
        0.0: FfcState.NEVER,
        2.9: FfcState.NEVER,
        3.1: FfcState.IMMINENT,
        5.0: FfcState.IN_PROGRESS,
        5.9: FfcState.IN_PROGRESS,
        6.0: FfcState.COMPLETE,
        12.9: FfcState.COMPLETE,
        13.5: FfcState.IMMINENT,
        15.5: FfcState.IN_PROGRESS,
        16.0: FfcState.COMPLETE,
    }
    assert {t: ffc.state(t) for t in expected} == expected
    assert ffc.epoch(4.0) == (0, 4.0)
    assert ffc.epoch(5.5)[0] == 0 and ffc.epoch(6.5) == (1, 0.5) and ffc.epoch(20.0) == (2, 4.0)


@given(st.floats(0, 500), st.floats(1, 60), st.floats(0.1, 0.9), st.floats(0.1, 20))
def test_state_and_epoch_agree(t, period, freeze, first):
    ffc = FfcConfig(period_s=period, first_s=first, freeze_s=freeze)
    event, since = ffc.epoch(t)
    assume(abs(since) > 1e-3)
    assert 0 <= event <= ffc.started(t) <= event + 1
    assert ffc.in_progress(t) == (ffc.started(t) == event + 1)
    assert since > 0


def test_no_shutter():
    ffc = FfcConfig(period_s=0)
    assert {ffc.state(t) for t in range(1000)} == {FfcState.NEVER}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FfcConfig(period_s=0.2, freeze_s=0.5), "period_s"),
        (lambda: FfcConfig(first_s=0), "first_s"),
        (lambda: TimingConfig(drop=1.5), "drop"),
        (lambda: TimingConfig(jitter_s=-1), "jitter_s"),
        (lambda: TimingConfig(gaps=((1.0, -1.0),)), "gaps"),
        (lambda: TimingConfig(stamp_offset_s=float("inf")), "stamp_offset_s"),
    ],
)
def test_config_names_the_bad_setting(make, name):
    with pytest.raises(ValueError, match=name):
        make()
