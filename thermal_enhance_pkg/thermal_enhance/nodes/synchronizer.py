"""Pairing of image messages: our pair buffer, or message_filters' synchronizer where chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.topics import ImageItem
from thermal_enhance.pairing.buffer import PairBuffer, PairConfig, Stamped

THERMAL_CAPACITY = 32
"""Frames that may wait for RGB. What bounds the wait is its time; this only has to hold the bursts that a
resent fragment releases, and a memory limit."""
JUMP_NS = 500_000_000
"""A stamp this far behind the newest is a new timeline (a looped bag, a reset clock)."""


@dataclass(frozen=True)
class FramePair:
    """A thermal frame that is ready, with its RGB frame or alone.

    Attributes:
        thermal: the thermal message.
        color: the RGB message, or None.
        skew_ns: RGB stamp minus thermal stamp after the offset; None without RGB.
        arrival_ns: when the thermal message arrived, monotonic.
        ready_ns: when it was decided, monotonic.
    """

    thermal: ImageItem
    color: ImageItem | None
    skew_ns: int | None
    arrival_ns: int
    ready_ns: int


class Synchronizer(Protocol):
    """What the pipeline needs of a pairing; not thread-safe, the pipeline holds its lock."""

    @property
    def waiting(self) -> int:
        """Thermal frames that wait."""

    @property
    def nearest_miss_ms(self) -> float | None:
        """Distance of the nearest RGB stamp for the last unpaired thermal frame, milliseconds."""

    @property
    def rgb_drops(self) -> dict[str, int]:
        """RGB frames that served no thermal frame, by reason, since the start."""

    def add_thermal(self, image: ImageItem, arrival_ns: int) -> None:
        """Take a thermal frame."""

    def add_color(self, image: ImageItem, arrival_ns: int) -> None:
        """Take an RGB frame."""

    def poll(self, now_ns: int) -> list[FramePair]:
        """Thermal frames that are decided, in stamp order."""

    def next_deadline_ns(self) -> int | None:
        """When `poll` will have something even if nothing arrives, monotonic."""

    def take_drops(self) -> dict[str, int]:
        """Thermal frames dropped since the last call, by reason."""

    def reset(self, reason: str) -> int:
        """Forget everything; returns how many thermal frames were waiting."""

    def configure(self, config: EnhancementConfig, uses_rgb: bool) -> None:
        """Take over changed parameters."""


def wants_rgb(config: EnhancementConfig, uses_rgb: bool) -> bool:
    """Is RGB worth subscribing to and waiting for?"""
    return config.pair_always or (config.use_rgb and uses_rgb)


def pair_config(config: EnhancementConfig, uses_rgb: bool) -> PairConfig:
    """The pair buffer's settings for the node's parameters."""
    slop_ns = round(config.slop * 1e9)
    return PairConfig(
        slop_ns=slop_ns,
        thermal_capacity=THERMAL_CAPACITY,
        jump_ns=max(JUMP_NS, 3 * slop_ns),
        offset_ns=round(config.rgb_offset * 1e9),
        max_wait_ns=None if config.max_wait < 0 else round(config.max_wait * 1e9),
        wait_for_color=wants_rgb(config, uses_rgb),
    )


class BufferSynchronizer:
    """The built-in pair buffer."""

    def __init__(self, config: EnhancementConfig, uses_rgb: bool) -> None:
        self._buffer: PairBuffer = PairBuffer(pair_config(config, uses_rgb))
        self._seen: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Thermal frames that wait."""
        return self._buffer.waiting

    @property
    def nearest_miss_ms(self) -> float | None:
        """Distance of the nearest RGB stamp for the last unpaired thermal frame, milliseconds."""
        miss = self._buffer.nearest_miss_ns
        return None if miss is None else miss * 1e-6

    @property
    def rgb_drops(self) -> dict[str, int]:
        """RGB frames that served no thermal frame, by reason, since the start."""
        return self._buffer.color_drops

    def add_thermal(self, image: ImageItem, arrival_ns: int) -> None:
        """Take a thermal frame."""
        self._buffer.add_thermal(Stamped(image.stamp_ns, arrival_ns, image))

    def add_color(self, image: ImageItem, arrival_ns: int) -> None:
        """Take an RGB frame."""
        self._buffer.add_color(Stamped(image.stamp_ns, arrival_ns, image))

    def poll(self, now_ns: int) -> list[FramePair]:
        """Thermal frames that are decided, in stamp order."""
        return [
            FramePair(
                thermal=pair.thermal.item,
                color=pair.color.item if pair.color is not None else None,
                skew_ns=pair.skew_ns,
                arrival_ns=pair.thermal.arrival_ns,
                ready_ns=pair.thermal.arrival_ns + pair.waited_ns,
            )
            for pair in self._buffer.poll(now_ns)
        ]

    def next_deadline_ns(self) -> int | None:
        """When `poll` will have something even if nothing arrives, monotonic."""
        return self._buffer.next_deadline_ns()

    def take_drops(self) -> dict[str, int]:
        """Thermal frames dropped since the last call, by reason."""
        counts = self._buffer.thermal_drops
        fresh = {reason: count - self._seen[reason] for reason, count in counts.items()}
        self._seen = Counter(counts)
        return {reason: count for reason, count in fresh.items() if count > 0}

    def reset(self, reason: str) -> int:
        """Forget everything; returns how many thermal frames were waiting."""
        waiting = self._buffer.waiting
        self._buffer.reset(reason)
        # The caller counts these under its own reason.
        self._seen = Counter(self._buffer.thermal_drops)
        return waiting

    def configure(self, config: EnhancementConfig, uses_rgb: bool) -> None:
        """Take over changed parameters."""
        self._buffer.configure(pair_config(config, uses_rgb))


def make_synchronizer(config: EnhancementConfig, uses_rgb: bool) -> Synchronizer:
    """The pairing that the parameters choose.

    Raises:
        ValueError: approximate_time is chosen and message_filters is not installed.
    """
    if config.synchronizer == "approximate_time":
        from thermal_enhance.nodes.approximate_time import ApproximateTimeAdapter

        return ApproximateTimeAdapter(config)
    return BufferSynchronizer(config, uses_rgb)
