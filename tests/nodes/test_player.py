from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.nodes.bag_reader import BagMessage
from thermal_enhance.nodes.player import Player

START = 1_700_000_000_000_000_000


class Recording:
    """Messages at the given milliseconds on topic /a (even) and /b (odd)."""

    def __init__(self, moments_ms: Sequence[int]) -> None:
        self.all = [
            BagMessage(START + ms * 1_000_000, "/" + "ab"[n % 2], "t", bytes([n % 256]))
            for n, ms in enumerate(moments_ms)
        ]
        self.start_ns = self.all[0].timestamp_ns if self.all else 0
        self.end_ns = self.all[-1].timestamp_ns if self.all else 0

    def messages(
        self, topics: Sequence[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        for message in self.all:
            inside = (start_ns or 0) <= message.timestamp_ns and (
                stop_ns is None or message.timestamp_ns < stop_ns
            )
            if inside and (topics is None or message.topic in topics):
                yield message


class FakeTime:
    """A clock that moves only when somebody sleeps; `at` runs things at given seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.events: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        wake = self.now + seconds
        due = sorted((e for e in self.events if e[0] <= wake), key=lambda e: e[0])
        if due:
            self.events.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        else:
            self.now = wake

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        self.events.append((100.0 + seconds, action))


def played(player: Player, time: FakeTime, limit: int = 1000) -> list[tuple[float, int]]:
    """(seconds since the beginning, message) as handed out."""
    out = []
    for message in player:
        out.append((round(time.now - 100.0, 6), message.data[0]))
        if len(out) == limit:
            player.stop()
    return out


def make(moments: Sequence[int], **options: object) -> tuple[Player, FakeTime]:
    time = FakeTime()
    return Player(Recording(moments), clock=time, sleep=time.sleep, **options), time  # type: ignore[arg-type]


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=30).map(sorted),
    st.sampled_from([0.01, 0.5, 1.0, 4.0, 100.0]),
)
def test_every_message_at_its_moment(moments: list[int], rate: float) -> None:
    player, time = make(moments, rate=rate)
    got = played(player, time)
    assert [n for _, n in got] == list(range(len(moments)))
    for (at, _), ms in zip(got, moments):
        assert at == pytest.approx((ms - moments[0]) / 1000 / rate, abs=1e-5)
    assert player.counts.messages == len(moments)
    assert player.counts.late == 0


def test_start_offset_duration_and_topics() -> None:
    player, time = make([0, 100, 200, 300, 400], start_offset=0.1, duration=0.25)
    assert played(player, time) == [(0.0, 1), (0.1, 2), (0.2, 3)]
    player, time = make([0, 100, 200], topics=["/b"])
    assert played(player, time) == [(0.1, 1)]


def test_pause_holds_time_and_resume_goes_on() -> None:
    player, time = make([0, 100, 200])
    time.at(0.15, player.pause)
    frozen = []
    time.at(0.5, lambda: frozen.append(player.now_ns()))
    time.at(1.15, player.resume)
    assert played(player, time) == [(0.0, 0), (0.1, 1), (pytest.approx(1.2), 2)]
    assert frozen == [START + 150_000_000]
    assert player.counts.late == 0


def test_paused_before_it_begins() -> None:
    player, time = make([0, 100])
    player.pause()
    time.at(2.0, player.resume)
    assert played(player, time) == [(2.0, 0), (pytest.approx(2.1), 1)]


def test_rate_changes_on_the_way() -> None:
    player, time = make([0, 1000, 2000])
    time.at(1.0, lambda: None)
    time.at(1.5, lambda: player.set_rate(5.0))
    assert played(player, time) == [(0.0, 0), (1.0, 1), (pytest.approx(1.6), 2)]


def test_loop_begins_again_with_the_old_stamps() -> None:
    player, time = make([0, 100], loop=True)
    assert played(player, time, limit=5) == [(0.0, 0), (0.1, 1), (0.1, 0), (0.2, 1), (0.2, 0)]
    assert player.counts.loops == 3


def test_a_slow_consumer_loses_nothing_and_lateness_is_counted() -> None:
    player, time = make([0, 100, 200, 300])
    got = []
    for message in player:
        got.append(message.data[0])
        time.now += 0.25
    assert got == [0, 1, 2, 3]
    assert player.counts.late == 3
    assert player.counts.worst_lateness == pytest.approx(0.45)


def test_clock_follows_the_recording_and_stays_in_it() -> None:
    player, time = make([0, 1000])
    assert player.now_ns() == START
    seen: list[int] = []
    for seconds in (0.2, 0.4, 0.9):
        time.at(seconds, lambda: seen.append(player.now_ns()))
    played(player, time)
    assert seen == [START + 200_000_000, START + 400_000_000, START + 900_000_000]
    time.now += 50
    assert player.now_ns() <= START + 1_000_000_001


def test_stop_ends_a_wait_in_another_thread() -> None:
    player = Player(Recording([0, 3_600_000]))
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(m.data[0] for m in player))
    thread.start()
    while not got and thread.is_alive() and player.counts.messages < 1:
        thread.join(0.01)
    player.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert got == [0]


def test_a_loop_over_nothing_ends() -> None:
    player, time = make([0, 100], loop=True, topics=["/nothing"])
    assert played(player, time) == []


@pytest.mark.parametrize(
    "options",
    [{"rate": 0.0}, {"rate": 101.0}, {"start_offset": -1.0}, {"start_offset": 0.2}, {"duration": -1.0}],
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        make([0, 100], **options)
