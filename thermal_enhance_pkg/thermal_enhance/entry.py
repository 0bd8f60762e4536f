"""Entry points of the node executables: signals are held back until the node can answer them.

Importing ROS and OpenCV takes a good part of a second, in which Ctrl-C would kill the process with an error
status. Held back, the signal is delivered as soon as `nodes.process.StopSignal` stands, and the node ends
as it always does.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time

TIER_THREAD = "tier-"
"""How the names of tiers' threads begin."""
LEAVE_S = 2.0
"""How long a tier's thread may take to end with the process, seconds."""
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


def leave(status: int) -> int:
    """Last thing in a process: the exit status, unless a model will not let go.

    A tier's thread may be deep in a library's native code, loading or hung. Python would unwind it when the
    interpreter ends, which aborts the process ("terminate called without an active exception"): it gets a
    moment, and then the process ends without asking.
    """
    until = time.monotonic() + LEAVE_S
    tiers = [thread for thread in threading.enumerate() if thread.name.startswith(TIER_THREAD)]
    for thread in tiers:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in tiers):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _run(name: str) -> int:
    hold_signals()
    return leave(int(importlib.import_module(NODES[name]).main()))


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
