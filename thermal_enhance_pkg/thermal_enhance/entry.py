"""Entry points of the node executables: signals are held back until the node can answer them.

Importing ROS and OpenCV takes a good part of a second, in which Ctrl-C would kill the process with an error
status. Held back, the signal is delivered as soon as `nodes.process.StopSignal` stands, and the node ends
as it always does.
"""

from __future__ import annotations

import importlib
import signal
import sys

NODES = {
    "enhancement_node": "thermal_enhance.nodes.enhancement_node",
    "task_router_node": "thermal_enhance.nodes.task_router_node",
    "camera_rig_node": "thermal_enhance.nodes.camera_rig_node",
    "frame_folder_node": "thermal_enhance.nodes.frame_folder_node",
    "replay_node": "thermal_enhance.nodes.replay_node",
    "composition": "thermal_enhance.nodes.composition",
}


def hold_signals() -> None:
    """Hold SIGINT and SIGTERM back until `StopSignal` lets them through."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def _run(name: str) -> int:
    hold_signals()
    return int(importlib.import_module(NODES[name]).main())


def enhancement_node() -> int:
    """`enhancement_node`."""
    return _run("enhancement_node")


def task_router_node() -> int:
    """`task_router_node`."""
    return _run("task_router_node")


def camera_rig_node() -> int:
    """`camera_rig_node`."""
    return _run("camera_rig_node")


def frame_folder_node() -> int:
    """`frame_folder_node`."""
    return _run("frame_folder_node")


def replay_node() -> int:
    """`replay_node`."""
    return _run("replay_node")


def container() -> int:
    """`thermal_enhance_container`."""
    return _run("composition")


if __name__ == "__main__":
    # python -m thermal_enhance.entry NAME ...: the name goes, the node's own arguments stay.
    if len(sys.argv) < 2 or sys.argv[1] not in NODES:
        sys.exit(f"usage: python -m thermal_enhance.entry {{{','.join(NODES)}}} [options]")
    sys.exit(_run(sys.argv.pop(1)))
