"""Speed of the networks in torch: `thermal-enhance bench networks`.

Untrained weights of each size, eager, compiled and as a CUDA graph, against what the same device multiplies
matrices at in the same precision. It is for GPUs; on a CPU it runs eager and compiled, and models ship as
ONNX there (`bench models`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thermal_enhance.evaluation.bench_stats import machine

SIZES = ("edge", "base", "sd-turbo")
WAYS = ("eager", "compiled", "graphed")
PRECISIONS = ("fp32", "bf16", "fp16")
WARM_RUNS = 3
_MATRIX = 4096
_CPU_MATRIX = 1024


@dataclass(frozen=True)
class Row:
    """One network, one way of running it.

    Attributes:
        size: of the network.
        way: of `WAYS`.
        parameters: millions.
        gflop: of one frame, two for each multiplication and addition; attention included.
        ms: median of a frame, milliseconds; NaN where it did not run.
        share: of the device's matrix rate, 0 to 1.
        note: why it did not run.
    """

    size: str
    way: str
    parameters: float
    gflop: float
    ms: float
    share: float
    note: str = ""


def matrix_rate(device: Any, dtype: Any) -> float:
    """Matrix multiplication of this device in this precision, GFLOP/s, best of five."""
    import torch

    side = _MATRIX if device.type == "cuda" else _CPU_MATRIX
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    with torch.no_grad():
        times = timings(lambda: a @ b, 5, device)
    return 2 * side**3 / min(times) / 1e6


def timings(run: Callable[[], object], runs: int, device: Any) -> list[float]:
    """Milliseconds of each run, the device's queue emptied around it."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for index in range(WARM_RUNS + runs):
        wait()
        began = time.perf_counter()
        run()
        wait()
        if index >= WARM_RUNS:
            times.append(1e3 * (time.perf_counter() - began))
    return times


def measure(
    size: str, side: int, device: Any, dtype: Any, ways: Sequence[str], runs: int, rate: float
) -> list[Row]:
    """Time one network on two views of `side` x `side` pixels.

    Args:
        size: of `SIZES`.
        side: pixels.
        device: torch device.
        dtype: of weights and pictures.
        ways: of `WAYS`.
        runs: timed frames.
        rate: GFLOP/s of `matrix_rate`.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from thermal_enhance.networks.cross_modal import provider
    from thermal_enhance.networks.cross_modal.model import CrossModalModel
    from thermal_enhance.networks.cross_modal.sizes import SIZES as CONFIGURATIONS

    config = CONFIGURATIONS[size]()
    torch.manual_seed(0)
    model = provider.random_model(config) if size == "sd-turbo" else CrossModalModel(config)
    model = model.to(device, dtype).eval().requires_grad_(False)
    thermal, rgb = (torch.randn(1, 3, side, side, device=device, dtype=dtype) for _ in range(2))
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    rows = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            model(thermal, rgb)
        gflop = counter.get_total_flops() / 1e9
        for way in ways:
            try:
                run = _ready(way, model, thermal, rgb, device)
                ms = statistics.median(timings(run, runs, device))
            except Exception as error:  # a way that is not to be had here is a line of the table, not the end
                reason = str(error).strip().splitlines() or [type(error).__name__]
                rows.append(Row(size, way, parameters, gflop, float("nan"), float("nan"), reason[0][:120]))
                continue
            rows.append(Row(size, way, parameters, gflop, ms, gflop / ms * 1e3 / rate))
    return rows


def _ready(way: str, model: Any, thermal: Any, rgb: Any, device: Any) -> Callable[[], object]:
    import torch

    if way == "eager":
        return lambda: model(thermal, rgb)
    if way == "compiled":
        compiled = torch.compile(model)
        compiled(thermal, rgb)
        return lambda: compiled(thermal, rgb)
    if device.type != "cuda":
        raise RuntimeError("CUDA graphs need a CUDA device")
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_RUNS):  # what is allocated lazily must exist before the capture
            model(thermal, rgb)
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(thermal, rgb)
    return graph.replay


def table(rows: Sequence[Row]) -> str:
    """Markdown: one line a network and way."""
    lines = [
        "| network | parameters | GFLOP | way | ms a frame | share of the matrix rate |",
        "|" + "---|" * 6,
    ]
    for row in rows:
        ms, share = (f"{row.ms:.2f}", f"{row.share:.0%}") if not row.note else (f"not run: {row.note}", "-")
        lines.append(
            f"| {row.size} | {row.parameters:.1f} M | {row.gflop:.1f} | {row.way} | {ms} | {share} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 on success, 2 where torch or the device is missing."""
    parser = argparse.ArgumentParser(prog="thermal-enhance bench networks", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["edge", "base"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--side", type=int, default=512, help="of the pictures, pixels, a multiple of 64")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: fp16 on CUDA, fp32 on a CPU")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--runs", type=int, default=20, help="timed frames (default: 20)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args(argv)
    if arguments.side < 64 or arguments.side % 64 or arguments.runs < 1:
        parser.error("--side must be a multiple of 64 and --runs at least 1")
    try:
        import torch
    except ModuleNotFoundError:
        sys.stderr.write("bench networks needs torch: pip install 'thermal_enhance[train]'\n")
        return 2
    name = arguments.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write(f"bench networks: --device {name}: torch sees no CUDA device; use cpu\n")
        return 2
    device = torch.device(name)
    precision = arguments.precision or ("fp16" if device.type == "cuda" else "fp32")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    rate = matrix_rate(device, dtype)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(machine()["processor"])
    sys.stdout.write(
        f"{where}, torch {torch.__version__}, {precision}, two views of {arguments.side}x{arguments.side}; "
        f"matrices: {rate:.0f} GFLOP/s\n\n"
    )
    rows = []
    for size in arguments.sizes:
        sys.stderr.write(f"{size} ...\n")
        rows += measure(size, arguments.side, device, dtype, arguments.ways, arguments.runs, rate)
    sys.stdout.write(table(rows) + "\n")
    if arguments.json is not None:
        plain = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()}
            for row in rows
        ]
        figures = {"device": where, "precision": precision, "rate": rate, "rows": plain}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0
