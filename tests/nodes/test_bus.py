from __future__ import annotations

import threading

from thermal_enhance.nodes.bus import LocalBus


def test_items_are_handed_over_by_reference_to_every_receiver() -> None:
    bus = LocalBus()
    first: list[object] = []
    second: list[object] = []
    bus.subscribe("/a", first.append)
    bus.subscribe("/a", second.append)
    bus.subscribe("/b", second.append)
    item = object()
    assert bus.publish("/a", item) == 2
    assert first == [item]
    assert first[0] is item
    assert second == [item]


def test_unsubscribing_ends_it_and_is_idempotent() -> None:
    bus = LocalBus()
    got: list[int] = []
    end = bus.subscribe("/a", got.append)
    end()
    end()
    assert bus.publish("/a", 1) == 0
    assert got == []
    assert bus.receiver_count("/a") == 0


def test_publishers_are_counted() -> None:
    bus = LocalBus()
    assert not bus.has_publisher("/a")
    bus.advertise("/a")
    bus.advertise("/a")
    bus.withdraw("/a")
    assert bus.has_publisher("/a")
    bus.withdraw("/a")
    bus.withdraw("/a")
    assert not bus.has_publisher("/a")


def test_a_late_receiver_gets_the_last_latched_item_once() -> None:
    bus = LocalBus()
    bus.advertise("/a", latched=True)
    got: list[int] = []
    bus.subscribe("/a", got.append)
    assert got == [], "nothing has been published yet"
    bus.publish("/a", 1)
    bus.publish("/a", 2)
    late: list[int] = []
    bus.subscribe("/a", late.append)
    assert late == [2]
    bus.publish("/a", 3)
    assert got == [1, 2, 3]
    assert late == [2, 3]


def test_nothing_is_kept_without_latching() -> None:
    bus = LocalBus()
    bus.advertise("/a")
    bus.advertise("/b", latched=True)
    bus.publish("/a", 1)
    got: list[int] = []
    bus.subscribe("/a", got.append)
    assert got == []


def test_what_is_latched_goes_with_the_last_publisher() -> None:
    bus = LocalBus()
    bus.advertise("/a", latched=True)
    bus.advertise("/a", latched=True)
    bus.publish("/a", None)
    bus.withdraw("/a")
    first: list[object] = []
    bus.subscribe("/a", first.append)
    assert first == [None], "one publisher is still there, and None is an item like any other"
    bus.withdraw("/a")
    bus.advertise("/a", latched=True)
    second: list[object] = []
    bus.subscribe("/a", second.append)
    assert second == []


def test_a_receiver_of_a_latched_topic_may_use_the_bus() -> None:
    bus = LocalBus()
    bus.advertise("/a", latched=True)
    bus.publish("/a", 1)
    got: list[int] = []

    def answer(item: int) -> None:
        got.append(item)
        if item == 1:
            bus.publish("/a", 2)

    bus.subscribe("/a", answer)
    assert got == [1, 2]


def test_a_newer_item_waits_for_the_latched_one_to_be_delivered() -> None:
    bus = LocalBus()
    bus.advertise("/a", latched=True)
    bus.publish("/a", 1)
    got: list[int] = []
    publishers: list[threading.Thread] = []

    def receive(item: int) -> None:
        if item == 1:
            thread = threading.Thread(target=bus.publish, args=("/a", 2))
            thread.start()
            publishers.append(thread)
            thread.join(0.05)
        got.append(item)

    bus.subscribe("/a", receive)
    publishers[0].join()
    assert got == [1, 2]
