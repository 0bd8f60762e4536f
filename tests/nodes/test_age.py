from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.nodes.age import AgeGauge

S = 1_000_000_000


def test_age_is_now_minus_stamp_on_the_same_clock() -> None:
    gauge = AgeGauge()
    assert gauge.update(10 * S, 10 * S + S // 10, 0.05) == pytest.approx(0.1)
    assert not gauge.clocks_differ


@given(offset_s=st.integers(-10_000, 10_000).filter(lambda s: not -1 < s < 1), delay_ms=st.integers(1, 40))
def test_a_constant_clock_difference_does_not_make_frames_old(offset_s: int, delay_ms: int) -> None:
    gauge = AgeGauge()
    for i in range(30):
        stamp = i * S // 30
        now = stamp + offset_s * S + delay_ms * 1_000_000
        age = gauge.update(stamp, now, 0.001)
    assert age <= 0.05
    assert gauge.clocks_differ


def test_a_frame_that_waited_here_is_old_even_with_another_clock() -> None:
    gauge = AgeGauge()
    for i in range(10):
        gauge.update(i * S // 10, i * S // 10 + 1000 * S, 0.0)
    assert gauge.update(S, S + 1002 * S, 2.0) == pytest.approx(2.0)


def test_a_jump_of_the_clock_starts_anew() -> None:
    gauge = AgeGauge()
    gauge.update(100 * S, 100 * S, 0.0)
    assert gauge.update(0, 500 * S, 0.0) == pytest.approx(0.0)


def test_a_clock_that_is_set_costs_a_few_frames_only() -> None:
    gauge = AgeGauge()
    ages = []
    for i in range(60):
        step = 20 * S if i >= 30 else 0
        ages.append(gauge.update(i * S // 30, i * S // 30 + step + S // 50, 0.001))
    assert sum(age > 0.5 for age in ages) <= 5
    assert ages[-1] < 0.1


def test_a_single_late_frame_is_late() -> None:
    gauge = AgeGauge()
    for i in range(10):
        gauge.update(i * S // 30, i * S // 30 + S // 50, 0.0)
    assert gauge.update(S, 2 * S, 0.0) == pytest.approx(1.0)
    assert gauge.update(2 * S, 2 * S + S // 50, 0.0) == pytest.approx(0.02)
