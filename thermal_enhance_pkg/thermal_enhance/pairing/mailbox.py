"""A mailbox that holds only the latest thing: how a slow worker keeps up with a fast stream."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestMailbox(Generic[T]):
    """One slot between any number of senders and takers; a new item replaces one not yet taken.

    `put` never blocks, so it may be called from a ROS callback; what it replaced is handed back to be
    counted as superseded. Nothing of the caller's runs under the lock. Items must not be None.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Has `close` been called?"""
        with self._changed:
            return self._closed

    def put(self, item: T) -> T | None:
        """Leave an item.

        Args:
            item: what to leave; not None.

        Returns:
            The item that nobody had taken yet and that is now lost, or None. On a closed mailbox that is
            `item` itself: every item put is either got or handed back here.

        Raises:
            ValueError: item is None.
        """
        if item is None:
            raise ValueError("None cannot be put: get() returns it for 'nothing came'")
        with self._changed:
            if self._closed:
                return item
            replaced, self._item = self._item, item
            self._changed.notify()
            return replaced

    def get(self, timeout: float | None = None) -> T | None:
        """Take the item, waiting for one.

        Args:
            timeout: longest wait in seconds; None to wait until an item or `close` comes, 0 to only look.

        Returns:
            The item, or None when none came in time or the mailbox is closed. An item left before `close`
            is still handed out.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """Wake everybody who waits and refuse further items; may be called more than once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
