from __future__ import annotations

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
