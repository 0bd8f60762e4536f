"""The latest-only mailbox, with threads."""

from __future__ import annotations

import threading

import pytest

from thermal_enhance.pairing.mailbox import LatestMailbox


def test_a_new_item_replaces_the_old_and_hands_it_back() -> None:
    box: LatestMailbox[int] = LatestMailbox()
    assert box.put(1) is None
    assert box.put(2) == 1
    assert box.get(0) == 2
    assert box.get(0) is None


def test_get_wakes_on_put() -> None:
    box: LatestMailbox[str] = LatestMailbox()
    got: list[str | None] = []
    taker = threading.Thread(target=lambda: got.append(box.get(30)))
    taker.start()
    box.put("frame")
    taker.join(30)
    assert got == ["frame"]


def test_get_times_out_and_leaves_the_box_usable() -> None:
    box: LatestMailbox[int] = LatestMailbox()
    assert box.get(0.01) is None
    box.put(7)
    assert box.get(0.01) == 7


def test_close_wakes_everybody_who_waits() -> None:
    box: LatestMailbox[int] = LatestMailbox()
    got: list[int | None] = []
    takers = [threading.Thread(target=lambda: got.append(box.get())) for _ in range(4)]
    for taker in takers:
        taker.start()
    box.close()
    box.close()
    for taker in takers:
        taker.join(30)
    assert not any(taker.is_alive() for taker in takers)
    assert got == [None] * 4 and box.closed


def test_what_was_left_before_close_is_still_handed_out_and_nothing_after() -> None:
    box: LatestMailbox[int] = LatestMailbox()
    box.put(1)
    box.close()
    assert box.put(2) == 2
    assert box.get() == 1
    assert box.get() is None


def test_none_is_refused() -> None:
    with pytest.raises(ValueError, match="None"):
        LatestMailbox[object]().put(None)


def test_every_item_is_got_or_handed_back_exactly_once() -> None:
    box: LatestMailbox[tuple[int, int]] = LatestMailbox()
    senders, each = 4, 500
    replaced: list[list[tuple[int, int]]] = [[] for _ in range(senders)]
    got: list[tuple[int, int]] = []

    def send(me: int) -> None:
        for k in range(each):
            lost = box.put((me, k))
            if lost is not None:
                replaced[me].append(lost)

    def take() -> None:
        while (item := box.get()) is not None:
            got.append(item)

    taker = threading.Thread(target=take)
    threads = [threading.Thread(target=send, args=(k,)) for k in range(senders)]
    for thread in [taker, *threads]:
        thread.start()
    for thread in threads:
        thread.join(60)
    box.close()
    taker.join(60)
    assert not taker.is_alive()
    everything = got + [item for lost in replaced for item in lost]
    assert sorted(everything) == [(me, k) for me in range(senders) for k in range(each)]
    for me in range(senders):  # no sender's items overtake one another
        mine = [k for who, k in got if who == me]
        assert mine == sorted(mine)
