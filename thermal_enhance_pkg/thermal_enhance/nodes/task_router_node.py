"""The task router: decides which task prompts are active and hands each enhanced frame to its task."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo
from thermal_enhance_msgs.msg import FrameInfo, TaskRequest
from thermal_enhance_msgs.srv import SetTask

from thermal_enhance.imaging.raw import EncodingError
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.diagnostics import OK, WARN, status
from thermal_enhance.nodes.lifecycle import SuiteNode
from thermal_enhance.nodes.messages import from_time
from thermal_enhance.nodes.parameters import parameter
from thermal_enhance.nodes.process import run_node
from thermal_enhance.nodes.qos import RELIABILITY_CHOICES, image_qos, latched_qos
from thermal_enhance.nodes.throttle import ThrottledLog, node_logger
from thermal_enhance.nodes.topics import ImageInput, ImageOutput, MessageInput, MessageOutput, Received
from thermal_enhance.resources import resource
from thermal_enhance.tasks.policy import POLICIES, PolicyConfig
from thermal_enhance.tasks.registry import TaskRegistry

MATCH_CAPACITY = 8
"""Enhanced frames that wait for the FrameInfo naming their task; more means that it is not coming."""

WARNING_TICKS = 10
"""Ticks of a second for which frames without FrameInfo are warned about."""


@dataclass(frozen=True)
class RouterConfig:
    """Parameters of the task router; every field is a ROS parameter of the same name."""

    policy: str = parameter(
        "on_demand",
        "fixed: the one in tasks (empty: none); round_robin: tasks in turn; on_demand: those listened to.",
        choices=tuple(POLICIES),
    )
    tasks: list[str] = parameter([], "Tasks of the policy; empty: all of the task file (on_demand) or none.")
    weights: list[int] = parameter([], "round_robin: frames in a row for each of tasks; empty: one each.")
    tasks_file: str = parameter(
        "", "Task file (YAML); empty for the one that comes with the package.", read_only=True
    )
    reliability: str = parameter(
        "match",
        "Reliability of the image subscription: match follows the enhancement node.",
        choices=RELIABILITY_CHOICES,
        read_only=True,
    )


class TaskRouterNode(SuiteNode):
    """Lifecycle node `task_router_node`.

    Subscribes `thermal/enhanced/image_raw`, `thermal/enhanced/camera_info` and `thermal/enhanced/info`;
    publishes `task_request` (latched) and, for every task of the task file, `tasks/<task>/image_raw` and
    `tasks/<task>/camera_info`; serves `~/set_task`. An enhanced frame goes to the task that its FrameInfo
    names, as it came: serialized images are not deserialized on the way.
    """

    config_type = RouterConfig

    def __init__(self, bus: LocalBus | None = None, name: str = "task_router_node", **kwargs: Any) -> None:
        self._registry: TaskRegistry | None = None
        self._lock = threading.Lock()
        self._images: OrderedDict[int, Received] = OrderedDict()
        self._tasks_by_stamp: OrderedDict[int, str] = OrderedDict()
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()
        self._sent_without_info: OrderedDict[int, str] = OrderedDict()
        self._outputs: dict[str, tuple[ImageOutput, MessageOutput]] = {}
        self._inputs: list[Any] = []
        self._timers: list[Any] = []
        self._sent: TaskRequest | None = None
        self._request_out: MessageOutput | None = None
        self._service: Any = None
        self._diagnostics: Any = None
        self._routed = 0
        self._unmatched = 0
        self._unmatched_at_ticks: deque[int] = deque([0], maxlen=WARNING_TICKS)
        super().__init__(name, bus, **kwargs)
        self._log = ThrottledLog(node_logger(self))

    # ---- parameters and service -------------------------------------------------------------

    def check_config(self, config: RouterConfig) -> str:
        """Why the parameters cannot be used, or ""."""
        try:
            registry = self._registry or TaskRegistry.from_yaml(
                config.tasks_file or resource("config", "tasks.yaml")
            )
            self._policy_of(config, registry)
        except (ValueError, KeyError, OSError) as error:
            return str(error)
        return ""

    def config_changed(self, config: RouterConfig, names: set[str]) -> None:
        """Take over a changed policy."""
        if self._registry is not None and self._outputs:
            self._announce()

    @staticmethod
    def _policy_of(config: RouterConfig, registry: TaskRegistry) -> PolicyConfig:
        for task in config.tasks:
            registry.get(task)  # raises on an unknown one
        tasks = tuple(config.tasks)
        if config.policy == "on_demand" and not tasks:
            tasks = tuple(registry.names)
        return PolicyConfig(config.policy, tasks, tuple(config.weights))

    def _set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        from rclpy.parameter import Parameter

        assert self._registry is not None
        policy = request.policy or self.config.policy
        values = [
            Parameter("policy", Parameter.Type.STRING, policy),
            Parameter("tasks", Parameter.Type.STRING_ARRAY, list(request.tasks)),
            Parameter("weights", Parameter.Type.INTEGER_ARRAY, [int(weight) for weight in request.weights]),
        ]
        # Through the parameters, so that `ros2 param get` and this service never disagree.
        result = self.set_parameters_atomically(values)
        response.success = bool(result.successful)
        response.message = result.reason
        response.policy = self.config.policy
        response.active_tasks = list(self._active()[0])
        response.available_tasks = list(self._registry.names)
        return response

    # ---- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        """Read the task file and make one pair of outputs for each task."""
        config: RouterConfig = self.config
        self._registry = TaskRegistry.from_yaml(config.tasks_file or resource("config", "tasks.yaml"))
        self._request_out = MessageOutput(self, TaskRequest, "task_request", self.bus, qos=latched_qos())
        for task in self._registry.names:
            self._outputs[task] = (
                ImageOutput(self, f"tasks/{task}/image_raw", self.bus),
                MessageOutput(self, CameraInfo, f"tasks/{task}/camera_info", self.bus),
            )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._service = self.create_service(SetTask, "~/set_task", self._set_task)

    def activate(self) -> None:
        """Open the inputs and say which tasks are active."""
        # A frame whose FrameInfo is lost goes nowhere: no message of as many frames as may wait is.
        every = image_qos(reliable=True, depth=MATCH_CAPACITY)
        self._unmatched_at_ticks.clear()
        self._unmatched_at_ticks.append(self._unmatched)
        self._inputs = [
            ImageInput(
                self,
                "thermal/enhanced/image_raw",
                self._image_arrived,
                self.bus,
                reliability=self.config.reliability,
                depth=MATCH_CAPACITY,  # an interpolated frame and the newest come together
            ),
            MessageInput(
                self, CameraInfo, "thermal/enhanced/camera_info", self._info_arrived, self.bus, qos=every
            ),
            MessageInput(
                self, FrameInfo, "thermal/enhanced/info", self._frame_info_arrived, self.bus, qos=every
            ),
        ]
        for port in self._inputs:
            port.open()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers = [
            self.create_timer(0.1, self._watch_demand, clock=steady),
            self.create_timer(1.0, self._tick, clock=steady),
        ]
        self._sent = None
        self._announce()

    def deactivate(self) -> None:
        """Close the inputs and take the task request back: nobody hands frames to tasks any more."""
        for timer in self._timers:
            self.destroy_timer(timer)
        self._timers = []
        for port in self._inputs:
            port.close()
        self._inputs = []
        with self._lock:
            self._images.clear()
            self._tasks_by_stamp.clear()
            self._infos.clear()
            self._sent_without_info.clear()
        if self._sent is not None and self._request_out is not None:
            self._sent = None
            message = TaskRequest(policy=self.config.policy)
            message.stamp = self.get_clock().now().to_msg()
            self._request_out.publish(message)

    def cleanup(self) -> None:
        """Withdraw all topics."""
        for image_out, info_out in self._outputs.values():
            image_out.close()
            info_out.close()
        self._outputs = {}
        # One by one: a configure that failed half-way has made only some of them.
        if self._request_out is not None:
            self._request_out.close()
            self._request_out = None
        if self._service is not None:
            self.destroy_service(self._service)
            self._service = None
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
            self._diagnostics = None

    # ---- which tasks ------------------------------------------------------------------------

    def _active(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """(tasks, weights) that are active now."""
        assert self._registry is not None
        policy = self._policy_of(self.config, self._registry)
        pairs = list(zip(policy.tasks, policy.weights or (1,) * len(policy.tasks)))
        if policy.policy == "on_demand":
            pairs = [pair for pair in pairs if any(out.wanted for out in self._outputs.get(pair[0], ()))]
        return tuple(task for task, _ in pairs), tuple(weight for _, weight in pairs)

    def _announce(self) -> None:
        tasks, weights = self._active()
        if self._sent is not None and (
            self._sent.policy,
            tuple(self._sent.tasks),
            tuple(self._sent.weights),
        ) == (
            self.config.policy,
            tasks,
            weights,
        ):
            return
        message = TaskRequest(policy=self.config.policy, tasks=list(tasks), weights=list(weights))
        message.stamp = self.get_clock().now().to_msg()
        self._sent = message
        assert self._request_out is not None
        self._request_out.publish(message)
        self.get_logger().info(f"active tasks: {', '.join(tasks) or 'none'} ({self.config.policy})")

    def _watch_demand(self) -> None:
        if self.config.policy == "on_demand":
            self._announce()

    # ---- routing: image and FrameInfo of a frame arrive apart ---------------------------------

    def _image_arrived(self, item: Received, arrival_ns: int) -> None:
        try:
            stamp = cdr.parse_header(item)[0] if isinstance(item, bytes) else item.stamp_ns
        except EncodingError as error:
            self._log("warn", f"enhanced image refused: {error}")
            return
        with self._lock:
            self._images[stamp] = item
            while len(self._images) > MATCH_CAPACITY:
                self._images.popitem(last=False)
                self._unmatched += 1
        self._route(stamp)

    def _frame_info_arrived(self, message: FrameInfo) -> None:
        stamp = from_time(message.header.stamp)
        with self._lock:
            _remember(self._tasks_by_stamp, stamp, message.task)
        self._route(stamp)

    def _info_arrived(self, message: CameraInfo) -> None:
        stamp = from_time(message.header.stamp)
        with self._lock:
            task = self._sent_without_info.pop(stamp, None)
            if task is None:
                _remember(self._infos, stamp, message)
        outputs = self._outputs.get(task) if task is not None else None
        if outputs is not None and outputs[1].wanted:
            outputs[1].publish(message)

    def _route(self, stamp: int) -> None:
        with self._lock:
            if stamp not in self._images or stamp not in self._tasks_by_stamp:
                return
            item, task = self._images.pop(stamp), self._tasks_by_stamp.pop(stamp)
            info = self._infos.pop(stamp, None)
            if info is None and task in self._outputs:
                _remember(self._sent_without_info, stamp, task)
        outputs = self._outputs.get(task)
        if outputs is None:
            return  # no task active: nobody to hand it to
        image_out, info_out = outputs
        if isinstance(item, bytes):
            if image_out.wanted:
                image_out.publish_serialized(item)
        else:
            image_out.publish(item)
        if info is not None and info_out.wanted:
            info_out.publish(info)
        self._routed += 1

    def _tick(self) -> None:
        self._inputs[0].refresh()
        tasks, _ = self._active()
        recent = self._unmatched - self._unmatched_at_ticks[0]
        self._unmatched_at_ticks.append(self._unmatched)
        level, text = (
            (OK, ", ".join(tasks) or "none")
            if recent == 0
            else (
                WARN,
                f"{recent} enhanced frames of the last {WARNING_TICKS} s came without FrameInfo: "
                "is thermal/enhanced/info there?",
            )
        )
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        array.status = [
            status(
                f"{self.get_fully_qualified_name()}: tasks",
                level,
                text if level == WARN else f"active: {text}",
                {"policy": self.config.policy, "routed": self._routed, "unmatched": self._unmatched},
            )
        ]
        self._diagnostics.publish(array)


def _remember(store: OrderedDict[int, Any], stamp: int, value: Any) -> None:
    store[stamp] = value
    while len(store) > MATCH_CAPACITY:
        store.popitem(last=False)


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(TaskRouterNode, args)


if __name__ == "__main__":
    sys.exit(main())
