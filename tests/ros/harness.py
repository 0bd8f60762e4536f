"""Real nodes as real processes, and a probe that plays the cameras and listens to what comes out."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from thermal_enhance_msgs.msg import FrameInfo

from thermal_enhance.imaging.encodings import encode
from thermal_enhance.nodes import cdr

_NAMESPACES = itertools.count()


def unique_namespace() -> str:
    """A namespace that no other test of this run uses."""
    return f"/t{os.getpid()}_{next(_NAMESPACES)}"


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0, what: str = "condition") -> None:
    """Wait for something to become true; fail naming it when it does not."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true within {timeout_s} s")


class NodeProcess:
    """One node (or the container) in a process of its own."""

    def __init__(
        self,
        module: str,
        namespace: str,
        log: Path,
        parameters: dict[str, Any] | None = None,
        arguments: list[str] | None = None,
        autostart: bool = True,
        environment: dict[str, str] | None = None,
        ros_arguments: list[str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", "thermal_enhance.entry", module]
        command += (
            (["--autostart"] if module != "composition" else ["--autostart", "true"]) if autostart else []
        )
        if module == "composition" and not autostart:
            command += ["--autostart", "false"]
        command += arguments or []
        command += ["--ros-args", "-r", f"__ns:={namespace}", *(ros_arguments or [])]
        for name, value in (parameters or {}).items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def interrupt(self, times: int = 1) -> int:
        """Send SIGINT and return the exit status."""
        for _ in range(times):
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        return self.process.wait(20)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def resident_kib(self) -> int:
        """Resident memory of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def holds_signals(self) -> bool:
        """Is SIGTERM held back or handled? (From then on Ctrl-C must end the process in order.)"""
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        )
        mask = int(fields["SigBlk"], 16) | int(fields["SigCgt"], 16)
        return bool(mask >> (signal.SIGTERM - 1) & 1)

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


class Probe:
    """Plays the cameras and records what the graph publishes, in the test's own process."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("probe", namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received: dict[str, list[Any]] = defaultdict(list)
        self._publishers: dict[tuple[str, bool], Any] = {}
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        self.executor.spin()

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exception: object) -> None:
        self.executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def publisher(self, topic: str, message_type: type = Image, reliable: bool = True) -> Any:
        key = (topic, reliable)
        if key not in self._publishers:
            reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            self._publishers[key] = self.node.create_publisher(
                message_type, topic, QoSProfile(depth=10, reliability=reliability)
            )
        return self._publishers[key]

    def send(
        self,
        topic: str,
        array: np.ndarray,
        stamp_ns: int,
        encoding: str,
        frame_id: str = "cam",
        reliable: bool = True,
    ) -> None:
        """Publish an image."""
        self.publisher(topic, Image, reliable).publish(
            cdr.serialize_image(encode(array, encoding, stamp_ns, frame_id))
        )

    def listen(self, topic: str, message_type: type, qos: Any = 10) -> list[Any]:
        """Record a topic; returns the list that grows."""
        self.node.create_subscription(message_type, topic, self.received[topic].append, qos)
        return self.received[topic]

    def images(self) -> list[Image]:
        return self.listen("thermal/enhanced/image_raw", Image)

    def infos(self) -> list[FrameInfo]:
        return self.listen("thermal/enhanced/info", FrameInfo)

    def camera_infos(self) -> list[CameraInfo]:
        return self.listen("thermal/enhanced/camera_info", CameraInfo)

    def diagnostics(self) -> list[DiagnosticArray]:
        return self.listen("/diagnostics", DiagnosticArray)

    def subscribers(self, topic: str) -> int:
        return self.node.count_subscribers(self.node.resolve_topic_name(topic))

    def wait_connected(
        self, topic: str = "thermal/image_raw", reliable: bool = True, timeout_s: float = 30.0
    ) -> None:
        """Wait until the node under test subscribes to our publisher of `topic`."""
        publisher = self.publisher(topic, Image, reliable)
        wait_until(lambda: publisher.get_subscription_count() > 0, timeout_s, f"a subscription to {topic}")
        # The reverse direction is discovered a moment later.
        time.sleep(0.3)

    def call(self, service_type: type, name: str, request: Any, timeout_s: float = 20.0) -> Any:
        """Call a service and return its response."""
        client = self.node.create_client(service_type, name)
        try:
            if not client.wait_for_service(timeout_s):
                raise AssertionError(f"service {name} is not there")
            future = client.call_async(request)
            wait_until(future.done, timeout_s, f"the answer of {name}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def transition(self, node: str, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, f"{node}/change_state", request).success)

    def state(self, node: str) -> str:
        return str(self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)

    def wait_state(self, node: str, label: str, timeout_s: float = 30.0) -> None:
        wait_until(lambda: self.state(node) == label, timeout_s, f"{node} to be {label}")

    def set_parameter(self, node: str, name: str, value: Any) -> tuple[bool, str]:
        """(accepted, reason)"""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, f"{node}/set_parameters", request).results[0]
        return bool(result.successful), str(result.reason)

    def get_parameter(self, node: str, name: str) -> Any:
        from rclpy.parameter import parameter_value_to_python

        return parameter_value_to_python(
            self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=[name])).values[0]
        )


def scene(index: int = 0, size: tuple[int, int] = (80, 60), dtype: type = np.uint16) -> np.ndarray:
    """A smooth picture that differs from frame to frame."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    picture = 3000 + 400 * np.sin((x + 2 * index) / 9.0) + 300 * np.cos(y / 7.0)
    picture += np.where((x - 10 - index % 50) ** 2 + (y - 30) ** 2 < 60, 800, 0)
    if dtype is np.uint8:
        return ((picture - 2200) / 10).clip(0, 255).astype(np.uint8)
    return picture.astype(dtype)


def color_scene(index: int = 0, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """An RGB picture of the same kind."""
    gray = scene(index, size, np.uint8)
    return np.ascontiguousarray(np.stack([gray, gray // 2, 255 - gray], axis=-1))


def stream(
    probe: Probe,
    count: int,
    rate: float = 30.0,
    start_ns: int | None = None,
    thermal: Callable[[int], np.ndarray | None] = scene,
    color: Callable[[int], np.ndarray | None] | None = None,
    first: int = 0,
) -> list[int]:
    """Publish `count` frames in real time; returns the thermal stamps sent."""
    base = time.time_ns() if start_ns is None else start_ns
    begin = time.monotonic()
    stamps = []
    for i in range(count):
        wait = begin + i / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        stamp = base + round(i / rate * 1e9)
        picture = thermal(first + i)
        if picture is not None:
            encoding = {1: "mono8", 2: "mono16", 4: "32FC1"}[picture.dtype.itemsize]
            probe.send("thermal/image_raw", picture, stamp, encoding)
            stamps.append(stamp)
        rgb = color(first + i) if color is not None else None
        if rgb is not None:
            probe.send("rgb/image_raw", rgb, stamp, "rgb8")
    return stamps
