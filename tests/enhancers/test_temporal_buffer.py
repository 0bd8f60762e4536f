"""The ring alone: what goes on, what starts over, and what is computed once."""

import dataclasses

import numpy as np
import pytest

from thermal_enhance.enhancers.observation import Observation
from thermal_enhance.enhancers.temporal_buffer import FrameRing, RingConfig
from thermal_enhance.imaging.frames import ThermalFrame, Units

MS = 1_000_000


def frame(ms, value=None, *, size=(8, 6), dtype=np.uint16, units=Units.COUNTS, frame_id="cam"):
    data = np.random.default_rng(abs(round(ms if value is None else value))).integers(0, 200, size[::-1])
    return ThermalFrame(data.astype(dtype), units, round(ms * MS), frame_id)


def seen(frame, low=0.0, high=255.0):
    clean = frame.data.astype(np.float32)
    return Observation(clean, None, clean, low, high, 0.0, 0.0, 0.5, frame.data.dtype)


class Rig:
    """A ring whose encoder and motion are simple functions of the levels, and count their calls."""

    def __init__(self, **config):
        self.pairs = 0
        self.fail = False
        self.ring = FrameRing(RingConfig(**config), lambda o: o.levels(), self.encode, self.estimate)

    def encode(self, levels):
        if self.fail:
            raise RuntimeError("no")
        return np.stack([levels, levels * 2])

    def estimate(self, a, b):
        self.pairs += 1
        return float((b - a).mean())

    def feed(self, given, low=0.0, high=255.0):
        reason = self.ring.admit(given)
        if not reason:
            self.ring.push(given, seen(given, low, high))
        return reason

    @property
    def stamps(self):
        return [f.stamp_ns / MS for f in self.ring.frames]


def test_each_frame_is_encoded_once_and_each_pair_seen_once():
    rig = Rig(capacity=4)
    for i in range(20):
        assert rig.feed(frame(i * 33)) == ""
        assert len(rig.ring) == min(i + 1, 4)
    assert rig.ring.encoded == 20 and rig.pairs == 19 and rig.ring.reencodes == 0
    assert rig.stamps == [16 * 33, 17 * 33, 18 * 33, 19 * 33]
    assert [f.motion is None for f in rig.ring.frames] == [True, False, False, False]
    assert rig.ring.period_ns == 33 * MS and not rig.ring.resets


def test_what_does_not_go_on_is_refused_by_its_name():
    rig = Rig(capacity=3)
    for ms in (100, 133, 166):
        rig.feed(frame(ms))
    assert rig.feed(frame(166, 1)) == "duplicate"
    assert rig.feed(frame(150)) == "out_of_order"
    assert rig.feed(frame(199)) == ""
    assert rig.feed(frame(90)) == "stale"
    assert rig.stamps == [133, 166, 199] and rig.ring.encoded == 4
    assert rig.ring.refused == {"duplicate": 1, "out_of_order": 1, "stale": 1}


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (frame(133, size=(9, 6)), "format"),
        (frame(133, dtype=np.uint8), "format"),
        (frame(133, dtype=np.float32), "format"),
        (frame(133, units=Units.CENTIKELVIN), "format"),
        (frame(133, frame_id="other"), "format"),
        (frame(100 + 60), "gap"),
        (frame(100 + 4000), "gap"),
        (frame(100 - 600), "clock_jump"),
    ],
)
def test_another_beginning_starts_over(then, reason):
    rig = Rig(capacity=3)
    for ms in (1, 34, 67, 100):
        rig.feed(frame(ms))
    assert rig.feed(then) == ""
    assert rig.stamps == [then.stamp_ns / MS] and rig.ring.frames[0].motion is None
    assert rig.ring.resets == {reason: 1}
    assert rig.feed(dataclasses.replace(then, data=then.data + 1, stamp_ns=then.stamp_ns + 33 * MS)) == ""
    assert len(rig.ring) == 2


def test_jitter_is_no_gap():
    rig = Rig()
    ms = 0.0
    for i in range(40):
        ms += 33 * (1.4 if i % 5 == 4 else 0.9)
        assert rig.feed(frame(ms, i)) == ""
    assert not rig.ring.resets


def test_a_new_rate_is_a_gap_only_until_it_is_known():
    rig = Rig()
    for i in range(20):
        rig.feed(frame(i * 33))
    for i in range(20):
        rig.feed(frame(627 + 111 * (i + 1)))
    assert rig.ring.resets["gap"] <= 5 and len(rig.ring) == 3
    before = rig.ring.resets.copy()
    rig.feed(frame(627 + 111 * 20 + 5000))
    for i in range(3):
        rig.feed(frame(627 + 111 * 20 + 5000 + 111 * (i + 1)))
    assert rig.ring.resets - before == {"gap": 1} and len(rig.ring) == 3


def test_a_clock_that_went_back_a_little_does_not_stop_the_stream():
    rig = Rig()
    for ms in (200, 233, 266):
        rig.feed(frame(ms))
    said = [rig.feed(frame(ms)) for ms in (100, 133, 166, 199)]
    assert said == ["stale", "stale", "", ""] and rig.stamps == [166, 199]
    assert rig.ring.resets == {"clock_jump": 1}


def test_repeats_are_no_frames_and_a_freeze_leaves_nothing_to_go_on_from():
    rig = Rig()
    for i in range(12):  # a 9 Hz camera that sends each frame three times
        assert rig.feed(frame(i * 37, i // 3)) == ("" if i % 3 == 0 else "repeat")
    assert rig.stamps == [3 * 37, 6 * 37, 9 * 37] and not rig.ring.resets
    for i in range(12, 20):
        assert rig.feed(frame(i * 37, 3)) == "repeat"
    assert len(rig.ring) == 0 and rig.ring.resets == {"freeze": 1}
    assert rig.feed(frame(20 * 37, 9)) == "" and len(rig.ring) == 1
    keeping = Rig(keep_repeats=True)
    assert [keeping.feed(frame(i * 37, 0)) for i in range(4)] == [""] * 4


def test_a_nan_that_stays_is_a_repeat_too():
    rig = Rig()
    data = np.full((6, 8), np.nan, np.float32)
    assert rig.feed(ThermalFrame(data, stamp_ns=1)) == ""
    assert rig.ring.admit(ThermalFrame(data.copy(), stamp_ns=2)) == "repeat"


def test_a_reset_from_outside_is_counted_and_forgets():
    rig = Rig()
    rig.ring.reset("ffc")
    assert not rig.ring.resets, "there was nothing to forget"
    for ms in (0, 33, 66):
        rig.feed(frame(ms))
    rig.ring.reset("ffc")
    assert len(rig.ring) == 0 and rig.ring.resets == {"ffc": 1} and rig.ring.range is None
    assert rig.feed(frame(40)) == "", "whatever its stamp"
    assert rig.ring.counters() == {"ring_length": 1, "reencodes": 0, "resets_ffc": 1}


def test_the_range_is_frozen_until_the_stream_has_moved_away():
    rig = Rig(range_tolerance=0.1)
    rig.feed(frame(0), 0, 100)
    rig.feed(frame(33), 8, 95)
    assert rig.ring.range == (0, 100) and rig.ring.reencodes == 0
    assert all((f.seen.low, f.seen.high) == (0, 100) for f in rig.ring.frames)
    rig.ring.frames[1].enhanced = np.ones(3)
    rig.feed(frame(66), 0, 111)
    assert rig.ring.range == (0, 111) and rig.ring.reencodes == 1 and rig.ring.encoded == 5
    assert rig.ring.frames[1].enhanced is not None, "what has been shown stays what it was"
    rig.feed(frame(99), 5, 105)
    assert rig.ring.range == (0, 111) and rig.ring.reencodes == 1
    rig.ring.reset("ffc")
    rig.feed(frame(132), 5, 105)
    assert rig.ring.range == (5, 105) and rig.ring.reencodes == 1


def test_what_is_kept_is_what_would_be_computed_anew():
    rng = np.random.default_rng(0)
    rig, ms, low, high = Rig(capacity=4), 0.0, 0.0, 255.0
    for i in range(300):
        ms += rng.choice([33, 33, 33, 35, 200, -10])
        low, high = low + rng.normal(0, 6), high + rng.normal(0, 6)
        if rng.random() < 0.03:
            rig.ring.reset("ffc")
        rig.feed(frame(ms, i), low, high)
        kept = [(f.features, f.motion) for f in rig.ring.frames]
        if not kept:
            continue
        assert all(np.array_equal(f.levels, f.seen.levels()) for f in rig.ring.frames)
        assert len({(f.seen.low, f.seen.high) for f in rig.ring.frames} | {rig.ring.range}) == 1
        anew = Rig(capacity=4)
        for f in rig.ring.frames:
            anew.ring.push(f.thermal, f.seen)
        for (features, motion), other in zip(kept, anew.ring.frames, strict=True):
            assert np.array_equal(features, other.features) and motion == other.motion
    assert rig.ring.reencodes > 3 and rig.ring.resets["gap"] > 3


def test_memory_is_bounded_and_the_drivers_is_not_kept():
    rig = Rig(capacity=3)
    given = frame(0)
    rig.feed(given)
    given.data[:] = 0
    assert rig.ring.frames[0].thermal.data.any()
    for i in range(1, 500):
        rig.feed(frame(i * 33))
    assert len(rig.ring) == 3 and len(rig.ring._steps) < 20


def test_an_encoder_that_fails_leaves_the_ring_as_it_was():
    rig = Rig()
    for ms in (0, 33):
        rig.feed(frame(ms), 0, 100)
    rig.fail = True
    with pytest.raises(RuntimeError):
        rig.feed(frame(66), 0, 300)
    assert rig.stamps == [0, 33] and rig.ring.range == (0, 100) and rig.ring.reencodes == 0
    rig.fail = False
    assert rig.feed(frame(66), 0, 100) == "" and len(rig.ring) == 3


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"capacity": 1}, "capacity"),
        ({"gap_factor": 1.0}, "gap_factor"),
        ({"longest_step_s": 0.0}, "longest_step_s"),
        ({"jump_s": float("nan")}, "jump_s"),
        ({"range_tolerance": 1.0}, "range_tolerance"),
        ({"patience": 0}, "patience"),
    ],
)
def test_bad_parameters_are_named(wrong, word):
    with pytest.raises(ValueError, match=word):
        RingConfig(**wrong)
