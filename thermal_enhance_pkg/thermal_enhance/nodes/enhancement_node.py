"""The enhancement node: thermal (and RGB) frames in, enhanced thermal frames out."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import ClockChange, JumpThreshold
from rclpy.duration import Duration
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import UInt8
from thermal_enhance_msgs.msg import FrameInfo, TaskRequest

from thermal_enhance.enhancers.ladder import QualityLadder
from thermal_enhance.imaging.colormap import colorize, palette_names
from thermal_enhance.imaging.encodings import compress, encode
from thermal_enhance.imaging.frames import FfcState, Units
from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.imaging.raw import EncodingError
from thermal_enhance.imaging.tone import ToneConfig, ToneCurve
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.diagnostics import Recent, TierWatch, enhancement_diagnostics
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.ladders import FieldsOfView, LadderChoice, ladder_config, make_ladder
from thermal_enhance.nodes.lifecycle import SuiteNode
from thermal_enhance.nodes.messages import camera_info, camera_model, fields_of_view, frame_info
from thermal_enhance.nodes.pipeline import EnhancementPipeline, FrameResult
from thermal_enhance.nodes.process import run_node
from thermal_enhance.nodes.qos import BURST_DEPTH, THERMAL_DEPTH, image_qos, latched_qos
from thermal_enhance.nodes.statistics import FrameStatistics
from thermal_enhance.nodes.synchronizer import wants_rgb
from thermal_enhance.nodes.throttle import ThrottledLog, node_logger
from thermal_enhance.nodes.topics import (
    ImageInput,
    ImageOutput,
    MessageInput,
    MessageOutput,
    Received,
    parse_received,
)
from thermal_enhance.tasks.policy import PolicyConfig

# Changing one of these needs another ladder; the rest is taken over by the running one.
LADDER_PARAMETERS = frozenset(
    {
        "mode",
        "model",
        "device",
        "model_threads",
        "netd",
        "consistency_k",
        "sampling",
        "quality",
        "denoise",
        "destripe",
        "estimate_noise",
        "use_rgb",
        "look_ahead",
        "fps_out",
        "motion",
    }
)
DEADLINE_PARAMETERS = frozenset({"deadline", "hold_rate", "hang_timeout", "pin_tier"})
HISTORY_S = 10
"""Diagnostics judge the last seconds, so that a fault that is over does not stay on the board."""
QOS_REPORT_S = 30.0


class EnhancementNode(SuiteNode):
    """Lifecycle node `enhancement_node`.

    `tap`, where set, is called with every published result that has an input; it must only keep it.

    Subscribes `thermal/image_raw`, `thermal/camera_info`, `thermal/ffc_state` (std_msgs/UInt8, optional),
    `rgb/image_raw`, `rgb/camera_info`, `task_request`; publishes `thermal/enhanced/image_raw` (and
    `/compressed`), `thermal/enhanced/camera_info`, `thermal/enhanced/info`, `thermal/enhanced/view` and
    `/diagnostics`; with `newest_first` also `thermal/interpolated/image_raw`, `camera_info` and `info`. Image
    callbacks only enqueue; see `EnhancementPipeline`.
    """

    config_type = EnhancementConfig

    def __init__(self, bus: LocalBus | None = None, name: str = "enhancement_node", **kwargs: Any) -> None:
        self.statistics = FrameStatistics()
        self._pipeline: EnhancementPipeline | None = None
        self._ladder: QualityLadder | None = None
        self._choice = LadderChoice("", "")
        self._ports: list[Any] = []
        self._inputs: list[ImageInput] = []
        self._timers: list[Any] = []
        self._thermal_info: CameraInfo | None = None
        self._rgb_info: CameraInfo | None = None
        self._fields_of_view: FieldsOfView | None = None
        self._scaled: tuple[CameraInfo | None, tuple[int, int], int, CameraModel] | None = None
        self._view_tone: ToneCurve | None = None
        self._qos_problems: dict[str, tuple[float, str]] = {}
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY_S)
        self._jump_handle: Any = None
        self._small_inputs: list[MessageInput] = []
        self._diagnostics: Any = None
        self._tier_watch = TierWatch()
        self.tap: Callable[[FrameResult], None] | None = None
        super().__init__(name, bus, **kwargs)
        self._log = ThrottledLog(node_logger(self))

    # ---- parameters -------------------------------------------------------------------------

    def check_config(self, config: EnhancementConfig) -> str:
        """Why the parameters cannot be used, or ""."""
        if config.scale not in (0, 1, 2, 4, 8):
            return f"scale is {config.scale}: use 1, 2, 4 or 8, or 0 to choose automatically"
        if config.colormap not in palette_names():
            return f"colormap is '{config.colormap}': use one of {', '.join(palette_names())}"
        alone = not config.use_rgb or config.mode in ("passthrough", "temporal")
        if config.synchronizer == "approximate_time" and alone:
            return (
                "synchronizer 'approximate_time' hands out pairs only, and without RGB there are none: "
                "set use_rgb to true and mode to one that uses RGB, or synchronizer to 'builtin'"
            )
        return ""

    def config_changed(self, config: EnhancementConfig, names: set[str]) -> None:
        """Take over changed parameters from the next frame on."""
        if self._pipeline is None:
            return
        # A pinned temporal tier makes the first frame itself.
        pinned = "pin_tier" in names and config.mode.endswith("temporal")
        if names & LADDER_PARAMETERS or pinned:
            self._replace_ladder(config)
        elif names & DEADLINE_PARAMETERS and self._ladder is not None:
            # The tiers, and what they have learned of the alignment, stay.
            self._ladder.configure(ladder_config(config, self._choice))
        self._pipeline.configure(config)
        if names & {"view_mode", "tone_time_constant"}:
            self._view_tone = None

    def _replace_ladder(self, config: EnhancementConfig) -> None:
        assert self._pipeline is not None
        ladder, self._choice = make_ladder(config, self._fields_of_view)
        self._announce_choice()
        self._pipeline.set_ladder(ladder)
        self._ladder = ladder

    # ---- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        """Make outputs, the ladder and the pipeline; nothing is received yet."""
        config: EnhancementConfig = self.config
        images: dict[str, Any] = {"report": self._report_qos, "depth": BURST_DEPTH}
        small = image_qos(reliable=True, depth=THERMAL_DEPTH)
        self._image_out = ImageOutput(self, "thermal/enhanced/image_raw", self.bus, **images)
        self._compressed_out = ImageOutput(
            self, "thermal/enhanced/image_raw/compressed", self.bus, compressed=True, **images
        )
        self._view_out = ImageOutput(self, "thermal/enhanced/view", self.bus, **images)
        self._info_out = MessageOutput(self, CameraInfo, "thermal/enhanced/camera_info", self.bus, small)
        self._frame_info_out = MessageOutput(self, FrameInfo, "thermal/enhanced/info", self.bus, small)
        between = "thermal/interpolated"
        self._between_image_out = ImageOutput(self, f"{between}/image_raw", self.bus, **images)
        self._between_info_out = MessageOutput(self, CameraInfo, f"{between}/camera_info", self.bus, small)
        self._between_frame_info_out = MessageOutput(self, FrameInfo, f"{between}/info", self.bus, small)
        self._ports = [
            self._image_out,
            self._compressed_out,
            self._view_out,
            self._info_out,
            self._frame_info_out,
            self._between_image_out,
            self._between_info_out,
            self._between_frame_info_out,
        ]
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._ladder, self._choice = make_ladder(config, self._fields_of_view)
        self._announce_choice()
        self._pipeline = EnhancementPipeline(
            config, self._ladder, self._publish, self.statistics, self._now_ns, self._log
        )
        self._timers = [self.create_timer(1.0, self._tick, clock=self._steady_clock())]

    def activate(self) -> None:
        """Start the worker, then open the inputs."""
        assert self._pipeline is not None
        config: EnhancementConfig = self.config
        self.statistics.reset()
        self._pipeline.start()
        threshold = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
        )
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._clock_jumped)
        self._thermal_in = ImageInput(
            self,
            "thermal/image_raw",
            self._thermal_arrived,
            self.bus,
            transport=config.thermal_transport,
            reliability=config.reliability,
            depth=THERMAL_DEPTH,
            report=self._report_qos,
        )
        self._rgb_in = ImageInput(
            self,
            "rgb/image_raw",
            self._color_arrived,
            self.bus,
            transport=config.rgb_transport,
            reliability=config.rgb_reliability,
            report=self._report_qos,
        )
        self._inputs = [self._thermal_in, self._rgb_in]
        self._small_inputs = [
            MessageInput(self, CameraInfo, "thermal/camera_info", self._thermal_info_arrived, self.bus),
            MessageInput(self, CameraInfo, "rgb/camera_info", self._rgb_info_arrived, self.bus),
            MessageInput(self, UInt8, "thermal/ffc_state", self._ffc_arrived, self.bus),
            MessageInput(self, TaskRequest, "task_request", self._tasks_arrived, self.bus, qos=latched_qos()),
        ]
        for small in self._small_inputs:
            small.open()
        self._thermal_in.open()
        self._open_rgb_if_wanted()

    def deactivate(self) -> None:
        """Close the inputs, finish the frame at work, count the rest."""
        # Emptied first: the timer, on another thread, must not open again what is closed here.
        inputs, self._inputs = self._inputs, []
        for port in inputs:
            port.close()
        for small in self._small_inputs:
            small.close()
        self._small_inputs = []
        if self._jump_handle is not None:
            self._jump_handle.unregister()
            self._jump_handle = None
        if self._pipeline is not None:
            self._pipeline.stop()

    def cleanup(self) -> None:
        """Free the ladder and the topics."""
        for timer in self._timers:
            self.destroy_timer(timer)
        self._timers = []
        if self._ladder is not None:
            self._ladder.close()
            self._ladder = None
        self._pipeline = None
        for port in self._ports:
            port.close()
        self._ports = []
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
            self._diagnostics = None
        self._thermal_info = None
        self._rgb_info = None
        self._fields_of_view = None
        self._scaled = None
        self._view_tone = None

    def drain(self, timeout_s: float = 2.0) -> None:
        """Wait until everything that arrived has been published or dropped (end of a replay)."""
        if self._pipeline is not None:
            self._pipeline.drain(timeout_s)

    def _open_rgb_if_wanted(self) -> None:
        """Subscribe RGB only while a tier looks at it: a camera's RGB can hold up its thermal stream."""
        if not self._inputs or self._ladder is None:
            return
        if wants_rgb(self.config, self._ladder.uses_rgb):
            self._rgb_in.open()
        else:
            self._rgb_in.close()

    @property
    def rgb_drops(self) -> dict[str, int]:
        """RGB frames that served no thermal frame, by reason."""
        return self._pipeline.rgb_drops if self._pipeline is not None else {}

    # ---- callbacks: they only enqueue -------------------------------------------------------

    def _thermal_arrived(self, item: Received, arrival_ns: int) -> None:
        pipeline = self._pipeline
        self.statistics.thermal_in()
        try:
            image = parse_received(item, self.config.thermal_transport)
        except EncodingError as error:
            self.statistics.drop(f"malformed_{error.reason}")
            self._log("warn", f"thermal message refused: {error}", key=f"thermal {error.reason}")
            return
        if pipeline is None:
            self.statistics.drop("inactive")
            return
        pipeline.push_thermal(image, arrival_ns)

    def _color_arrived(self, item: Received, arrival_ns: int) -> None:
        self.statistics.color_in()
        try:
            image = parse_received(item, self.config.rgb_transport)
        except EncodingError as error:
            self.statistics.event(f"rgb_malformed_{error.reason}")
            self._log("warn", f"RGB message refused: {error}", key=f"rgb {error.reason}")
            return
        if self._pipeline is not None:
            self._pipeline.push_color(image, arrival_ns)

    def _thermal_info_arrived(self, message: CameraInfo) -> None:
        self._thermal_info = message

    def _rgb_info_arrived(self, message: CameraInfo) -> None:
        self._rgb_info = message

    def _ffc_arrived(self, message: UInt8) -> None:
        if self._pipeline is None:
            return
        if message.data not in {int(state) for state in FfcState}:
            self._log(
                "warn", f"thermal/ffc_state is {message.data}: 0 never, 1 imminent, 2 in progress, 3 complete"
            )
            return
        self._pipeline.set_ffc(FfcState(message.data))

    def _tasks_arrived(self, message: TaskRequest) -> None:
        if self._pipeline is None:
            return
        try:
            # on_demand has been resolved by the router: what it sends is what is demanded now.
            if len(message.tasks) > 1:
                policy = PolicyConfig("round_robin", tuple(message.tasks), tuple(message.weights))
            else:
                policy = PolicyConfig("fixed", tuple(message.tasks))
            self._pipeline.set_tasks(policy)
        except ValueError as error:
            self._log("warn", f"task request refused: {error}")

    def _clock_jumped(self, jump: Any) -> None:
        if self._pipeline is None:
            return
        if jump.clock_change in (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
            return
        self._pipeline.reset("clock_jump")

    # ---- publishing, on the worker thread ---------------------------------------------------

    def _publish(self, result: FrameResult) -> None:
        start = time.monotonic()
        frame = result.frame.thermal
        image_out, info_out, frame_info_out = self._image_out, self._info_out, self._frame_info_out
        if result.aside:
            image_out, info_out = self._between_image_out, self._between_info_out
            frame_info_out = self._between_frame_info_out
        image_out.publish(encode(frame.data, result.encoding, frame.stamp_ns, frame.frame_id))
        done = time.monotonic()
        result.stage_ms["publish"] = (done - start) * 1e3
        total_ms = done * 1e3 - result.arrival_ns * 1e-6
        if result.interpolated:
            self.statistics.interpolated_out()
        else:
            skew_s = result.pair.skew_ns * 1e-9 if result.pair.skew_ns is not None else None
            self.statistics.frame_out(
                result.frame.tier,
                result.frame.tier_reason,
                result.task,
                {**result.stage_ms, "total": total_ms},
                skew_s,
            )
        # The frame is out: whatever goes wrong below costs what it concerns and nothing else.
        self._attempt_extra("camera_info", lambda: info_out.publish(self._output_info(result)))
        self._attempt_extra(
            "info",
            lambda: frame_info_out.publish(
                frame_info(result, self.config.mode, self.statistics.totals(), total_ms)
            ),
        )
        if self.tap is not None and not result.interpolated:
            self.tap(result)
        if result.aside:
            return
        if self._compressed_out.wanted and frame.data.dtype.itemsize <= 2:
            self._attempt_extra(
                "compressed",
                lambda: self._compressed_out.publish(
                    compress(frame.data, "png", frame.stamp_ns, frame.frame_id)
                ),
            )
        if self._view_out.wanted:
            self._attempt_extra("view", lambda: self._publish_view(result))

    def _attempt_extra(self, name: str, publish: Callable[[], None]) -> None:
        try:
            publish()
        except Exception as error:
            self.statistics.event(f"{name}_failed")
            self._log("error", f"thermal/enhanced {name} not published: {error}", key=f"extra {name}")

    def _publish_view(self, result: FrameResult) -> None:
        frame = result.frame.thermal
        tone = self._view_tone
        if tone is None:
            fixed = (0.0, 255.0) if frame.units is Units.AGC8 else None
            tone = self._view_tone = ToneCurve(
                ToneConfig(
                    mode=self.config.view_mode,
                    time_constant_s=self.config.tone_time_constant,
                    fixed_range=fixed,
                )
            )
        # The input tells the range as well as the output does, and is much smaller.
        tone.update(result.input_frame.data, frame.stamp_ns)
        if tone.range is None:
            return  # not one finite pixel yet
        view = colorize(tone.to_view8(frame.data), self.config.colormap)
        self._view_out.publish(encode(view, "rgb8", frame.stamp_ns, frame.frame_id))

    def _output_info(self, result: FrameResult) -> CameraInfo:
        frame = result.frame.thermal
        source, size = self._thermal_info, result.input_frame.size
        known = self._scaled
        if known is None or known[0] is not source or known[1:3] != (size, result.scale):
            model = self._input_model(source, size, frame.frame_id)
            known = self._scaled = (source, size, result.scale, model.scaled(result.scale))
        return camera_info(known[3], frame.stamp_ns, frame.frame_id)

    def _input_model(self, info: CameraInfo | None, size: tuple[int, int], frame_id: str) -> CameraModel:
        """Intrinsics of the picture without telemetry rows; uncalibrated (K zero) where there are none."""
        width, height = size
        if info is None:
            return CameraModel(width, height, frame_id=frame_id)
        try:
            model = camera_model(info)
        except ValueError as error:
            self._log("warn", f"thermal/camera_info cannot be used: {error}", key="camera_info")
            return CameraModel(width, height, frame_id=frame_id)
        rows = self.config.telemetry_rows
        if rows and model.image_size == (width, height + rows):
            # The driver counts its telemetry as picture.
            top = rows if self.config.telemetry_position == "header" else 0
            return model.cropped(0, top, width, height)
        if model.image_size != (width, height):
            self._log(
                "warn",
                f"thermal/camera_info is for {model.image_size[0]}x{model.image_size[1]}, the frames are "
                f"{width}x{height}: it is rescaled; calibrate at the frames' own size",
                key="camera_info size",
            )
            return model.resized(width, height)
        return model

    # ---- once a second ----------------------------------------------------------------------

    def _tick(self) -> None:
        for port in self._inputs:
            port.refresh()
        self._learn_fields_of_view()
        self._open_rgb_if_wanted()
        if self._pipeline is None or self._diagnostics is None:
            return
        if self._ladder is not None:
            for level, text in self._tier_watch.changes(self._ladder.status()):
                self._log(level, text)
        snapshot = self.statistics.snapshot()
        if self._history and snapshot["active_s"] < self._history[-1]["active_s"]:
            self._history.clear()
        self._history.append(snapshot)
        array = enhancement_diagnostics(
            node_name=self.get_fully_qualified_name(),
            state=self.state_label,
            config=self.config,
            statistics=snapshot,
            recent=Recent.between(self._history[0], snapshot),
            ladder=self._ladder,
            choice=self._choice,
            pipeline=self._pipeline,
            qos_problems=self._current_qos_problems(snapshot),
            stamp=self.get_clock().now().to_msg(),
        )
        for status in array.status:
            if status.name.endswith("pairing") and status.level != b"\x00":
                self._log("warn", status.message, key="pairing")
        self._diagnostics.publish(array)

    def _learn_fields_of_view(self) -> None:
        """Once both cameras have said that they are calibrated, start the alignment from their optics."""
        signature = self._scaled[1] if self._scaled is not None else None
        if self._fields_of_view is not None or signature is None or self._rgb_info is None:
            return
        try:
            thermal = fields_of_view(self._input_model(self._thermal_info, signature, ""))
            color = fields_of_view(camera_model(self._rgb_info))
        except ValueError as error:
            self._log("warn", f"rgb/camera_info cannot be used: {error}", key="rgb camera_info")
            return
        if thermal is not None and color is not None:
            self._fields_of_view = (thermal, color)
            self._replace_ladder(self.config)

    def _report_qos(self, text: str) -> None:
        topic = text.split(":", 1)[0]
        self._qos_problems[topic] = (time.monotonic(), text)
        self._log("warn", text)

    def _current_qos_problems(self, snapshot: dict[str, Any]) -> list[str]:
        """Problems that are not over: an input's ends when it flows, an output's is shown for a while."""
        now = time.monotonic()
        flowing = set()
        for port, stream in zip(self._inputs, ("thermal", "rgb")):
            if snapshot["rates_hz"][stream] > 0:
                flowing.add(port.topic)
        inputs = {port.topic for port in self._inputs}
        for topic, (when, _) in list(self._qos_problems.items()):
            if topic in flowing or (topic not in inputs and now - when > QOS_REPORT_S):
                del self._qos_problems[topic]
        return [text for _, text in self._qos_problems.values()]

    def _announce_choice(self) -> None:
        if self._choice.reason:
            self._log("warn", self._choice.reason)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _steady_clock(self) -> Any:
        # Diagnostics go on while simulated time stands still.
        from rclpy.clock import Clock, ClockType

        return Clock(clock_type=ClockType.STEADY_TIME)


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(EnhancementNode, args)


if __name__ == "__main__":
    sys.exit(main())
