"""Say a thing once a while, however often it happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class ThrottledLog:
    """Passes each distinct message at most once every `period_s`, and says how often it was held back.

    Args:
        write: called with (level, sentence).
        period_s: shortest time between two equal messages, seconds.
    """

    def __init__(self, write: Callable[[str, str], None], period_s: float = 5.0) -> None:
        self._write = write
        self._period_s = period_s
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, level: str, text: str, key: str | None = None) -> None:
        """Log `text` at `level`; messages with the same `key` (default: the text) share one throttle."""
        now = time.monotonic()
        name = key or text
        with self._lock:
            last, held = self._last.get(name, (-1e9, 0))
            if now - last < self._period_s:
                self._last[name] = (last, held + 1)
                return
            if len(self._last) > 256:
                # Messages with changing numbers in them must not grow this without bound.
                self._last.clear()
            self._last[name] = (now, 0)
        self._write(level, f"{text} ({held} more like this)" if held else text)


def node_logger(node: object) -> Callable[[str, str], None]:
    """A `write` for ThrottledLog that goes to a node's logger."""

    def write(level: str, text: str) -> None:
        logger = node.get_logger()  # type: ignore[attr-defined]
        # One call site a level: rclpy refuses a call site that changes its severity.
        if level == "error":
            logger.error(text)
        elif level == "warn":
            logger.warning(text)
        elif level == "info":
            logger.info(text)
        else:
            logger.debug(text)

    return write
