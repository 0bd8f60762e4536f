"""How fast temporal models are on this machine: `thermal-enhance bench temporal --speed`.

Both graphs by themselves, held against the time that their arithmetic takes at the rate at which this machine
multiplies float32 matrices; the whole tier on a live stream, stage by stage; and what a frame would cost if
the whole window were encoded anew each time. Each in a fresh process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thermal_enhance.enhancers.base import EnhanceRequest, FrameDeclined
from thermal_enhance.enhancers.temporal import TemporalEnhancer, TemporalEnhancerConfig
from thermal_enhance.evaluation import bench_models
from thermal_enhance.evaluation.bench_stats import LatencySummary
from thermal_enhance.evaluation.model_timing import FRAME_S, Subject, Timing, alone, stream, time_graph
from thermal_enhance.evaluation.temporal_cost import StreamingCost, streaming_cost
from thermal_enhance.evaluation.verdict import Verdict
from thermal_enhance.imaging.frames import ThermalFrame
from thermal_enhance.runtime.onnxruntime_backend import usable_cpus
from thermal_enhance.runtime.store import ModelStore

ROLES = ("encoder", "body")
GOAL_PROFILE = (160, 120)
GOAL_HZ = 9.0
"""The camera that nano must keep up with; twice as many frames come out."""
GOAL_GFLOP = 5.0
"""Of nano for an input frame of `GOAL_PROFILE`."""


@dataclass(frozen=True)
class StreamTiming:
    """The whole tier on a live stream.

    Attributes:
        latency: of an input frame: it, and the new frame before it.
        cost: with the ring and without.
    """

    latency: LatencySummary
    cost: StreamingCost


@dataclass(frozen=True)
class Row:
    """One model at one size of frames.

    Attributes:
        model: name.
        size: of the model: nano, base.
        profile: (width, height) of the input.
        window: frames it looks at.
        threads: CPU threads of the graphs.
        graphs: timing by role.
        gflop: by role; NaN where it cannot be counted.
        stream: of the tier.
    """

    model: str
    size: str
    profile: tuple[int, int]
    window: int
    threads: int
    graphs: dict[str, Timing]
    gflop: dict[str, float]
    stream: StreamTiming

    @property
    def frame_gflop(self) -> float:
        """Of an input frame: it is encoded once, and the body runs once."""
        return sum(self.gflop.values())

    def ratio(self, gemm_gflops: float) -> float:
        """Both graphs' median latency over the time of their arithmetic; NaN off the CPU."""
        if any(timing.device != "cpu" for timing in self.graphs.values()):
            return math.nan
        graphs_ms = sum(timing.latency.median_ms for timing in self.graphs.values())
        return graphs_ms / (1e3 * self.frame_gflop / gemm_gflops)

    def cpu_ratio(self, gemm_gflops: float) -> float:
        """The same by processor time, shared evenly among the threads: what an idle machine could reach."""
        if any(timing.device != "cpu" for timing in self.graphs.values()):
            return math.nan
        graphs_ms = sum(timing.cpu_ms for timing in self.graphs.values()) / self.threads
        return graphs_ms / (1e3 * self.frame_gflop / gemm_gflops)


def measure(
    store: ModelStore,
    names: Sequence[str],
    *,
    device: str = "auto",
    threads: int = 0,
    runs: int = 60,
    profiles: Sequence[tuple[int, int]] = (GOAL_PROFILE,),
) -> list[Row]:
    """Time models at those of some sizes that they have graphs for."""
    rows = []
    for name in names:
        manifest = store.describe(name)
        files = {(graph.role, graph.profile): graph for graph in manifest.graphs if graph.precision == "fp32"}
        for profile in profiles:
            if any((role, profile) not in files for role in ROLES):
                continue
            subjects = {
                role: Subject(tuple(store.folders), name, role, profile, "fp32", device, threads, runs)
                for role in ROLES
            }
            rows.append(
                Row(
                    name,
                    manifest.size,
                    profile,
                    int(manifest.parameters["window"]),
                    threads or usable_cpus(),
                    {role: alone(time_graph, subject) for role, subject in subjects.items()},
                    {role: bench_models.gflop(store, manifest, files[role, profile].file) for role in ROLES},
                    alone(time_stream, subjects["body"]),
                )
            )
    return rows


def time_stream(subject: Subject) -> StreamTiming:
    """A live stream of 16-bit frames of a drifting scene through the whole tier."""
    config = TemporalEnhancerConfig(
        model=subject.model,
        device=subject.device,
        threads=subject.threads,
        precision=subject.precision,
        netd=4.0,
    )
    enhancer = TemporalEnhancer(config, ModelStore(list(subject.folders)))
    scale = enhancer.manifest.scales[0]
    size = (subject.profile[0] * scale, subject.profile[1] * scale)
    pictures = [thermal for thermal, _ in stream(size, scale, 16)]
    period_ns = round(2 * FRAME_S * 1e9)

    def frame(index: int) -> ThermalFrame:
        # There and back again: a jump at the end of the scene would be no motion.
        place = index % (2 * len(pictures) - 2)
        return ThermalFrame(pictures[min(place, 2 * len(pictures) - 2 - place)], stamp_ns=index * period_ns)

    times = []
    for index in range(enhancer.window + 2 + subject.runs):
        began = time.perf_counter()
        try:
            enhancer(EnhanceRequest(frame(index), scale=scale))
        except FrameDeclined:
            continue
        if index >= enhancer.window + 2:
            times.append(1e3 * (time.perf_counter() - began))
    cost = streaming_cost(enhancer, [frame(index) for index in range(2 * enhancer.window + subject.runs)])
    enhancer.close()
    return StreamTiming(LatencySummary.of(times), cost)


def table(rows: Sequence[Row], gemm_gflops: float) -> str:
    """Markdown: one line a model and size."""
    lines = [
        "| model | input | threads | GFLOP a frame | encoder / body ms | ratio wall / CPU | "
        "tier p50 / p95 / p99 ms | window anew ms | ring saves |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        latency, cost = row.stream.latency, row.stream.cost
        graphs = " / ".join(f"{row.graphs[role].latency.median_ms:.1f}" for role in ROLES)
        lines.append(
            f"| {row.model} | {row.profile[0]}x{row.profile[1]} | {row.threads} | {_text(row.frame_gflop)} | "
            f"{graphs} | {_text(row.ratio(gemm_gflops))} / {_text(row.cpu_ratio(gemm_gflops))} | "
            f"{latency.median_ms:.1f} / {latency.p95_ms:.1f} / {latency.p99_ms:.1f} | "
            f"{cost.window_ms:.1f} against {cost.stream_ms:.1f} | {cost.saved:.0%} |"
        )
    return "\n".join(lines)


def stage_table(rows: Sequence[Row]) -> str:
    """Markdown: medians by stage."""
    names = list(dict.fromkeys(name for row in rows for name in row.stream.cost.stage_ms))
    lines = ["| model | input | " + " | ".join(names) + " |", "|" + "---|" * (2 + len(names))]
    for row in rows:
        cells = " | ".join(_text(row.stream.cost.stage_ms.get(name, math.nan), 1) for name in names)
        lines.append(f"| {row.model} | {row.profile[0]}x{row.profile[1]} | {cells} |")
    return "\n".join(lines)


def verdicts(rows: Sequence[Row]) -> Iterator[Verdict]:
    """What nano must reach at 160x120 -> 640x480 on a CPU."""
    for row in rows:
        if (row.size, row.profile) != ("nano", GOAL_PROFILE):
            continue
        if not math.isnan(row.frame_gflop):
            yield Verdict(
                f"{row.model} 160x120: at most {GOAL_GFLOP:g} GFLOP for an input frame",
                row.frame_gflop <= GOAL_GFLOP,
                f"{row.frame_gflop:.2f}",
            )
        if row.graphs["body"].device == "cpu":
            p95, period = row.stream.latency.p95_ms, 1e3 / GOAL_HZ
            yield Verdict(
                f"{row.model} 160x120 on {row.threads} CPU thread{'s' if row.threads > 1 else ''} keeps up "
                f"with {GOAL_HZ:g} Hz in, {2 * GOAL_HZ:g} Hz out",
                p95 <= period,
                f"p95 {p95:.0f} of {period:.0f} ms",
            )
        yield Verdict(
            f"{row.model} 160x120: a new frame costs less than the whole window encoded anew",
            row.stream.cost.saved > 0,
            f"{row.stream.cost.stream_ms:.1f} against {row.stream.cost.window_ms:.1f} ms",
        )


def report(rows: Sequence[Row], processor: str, gemm_gflops: float) -> str:
    """Both tables and the verdicts."""
    parts = [
        f"{processor}; float32 matrix products run at {gemm_gflops:.0f} GFLOP/s; ratio: both graphs' p50 "
        "over the time of their arithmetic at that rate, and the same by processor time. Tier: one input "
        "frame, which gives it and the new frame before it. Window anew: features and motion of all its "
        "frames found again.",
        table(rows, gemm_gflops),
        "The tier's stages, median ms:",
        stage_table(rows),
        "\n".join(map(str, verdicts(rows))),
    ]
    return "\n\n".join(part for part in parts if part)


def _text(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
