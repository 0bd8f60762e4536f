"""`thermal-enhance bench pairing`: our pair buffer against ApproximateTimeSynchronizer on arrival traces."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from thermal_enhance.evaluation.pairing_traces import (
    Trace,
    generated_traces,
    read_trace,
    recorded_traces,
    write_trace,
)
from thermal_enhance.pairing import Pair, PairBuffer, PairConfig, Stamped

MS = 1_000_000
QUEUE = 10
SEED = 1
Feed = Callable[[str, int, int], None]
"""(stream, stamp_ns, index of the event): one frame arrives."""
Emit = Callable[[int, int], None]
"""(index of the thermal event, index of the color event): a pair leaves."""


@dataclass(frozen=True)
class Match:
    """What became of a thermal frame: true skew (None: alone) and wait, nanoseconds."""

    skew_ns: int | None
    waited_ns: int


@dataclass(frozen=True)
class BenchRow:
    """One trace. Shares are of all thermal frames; times are milliseconds, NaN where there is nothing.

    Attributes:
        trace: name of the trace; `source` "recorded", "generated" or "file".
        thermal_frames: thermal frames in it.
        share, share_reference: share paired.
        skew_ms, skew_ms_reference: mean |skew| over each one's own pairs, offset taken out.
        common: thermal frames that both paired; common_skew_ms...: mean |skew| over those.
        wait_p50_ms, wait_p95_ms: added wait over all thermal frames, the reference's over its pairs.
        dropped: thermal frames that left neither paired nor alone, by reason.
        after_jump, after_jump_reference: frames paired after the time jump; None without one.
        gated: does the row decide about `BenchResult.never_worse`?
        never_worse: share, common skew and pairs after the jump all at least as good.
    """

    trace: str
    source: str
    note: str
    thermal_frames: int
    share: float
    share_reference: float
    skew_ms: float
    skew_ms_reference: float
    common: int
    common_skew_ms: float
    common_skew_ms_reference: float
    wait_p50_ms: float
    wait_p95_ms: float
    wait_p95_ms_reference: float
    dropped: dict[str, int]
    after_jump: int | None
    after_jump_reference: int | None
    gated: bool
    never_worse: bool


@dataclass(frozen=True)
class BenchResult:
    """All rows and what they were measured with.

    Attributes:
        reference: what stood in for ApproximateTimeSynchronizer.
        slop_ms, queue: given to both alike.
        rows: one a trace.
    """

    reference: str
    slop_ms: float
    queue: int
    rows: tuple[BenchRow, ...]

    @property
    def never_worse(self) -> bool:
        """True when every row that counts is."""
        return all(row.never_worse for row in self.rows if row.gated)

    def to_json(self) -> str:
        """The result as JSON; NaN becomes null."""
        content = {"benchmark": "pairing", **dataclasses.asdict(self), "never_worse": self.never_worse}
        for row in content["rows"]:
            row.update({k: None for k, v in row.items() if isinstance(v, float) and np.isnan(v)})
        return json.dumps(content, indent=2)

    def to_markdown(self) -> str:
        """The result as a Markdown table with a line on how to read it."""
        lines = [
            f"Reference: {self.reference}; slop {self.slop_ms:g} ms and queue {self.queue} for both. "
            "Cells: ours / reference. Where ours pairs more frames, the additional ones lie farther apart "
            "and raise its mean skew; the column of frames both paired compares like with like. Waits are "
            "over all thermal frames for ours, over pairs for the reference.",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---" * len(COLUMNS) + "|",
        ]
        lines += ["| " + " | ".join(cells(row)) + " |" for row in self.rows]
        verdict = "never worse" if self.never_worse else "WORSE in at least one trace that counts"
        return "\n".join([*lines, "", f"Verdict: {verdict}."]) + "\n"


COLUMNS = (
    "trace",
    "thermal frames",
    "paired",
    "mean abs. skew, ms",
    "the same on frames both paired, ms",
    "wait p95, ms",
    "paired after the jump",
    "verdict",
)


def cells(row: BenchRow) -> tuple[str, ...]:
    """A row as texts, in the order of `COLUMNS`."""

    def number(value: float) -> str:
        return "-" if np.isnan(value) else f"{value:.1f}"

    verdict = "never worse" if row.never_worse else "worse"
    return (
        f"{row.trace} ({row.source}): {row.note}",
        str(row.thermal_frames),
        f"{row.share:.1%} / {row.share_reference:.1%}",
        f"{number(row.skew_ms)} / {number(row.skew_ms_reference)}",
        f"{number(row.common_skew_ms)} / {number(row.common_skew_ms_reference)}",
        f"{number(row.wait_p95_ms)} / {number(row.wait_p95_ms_reference)}",
        "" if row.after_jump is None else f"{row.after_jump} / {row.after_jump_reference}",
        verdict if row.gated else f"{verdict} (not counted)",
    )


def first_fit(slop_ns: int, queue: int, emit: Emit) -> Feed:
    """ApproximateTimeSynchronizer's rule, restated: pair a frame with the first partner that will do.

    Each stream has a queue by stamp that loses its smallest stamp when full. A frame that arrives takes,
    of the other queue, the partner nearest to itself with |skew| strictly below the slop; both leave.
    """
    queues: dict[str, dict[int, int]] = {"thermal": {}, "color": {}}

    def feed(stream: str, stamp_ns: int, index: int) -> None:
        mine, others = queues[stream], queues["color" if stream == "thermal" else "thermal"]
        mine[stamp_ns] = index
        while len(mine) > queue:
            del mine[min(mine)]
        partner = min(others, key=lambda stamp: abs(stamp - stamp_ns), default=None)
        if stamp_ns not in mine or partner is None or abs(partner - stamp_ns) >= slop_ns:
            return
        pair = {stream: mine.pop(stamp_ns)}
        pair["color" if stream == "thermal" else "thermal"] = others.pop(partner)
        emit(pair["thermal"], pair["color"])

    return feed


def message_filters_feed(slop_ns: int, queue: int, emit: Emit) -> Feed:
    """The real ApproximateTimeSynchronizer, fed without any ROS graph.

    Raises:
        ImportError: message_filters, rclpy or builtin_interfaces is not installed.
    """
    import message_filters
    from builtin_interfaces.msg import Time

    inputs = {"thermal": message_filters.SimpleFilter(), "color": message_filters.SimpleFilter()}
    synchronizer = message_filters.ApproximateTimeSynchronizer(
        [inputs["thermal"], inputs["color"]], queue, slop_ns / 1e9
    )
    synchronizer.registerCallback(lambda thermal, color: emit(thermal.index, color.index))

    def feed(stream: str, stamp_ns: int, index: int) -> None:
        sec, nanosec = divmod(stamp_ns, 10**9)
        header = SimpleNamespace(stamp=Time(sec=sec, nanosec=nanosec))
        inputs[stream].signalMessage(SimpleNamespace(header=header, index=index))

    return feed


def reference_maker() -> tuple[str, Callable[[int, int, Emit], Feed]]:
    """The real synchronizer where it can be imported, else its rule; with words that say which."""
    try:
        message_filters_feed(MS, 1, lambda thermal, color: None)
    except ImportError:
        return "ApproximateTimeSynchronizer's rule restated (message_filters is not installed)", first_fit
    return "message_filters.ApproximateTimeSynchronizer", message_filters_feed


def run_reference(
    trace: Trace, make: Callable[[int, int, Emit], Feed], slop_ns: int, queue: int
) -> dict[int, Match]:
    """Feed a trace to the reference; thermal event index -> match, of paired frames only."""
    out: dict[int, Match] = {}
    now = 0

    def emit(thermal: int, color: int) -> None:
        t, c = trace.events[thermal], trace.events[color]
        out[thermal] = Match(c.stamp_ns + trace.offset_ns - t.stamp_ns, now - t.arrival_ns)

    # Real ROS stamps are never negative, those of a trace may be.
    shift = max(0, -min((event.stamp_ns for event in trace.events), default=0))
    feed = make(slop_ns, queue, emit)
    for index, event in enumerate(trace.events):
        now = event.arrival_ns
        feed(event.stream, event.stamp_ns + shift, index)
    return out


def run_ours(trace: Trace, config: PairConfig) -> tuple[dict[int, Match], dict[str, int]]:
    """Feed a trace to a PairBuffer as the enhancement node does; thermal event index -> match, and drops."""
    buffer: PairBuffer[int, int] = PairBuffer(dataclasses.replace(config, offset_ns=trace.offset_ns))
    out: dict[int, Match] = {}

    def take(pairs: list[Pair[int, int]]) -> None:
        out.update({pair.thermal.item: Match(pair.skew_ns, pair.waited_ns) for pair in pairs})

    for index, event in enumerate(trace.events):
        while (deadline := buffer.next_deadline_ns()) is not None and deadline <= event.arrival_ns:
            take(buffer.poll(deadline))
        add = buffer.add_thermal if event.stream == "thermal" else buffer.add_color
        add(Stamped(event.stamp_ns, event.arrival_ns, index))
        take(buffer.poll(event.arrival_ns))
    while (deadline := buffer.next_deadline_ns()) is not None:
        take(buffer.poll(deadline))
    return out, buffer.thermal_drops


def compare(
    trace: Trace,
    make: Callable[[int, int, Emit], Feed],
    slop_ns: int,
    queue: int = QUEUE,
    source: str = "file",
) -> BenchRow:
    """Run both on one trace.

    Args:
        trace: the arrivals.
        make: builds the reference, see `reference_maker`.
        slop_ns: for both.
        queue: frames a stream, for both.
        source: where the trace is from.
    """
    config = PairConfig(slop_ns=slop_ns, color_capacity=queue, thermal_capacity=queue)
    ours, dropped = run_ours(trace, config)
    theirs = run_reference(trace, make, slop_ns, queue)
    paired = {index: abs(m.skew_ns) / MS for index, m in ours.items() if m.skew_ns is not None}
    paired_theirs = {index: abs(m.skew_ns) / MS for index, m in theirs.items() if m.skew_ns is not None}
    common = sorted(paired.keys() & paired_theirs.keys())
    jump = trace.jump_at

    def after(indices: Sequence[int]) -> int | None:
        return None if jump is None else sum(trace.events[i].arrival_ns >= jump for i in indices)

    count = trace.thermal_frames
    waits = [match.waited_ns / MS for match in ours.values()]
    after_ours, after_theirs = after(list(paired)), after(list(paired_theirs))
    skew_common = _mean([paired[i] for i in common])
    skew_common_theirs = _mean([paired_theirs[i] for i in common])
    return BenchRow(
        trace=trace.name,
        source=source,
        note=trace.note,
        thermal_frames=count,
        share=len(paired) / max(count, 1),
        share_reference=len(paired_theirs) / max(count, 1),
        skew_ms=_mean(list(paired.values())),
        skew_ms_reference=_mean(list(paired_theirs.values())),
        common=len(common),
        common_skew_ms=skew_common,
        common_skew_ms_reference=skew_common_theirs,
        wait_p50_ms=_quantile(waits, 0.5),
        wait_p95_ms=_quantile(waits, 0.95),
        wait_p95_ms_reference=_quantile([match.waited_ns / MS for match in theirs.values()], 0.95),
        dropped=dropped,
        after_jump=after_ours,
        after_jump_reference=after_theirs,
        gated=trace.gated,
        never_worse=len(paired) >= len(paired_theirs)
        and (not common or skew_common <= skew_common_theirs + 1e-9)
        and (after_ours is None or after_theirs is None or (after_ours > 0 and after_ours >= after_theirs)),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _quantile(values: Sequence[float], q: float) -> float:
    return float(np.quantile(values, q)) if values else float("nan")


def run(
    out: Path | None = None,
    quick: bool = False,
    *,
    slop_ms: float = 40.0,
    queue: int = QUEUE,
    traces: Sequence[Trace] = (),
) -> BenchResult:
    """Run the benchmark: deterministic, no clock and no ROS graph involved.

    Args:
        out: folder to leave pairing.json and pairing.md in; None for none.
        quick: 10 s instead of 120 s of each generated trace.
        slop_ms: slop for both, milliseconds.
        queue: queue size for both.
        traces: use these instead of the recorded and the generated ones.

    Returns:
        One row a trace.
    """
    reference, make = reference_maker()
    sourced = [("file", trace) for trace in traces] or [
        *(("recorded", trace) for trace in recorded_traces()),
        *(("generated", trace) for trace in generated_traces(SEED, 10 if quick else 120)),
    ]
    rows = [compare(trace, make, round(slop_ms * MS), queue, source) for source, trace in sourced]
    result = BenchResult(reference, slop_ms, queue, tuple(rows))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "pairing.json").write_text(result.to_json() + "\n", encoding="utf-8")
        (out / "pairing.md").write_text(result.to_markdown(), encoding="utf-8")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `thermal-enhance bench pairing`; 0 when never worse, 1 when worse, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="thermal-enhance bench pairing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short generated traces")
    parser.add_argument("--slop-ms", type=float, default=40.0, help="slop of both (default 40)")
    parser.add_argument("--queue", type=int, default=QUEUE, help=f"queue size of both (default {QUEUE})")
    parser.add_argument("--trace", type=Path, action="append", default=[], help="use this CSV or JSON trace")
    parser.add_argument("--write-traces", type=Path, help="also write the generated traces to this folder")
    parser.add_argument("--out", type=Path, help="folder for pairing.json and pairing.md")
    parser.add_argument("--json", type=Path, help="file for the result as JSON")
    args = parser.parse_args(argv)
    try:
        traces = [read_trace(path) for path in args.trace]
        if args.queue < 1:
            raise ValueError(f"--queue must be at least 1, not {args.queue}")
        result = run(args.out, args.quick, slop_ms=args.slop_ms, queue=args.queue, traces=traces)
        if args.write_traces is not None:
            args.write_traces.mkdir(parents=True, exist_ok=True)
            for trace in generated_traces(SEED, 10 if args.quick else 120):
                write_trace(trace, args.write_traces / f"{trace.name}.csv")
        if args.json is not None:
            args.json.write_text(result.to_json() + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"bench pairing: {error}\n")
        return 2
    _show(result)
    return 0 if result.never_worse else 1


def _show(result: BenchResult) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(result.to_markdown())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, title="pairing: ours / reference", caption=result.reference)
    for row in result.rows:
        table.add_row(*cells(row), style=None if row.never_worse or not row.gated else "red")
    console = Console()
    console.print(table)
    console.print("never worse" if result.never_worse else "worse in at least one trace that counts")
