"""The composed process: several nodes, frames handed over in memory."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from rclpy.utilities import remove_ros_args

from thermal_enhance.nodes.process import NodeFactory, Suite, run_process

# Sources first: their topics are advertised in the process before anybody looks for them.
NODES = {
    "camera_rig_node": "thermal_enhance.nodes.camera_rig_node:CameraRigNode",
    "frame_folder_node": "thermal_enhance.nodes.frame_folder_node:FrameFolderNode",
    "replay_node": "thermal_enhance.nodes.replay_node:ReplayNode",
    "enhancement_node": "thermal_enhance.nodes.enhancement_node:EnhancementNode",
    "task_router_node": "thermal_enhance.nodes.task_router_node:TaskRouterNode",
}
DEFAULT_NODES = ("enhancement_node", "task_router_node")


def load_node(name: str) -> NodeFactory:
    """The class of a node by its name.

    Raises:
        ValueError: there is no such node.
    """
    if name not in NODES:
        raise ValueError(f"there is no node '{name}': use {', '.join(NODES)}")
    module, attribute = NODES[name].split(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


def ordered(names: list[str]) -> list[str]:
    """The names in the order in which they must come up."""
    return sorted(names, key=list(NODES).index)


def parse_bool(text: str) -> bool:
    """A boolean as launch writes it.

    Raises:
        argparse.ArgumentTypeError: it is neither true nor false.
    """
    value = text.strip().lower()
    if value in ("true", "1", "yes"):
        return True
    if value in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")


def main(args: list[str] | None = None) -> int:
    """Run the container: `thermal_enhance_container --nodes a,b --autostart true --ros-args ...`."""
    arguments = list(sys.argv if args is None else ["thermal_enhance_container", *args])
    parser = argparse.ArgumentParser(prog="thermal_enhance_container", description=__doc__)
    parser.add_argument(
        "--nodes", default=",".join(DEFAULT_NODES), help=f"comma-separated: {', '.join(NODES)}"
    )
    parser.add_argument(
        "--autostart",
        type=parse_bool,
        nargs="?",
        const=True,
        default=True,
        help="configure and activate the nodes",
    )
    parser.add_argument(
        "--report", type=Path, help="write what the sources published to this JSON file at the end"
    )
    parser.add_argument("--exit-when-finished", action="store_true", help="end when every source has ended")
    own = parser.parse_args(remove_ros_args(arguments)[1:])
    names = [name.strip() for name in own.nodes.split(",") if name.strip()]
    try:
        unknown = [name for name in names if name not in NODES]
        if unknown:
            raise ValueError(f"there is no node '{unknown[0]}': use {', '.join(NODES)}")
        factories = [load_node(name) for name in ordered(names)]
    except ValueError as error:
        parser.error(str(error))
    return run_process(
        factories,
        arguments[1:],
        autostart=own.autostart,
        until=sources_finished if own.exit_when_finished else None,
        at_end=(lambda suite: write_report(suite, own.report)) if own.report else None,
    )


def sources_finished(suite: Suite) -> bool:
    """Has every source of the process played all it has? False when there is no source."""
    finished = [node.finished for node in suite.nodes if hasattr(node, "finished")]
    return bool(finished) and all(event.is_set() for event in finished)


def source_report(suite: Suite) -> dict[str, dict[str, int]]:
    """{"published" or "skipped": {stream or topic: messages}} of the sources of a process; empty without."""
    report: dict[str, dict[str, int]] = {}
    for node in suite.nodes:
        for name in ("published", "skipped"):
            if hasattr(node, name):
                report.setdefault(name, {}).update(getattr(node, name))
    return report


def write_report(suite: Suite, path: Path) -> None:
    """Write `source_report` as JSON, for whoever started the process."""
    path.write_text(json.dumps(source_report(suite)))


if __name__ == "__main__":
    sys.exit(main())
