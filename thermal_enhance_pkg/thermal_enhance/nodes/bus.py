"""Messages between nodes of one process, by reference: nothing is serialized, nothing is copied."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

Receiver = Callable[[Any], None]


class _Latch:
    """The last item of a latched topic; its lock keeps "the last one" and "the next one" in order."""

    def __init__(self) -> None:
        # Reentrant: a receiver may publish on, or subscribe to, the topic that it is called for.
        self.lock = threading.RLock()
        self.items: tuple[Any, ...] = ()


class LocalBus:
    """Topics of one process.

    A node that finds its input advertised here takes it from here and opens no DDS subscription for it.
    Names are fully resolved topic names, so that namespaces and remappings hold.

    Receivers are called on the publisher's thread (the last item of a latched topic: on the subscriber's)
    and must return quickly. Those of the enhancement node only enqueue. Those of the task router hand the
    frame on to its task there and then, so that the publisher's thread, the enhancement worker, also pays
    for what the router publishes. Items are shared: nobody may change one after publishing it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._publishers: dict[str, int] = defaultdict(int)
        self._receivers: dict[str, tuple[Receiver, ...]] = {}
        self._latches: dict[str, _Latch] = {}

    def advertise(self, topic: str, latched: bool = False) -> None:
        """Announce a publisher of `topic` in this process.

        Args:
            topic: fully resolved name.
            latched: keep the last item for receivers that come later, as DDS does for transient local
                durability. It is kept until the last publisher of the topic withdraws.
        """
        with self._lock:
            self._publishers[topic] += 1
            if latched and topic not in self._latches:
                self._latches[topic] = _Latch()

    def withdraw(self, topic: str) -> None:
        """Take an announcement back; with the last one goes what the topic has latched."""
        with self._lock:
            self._publishers[topic] = max(0, self._publishers[topic] - 1)
            if self._publishers[topic] == 0:
                self._latches.pop(topic, None)

    def has_publisher(self, topic: str) -> bool:
        """Is `topic` published inside this process?"""
        with self._lock:
            return self._publishers[topic] > 0

    def subscribe(self, topic: str, receiver: Receiver) -> Callable[[], None]:
        """Receive what is published on `topic`, first the item that it has latched, if any.

        Returns:
            A function that ends it.
        """
        latch = self._latches.get(topic)
        if latch is None:
            self._add(topic, receiver)
        else:
            # Whoever publishes meanwhile waits, or the older item would come after the newer one.
            with latch.lock:
                self._add(topic, receiver)
                for item in latch.items:
                    receiver(item)

        def unsubscribe() -> None:
            with self._lock:
                kept = list(self._receivers.get(topic, ()))
                if receiver in kept:
                    kept.remove(receiver)
                self._receivers[topic] = tuple(kept)

        return unsubscribe

    def receiver_count(self, topic: str) -> int:
        """How many receivers in this process listen to `topic`."""
        return len(self._receivers.get(topic, ()))

    def publish(self, topic: str, item: Any) -> int:
        """Hand `item` to every receiver; returns how many there were."""
        latch = self._latches.get(topic)
        if latch is None:
            return self._deliver(topic, item)
        with latch.lock:
            latch.items = (item,)
            return self._deliver(topic, item)

    def _add(self, topic: str, receiver: Receiver) -> None:
        with self._lock:
            self._receivers[topic] = (*self._receivers.get(topic, ()), receiver)

    def _deliver(self, topic: str, item: Any) -> int:
        receivers = self._receivers.get(topic, ())
        for receiver in receivers:
            receiver(item)
        return len(receivers)
