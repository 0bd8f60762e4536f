"""Base of the nodes that stand in for cameras: a schedule of frames, published on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import UInt8

from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.imaging.raw import RawImage
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.lifecycle import SuiteNode
from thermal_enhance.nodes.messages import camera_info
from thermal_enhance.nodes.topics import ImageOutput, MessageOutput

LATE_S = 0.25
"""A source this far behind its schedule skips frames, as a camera would, instead of bunching them."""
LISTENER_WAIT_S = 3.0
"""How long a source waits for its first subscriber before it plays to nobody."""


@dataclass(frozen=True)
class ScheduledFrame:
    """One frame of a schedule.

    Attributes:
        stream: "thermal" or "rgb".
        due_s: when to publish it, seconds since activation.
        make: renders or reads it, given the stamp of activation in nanoseconds; None when there is
            nothing to publish after all (a broken file, a dropped frame).
        ffc_state: shutter state to publish with a thermal frame, or None.
    """

    stream: str
    due_s: float
    make: Callable[[int], RawImage | None]
    ffc_state: int | None = None


class SourceNode(SuiteNode):
    """A lifecycle node that publishes thermal/image_raw, rgb/image_raw and their camera_info.

    Subclasses override `open_source` and `schedule`. `finished` is set when the schedule ends.
    """

    def __init__(self, name: str, bus: LocalBus | None = None, **kwargs: Any) -> None:
        self.finished = threading.Event()
        self.published: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._outputs: dict[str, tuple[ImageOutput, MessageOutput]] = {}
        self._ffc_out: MessageOutput | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__(name, bus, **kwargs)

    def open_source(self) -> None:
        """Open files, build the world (override); raise with what to change."""

    def schedule(self) -> Iterator[ScheduledFrame]:
        """Frames in the order of their due times (override); none by default."""
        return iter(())

    def camera(self, stream: str, width: int, height: int) -> CameraModel:
        """Intrinsics to publish with a stream (override); uncalibrated by default."""
        return CameraModel(width, height)

    def configure(self) -> None:
        """Open the source and advertise its topics."""
        self.open_source()
        for stream in ("thermal", "rgb"):
            self._outputs[stream] = (
                ImageOutput(self, f"{stream}/image_raw", self.bus),
                MessageOutput(self, CameraInfo, f"{stream}/camera_info", self.bus),
            )
        self._ffc_out = MessageOutput(self, UInt8, "thermal/ffc_state", self.bus)

    def activate(self) -> None:
        """Start publishing."""
        self._stop.clear()
        self.finished.clear()
        self.published.clear()
        self.skipped.clear()
        self._thread = threading.Thread(target=self._run, name=self.get_name(), daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Stop publishing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)
            self._thread = None

    def cleanup(self) -> None:
        """Withdraw the topics."""
        for image_out, info_out in self._outputs.values():
            image_out.close()
            info_out.close()
        self._outputs = {}
        if self._ffc_out is not None:
            self._ffc_out.close()
            self._ffc_out = None

    def _run(self) -> None:
        try:
            self._play()
        except Exception as error:
            self.get_logger().error(f"the source stopped: {error}")
        finally:
            self.finished.set()

    def _wait_for_listener(self) -> None:
        """Discovery takes a moment: a stand-in that starts before it is over loses its first frames."""
        until = time.monotonic() + LISTENER_WAIT_S
        while time.monotonic() < until and not self._outputs["thermal"][0].wanted:
            if self._stop.wait(0.05):
                return
        self._stop.wait(0.2)  # the other direction of the match

    def _play(self) -> None:
        self._wait_for_listener()
        base_ns = int(self.get_clock().now().nanoseconds)
        start = time.monotonic()
        for frame in self.schedule():
            wait = start + frame.due_s - time.monotonic()
            if wait > 0 and self._stop.wait(wait):
                return
            if self._stop.is_set():
                return
            if wait < -LATE_S:
                self.skipped[frame.stream] += 1
                continue
            image = frame.make(base_ns)
            if image is None:
                continue
            self._publish(frame, image)

    def _publish(self, frame: ScheduledFrame, image: RawImage) -> None:
        image_out, info_out = self._outputs[frame.stream]
        image_out.publish(image)
        info_out.publish(
            camera_info(self.camera(frame.stream, image.width, image.height), image.stamp_ns, image.frame_id)
        )
        if frame.ffc_state is not None and self._ffc_out is not None:
            self._ffc_out.publish(UInt8(data=frame.ffc_state))
        self.published[frame.stream] += 1
