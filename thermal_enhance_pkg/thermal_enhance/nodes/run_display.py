"""The live table of `thermal-enhance run`: a table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from thermal_enhance.nodes.enhancement_node import EnhancementNode

LINE_EVERY_S = 5.0


class Display:
    """Shows what the graph does while it runs.

    Args:
        node: whose statistics to show.
        source: description of the input.
        duration_s: planned run time; 0 for until stopped.
    """

    def __init__(self, node: EnhancementNode, source: str, duration_s: float) -> None:
        self._node = node
        self._source = source
        self._duration_s = duration_s
        self._console = Console()
        self._live: Live | None = None
        self._last_line = 0.0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.__enter__()
        else:
            sys.stdout.write(f"input: {self._source}\n")
            sys.stdout.flush()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.update(self._render(self._node.statistics.snapshot(), None))
            self._live.__exit__(None, None, None)

    def update(self, elapsed_s: float) -> None:
        """Show the present state."""
        if self._live is not None:
            self._live.update(self._render(self._node.statistics.snapshot(), elapsed_s))
        elif elapsed_s - self._last_line >= LINE_EVERY_S:
            self._last_line = elapsed_s
            sys.stdout.write(one_line(self._node.statistics.snapshot(), elapsed_s) + "\n")
            sys.stdout.flush()

    def _render(self, stats: dict[str, Any], elapsed_s: float | None) -> Group:
        clock = "" if elapsed_s is None else f"  {elapsed_s:5.1f} s"
        if elapsed_s is not None and self._duration_s:
            clock += f" of {self._duration_s:.0f}"
        head = Text.assemble(
            ("thermal_enhance ", "bold"), f"{self._node.config.mode}  input: {self._source}{clock}"
        )
        rates = stats["rates_hz"]
        flow = Table(show_edge=False, pad_edge=False)
        for column in ("frames in", "out", "thermal Hz", "RGB Hz", "out Hz", "paired", "skew p95"):
            flow.add_column(column, justify="right")
        flow.add_row(
            str(stats["frames_in"]),
            str(stats["frames_out"]),
            *(f"{rates[name]:.1f}" for name in ("thermal", "rgb", "out")),
            str(stats["paired"]),
            _ms(stats["pair_skew_ms"].get("p95")),
        )
        latency = Table(show_edge=False, pad_edge=False)
        latency.add_column("latency, ms")
        for column in ("p50", "p95", "p99"):
            latency.add_column(column, justify="right")
        total = stats["latency_ms"]
        latency.add_row(
            Text("callback to publish", "bold"), *(_number(total.get(k)) for k in ("p50", "p95", "p99"))
        )
        for stage, values in total["by_stage"].items():
            latency.add_row(f"  {stage}", *(_number(values.get(k)) for k in ("p50", "p95", "p99")))
        rest = Table(show_header=False, show_edge=False, pad_edge=False)
        rest.add_row("dropped", _counts(stats["dropped"]))
        rest.add_row("tier", _counts(stats["tiers"]))
        if stats["interpolated_out"]:
            rest.add_row("interpolated", f"{stats['interpolated_out']}, {rates['interpolated']:.1f} Hz")
        if stats["tier_reasons"]:
            rest.add_row("stepped down", _counts(stats["tier_reasons"]))
        rest.add_row("task", _counts(stats["tasks"]))
        if stats["events"]:
            rest.add_row("events", _counts(stats["events"]))
        return Group(head, flow, latency, rest)


def one_line(stats: dict[str, Any], elapsed_s: float) -> str:
    """The state in one line, for logs."""
    latency = stats["latency_ms"]
    between = f"interpolated {stats['interpolated_out']}  " if stats["interpolated_out"] else ""
    return (
        f"{elapsed_s:6.1f} s  in {stats['frames_in']}  out {stats['frames_out']}  {between}"
        f"{stats['rates_hz']['out']:.1f} Hz  p95 {_ms(latency.get('p95'))}  "
        f"paired {stats['paired']}  dropped {_counts(stats['dropped'])}  tier {_counts(stats['tiers'])}"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
