"""Jump detection and the learned rhythm of a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.pairing.clock import Cadence, Jump, JumpDetector

MS = 1_000_000


def test_frames_overtaking_each_other_are_no_jump() -> None:
    detector = JumpDetector(500 * MS)
    stamps = [0, 33, 99, 66, 132, 100]
    assert [detector.update(s * MS) for s in stamps] == [Jump.NONE] * 6
    assert detector.newest_ns == 132 * MS


def test_jump_backward_starts_a_timeline() -> None:
    detector = JumpDetector(500 * MS)
    kinds = [detector.update(s * MS) for s in (9000, 9033, 0, 33, 66)]
    assert kinds == [Jump.NONE, Jump.NONE, Jump.BACKWARD, Jump.NONE, Jump.NONE]


def test_jump_forward_takes_ten_times_the_threshold() -> None:
    detector = JumpDetector(500 * MS)
    kinds = [detector.update(s * MS) for s in (0, 5000, 10_001)]
    assert kinds == [Jump.NONE, Jump.NONE, Jump.FORWARD]
    assert JumpDetector(500, 600).forward_threshold_ns == 600


def test_a_corrupt_stamp_costs_two_jumps_and_no_more() -> None:
    detector = JumpDetector(500 * MS)
    kinds = [detector.update(s * MS) for s in (100, 10**9, 133, 166)]
    assert kinds == [Jump.NONE, Jump.FORWARD, Jump.BACKWARD, Jump.NONE]


def test_threshold_itself_is_no_jump_and_reset_forgets() -> None:
    detector = JumpDetector(500)
    assert [detector.update(s) for s in (1000, 500, 499)] == [Jump.NONE, Jump.NONE, Jump.BACKWARD]
    detector.reset()
    assert detector.newest_ns is None and detector.update(-(10**12)) is Jump.NONE


@pytest.mark.parametrize("thresholds", [(0, None), (-1, None), (1, 0)])
def test_thresholds_are_validated(thresholds: tuple[int, int | None]) -> None:
    with pytest.raises(ValueError, match="threshold_ns must be positive"):
        JumpDetector(*thresholds)


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=40), st.integers(1, 10**11))
def test_within_a_timeline_stamps_stay_near_the_newest(stamps: list[int], threshold: int) -> None:
    detector = JumpDetector(threshold)
    newest: int | None = None
    for stamp in stamps:
        kind = detector.update(stamp)
        if newest is not None:
            assert (kind is Jump.BACKWARD) == (stamp < newest - threshold)
            assert (kind is Jump.FORWARD) == (stamp > newest + 10 * threshold)
        newest = stamp if newest is None or kind is not Jump.NONE else max(newest, stamp)
        assert detector.newest_ns == newest


def learned(period: int, count: int = 8, delay: int = 15, skip: tuple[int, ...] = ()) -> Cadence:
    cadence = Cadence()
    for k in range(count):
        if k not in skip:
            cadence.observe(k * period * MS, (k * period + delay) * MS)
    return cadence


def test_period_survives_losses() -> None:
    assert learned(33, 12, skip=(3, 7)).period_ns == 33 * MS


def test_too_little_known_means_wait_until_passed() -> None:
    cadence = learned(33, 3)  # stamps 0, 33, 66
    assert cadence.period_ns is None
    assert cadence.may_bring(70 * MS, 40 * MS, 200 * MS)
    assert not cadence.may_bring(60 * MS, 40 * MS, 200 * MS)


def test_nothing_is_due_between_frames_of_a_slow_stream() -> None:
    cadence = learned(111)  # newest 777, next at 888
    far = 10_000 * MS
    assert not cadence.may_bring(800 * MS, 40 * MS, far)
    assert cadence.may_bring(850 * MS, 40 * MS, far)
    assert not cadence.may_bring(888 * MS, -1, far)


def test_a_frame_that_cannot_arrive_in_time_is_not_waited_for() -> None:
    cadence = learned(33, delay=100)  # newest 231, next 264 arrives at 364, 16 earlier in doubt
    assert not cadence.may_bring(264 * MS, 40 * MS, 340 * MS)
    assert cadence.may_bring(264 * MS, 40 * MS, 350 * MS)


def test_a_hole_left_by_overtaking_is_waited_for() -> None:
    cadence = learned(33, 8, skip=(6,))  # 165, then 231: 198 may still come
    assert cadence.may_bring(199 * MS, 30 * MS, 10_000 * MS)
    assert not learned(33, 8).may_bring(199 * MS, 0, 10_000 * MS)


def test_clear_forgets() -> None:
    cadence = learned(33)
    assert cadence.nearest(70 * MS) == 66 * MS
    cadence.clear()
    assert cadence.nearest(70 * MS) is None and cadence.period_ns is None


def test_slowed_down_replay_shows_in_the_arrivals_only() -> None:
    cadence = Cadence()
    for k in range(8):
        cadence.observe(k * 33 * MS, k * 330 * MS)
    assert (cadence.period_ns, cadence.arrival_period_ns) == (33 * MS, 330 * MS)


def test_window_is_validated() -> None:
    with pytest.raises(ValueError, match="window"):
        Cadence(3)
