"""The node that the transport benchmark compares with: what an rclpy tutorial leads one to write.

Deserializing subscriptions of depth 10, conversion the way of cv_bridge's Python side, an
ApproximateTimeSynchronizer, and a callback that does the work and publishes, on `rclpy.spin`. Nothing in it
is slowed down; it is the ordinary way, and the benchmark measures what the ordinary way costs.

    python -m thermal_enhance.evaluation.bench_transport_stock
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from thermal_enhance.evaluation.bench_transport_driver import COLOR_TOPIC, ENHANCED_TOPIC, THERMAL_TOPIC

QUEUE_SIZE = 10
SLOP_S = 0.02
_DTYPES = {"mono16": (np.uint16, 1), "rgb8": (np.uint8, 3)}


class FirstFitSynchronizer:
    """First-fit approximate pairing of two streams by header stamp, queues bounded by arrival.

    Stands in for message_filters.ApproximateTimeSynchronizer where that is not installed: each arriving
    message takes the nearest waiting message of the other stream that lies strictly within the slop.

    Args:
        callback: Called with (first, second) for each pair.
        queue_size: Messages kept waiting a stream; the oldest leaves first.
        slop_s: Largest stamp difference of a pair, seconds, exclusive.
    """

    def __init__(self, callback: Callable[[Any, Any], None], queue_size: int, slop_s: float) -> None:
        self._callback = callback
        self._queue_size = queue_size
        self._slop_ns = round(slop_s * 1e9)
        self._waiting: tuple[OrderedDict[int, Any], OrderedDict[int, Any]] = (OrderedDict(), OrderedDict())

    def add(self, stream: int, message: Any) -> None:
        """Add a message of stream 0 or 1, and call back if it completes a pair."""
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        others = self._waiting[1 - stream]
        match = min(others, key=lambda other: abs(other - stamp), default=None)
        if match is not None and abs(match - stamp) < self._slop_ns:
            partner = others.pop(match)
            self._callback(*((message, partner) if stream == 0 else (partner, message)))
            return
        own = self._waiting[stream]
        own[stamp] = message
        while len(own) > self._queue_size:
            own.popitem(last=False)


def image_to_array(message: Any) -> np.ndarray:
    """Pixels of a mono16 or rgb8 sensor_msgs/Image, (H, W) or (H, W, 3), copied as cv_bridge does."""
    dtype, channels = _DTYPES[message.encoding]
    shape = (message.height, message.width) if channels == 1 else (message.height, message.width, channels)
    return np.frombuffer(message.data, dtype=dtype).reshape(shape).copy()


def array_to_image(pixels: np.ndarray, encoding: str, header: Any) -> Any:
    """A sensor_msgs/Image of the pixels; the data goes through `tobytes` as in cv_bridge's cv2_to_imgmsg."""
    from sensor_msgs.msg import Image

    message = Image()
    message.header = header
    message.height, message.width = int(pixels.shape[0]), int(pixels.shape[1])
    message.encoding = encoding
    message.step = int(pixels.strides[0])
    message.data.frombytes(pixels.tobytes())
    return message


def main() -> None:
    """Spin the stock node until interrupted."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("bench_stock")
    publisher = node.create_publisher(Image, ENHANCED_TOPIC, 10)

    def on_pair(thermal: Any, color: Any) -> None:
        image_to_array(color)
        publisher.publish(array_to_image(image_to_array(thermal), thermal.encoding, thermal.header))

    try:
        import message_filters

        synchronizer = message_filters.ApproximateTimeSynchronizer(
            [
                message_filters.Subscriber(node, Image, THERMAL_TOPIC),
                message_filters.Subscriber(node, Image, COLOR_TOPIC),
            ],
            QUEUE_SIZE,
            SLOP_S,
        )
        synchronizer.registerCallback(on_pair)
    except ImportError:
        pairs = FirstFitSynchronizer(on_pair, QUEUE_SIZE, SLOP_S)
        node.create_subscription(Image, THERMAL_TOPIC, lambda message: pairs.add(0, message), 10)
        node.create_subscription(Image, COLOR_TOPIC, lambda message: pairs.add(1, message), 10)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
