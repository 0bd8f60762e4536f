"""`thermal-enhance run`: the whole graph on real or simulated input, with a live table and a summary."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from thermal_enhance import __version__
from thermal_enhance.enhancers.registry import available_modes, is_learned
from thermal_enhance.nodes.bags import BagError, BagReader
from thermal_enhance.nodes.composition import load_node, source_report, sources_finished
from thermal_enhance.nodes.enhancement_node import EnhancementNode
from thermal_enhance.nodes.parameters import ParameterError
from thermal_enhance.nodes.process import StopSignal, Suite, SuiteError, close_network
from thermal_enhance.nodes.run_display import Display
from thermal_enhance.nodes.run_picture import PictureTap
from thermal_enhance.resources import ResourceError, resource

STOP_S = 8.0
"""How long a source may take to end before it is killed."""
DEFAULT_MODE = "cross_modal"
"""What config/cpu.yaml sets."""
CLIPS_HZ, RIG_HZ = 6.0, 4.0
"""Rates of our own sources where a model runs, for 320x240 out and 640x480 out. Chosen from what it takes on
two otherwise idle cores (512x512: 181 ms a frame, docs/benchmarks.md). Where the machine cannot follow, the
ladder hands the frames to the classical tier and the summary says so."""


@dataclass(frozen=True)
class Source:
    """What plays the cameras.

    Attributes:
        description: for people.
        node: name of the node, empty for cameras that are there already.
        parameters: its ROS parameters.
        enhancement: parameters that this source suggests for the enhancement node.
        sim_time: does the graph run on the source's clock?
    """

    description: str
    node: str
    parameters: dict[str, Any]
    enhancement: dict[str, Any]
    sim_time: bool = False


def shared_clips() -> Path | None:
    """The real clips that come with the project's data, where they are."""
    checkout = Path(__file__).resolve().parents[3]
    for base in (Path.cwd(), checkout):
        path = base.parent / "shared" / "data" / "thermal_video"
        if (path / "manifest.jsonl").is_file():
            return path
    return None


def choose_source(options: argparse.Namespace) -> Source:
    """The source that the options ask for, or the best one that is there.

    Raises:
        SuiteError: a named file or folder does not exist.
    """
    if options.bag:
        if not Path(options.bag).exists():
            raise SuiteError(f"--bag {options.bag}: there is no such file or folder")
        parameters = {
            "bag": str(Path(options.bag).resolve()),
            "rate": float(options.rate or 1.0),
            "loop": bool(options.loop),
            "wait_for_subscribers": True,
        }
        return Source(f"bag {options.bag}", "replay_node", parameters, _units_of(options.bag), sim_time=True)
    if options.data:
        if not Path(options.data).exists():
            raise SuiteError(f"--data {options.data}: there is no such folder")
        return _folder(Path(options.data), options.rate or 0.0, options.downscale or 1, {})
    if options.source == "topics":
        return Source("the cameras on thermal/image_raw and rgb/image_raw", "", {}, {})
    model = runs_model(options.mode)
    clips = shared_clips() if options.source in ("auto", "clips") else None
    if clips is not None:
        # The clips are 640x480 at 30 Hz; a cheap camera has a quarter of that or less.
        rate, downscale = (CLIPS_HZ, 8) if model else (0.0, 4)
        return _folder(clips, options.rate or rate, options.downscale or downscale, {"scale": 4})
    if options.source == "clips":
        raise SuiteError(
            "--source clips: ../shared/data/thermal_video is not there; use --data DIR or --source rig"
        )
    parameters = {"preset": options.preset, "seed": options.seed}
    if options.rate or model:
        parameters["thermal_rate"] = float(options.rate or RIG_HZ)
    return Source(f"the simulated rig ({options.preset})", "camera_rig_node", parameters, {})


def runs_model(mode: str | None) -> bool:
    """Will a model make the frames: is the mode (None: config/cpu.yaml's) learned, with a model here?"""
    wanted = DEFAULT_MODE if mode is None else mode
    return is_learned(wanted) and wanted in available_modes()


def _units_of(bag: str) -> dict[str, Any]:
    """The thermal units that `thermal-enhance bag` wrote down, as a parameter; empty for other bags.

    Raises:
        SuiteError: the bag cannot be read.
    """
    try:
        with BagReader(bag) as reader:
            units = reader.custom_data.get("thermal_units")
    except BagError as error:
        raise SuiteError(str(error)) from None
    return {"thermal_units": units} if units else {}


def _folder(path: Path, rate: float, downscale: int, enhancement: dict[str, Any]) -> Source:
    parameters = {
        "data": str(path.resolve()),
        "rate": float(rate),
        "downscale": downscale,
        "loop": True,
    }
    return Source(f"{path} at 1/{downscale} size", "frame_folder_node", parameters, enhancement)


def params_file(name: str) -> str:
    """A parameter file by its path, or by its name in the package's config folder, as launch takes it.

    Raises:
        SuiteError: there is neither.
    """
    if Path(name).is_file():
        return name
    try:
        return str(resource("config", f"{name}.yaml"))
    except ResourceError:
        raise SuiteError(
            f"--params-file {name}: no such file; a path, or cpu, desktop, jetson, cameras/lepton, ..."
        ) from None


def ros_arguments(parameters: dict[str, dict[str, Any]], files: list[str], sim_time: bool) -> list[str]:
    """Command-line form of parameters by node, for rclpy.init or a child process."""
    arguments = ["--ros-args"]
    for file in files:
        arguments += ["--params-file", file]
    for node, values in parameters.items():
        for name, value in values.items():
            text = (
                json.dumps(value)
                if isinstance(value, str)
                else str(value).lower()
                if isinstance(value, bool)
                else str(value)
            )
            arguments += ["-p", f"{node}:{name}:={text}"]
    if sim_time:
        arguments += ["-p", "use_sim_time:=true"]
    return arguments


def start_source(source: Source, report: Path) -> subprocess.Popen[bytes]:
    """The source as a process of its own, as a camera driver is."""
    command = [
        sys.executable, "-m", "thermal_enhance.entry", "composition",
        "--nodes", source.node, "--autostart", "true", "--report", str(report), "--exit-when-finished",
        *ros_arguments({source.node: source.parameters}, [], False),
    ]  # fmt: skip
    # A group of its own: Ctrl-C reaches us, and we end the source in order.
    return subprocess.Popen(command, start_new_session=True)


def stop_source(process: subprocess.Popen[bytes] | None) -> None:
    """End the source; kill it when it does not."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def read_report(path: Path) -> dict[str, Any]:
    """What the source said that it published; empty when it could not say."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def summarise(
    node: EnhancementNode,
    source: Source,
    report: dict[str, Any],
    duration_s: float,
) -> dict[str, Any]:
    """The content of summary.json."""
    summary = node.statistics.snapshot()
    published = report.get("published", {}).get("thermal")
    summary["lost_in_transport"] = max(0, published - summary["frames_in"]) if published is not None else None
    summary["latency_ms"] = {"p50": None, "p95": None, "p99": None, **summary["latency_ms"]}
    summary["rgb_dropped"] = node.rgb_drops
    summary["source"] = {"description": source.description, **report}
    summary["mode"] = node.config.mode
    summary["duration_s"] = round(duration_s, 3)
    summary["version"] = __version__
    summary["machine"] = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "rmw_profile": Path(os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE", "default")).name,
    }
    summary["accounted_for"] = summary["frames_in"] == summary["frames_out"] + sum(
        summary["dropped"].values()
    )
    return summary


def write_picture(picture: PictureTap, folder: Path) -> str | None:
    """The picture's file name; None when there is none, which must not cost the summary."""
    try:
        return picture.write(folder)
    except Exception as error:
        sys.stderr.write(f"thermal-enhance run: no picture: {error}\n")
        return None


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog="thermal-enhance run",
        description="Start cameras (or a stand-in), enhancement and task router on real ROS 2, and watch. "
        "Each frame is made by the best tier that keeps up; the summary says which made how many, and why.",
    )
    what = result.add_mutually_exclusive_group()
    what.add_argument(
        "--bag", metavar="FILE", help="play a rosbag2 (MCAP or sqlite3; a folder or a file in it)"
    )
    what.add_argument("--data", metavar="DIR", help="play folders or videos of thermal (and RGB) frames")
    what.add_argument(
        "--source",
        choices=("auto", "clips", "rig", "topics"),
        default="auto",
        help="auto: real clips where they are, else the simulated rig; topics: cameras that already publish",
    )
    result.add_argument(
        "--duration", type=float, default=30.0, help="seconds to run; 0 until Ctrl-C (default 30)"
    )
    result.add_argument(
        "--mode",
        default=None,
        help=f"enhancement mode (default: {DEFAULT_MODE} where its model is, else classical)",
    )
    result.add_argument("--model", default=None, help="model of a learned mode (default: the mode's own)")
    result.add_argument(
        "--scale", type=int, choices=(0, 1, 2, 4, 8), default=None, help="output over input size; 0 auto"
    )
    result.add_argument(
        "--downscale",
        type=int,
        choices=(1, 2, 4, 8),
        default=None,
        help="shrink --data first, as a cheap camera would",
    )
    result.add_argument(
        "--rate",
        type=float,
        default=None,
        help="frames a second, or the factor of a bag's own speed; where a model runs, our own sources play "
        f"more slowly by default (clips {CLIPS_HZ:g}, rig {RIG_HZ:g})",
    )
    result.add_argument("--loop", action="store_true", help="start the bag again at its end")
    result.add_argument(
        "--preset",
        default="default",
        help="cameras of the simulated rig: default, lepton, boson, seek, oak_t, spinnaker",
    )
    result.add_argument("--seed", type=int, default=0, help="seed of the simulated rig")
    result.add_argument(
        "--params-file", action="append", default=[], metavar="YAML", help="ROS parameter file (repeatable)"
    )
    result.add_argument("--composed", action="store_true", help="put the source into the same process too")
    result.add_argument(
        "--out", type=Path, default=Path("out/run"), help="where picture and summary go (default out/run)"
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status (0 after Ctrl-C too)."""
    options = parser().parse_args(argv)
    close_network()
    stop = StopSignal()
    try:
        source = choose_source(options)
        files = [str(resource("config", "cpu.yaml")), *map(params_file, options.params_file)]
    except (SuiteError, ResourceError) as error:
        sys.stderr.write(f"thermal-enhance run: {error}\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)

    enhancement = dict(source.enhancement)
    enhancement.update({k: v for k, v in _asked(options) if v is not None})
    parameters = {"enhancement_node": enhancement}
    composed = bool(options.composed and source.node)
    if composed:
        parameters[source.node] = source.parameters
    rclpy.init(
        args=ros_arguments(parameters, files, source.sim_time and not composed),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    suite: Suite | None = None
    child: subprocess.Popen[bytes] | None = None
    status = 0
    with tempfile.TemporaryDirectory(prefix="thermal_enhance_") as scratch:
        report_file = Path(scratch) / "source.json"
        try:
            names = ["enhancement_node", "task_router_node"]
            suite = Suite([load_node(name) for name in ([source.node, *names] if composed else names)])
            node: EnhancementNode = suite.node(EnhancementNode)
            picture = PictureTap(node)
            suite.start()
            if source.node and not composed:
                child = start_source(source, report_file)
            started = time.monotonic()
            status = _watch(stop, options, node, child, suite, source, started)
            duration_s = time.monotonic() - started
            if composed:
                # The source first, as `stop_source` does: what it publishes from here on would not be played.
                suite.nodes[0].trigger_deactivate()
            stop_source(child)
            node.drain()
            node.trigger_deactivate()
            report = source_report(suite) if composed else read_report(report_file)
            summary = summarise(node, source, report, duration_s)
            summary["picture"] = write_picture(picture, options.out)
            (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
            _say_goodbye(summary, options.out)
        except (ParameterError, SuiteError, ResourceError) as error:
            sys.stderr.write(f"thermal-enhance run: {error}\n")
            status = 1
        finally:
            stop_source(child)
            if suite is not None:
                suite.stop()
            rclpy.try_shutdown()
            stop.ignore_further()
    return status


def _asked(options: argparse.Namespace) -> tuple[tuple[str, Any], ...]:
    """Parameters of the enhancement node that the command line may set."""
    return (("mode", options.mode), ("model", options.model), ("scale", options.scale))


def _watch(
    stop: StopSignal,
    options: argparse.Namespace,
    node: EnhancementNode,
    child: subprocess.Popen[bytes] | None,
    suite: Suite,
    source: Source,
    started: float,
) -> int:
    """Show the table until the time is up, the source ends, or somebody stops it."""
    with Display(node, source.description, options.duration) as display:
        while not stop.wait(0.25):
            elapsed = time.monotonic() - started
            display.update(elapsed)
            if options.duration and elapsed >= options.duration:
                return 0
            if child is not None and child.poll() is not None:
                if child.returncode != 0:
                    sys.stderr.write(
                        f"thermal-enhance run: the source ended with exit status {child.returncode}\n"
                    )
                    return 1
                return 0
            # The source in this process: its own failure has been logged, and is the run's.
            if child is None and sources_finished(suite):
                return int(any(getattr(node, "error", "") for node in suite.nodes))
    return 0


def tiers(summary: dict[str, Any]) -> str:
    """Which tier made how many frames, and why the best one did not make them all."""
    made = ", ".join(f"{name} {count}" for name, count in summary["tiers"].items()) or "no tier"
    stepped = ", ".join(f"{reason} {count}" for reason, count in summary["tier_reasons"].items())
    return made + (f" (stepped down: {stepped})" if stepped else "")


def _say_goodbye(summary: dict[str, Any], out: Path) -> None:
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items()) or "none"
    latency = summary["latency_ms"]
    lines = [
        f"{summary['frames_in']} frames in, {summary['frames_out']} out, dropped: {dropped}"
        + (f", lost on the way here: {summary['lost_in_transport']}" if summary["lost_in_transport"] else ""),
        f"made by {tiers(summary)}",
        "latency callback to publish: "
        + ", ".join(
            f"{name} -" if latency[name] is None else f"{name} {latency[name]:.1f} ms"
            for name in ("p50", "p95", "p99")
        ),
        f"wrote {out / 'summary.json'}" + (f" and {out / summary['picture']}" if summary["picture"] else ""),
    ]
    if summary["frames_in"] == 0:
        lines.append(
            "nothing has arrived on thermal/image_raw: is the camera publishing, under this name (remap it), "
            "with the same ROS_DOMAIN_ID?"
        )
    elif summary["dropped"].get("superseded", 0) > 0.05 * summary["frames_in"]:
        lines.append(
            "this machine is too slow for this input: try --scale 1 or 2, --composed, or a lower --rate"
        )
    sys.stdout.write("\n".join(lines) + "\n")
