"""A process full of nodes: one executor thread, an orderly start, and an end that always exits 0."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.lifecycle import SuiteNode
from thermal_enhance.nodes.parameters import ParameterError
from thermal_enhance.resources import ResourceError, resource

NodeFactory = Callable[..., SuiteNode]

CLOSED = "LOCALHOST"
"""Discovery range that keeps the graph on this machine."""

PAUSE_AFTER_ERROR_S = 0.05
"""Pause after a callback that raised: one that always does must not take a whole core."""


class SuiteError(RuntimeError):
    """The nodes of a process could not be brought up; the message says which and why."""


def close_network() -> None:
    """Keep DDS on this machine and give it a transport that fits images, unless the user has chosen.

    Must run before rclpy is initialised. The two settings are environment variables because Fast DDS
    and rmw read them there; what is already set is left alone. launch/bringup.launch.py has the same rule.
    """
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or CLOSED
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = reach
    if os.environ.get("ROS_DISTRO") == "humble":
        # Humble knows only the older switch.
        os.environ["ROS_LOCALHOST_ONLY"] = os.environ.get("ROS_LOCALHOST_ONLY") or "1"
    if not os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE"):
        # A profile bound to loopback would contradict a wider range that the user has asked for.
        profile = "fastdds.xml" if reach in (CLOSED, "OFF") else "fastdds_subnet.xml"
        try:
            os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(resource("config", profile))
        except ResourceError:
            # Without the profile images are slower, not wrong; installation problems show elsewhere.
            return


class StopSignal:
    """Set by SIGINT or SIGTERM; a second one changes nothing, so that shutting down is never cut short.

    A flag and a pipe, no lock: a signal handler runs in the main thread between any two of its
    instructions, and would wait for ever for a lock (a threading.Event's, say) that this thread holds.
    """

    def __init__(self) -> None:
        self._set = False
        # Written once and never read: from then on it is readable for everybody who waits.
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._writable, False)
        weakref.finalize(self, _close, self._readable, self._writable).atexit = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        # `entry` held them back while this process was still importing.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})

    def _handle(self, _number: int, _frame: object) -> None:
        self.set()

    @staticmethod
    def ignore_further() -> None:
        """From here on signals change nothing; call it when all that is left is to return.

        The interpreter gives signals with a Python handler back their deadly default while it finalises,
        and a second Ctrl-C would then turn a clean end into a crash.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def set(self) -> None:
        """Ask for the end; safe in a signal handler."""
        if self._set:
            return
        self._set = True
        # A handler may come in between and write too; a pipe that is full wakes just as well.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writable, b"\0")

    def is_set(self) -> bool:
        """Has the end been asked for?"""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it, `timeout` seconds at most (None: for as long as it takes); True once set."""
        if not self._set:
            poll = select.poll()
            poll.register(self._readable, select.POLLIN)
            poll.poll(None if timeout is None else max(0, math.ceil(timeout * 1e3)))
        return self._set


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Suite:
    """Nodes that share a process, an executor thread and a bus.

    Args:
        factories: node classes (or callables taking `bus=`), sources first.
    """

    def __init__(self, factories: Sequence[NodeFactory], **node_arguments: Any) -> None:
        self.bus = LocalBus()
        self.nodes: list[SuiteNode] = []
        self._executor = SingleThreadedExecutor()
        self._thread = threading.Thread(target=self._spin, name="executor", daemon=True)
        self._stopping = False
        try:
            for factory in factories:
                self.nodes.append(factory(bus=self.bus, **node_arguments))
        except Exception:
            self._destroy()
            raise
        for node in self.nodes:
            self._executor.add_node(node)
        self._thread.start()

    def node(self, kind: type) -> Any:
        """The node of this class.

        Raises:
            KeyError: there is none.
        """
        for node in self.nodes:
            if isinstance(node, kind):
                return node
        raise KeyError(kind.__name__)

    def start(self) -> None:
        """Configure every node, then activate the last first: who listens is there before who speaks.

        Raises:
            SuiteError: a transition failed; its node has logged why.
        """
        for node in self.nodes:
            node.trigger_configure()
            if node.state_label != "inactive":
                raise SuiteError(f"{node.get_name()} could not be configured: see its message above")
        for node in reversed(self.nodes):
            node.trigger_activate()
            if node.state_label != "active":
                raise SuiteError(f"{node.get_name()} could not be activated: see its message above")

    def stop(self) -> None:
        """End everything: executor first, so that no callback meets a node that is half gone."""
        if self._stopping:
            return
        self._stopping = True
        self._executor.shutdown()
        if self._thread.is_alive():
            # Not joining aborts the process when rclpy shuts down under the spinning thread.
            self._thread.join()
        for node in self.nodes:
            try:
                node.stop()
            except Exception as error:
                node.get_logger().error(f"stopping failed: {error}")
        self._destroy()

    def _destroy(self) -> None:
        for node in self.nodes:
            node.destroy_node()
        self.nodes = []

    def _spin(self) -> None:
        while not self._stopping and rclpy.ok():
            try:
                self._executor.spin()
            except Exception as error:
                # A callback that raises costs its message, never the process.
                if self._stopping or not rclpy.ok():
                    return
                if self.nodes:
                    self.nodes[0].get_logger().error(f"a callback raised {type(error).__name__}: {error}")
                time.sleep(PAUSE_AFTER_ERROR_S)


def run_process(
    factories: Sequence[NodeFactory],
    ros_args: list[str] | None,
    autostart: bool,
    until: Callable[[Suite], bool] | None = None,
    at_end: Callable[[Suite], None] | None = None,
) -> int:
    """Run nodes until SIGINT, SIGTERM or `until` says so, then call `at_end`; returns the exit status."""
    stop = StopSignal()
    rclpy.init(args=ros_args, signal_handler_options=SignalHandlerOptions.NO)
    suite: Suite | None = None
    status = 0
    try:
        suite = Suite(factories)
        if autostart and not stop.is_set():
            suite.start()
        while not stop.wait(0.1 if until is not None else None):
            if until is not None and until(suite):
                break
        if at_end is not None:
            for node in suite.nodes:
                if node.state_label == "active":
                    node.trigger_deactivate()
            at_end(suite)
    except (ParameterError, SuiteError, ResourceError) as error:
        sys.stderr.write(f"{error}\n")
        status = 1
    finally:
        if suite is not None:
            suite.stop()
        rclpy.try_shutdown()
        stop.ignore_further()
    return status


def run_node(factory: NodeFactory, args: list[str] | None = None) -> int:
    """Entry point of a node with a process of its own; `--autostart` brings it up by itself."""
    arguments = list(sys.argv if args is None else ["node", *args])
    own = remove_ros_args(arguments)
    return run_process([factory], arguments[1:], autostart="--autostart" in own)
