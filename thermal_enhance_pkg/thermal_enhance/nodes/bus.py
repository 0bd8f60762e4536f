"""Messages between nodes of one process, by reference: nothing is serialized, nothing is copied."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

Receiver = Callable[[Any], None]


class LocalBus:
    """Topics of one process.

    A node that finds its input advertised here takes it from here and opens no DDS subscription for it.
    Names are fully resolved topic names, so that namespaces and remappings hold. Receivers are called
    on the publisher's thread and, like every callback of this suite, only enqueue.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._publishers: dict[str, int] = defaultdict(int)
        self._receivers: dict[str, tuple[Receiver, ...]] = {}

    def advertise(self, topic: str) -> None:
        """Announce a publisher of `topic` in this process."""
        with self._lock:
            self._publishers[topic] += 1

    def withdraw(self, topic: str) -> None:
        """Take an announcement back."""
        with self._lock:
            self._publishers[topic] = max(0, self._publishers[topic] - 1)

    def has_publisher(self, topic: str) -> bool:
        """Is `topic` published inside this process?"""
        with self._lock:
            return self._publishers[topic] > 0

    def subscribe(self, topic: str, receiver: Receiver) -> Callable[[], None]:
        """Receive what is published on `topic`; the returned function ends it."""
        with self._lock:
            self._receivers[topic] = (*self._receivers.get(topic, ()), receiver)

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
        receivers = self._receivers.get(topic, ())
        for receiver in receivers:
            receiver(item)
        return len(receivers)
