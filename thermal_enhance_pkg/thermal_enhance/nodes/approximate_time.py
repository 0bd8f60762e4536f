"""message_filters' ApproximateTimeSynchronizer behind the face of our own pairing, for comparison.

It never lets a thermal frame go alone and is silent about what it drops; the drops are counted here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.synchronizer import FramePair
from thermal_enhance.nodes.topics import ImageItem

QUEUE_SIZE = 10


@dataclass
class _Envelope:
    """What message_filters needs of a message: a header with a stamp."""

    header: Header
    image: ImageItem
    arrival_ns: int = field(default=0)


def _envelope(image: ImageItem, arrival_ns: int, offset_ns: int = 0) -> _Envelope:
    seconds, nanoseconds = divmod(image.stamp_ns + offset_ns, 1_000_000_000)
    return _Envelope(Header(stamp=Time(sec=seconds, nanosec=nanoseconds)), image, arrival_ns)


class ApproximateTimeAdapter:
    """Drives the real ApproximateTimeSynchronizer.

    Raises:
        ValueError: message_filters is not installed.
    """

    def __init__(self, config: EnhancementConfig) -> None:
        try:
            import message_filters
        except ImportError:
            raise ValueError(
                "synchronizer is 'approximate_time' and message_filters is not installed: "
                "install your distribution's message_filters, or use 'builtin'"
            ) from None
        self._filters: Any = message_filters
        self._ready: list[FramePair] = []
        self._pending: OrderedDict[int, _Envelope] = OrderedDict()
        self._drops: dict[str, int] = {}
        self.configure(config, True)

    @property
    def waiting(self) -> int:
        """Thermal frames that wait, or are paired and not fetched yet."""
        return len(self._pending) + len(self._ready)

    @property
    def rgb_drops(self) -> dict[str, int]:
        """Not known: message_filters does not say."""
        return {}

    @property
    def nearest_miss_ms(self) -> float | None:
        """Not known: message_filters does not say."""
        return None

    def configure(self, config: EnhancementConfig, uses_rgb: bool) -> None:
        """Take over changed parameters; what waits is dropped."""
        self._drop(len(self._pending))
        self._pending.clear()
        self._offset_ns = round(config.rgb_offset * 1e9)
        self._thermal = self._filters.SimpleFilter()
        self._color = self._filters.SimpleFilter()
        self._synchronizer = self._filters.ApproximateTimeSynchronizer(
            [self._thermal, self._color], QUEUE_SIZE, config.slop
        )
        self._synchronizer.registerCallback(self._matched)

    def add_thermal(self, image: ImageItem, arrival_ns: int) -> None:
        """Take a thermal frame."""
        if image.stamp_ns in self._pending:
            self._drops["duplicate_stamp"] = self._drops.get("duplicate_stamp", 0) + 1
            return
        self._pending[image.stamp_ns] = _envelope(image, arrival_ns)
        while len(self._pending) > QUEUE_SIZE:
            self._pending.popitem(last=False)
            self._drop(1)
        self._thermal.signalMessage(_envelope(image, arrival_ns))

    def add_color(self, image: ImageItem, arrival_ns: int) -> None:
        """Take an RGB frame."""
        self._color.signalMessage(_envelope(image, arrival_ns, self._offset_ns))

    def poll(self, now_ns: int) -> list[FramePair]:
        """Pairs made since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def next_deadline_ns(self) -> int | None:
        """Never: it waits for a partner for as long as its queue lasts."""
        return None

    def take_drops(self) -> dict[str, int]:
        """Thermal frames that found no partner since the last call."""
        drops, self._drops = self._drops, {}
        return drops

    def reset(self, reason: str) -> int:
        """Forget everything; returns how many thermal frames were waiting."""
        waiting = self.waiting
        self._pending.clear()
        self._ready.clear()
        for queue in self._synchronizer.queues:
            queue.clear()
        return waiting

    def _drop(self, count: int) -> None:
        if count:
            self._drops["unpaired"] = self._drops.get("unpaired", 0) + count

    def _matched(self, thermal: _Envelope, color: _Envelope) -> None:
        stamp = thermal.image.stamp_ns
        if stamp not in self._pending:
            return
        # Frames older than this pair can still match, but would leave out of order: they are dropped.
        while self._pending:
            oldest = next(iter(self._pending))
            if oldest > stamp:
                break
            self._pending.popitem(last=False)
            if oldest < stamp:
                self._drop(1)
        self._ready.append(
            FramePair(
                thermal.image,
                color.image,
                color.image.stamp_ns + self._offset_ns - stamp,
                thermal.arrival_ns,
                time.monotonic_ns(),
            )
        )
