"""The two ends of the transport benchmark, each run as a process of its own.

`drive` is a camera driver: it publishes thermal and RGB images at a fixed rate, each stamped with the time
at which it is handed to the publisher. `receive` is the consumer: it notes when each enhanced frame arrives.
Both speak to the benchmark through their standard streams (one JSON object a line, flushed) and end when
their standard input closes, so neither can outlive the benchmark that started it.

    python -m thermal_enhance.evaluation.bench_transport_driver drive --rate 30 --frames 240 --warmup 60
    python -m thermal_enhance.evaluation.bench_transport_driver receive
"""

from __future__ import annotations

import argparse
import array
import json
import struct
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

THERMAL_TOPIC = "thermal/image_raw"
COLOR_TOPIC = "rgb/image_raw"
ENHANCED_TOPIC = "thermal/enhanced/image_raw"
INFO_TOPIC = "thermal/enhanced/info"
MATCH_TIMEOUT_S = 15.0
DRAIN_S = 1.0


def stamp_of(cdr: bytes) -> int:
    """Stamp, in nanoseconds, of a serialized message that starts with a std_msgs/Header.

    Args:
        cdr: Encapsulated CDR (4 byte encapsulation header, then sec int32 and nanosec uint32).

    Raises:
        ValueError: If the message is shorter than a stamp.
    """
    if len(cdr) < 12:
        raise ValueError(f"a serialized message of {len(cdr)} bytes holds no stamp")
    sec, nanosec = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def pattern(height: int, width: int, channels: int, depth: int, seed: int) -> np.ndarray:
    """A seeded pattern of (height, width) or (height, width, channels), uint8 or (depth 16) 14-bit uint16."""
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    if depth == 16:
        return rng.integers(0, 1 << 14, shape, dtype=np.uint16)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def _emit(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def _stop_on_stdin_close() -> threading.Event:
    """An event set when standard input closes: the parent asked for the end, or is gone."""
    stop = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    return stop


def _image(array_: np.ndarray, encoding: str, frame_id: str) -> Any:
    from sensor_msgs.msg import Image

    message = Image()
    message.header.frame_id = frame_id
    message.height, message.width = int(array_.shape[0]), int(array_.shape[1])
    message.encoding = encoding
    message.step = int(array_.strides[0])
    message.data = array.array("B", array_.tobytes())
    return message


def drive(
    rate: float, frames: int, warmup: int, thermal: tuple[int, int], color: tuple[int, int], need_color: bool
) -> None:
    """Publish `warmup + frames` pairs and report each measured thermal stamp.

    Args:
        rate: Pairs a second.
        frames: Measured pairs.
        warmup: Pairs sent before them, not measured.
        thermal: (width, height) of the mono16 image.
        color: (width, height) of the rgb8 image.
        need_color: Wait for a subscriber of the RGB topic too before starting.

    Raises:
        TimeoutError: If nobody subscribes in time.
    """
    import rclpy
    from rclpy.qos import QoSProfile

    stop = _stop_on_stdin_close()
    rclpy.init()
    node = rclpy.create_node("bench_driver")
    # Reliable, depth 10: what image_transport's camera publishers use unless told otherwise.
    qos = QoSProfile(depth=10)
    thermal_message = _image(pattern(thermal[1], thermal[0], 1, 16, seed=1), "mono16", "thermal")
    color_message = _image(pattern(color[1], color[0], 3, 8, seed=2), "rgb8", "rgb")
    thermal_publisher = node.create_publisher(type(thermal_message), THERMAL_TOPIC, qos)
    color_publisher = node.create_publisher(type(color_message), COLOR_TOPIC, qos)
    deadline = time.monotonic() + MATCH_TIMEOUT_S
    while thermal_publisher.get_subscription_count() < 1 or (
        need_color and color_publisher.get_subscription_count() < 1
    ):
        if stop.is_set():
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody subscribed to {THERMAL_TOPIC} within {MATCH_TIMEOUT_S:.0f} s")
        time.sleep(0.05)
    time.sleep(0.3)  # the far side of the match may lag behind ours
    stamps: list[int] = []
    late = 0
    start = time.monotonic()
    for index in range(warmup + frames):
        pause = start + index / rate - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        elif pause < -1.0 / rate:
            late += 1
        if stop.is_set():
            break
        if index == warmup:
            _emit("measuring", thermal_subscribers=thermal_publisher.get_subscription_count())
        for message, publisher in ((thermal_message, thermal_publisher), (color_message, color_publisher)):
            now = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
            publisher.publish(message)
            if message is thermal_message and index >= warmup:
                stamps.append(now)
    stop.wait(DRAIN_S)
    _emit("sent", stamps=stamps, late=late)
    stop.wait()
    node.destroy_node()
    rclpy.try_shutdown()


def receive(info: bool = False) -> None:
    """Note the arrival time of every enhanced frame until standard input closes, then report them all.

    Args:
        info: Also listen to the frames' FrameInfo and report the stamps of those that had an RGB partner,
            and the node's own count of dropped frames by reason.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    stop = _stop_on_stdin_close()
    rclpy.init()
    node = rclpy.create_node("bench_receiver")
    arrivals: list[tuple[int, int]] = []

    def on_frame(cdr: bytes) -> None:
        now = time.time_ns()
        arrivals.append((stamp_of(cdr), now))

    node.create_subscription(Image, ENHANCED_TOPIC, on_frame, QoSProfile(depth=10), raw=True)
    paired: list[int] = []
    dropped: dict[str, int] = {}
    if info:
        from thermal_enhance_msgs.msg import FrameInfo

        def on_info(message: Any) -> None:
            dropped.update(zip(message.drop_reasons, (int(count) for count in message.drop_counts)))
            if message.rgb_paired:
                paired.append(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)

        node.create_subscription(FrameInfo, INFO_TOPIC, on_info, QoSProfile(depth=10))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    _emit("ready")
    while not stop.is_set():
        try:
            executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            break
    _emit("received", arrivals=arrivals, paired=paired, dropped=dropped)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


def _size(text: str) -> tuple[int, int]:
    width, height = (int(part) for part in text.lower().split("x"))
    return width, height


def main(argv: Sequence[str] | None = None) -> None:
    """Run one end of the benchmark (see the module's text)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    ends = parser.add_subparsers(dest="end", required=True)
    driver = ends.add_parser("drive", help="publish thermal and RGB images")
    driver.add_argument("--rate", type=float, default=30.0)
    driver.add_argument("--frames", type=int, default=240)
    driver.add_argument("--warmup", type=int, default=45)
    driver.add_argument("--thermal", type=_size, default=(640, 512), metavar="WxH")
    driver.add_argument("--color", type=_size, default=(1920, 1080), metavar="WxH")
    driver.add_argument("--no-color-subscriber", action="store_true", help="do not wait for one")
    receiver = ends.add_parser("receive", help="note the arrival of enhanced frames")
    receiver.add_argument("--info", action="store_true", help="also count frames that had an RGB partner")
    arguments = parser.parse_args(argv)
    if arguments.end == "receive":
        receive(arguments.info)
    else:
        drive(
            arguments.rate,
            arguments.frames,
            arguments.warmup,
            arguments.thermal,
            arguments.color,
            not arguments.no_color_subscriber,
        )


if __name__ == "__main__":
    main()
