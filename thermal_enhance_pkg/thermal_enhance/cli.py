"""`thermal-enhance`: one command with a subcommand for everything."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

from thermal_enhance import __version__
from thermal_enhance.entry import hold_signals, leave


@dataclass(frozen=True)
class Command:
    """A subcommand: which module's `main(argv)` runs it, and one line of help."""

    module: str
    help: str
    graceful: bool = False
    """Does it end in order on Ctrl-C by itself? Then Ctrl-C waits until it can."""


COMMANDS = {
    "run": Command(
        "thermal_enhance.nodes.run_command", "start the whole graph on real or simulated input", True
    ),
    "enhance": Command("thermal_enhance.enhancers.folder", "enhance image files or a video, without ROS"),
    "replay": Command("thermal_enhance.nodes.replay_command", "play a rosbag2 on its own clock", True),
    "bag": Command("thermal_enhance.nodes.bag_command", "write a rosbag2 from folders of frames"),
    "models": Command("thermal_enhance.runtime.models_command", "list the models here and what runs them"),
    "export": Command("thermal_enhance.runtime.export_command", "export a trained checkpoint as a model"),
    "train": Command("thermal_enhance.training.train_command", "train a model by a recipe"),
    "bench": Command("", "measure: `thermal-enhance bench` lists what"),
}
BENCHMARKS = {
    "transport": Command(
        "thermal_enhance.evaluation.bench_transport",
        "a camera pair to an enhanced frame, against a stock node",
    ),
    "pairing": Command(
        "thermal_enhance.evaluation.bench_pairing", "our pair buffer against ApproximateTimeSynchronizer"
    ),
    "enhance": Command(
        "thermal_enhance.evaluation.bench_enhance", "quality and time of the enhancers on the val splits"
    ),
    "alignment": Command(
        "thermal_enhance.evaluation.bench_alignment", "how well thermal is found in RGB, still by still"
    ),
    "cross_modal": Command(
        "thermal_enhance.evaluation.bench_cross_modal", "cross-modal models on the val splits; model cards"
    ),
    "temporal": Command(
        "thermal_enhance.evaluation.bench_temporal", "temporal models on the val splits; model cards, speed"
    ),
    "ablation": Command(
        "thermal_enhance.evaluation.bench_ablation", "the paper's ablations and an overfit control"
    ),
    "models": Command(
        "thermal_enhance.evaluation.bench_models", "latency, arithmetic and memory of each model here"
    ),
    "networks": Command(
        "thermal_enhance.evaluation.bench_networks", "networks in torch: eager, compiled, as a CUDA graph"
    ),
}
NEEDS_ROS = (
    "rclpy", "thermal_enhance_msgs", "builtin_interfaces", "diagnostic_msgs", "lifecycle_msgs",
    "rcl_interfaces", "rosgraph_msgs", "sensor_msgs", "std_msgs", "std_srvs",
)  # fmt: skip
PIP_NAMES = {
    "rosbags": "rosbags",
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "rich": "rich",
    "safetensors": "safetensors",
    "yaml": "PyYAML",
    "torch": "'thermal_enhance[train]'",
}
"""What to install for a module that a colcon build beside a ROS distribution may lack."""


def usage(title: str, commands: dict[str, Command]) -> str:
    """The help text of a group of commands."""
    width = max(map(len, commands))
    rows = [f"  {name:<{width}}  {command.help}" for name, command in commands.items()]
    return "\n".join(
        [f"usage: {title} COMMAND [options]", "", *rows, "", f"`{title} COMMAND --help` tells the options."]
    )


def missing_module(title: str, name: str | None) -> str | None:
    """What to do about a module that is not importable; None when it is not somebody else's to install."""
    package = (name or "").partition(".")[0]
    if package in NEEDS_ROS:
        return (
            f"{title} needs ROS 2 and {package} is not importable: "
            "run `make setup` and use .venv/bin/thermal-enhance, or source your ROS installation"
        )
    if package in PIP_NAMES:
        return f"{title} needs the Python package {package}: `pip install {PIP_NAMES[package]}`"
    return None


def dispatch(title: str, commands: dict[str, Command], argv: list[str]) -> int:
    """Run the command that argv names; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(usage(title, commands) + "\n")
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name not in commands:
        sys.stderr.write(f"{title}: there is no command '{name}'\n\n{usage(title, commands)}\n")
        return 2
    if name == "bench" and commands is COMMANDS:
        return dispatch(f"{title} bench", BENCHMARKS, rest)
    if commands[name].graceful:
        hold_signals()
    try:
        # Some modules import what they need only when it is needed: both may lack something.
        return int(importlib.import_module(commands[name].module).main(rest) or 0)
    except ModuleNotFoundError as error:
        advice = missing_module(f"{title} {name}", error.name)
        if advice is None:
            raise
        sys.stderr.write(advice + "\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{title} {name}: interrupted\n")
        return 130


def main(argv: list[str] | None = None) -> int:
    """Entry point of the console script."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"thermal-enhance {__version__}\n")
        return 0
    status = dispatch("thermal-enhance", COMMANDS, arguments)
    return leave(status) if argv is None else status


if __name__ == "__main__":
    sys.exit(main())
