"""Arrival traces: when frames of two streams arrived and how they were stamped, without the frames.

A trace is all a pair buffer sees of the world, so one recorded on a robot can be replayed anywhere, exactly.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MS = 1_000_000
RECORDED = Path(__file__).parent / "traces"
"""Folder of the recordings that come with the package; its README says how they were made."""


@dataclass(frozen=True)
class Event:
    """One frame arriving.

    Attributes:
        arrival_ns: on a clock that never goes back.
        stream: "thermal" or "color".
        stamp_ns: as in the message's header.
    """

    arrival_ns: int
    stream: str
    stamp_ns: int


@dataclass(frozen=True)
class Trace:
    """Frames of both streams in order of arrival.

    Attributes:
        name: short name, also the file's.
        note: what is special about it.
        events: in order of arrival.
        offset_ns: what must be added to a colour stamp to get thermal time (known to whoever made it).
        gated: False where a bounded wait cannot do as well as an endless one, by design: such a trace is
            reported but decides nothing.
    """

    name: str
    note: str
    events: tuple[Event, ...]
    offset_ns: int = 0
    gated: bool = True

    def __post_init__(self) -> None:
        if any(event.stream not in ("thermal", "color") for event in self.events):
            raise ValueError(f"trace {self.name}: a stream is 'thermal' or 'color'")
        if list(self.events) != sorted(self.events, key=lambda event: event.arrival_ns):
            object.__setattr__(self, "events", tuple(sorted(self.events, key=lambda event: event.arrival_ns)))

    @property
    def thermal_frames(self) -> int:
        """Number of thermal frames."""
        return sum(event.stream == "thermal" for event in self.events)

    @property
    def jump_at(self) -> int | None:
        """Arrival of the first frame whose stamp lies over a second behind its stream's newest; None."""
        newest: dict[str, int] = {}
        for event in self.events:
            before = newest.get(event.stream, event.stamp_ns)
            if event.stamp_ns < before - 1000 * MS:
                return event.arrival_ns
            newest[event.stream] = max(before, event.stamp_ns)
        return None


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace as CSV (microseconds, a third of the size) or, by its suffix, as JSON (nanoseconds)."""
    head = {"name": trace.name, "note": trace.note, "offset_ns": trace.offset_ns, "gated": trace.gated}
    if path.suffix == ".json":
        events = [[event.arrival_ns, event.stream, event.stamp_ns] for event in trace.events]
        path.write_text(json.dumps({**head, "events": events}), encoding="utf-8")
        return
    lines = [f"# {json.dumps(head)}", "arrival_us,stream,stamp_us"]
    lines += [f"{e.arrival_ns // 1000},{e.stream[0]},{e.stamp_ns // 1000}" for e in trace.events]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_trace(path: Path) -> Trace:
    """Read a trace file.

    Args:
        path: `.json`: {"events": [[arrival_ns, stream, stamp_ns], ...]} and optionally name, note,
            offset_ns, gated; else CSV with columns arrival, stream, stamp, whose header names end in _ns
            or _us, and optionally a first line `# {the same as JSON}`. A stream is named by its first
            letter at least.

    Raises:
        ValueError: the file cannot be read as a trace; the message names file and line.
    """
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = [(int(a), str(stream), int(s)) for a, stream, s in content["events"]]
            return _trace(path, content, rows)
        return _read_csv(path)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a trace: {error!r}") from error


def _read_csv(path: Path) -> Trace:
    head: dict[str, object] = {}
    unit: tuple[int, int] | None = None
    rows: list[tuple[int, str, int]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if number == 1 and line.startswith("#"):
            head = json.loads(line[1:])
        elif not line.strip() or line.startswith("#"):
            continue
        elif unit is None:
            units = {"arrival_ns": 1, "arrival_us": 1000, "stamp_ns": 1, "stamp_us": 1000}
            if len(cells) != 3 or cells[0] not in units or cells[2] not in units or cells[1] != "stream":
                raise ValueError(f"{path}:{number}: header must be like arrival_ns,stream,stamp_ns")
            unit = (units[cells[0]], units[cells[2]])
        else:
            try:
                rows.append((int(cells[0]) * unit[0], cells[1], int(cells[2]) * unit[1]))
            except (ValueError, IndexError):
                raise ValueError(f"{path}:{number}: not arrival,stream,stamp: {line!r}") from None
    return _trace(path, head, rows)


def _trace(path: Path, head: dict[str, object], rows: Iterable[tuple[int, str, int]]) -> Trace:
    names = {"t": "thermal", "c": "color"}
    return Trace(
        name=str(head.get("name", path.stem)),
        note=str(head.get("note", "read from a file")),
        events=tuple(Event(a, names.get(stream[:1], stream), s) for a, stream, s in rows),
        offset_ns=int(str(head.get("offset_ns", 0))),
        gated=bool(head.get("gated", True)),
    )


def recorded_traces(folder: Path = RECORDED) -> list[Trace]:
    """The recordings of a folder, by file name; empty where they were not installed."""
    return [read_trace(path) for path in sorted(folder.glob("*.csv"))]


def generated_traces(seed: int, seconds: float) -> list[Trace]:
    """Make the same situations by numbers: seeded, so equal arguments give equal traces.

    Delays from stamp to arrival are drawn from a fixed part plus an exponential tail, cut off where a
    frame would be called lost: thermal 2 to 12 ms, RGB 12 to 34 ms (a large frame over shared memory on a
    busy machine).

    Args:
        seed: of the random numbers.
        seconds: length of each trace.
    """

    def make(
        name: str,
        note: str,
        *,
        rates: tuple[float, float] = (30, 30),
        jitter: float = 0,
        loss: tuple[float, float] = (0, 0),
        held: float = 0,
        phase: float = 4,
        offset: float = 0,
        late: float = 0,
        warp: Callable[[float], float] = lambda t: t,
        gated: bool = True,
    ) -> Trace:
        rng = random.Random(f"{seed} {name}")
        events = []
        for stream, rate, lost, start, base, tail in (
            ("thermal", rates[0], loss[0], 0.0, 2.0, 10.0),
            ("color", rates[1], loss[1], phase, 12.0 + late, 22.0),
        ):
            for k in range(int(seconds * rate)):
                t = start + k * 1000 / rate + max(-14, min(14, rng.gauss(0, jitter)))
                arrival = t + base + min(tail, rng.expovariate(5 / tail))
                if held and stream == "color" and rng.random() < held:
                    arrival = t + 1000 / rate + rng.uniform(8, 20)  # about when the next one comes
                if rng.random() >= lost:
                    stamp = warp(t) - (offset if stream == "color" else 0)
                    events.append(Event(round(arrival * MS), stream, round(stamp * MS)))
        return Trace(name, note, tuple(events), round(offset * MS), gated)

    def loop(t: float) -> float:
        return t if t < seconds * 500 else t - seconds * 500

    return [
        make("steady", "30/30 Hz, RGB 4 ms behind"),
        make("jitter", "30/30 Hz, each stamp +-14 ms (sigma 6)", jitter=6),
        make("loss", "30/30 Hz, 5 % of thermal and 20 % of RGB lost", loss=(0.05, 0.2)),
        make("reorder", "30/60 Hz, every 7th RGB frame overtaken", rates=(30, 60), held=0.15),
        make("thermal9", "thermal 9 Hz, RGB 30 Hz", rates=(9, 30)),
        make("rgb9", "thermal 30 Hz, RGB 9 Hz", rates=(30, 9)),
        make("offset", "30/30 Hz, RGB stamped 60 ms late", offset=-60),
        make("jump", "30/30 Hz, looped half way", warp=loop),
        make("jump9", "thermal 9 Hz, RGB 30 Hz, looped half way", rates=(9, 30), warp=loop),
        make("rgb_late", "30/30 Hz, RGB arrives 60 ms later than it should", late=60, gated=False),
    ]
