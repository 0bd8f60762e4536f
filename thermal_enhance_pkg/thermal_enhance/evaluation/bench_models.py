"""Latency, arithmetic, memory and loading of the models on this machine: `thermal-enhance bench models`.

Each graph by itself, held against the time its arithmetic would take at the rate at which this machine
multiplies float32 matrices; then the whole enhancer around it on a live stream. Each in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thermal_enhance.evaluation import graph_arithmetic
from thermal_enhance.evaluation.bench_stats import LatencySummary, machine
from thermal_enhance.evaluation.model_timing import Subject, Timing, alone, time_enhancer, time_graph
from thermal_enhance.evaluation.progress import progress_bar
from thermal_enhance.runtime.backend import BackendError
from thermal_enhance.runtime.export_command import parse_profile
from thermal_enhance.runtime.manifest import ManifestError, ModelManifest
from thermal_enhance.runtime.onnxruntime_backend import usable_cpus
from thermal_enhance.runtime.store import ModelFileError, ModelStore, UnknownModel

GOAL_RATIO = 2.5
"""Latency of edge's graph over the time of its arithmetic, at most."""
GOAL_HZ = 9.0
"""The camera that edge must keep up with."""
GOAL_PROFILE = (512, 512)


@dataclass(frozen=True)
class Row:
    """One graph and the enhancer that uses it.

    Attributes:
        model: name.
        size: of the model: edge, base, ...
        role: of the graph.
        profile: (width, height).
        precision: of the graph.
        gflop: of the graph; NaN where it cannot be counted.
        graph: its timing.
        enhancer: of the whole; None where no enhancer is known for the method.
        threads: CPU threads of the graph.
    """

    model: str
    size: str
    role: str
    profile: tuple[int, int]
    precision: str
    gflop: float
    graph: Timing
    enhancer: Timing | None = None
    threads: int = 1

    def cpu_ratio(self, gemm_gflops: float) -> float:
        """The same by processor time, shared evenly among the threads: what an idle machine could reach."""
        if self.graph.device != "cpu":
            return math.nan
        return self.graph.cpu_ms / self.threads / (1e3 * self.gflop / gemm_gflops)

    def ratio(self, gemm_gflops: float) -> float:
        """Median latency over the time of its arithmetic at the machine's rate; NaN off the CPU."""
        if self.graph.device != "cpu":
            return math.nan
        return self.graph.latency.median_ms / (1e3 * self.gflop / gemm_gflops)


def measure(
    store: ModelStore,
    names: Sequence[str],
    *,
    device: str,
    threads: int,
    runs: int,
    enhancers: bool = True,
    profiles: Sequence[tuple[int, int]] = (),
) -> list[Row]:
    """Time every graph of some models, or those of some profiles."""
    work = [
        (manifest, graph)
        for manifest in map(store.describe, names)
        for graph in manifest.graphs
        if not profiles or graph.profile in profiles
    ]
    rows = []
    with progress_bar() as advance:
        for index, (manifest, graph) in enumerate(work):
            advance(index / len(work), f"{manifest.name} {graph.key}")
            subject = Subject(
                tuple(store.folders), manifest.name, graph.role, graph.profile, graph.precision,
                device, threads, runs,
            )  # fmt: skip
            rows.append(
                Row(
                    manifest.name,
                    manifest.size,
                    graph.role,
                    graph.profile,
                    graph.precision,
                    gflop(store, manifest, graph.file),
                    alone(time_graph, subject),
                    alone(time_enhancer, subject) if enhancers and manifest.method == "cross_modal" else None,
                    threads or usable_cpus(),
                )
            )
    return rows


def gflop(store: ModelStore, manifest: ModelManifest, file: str) -> float:
    """1e9 operations of a graph; NaN without the onnx package, which the run-time install does not need."""
    try:
        return graph_arithmetic.count(store.folder(manifest.name).resolve() / file).gflop
    except ModuleNotFoundError:
        return math.nan


def table(rows: Sequence[Row], gemm_gflops: float) -> str:
    """Markdown: one line a graph."""
    lines = [
        "| model | graph | size | precision | device | GFLOP | graph p50 / p95 / p99 ms | CPU ms | "
        "ratio wall / CPU | enhancer p50 / p95 / p99 ms | CPU ms | RGB used | graph MB | enhancer MB | "
        "load cold / warm ms |",
        "|" + "---|" * 15,
    ]
    for row in rows:
        whole = row.enhancer
        used = math.nan if whole is None or row.role != "two_view" else whole.rgb_used
        cells = [
            row.model,
            row.role,
            f"{row.profile[0]}x{row.profile[1]}",
            row.precision,
            row.graph.device,
            _number(row.gflop, 2),
            _percentiles(row.graph.latency),
            _number(row.graph.cpu_ms, 1),
            f"{_number(row.ratio(gemm_gflops), 2)} / {_number(row.cpu_ratio(gemm_gflops), 2)}",
            "-" if whole is None else _percentiles(whole.latency),
            "-" if whole is None else _number(whole.cpu_ms, 1),
            "-" if math.isnan(used) else f"{used:.0%}",
            f"{row.graph.peak_mb:.0f}",
            "-" if whole is None else f"{whole.peak_mb:.0f}",
            f"{row.graph.load_cold_ms:.0f} / {row.graph.load_warm_ms:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def stage_table(rows: Sequence[Row]) -> str:
    """Markdown: medians by stage of each enhancer; empty without any."""
    timed = [row for row in rows if row.enhancer is not None]
    names = list(dict.fromkeys(n for row in timed if row.enhancer for n in row.enhancer.stage_ms))
    if not names:
        return ""
    lines = ["| model | graph | size | " + " | ".join(names) + " |", "|" + "---|" * (3 + len(names))]
    for row in timed:
        assert row.enhancer is not None
        cells = " | ".join(_number(row.enhancer.stage_ms.get(name, math.nan), 1) for name in names)
        lines.append(f"| {row.model} | {row.role} | {row.profile[0]}x{row.profile[1]} | {cells} |")
    return "\n".join(lines)


def verdicts(rows: Sequence[Row], gemm_gflops: float) -> Iterator[str]:
    """What edge must reach at 64x64 + 512x512 -> 512x512 on a CPU."""
    for row in rows:
        if (row.size, row.role, row.profile, row.graph.device) != ("edge", "two_view", GOAL_PROFILE, "cpu"):
            continue
        ratio = row.ratio(gemm_gflops)
        if not math.isnan(ratio):
            yield (
                f"- {'yes' if ratio <= GOAL_RATIO else 'no'}: {row.model} 512x512 with RGB: the graph takes "
                f"{ratio:.2f} times its arithmetic at the machine's rate (goal {GOAL_RATIO:g}; by processor "
                f"time {row.cpu_ratio(gemm_gflops):.2f})"
            )
        if row.enhancer is not None:
            p95, period = row.enhancer.latency.p95_ms, 1e3 / GOAL_HZ
            yield (
                f"- {'yes' if p95 <= period else 'no'}: {row.model} 512x512 with RGB: the whole enhancer, "
                f"p95 {p95:.0f} ms of the {period:.0f} ms between frames of a {GOAL_HZ:g} Hz camera"
            )


def _percentiles(summary: LatencySummary) -> str:
    return f"{summary.median_ms:.1f} / {summary.p95_ms:.1f} / {summary.p99_ms:.1f}"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when it ran, 1 when a model cannot be used, 2 when there is none."""
    parser = argparse.ArgumentParser(prog="thermal-enhance bench models", description=__doc__)
    parser.add_argument("--model", nargs="+", help="names (default: all)")
    parser.add_argument("--folder", type=Path, action="append", help="look for models here only")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the graph (default: all)")
    parser.add_argument("--runs", type=int, default=100, help="timed runs (default: 100)")
    parser.add_argument(
        "--profile", type=parse_profile, action="append", metavar="WxH", help="only these (default: all)"
    )
    parser.add_argument("--graphs-only", action="store_true", help="leave the enhancers out")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args(argv)
    store = ModelStore(arguments.folder)
    names = arguments.model or list(store.names())
    if not names:
        sys.stderr.write(f"bench models: no models in {', '.join(map(str, store.folders))}\n")
        return 2
    rate = graph_arithmetic.gemm_rate()
    try:
        rows = measure(
            store,
            names,
            device=arguments.device,
            threads=arguments.threads,
            runs=arguments.runs,
            enhancers=not arguments.graphs_only,
            profiles=arguments.profile or (),
        )
    except (UnknownModel, ManifestError, ModelFileError, BackendError) as error:
        sys.stderr.write(f"bench models: {error}\n")
        return 1
    # Once more: on a shared machine the better of the two is what it can do.
    rate = max(rate, graph_arithmetic.gemm_rate())
    threads = arguments.threads or usable_cpus()
    where = machine()
    sys.stdout.write(
        f"{where['processor']}, {threads} thread{'s' if threads > 1 else ''}; float32 matrix products run at "
        f"{rate:.0f} GFLOP/s; ratio: the graph's p50 over the time of its arithmetic at that rate, and the "
        "same by processor time.\n\n"
    )
    sys.stdout.write(table(rows, rate) + "\n")
    stages = stage_table(rows)
    if stages:
        sys.stdout.write(f"\nThe enhancer's stages, median ms:\n\n{stages}\n")
    lines = list(verdicts(rows, rate))
    if lines:
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    if arguments.json is not None:
        content = {
            "machine": where,
            "threads": threads,
            "gemm_gflops": rate,
            "rows": [
                {**asdict(row), "ratio": row.ratio(rate), "cpu_ratio": row.cpu_ratio(rate)} for row in rows
            ],
            "verdicts": lines,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(_plain(content), indent=1) + "\n", encoding="utf-8")
    return 0


def _plain(value: Any) -> Any:
    """NaN is no JSON: null instead."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
