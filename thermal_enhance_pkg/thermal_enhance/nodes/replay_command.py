"""`thermal-enhance replay`: plays a recording on its own clock."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from thermal_enhance.nodes.bag_reader import BagError, storage_path
from thermal_enhance.nodes.camera_topics import find_camera_topics
from thermal_enhance.nodes.recordings import is_bag, open_recording

if TYPE_CHECKING:
    from thermal_enhance.nodes.process import Suite


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog="thermal-enhance replay",
        description="Play a rosbag2 recording (or a clip) as the cameras, on its own clock. "
        "Nodes that follow it run with use_sim_time.",
        epilog="Options after --ros-args go to ROS, for example --ros-args -r __ns:=/robot.",
    )
    result.add_argument(
        "bag", metavar="BAG", help="rosbag2 folder, .mcap or .db3 file; or a folder of frames"
    )
    result.add_argument(
        "--rate", type=float, default=1.0, help="seconds of the recording per second (default 1)"
    )
    result.add_argument("--loop", action="store_true", help="begin again at the end, until Ctrl-C")
    result.add_argument("--start", type=float, default=0.0, metavar="SEC", help="leave out the first seconds")
    result.add_argument(
        "--duration", type=float, default=0.0, metavar="SEC", help="play this much; 0 to the end"
    )
    result.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="play only these")
    result.add_argument(
        "--thermal-topic", default="", metavar="TOPIC", help="the thermal images, if not found"
    )
    result.add_argument(
        "--rgb-topic", default="", metavar="TOPIC", help="the RGB images, if not found; or none"
    )
    result.add_argument("--no-clock", action="store_true", help="publish no /clock")
    result.add_argument(
        "--clock-rate", type=float, default=100.0, metavar="HZ", help="of /clock (default 100)"
    )
    result.add_argument(
        "--wait", action="store_true", help="begin when somebody listens to the thermal images"
    )
    result.add_argument("--list", action="store_true", help="only tell what is in the recording")
    return result


def list_recording(bag: str, console: Console) -> int:
    """Print topics, types and counts of a recording; returns the exit status."""
    recording = open_recording(bag)
    seconds = recording.duration_ns / 1e9
    table = Table(title=f"{bag}: {seconds:.2f} s, {recording.message_count} messages")
    for name, justify in (("topic", "left"), ("type", "left"), ("messages", "right"), ("Hz", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for name, topic in recording.topics.items():
        rate = f"{(topic.count - 1) / seconds:.1f}" if seconds > 0 and topic.count > 1 else "-"
        table.add_row(name, topic.msgtype, str(topic.count), rate)
    console.print(table)
    try:
        cameras = find_camera_topics(recording)
        console.print(f"thermal: {cameras.thermal}   RGB: {cameras.rgb or 'none'}", highlight=False)
    except BagError as error:
        console.print(str(error), highlight=False)
    for key, value in sorted(recording.custom_data.items()):
        console.print(f"{key}: {value}", highlight=False)
    return 0


class _Monitor:
    """Shows the progress and remembers how the replay ended."""

    def __init__(self, console: Console) -> None:
        self.failed = False
        self._progress = Progress(
            TextColumn("replay"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[counts]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=1.0, counts="")

    def __enter__(self) -> _Monitor:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def over(self, suite: Suite) -> bool:
        """Look at the node; is it done?"""
        node: Any = suite.nodes[0]
        counts = node.published_counts()
        shown = "  ".join(f"{key} {counts[key]}" for key in ("thermal", "rgb") if key in counts)
        self._progress.update(self._task, completed=node.progress, counts=shown)
        if node.finished.is_set():
            self.failed = bool(node.error)
            return True
        return False


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status is 0 (after Ctrl-C too), or 1 when the recording cannot be played."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    split = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    options = parser().parse_args(arguments[:split])
    console = Console(stderr=not options.list)
    try:
        if options.list:
            # No StopSignal will let them through here, and there is nothing to end in order.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
            return list_recording(options.bag, console)
        if is_bag(options.bag) or not Path(options.bag).exists():
            storage_path(Path(options.bag))  # its message is better than a failed transition's
    except (BagError, ValueError) as error:
        sys.stderr.write(f"thermal-enhance replay: {error}\n")
        return 1
    return _play(options, arguments[split:], console)


def _play(options: argparse.Namespace, ros_args: list[str], console: Console) -> int:
    from rclpy.parameter import Parameter

    from thermal_enhance.nodes.process import close_network, run_process
    from thermal_enhance.nodes.replay_node import ReplayNode

    values: dict[str, Any] = {
        "bag": options.bag,
        "rate": options.rate,
        "loop": options.loop,
        "start_offset": options.start,
        "duration": options.duration,
        "publish_clock": not options.no_clock,
        "clock_rate": options.clock_rate,
        "thermal_topic": options.thermal_topic,
        "rgb_topic": options.rgb_topic,
        "wait_for_subscribers": options.wait,
    }
    if options.topics:
        values["topics"] = options.topics
    overrides = [Parameter(name, value=value) for name, value in values.items()]

    def factory(**arguments: Any) -> ReplayNode:
        return ReplayNode(parameter_overrides=overrides, **arguments)

    close_network()
    with _Monitor(console) as monitor:
        status = run_process([factory], ros_args or None, autostart=True, until=monitor.over)
    return status or int(monitor.failed)


if __name__ == "__main__":
    sys.exit(main())
