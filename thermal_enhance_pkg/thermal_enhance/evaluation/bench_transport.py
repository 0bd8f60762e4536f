"""`thermal-enhance bench transport`: from a camera driver's stamp to the enhanced frame in a consumer.

A driver process publishes a thermal and an RGB image at a fixed rate, a node hands thermal through, a third
process receives the result; all three on one machine, so stamp and arrival are read from one clock. Our node
is compared with an ordinary rclpy node (bench_transport_stock.py), each with the driver on Fast DDS's default
transport and on our profile. Our node always has our profile, the stock node never: a driver that is not ours
keeps its own, and so does a node that is not ours. The consumer has the transport of the node it listens to.

The stock node publishes pairs only. So that like is compared with like, our node runs twice: waiting for the
RGB frame of each thermal frame (`ours, paired`, parameter `pair_always`; what a tier guided by RGB meets) and
as shipped, where the passthrough tier has no use for RGB, so that the node neither waits for it nor
subscribes to it (`ours`).

Runs alternate between the contenders and are repeated; a figure is the median over the repetitions, its
spread their smallest and largest. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from thermal_enhance.evaluation.bench_children import BenchmarkError, Children, interruptible
from thermal_enhance.evaluation.bench_stats import LatencySummary, machine, process_cpu_s
from thermal_enhance.evaluation.bench_transport_result import (
    COLUMNS,
    DRIVERS,
    OURS,
    PAIRED,
    STOCK,
    TransportConfig,
    TransportResult,
    TransportRun,
    cells,
    size_text,
)

PACKAGE = "thermal_enhance.evaluation"
_PARAMETERS = ("--autostart", "--ros-args", "-p", "mode:=passthrough", "-p", "scale:=1")
_COMMANDS: dict[str, tuple[str, ...]] = {
    OURS: ("-m", "thermal_enhance.nodes.enhancement_node", *_PARAMETERS),
    PAIRED: ("-m", "thermal_enhance.nodes.enhancement_node", *_PARAMETERS, "-p", "pair_always:=true"),
    STOCK: ("-m", f"{PACKAGE}.bench_transport_stock"),
}


def match_frames(
    stamps: Sequence[int], arrivals: Sequence[Sequence[int]], paired: Sequence[int] | None
) -> tuple[list[float], int, int]:
    """Compare what was sent with what came out.

    Args:
        stamps: Stamps of the measured thermal frames, ns.
        arrivals: (stamp, arrival) of every enhanced frame, ns; others than the measured are passed over.
        paired: Stamps of frames that had an RGB partner; None where every output is a pair.

    Returns:
        Latencies in milliseconds (first arrival of each frame), frames received, frames paired.
    """
    sent = set(stamps)
    first: dict[int, int] = {}
    for stamp, arrival in arrivals:
        if stamp in sent:
            first[stamp] = min(arrival, first.get(stamp, arrival))
    partners = len(first) if paired is None else len(first.keys() & set(paired))
    return [(arrival - stamp) * 1e-6 for stamp, arrival in first.items()], len(first), partners


def run_once(config: TransportConfig, node: str, driver: str, profile: Path) -> TransportRun:
    """Start driver, node and receiver, measure, and end them.

    Raises:
        BenchmarkError: If one of them fails.
    """
    ours = node != STOCK
    own_profile = profile if ours else None
    end = f"{PACKAGE}.bench_transport_driver"
    drive = ["-m", end, "drive", "--rate", str(config.rate), "--frames", str(config.frames)]
    drive += ["--warmup", str(max(1, round(config.warmup_s * config.rate)))]
    drive += ["--thermal", size_text(config.thermal), "--color", size_text(config.color)]
    if node == OURS:
        # A tier without use for RGB may leave that topic alone.
        drive.append("--no-color-subscriber")
    with Children(random.SystemRandom().randint(20, 99)) as children:
        receiver = children.start(
            "receiver", ["-m", end, "receive", *(["--info"] if ours else [])], own_profile
        )
        receiver.event("ready", 30.0)
        contender = children.start(node, _COMMANDS[node], own_profile)
        source = children.start("driver", drive, profile if driver == "profile" else None)
        try:
            source.event("measuring", 40.0 + config.warmup_s)
        except BenchmarkError:
            contender.check_alive()  # if it has ended, its words are the better explanation
            raise
        cpu_before = process_cpu_s(contender.pid)
        sent = source.event("sent", 30.0 + 3.0 * config.seconds)
        cpu_s = process_cpu_s(contender.pid) - cpu_before
        contender.check_alive()
        receiver.finish()
        received = receiver.event("received", 30.0)
    latencies, count, paired = match_frames(
        sent["stamps"], received["arrivals"], received["paired"] if ours else None
    )
    return TransportRun(
        node=node,
        driver=driver,
        sent=len(sent["stamps"]),
        received=count,
        paired=paired,
        latency=LatencySummary.of(latencies),
        cpu_s=cpu_s,
        late=sent["late"],
        dropped=received["dropped"],
    )


def run(
    config: TransportConfig | None = None,
    profile: Path | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> TransportResult:
    """Run every contender with every driver, alternating, `config.repeats` times.

    Args:
        config: What to send.
        profile: Fast DDS profile of ours; None for config/fastdds.xml.
        progress: Called with a line after each run.

    Raises:
        BenchmarkError: If a process fails.
        ResourceError: If the profile is not installed.
    """
    from thermal_enhance.resources import resource

    config = config or TransportConfig()
    profile = profile or resource("config", "fastdds.xml")
    runs: list[TransportRun] = []
    total = config.repeats * len(DRIVERS) * len(config.nodes)
    for _ in range(config.repeats):
        for driver in DRIVERS:
            for node in config.nodes:
                one = run_once(config, node, driver, profile)
                runs.append(one)
                latency = f"median {one.latency.median_ms:.1f} ms, p95 {one.latency.p95_ms:.1f} ms"
                progress(
                    f"[{len(runs)}/{total}] {node}, driver on {driver}: {latency}, "
                    f"{one.lost} of {one.sent} lost"
                )
    return TransportResult(config, machine(), tuple(runs))


def parse_sizes(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """`640x512,1920x1080` as the (width, height) of the thermal and the RGB image.

    Raises:
        ValueError: If it is not of that form.
    """
    try:
        thermal, color = (tuple(int(part) for part in size.lower().split("x")) for size in text.split(","))
        return (thermal[0], thermal[1]), (color[0], color[1])
    except (ValueError, IndexError):
        raise ValueError(f"--sizes must look like 640x512,1920x1080, not {text!r}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `thermal-enhance bench transport`; 0 all shown, 1 not, 2 it could not be run."""
    default = TransportConfig()
    parser = argparse.ArgumentParser(
        prog="thermal-enhance bench transport",
        description="A camera pair to an enhanced frame, against a stock node.",
    )
    parser.add_argument(
        "--seconds", type=float, default=default.seconds, help="measured time a run (default 8)"
    )
    parser.add_argument("--repeats", type=int, default=default.repeats, help="runs of each kind (default 3)")
    parser.add_argument("--rate", type=float, default=default.rate, help="pairs a second (default 30)")
    parser.add_argument(
        "--sizes", default="640x512,1920x1080", metavar="WxH,WxH", help="thermal and RGB size"
    )
    parser.add_argument("--profile", type=Path, help="Fast DDS profile instead of config/fastdds.xml")
    parser.add_argument("--out", type=Path, help="folder for transport.json and transport.md")
    parser.add_argument("--json", type=Path, help="file for the result as JSON")
    args = parser.parse_args(argv)
    try:
        thermal, color = parse_sizes(args.sizes)
        config = TransportConfig(args.seconds, args.repeats, args.rate, thermal=thermal, color=color)
        with interruptible():
            result = run(config, args.profile, lambda line: print(line, file=sys.stderr, flush=True))
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "transport.json").write_text(result.to_json() + "\n", encoding="utf-8")
            (args.out / "transport.md").write_text(result.to_markdown(), encoding="utf-8")
        if args.json is not None:
            args.json.write_text(result.to_json() + "\n", encoding="utf-8")
    except (OSError, ValueError, BenchmarkError) as error:
        sys.stderr.write(f"bench transport: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("bench transport: interrupted\n")
        return 130
    _show(result)
    return 0 if result.passed else 1


def _show(result: TransportResult) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(result.to_markdown())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, title="transport: stamp to enhanced frame received", caption=result.caption())
    for row in result.rows:
        table.add_row(*cells(row))
    console = Console()
    console.print(table)
    for check in result.checks:
        console.print(
            f"{'yes' if check.passed else 'NO'}: {check.what}", style="green" if check.passed else "red"
        )


if __name__ == "__main__":
    sys.exit(main())
