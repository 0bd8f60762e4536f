"""What the transport benchmark was told, what it measured and what follows from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from thermal_enhance.evaluation.bench_stats import LatencySummary, Spread

OURS, PAIRED, STOCK = "ours", "ours, paired", "stock"
NODES = (PAIRED, OURS, STOCK)
DRIVERS = ("default", "profile")
GOAL = 2.5
"""How many times lower our p95 shall be, all on our profile, than stock's on the default transport."""


@dataclass(frozen=True)
class TransportConfig:
    """What is sent, and how often.

    Attributes:
        seconds: measured time a run.
        repeats: runs of each contender with each driver.
        rate: pairs a second.
        warmup_s: time before that is not measured: discovery settles and memory is touched.
        thermal: (width, height) of the mono16 image.
        color: (width, height) of the rgb8 image.
        nodes: contenders, of `NODES`.
    """

    seconds: float = 8.0
    repeats: int = 3
    rate: float = 30.0
    warmup_s: float = 3.0
    thermal: tuple[int, int] = (640, 512)
    color: tuple[int, int] = (1920, 1080)
    nodes: tuple[str, ...] = NODES

    def __post_init__(self) -> None:
        for name in ("seconds", "rate", "warmup_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {self.repeats}")
        for name in ("thermal", "color"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1x1, not {getattr(self, name)}")
        if not self.nodes or set(self.nodes) - set(NODES):
            raise ValueError(f"nodes must be some of {NODES}, not {self.nodes}")

    @property
    def frames(self) -> int:
        """Measured pairs a run."""
        return max(1, round(self.seconds * self.rate))


@dataclass(frozen=True)
class TransportRun:
    """One run.

    Attributes:
        node: contender.
        driver: transport of the driver, "default" or "profile".
        sent: measured thermal frames.
        received: of those, how many came out enhanced.
        paired: of those, how many with an RGB partner.
        latency: stamp to arrival.
        cpu_s: processor time of the node over the measured time.
        late: pairs the driver sent more than a period late (the machine was overloaded).
        dropped: frames our node itself says it dropped, by reason, warm-up included.
    """

    node: str
    driver: str
    sent: int
    received: int
    paired: int
    latency: LatencySummary
    cpu_s: float
    late: int
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Thermal frames that never came out."""
        return self.sent - self.received


@dataclass(frozen=True)
class TransportRow:
    """The runs of one contender with one driver, together."""

    node: str
    driver: str
    median_ms: Spread
    p95_ms: Spread
    p99_ms: Spread
    sent: int
    received: int
    paired: int
    cpu_s: Spread

    @property
    def lost(self) -> int:
        """Thermal frames that never came out."""
        return self.sent - self.received


@dataclass(frozen=True)
class Check:
    """One thing the benchmark is to show."""

    what: str
    passed: bool


@dataclass(frozen=True)
class TransportResult:
    """Everything measured, and what follows from it."""

    config: TransportConfig
    machine: dict[str, str | int]
    runs: tuple[TransportRun, ...]

    @property
    def rows(self) -> tuple[TransportRow, ...]:
        """One row a contender and driver, in the order of `NODES` and `DRIVERS`."""
        return tuple(
            summarise(runs)
            for node in NODES
            for driver in DRIVERS
            if (runs := [run for run in self.runs if (run.node, run.driver) == (node, driver)])
        )

    def row(self, node: str, driver: str) -> TransportRow | None:
        """The row of a contender and driver, or None where it was not run."""
        return next((row for row in self.rows if (row.node, row.driver) == (node, driver)), None)

    def ratio(self, node: str, driver: str) -> Spread | None:
        """How many times lower a contender's p95 is than stock's on the default transport.

        The median is of the medians over the repetitions; low and high are of single repetitions.
        """
        ours, stock = self.row(node, driver), self.row(STOCK, "default")
        if ours is None or stock is None:
            return None
        single = Spread.of(
            theirs.latency.p95_ms / mine.latency.p95_ms
            for mine, theirs in zip(self._runs_of(node, driver), self._runs_of(STOCK, "default"))
        )
        return Spread(stock.p95_ms.median / ours.p95_ms.median, single.low, single.high)

    def _runs_of(self, node: str, driver: str) -> list[TransportRun]:
        return [run for run in self.runs if (run.node, run.driver) == (node, driver)]

    @property
    def checks(self) -> tuple[Check, ...]:
        """Speed with our profile, never worse without, losses never above stock's (NaN never passes)."""
        checks: list[Check] = []
        for node in (PAIRED, OURS):
            fast, plain = self.ratio(node, "profile"), self.ratio(node, "default")
            if fast is not None:
                text = f"{node}, all on our profile: p95 {fast.text()} times lower than stock on default"
                checks.append(Check(f"{text} (goal {GOAL})", fast.median >= GOAL))
            if plain is not None:
                text = f"{node}, driver on default: p95 {plain.text(2)} times lower than stock (goal 1)"
                checks.append(Check(text, plain.median >= 1.0))
            for driver in DRIVERS:
                ours, stock = self.row(node, driver), self.row(STOCK, driver)
                if ours is not None and stock is not None:
                    text = f"{node}, driver on {driver}: {ours.lost} thermal frames lost, stock {stock.lost}"
                    checks.append(Check(text, ours.lost <= stock.lost))
        return tuple(checks)

    @property
    def passed(self) -> bool:
        """Did every check pass?"""
        return all(check.passed for check in self.checks)

    def to_json(self) -> str:
        """Runs, rows and checks as JSON; what is not a number is null."""
        data = {
            "benchmark": "transport",
            "config": asdict(self.config),
            "machine": self.machine,
            "runs": [{**asdict(run), "lost": run.lost} for run in self.runs],
            "rows": [{**asdict(row), "lost": row.lost} for row in self.rows],
            "checks": [asdict(check) for check in self.checks],
            "passed": self.passed,
        }
        return json.dumps(_finite(data), indent=2)

    def to_markdown(self) -> str:
        """A table and the checks, to paste into a README."""
        lines = [
            f"| {' | '.join(COLUMNS)} |",
            f"|{'---|' * len(COLUMNS)}",
            *(f"| {' | '.join(cells(row))} |" for row in self.rows),
            "",
            *(f"- {'yes' if check.passed else 'NO'}: {check.what}" for check in self.checks),
            "",
            self.caption(),
        ]
        return "\n".join(lines) + "\n"

    def caption(self) -> str:
        """What was measured, on what."""
        config = self.config
        return (
            f"{size_text(config.thermal)} mono16 and {size_text(config.color)} rgb8 at {config.rate:g} Hz, "
            f"{config.repeats} x {config.seconds:g} s each, medians (smallest-largest) over the repetitions; "
            f"{self.machine.get('processor')}, {self.machine.get('cores')} cores."
        )


COLUMNS = ("node", "driver's transport", "median ms", "p95 ms", "p99 ms", "sent", "lost", "paired", "CPU s")


def cells(row: TransportRow) -> tuple[str, ...]:
    """The row as text, in the order of `COLUMNS`."""
    latencies = (row.median_ms.text(), row.p95_ms.text(), row.p99_ms.text())
    counts = (str(row.sent), str(row.lost), str(row.paired))
    return (row.node, row.driver, *latencies, *counts, row.cpu_s.text(2))


def summarise(runs: Sequence[TransportRun]) -> TransportRow:
    """One row from the runs of one contender with one driver.

    Raises:
        ValueError: If there are none, or they are not of one kind.
    """
    if len({(run.node, run.driver) for run in runs}) != 1:
        raise ValueError("a row summarises runs of one contender with one driver")
    return TransportRow(
        node=runs[0].node,
        driver=runs[0].driver,
        median_ms=Spread.of(run.latency.median_ms for run in runs),
        p95_ms=Spread.of(run.latency.p95_ms for run in runs),
        p99_ms=Spread.of(run.latency.p99_ms for run in runs),
        sent=sum(run.sent for run in runs),
        received=sum(run.received for run in runs),
        paired=sum(run.paired for run in runs),
        cpu_s=Spread.of(run.cpu_s for run in runs),
    )


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def size_text(size: tuple[int, int]) -> str:
    """`WIDTHxHEIGHT`."""
    return f"{size[0]}x{size[1]}"
