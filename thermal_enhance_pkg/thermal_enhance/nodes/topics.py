"""Image topics of a node: in from DDS or from this process, out to both, serialized only when needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import CompressedImage as CompressedImageMessage
from sensor_msgs.msg import Image as ImageMessage

from thermal_enhance.imaging.raw import CompressedImage, RawImage
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.qos import image_qos, publisher_events, subscription_events, wanted_reliability

ImageItem = RawImage | CompressedImage
"""An image as it travels inside the suite."""
Received = ImageItem | bytes
"""An image as it arrives: by reference from this process, or serialized from DDS."""

TRANSPORTS = ("raw", "compressed")


def parse_received(item: Received, transport: str) -> ImageItem:
    """Header and a view of the pixels of whatever arrived.

    Raises:
        EncodingError: the message is malformed.
    """
    if not isinstance(item, bytes):
        return item
    return cdr.parse_compressed_image(item) if transport == "compressed" else cdr.parse_image(item)


class ImageInput:
    """One image input.

    Args:
        node: owner.
        topic: relative topic name; "/compressed" is appended for the compressed transport.
        receiver: called with (item, arrival in monotonic ns) on the executor's or the sender's thread;
            it must only enqueue.
        bus: in-process topics, used instead of DDS where the topic is published in this process.
        transport: "raw" or "compressed".
        reliability: "match", "reliable" or "best_effort".
        depth: samples that the middleware keeps until they are taken.
        report: called with a sentence when a publisher is incompatible.
    """

    def __init__(
        self,
        node: LifecycleNode,
        topic: str,
        receiver: Callable[[Received, int], None],
        bus: LocalBus,
        transport: str = "raw",
        reliability: str = "match",
        depth: int = 1,
        report: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._depth = depth
        self._node = node
        self._receiver = receiver
        self._bus = bus
        self.transport = transport
        self._choice = reliability
        self._report = report
        name = f"{topic}/compressed" if transport == "compressed" else topic
        self.topic = node.resolve_topic_name(name)
        self._reliable = False
        self._subscription: Any = None
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        """Is it receiving?"""
        return self._unsubscribe is not None or self._subscription is not None

    def open(self) -> None:
        """Start receiving; nothing happens if it is receiving already."""
        if self.is_open:
            return
        if self._bus.has_publisher(self.topic):
            self._unsubscribe = self._bus.subscribe(self.topic, self._receive)
            return
        self._subscribe(wanted_reliability(self._node, self.topic, self._choice))

    def refresh(self) -> None:
        """Follow publishers that came, went or changed since; call it about once a second."""
        if self._subscription is None:
            return
        if self._choice == "match" and not self._node.get_publishers_info_by_topic(self.topic):
            return  # nobody to match: keep what served the last publisher
        reliable = wanted_reliability(self._node, self.topic, self._choice)
        if reliable != self._reliable:
            self._node.destroy_subscription(self._subscription)
            self._subscribe(reliable)

    def close(self) -> None:
        """Stop receiving."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _subscribe(self, reliable: bool) -> None:
        self._reliable = reliable
        self._subscription = self._node.create_subscription(
            CompressedImageMessage if self.transport == "compressed" else ImageMessage,
            self.topic,
            self._receive,
            image_qos(reliable, self._depth),
            raw=True,
            event_callbacks=subscription_events(self.topic, self._report),
        )

    def _receive(self, item: Received) -> None:
        self._receiver(item, time.monotonic_ns())


class _Output:
    """One topic, to this process and to DDS.

    Args:
        node: owner.
        message_type: ROS message type.
        topic: relative topic name.
        bus: topics of this process.
        qos: profile; transient local durability holds on the bus too: late receivers get the last item.
        report: called with a sentence when a subscriber is incompatible.
    """

    def __init__(
        self,
        node: LifecycleNode,
        message_type: type,
        topic: str,
        bus: LocalBus,
        qos: Any = None,
        report: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._node = node
        self._bus = bus
        profile = qos or image_qos(reliable=True)
        events = publisher_events(node.resolve_topic_name(topic), report)
        self._publisher = node.create_lifecycle_publisher(
            message_type, topic, profile, event_callbacks=events
        )
        self.topic = self._publisher.topic_name
        bus.advertise(self.topic, latched=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)

    @property
    def wanted(self) -> bool:
        """Is anybody listening?"""
        return self._bus.receiver_count(self.topic) > 0 or self._publisher.get_subscription_count() > 0

    def close(self) -> None:
        """Withdraw the topic."""
        self._bus.withdraw(self.topic)
        self._node.destroy_lifecycle_publisher(self._publisher)


class ImageOutput(_Output):
    """One image output: to receivers in this process by reference, to DDS only while somebody subscribes."""

    def __init__(
        self,
        node: LifecycleNode,
        topic: str,
        bus: LocalBus,
        compressed: bool = False,
        report: Callable[[str], None] = lambda _text: None,
        depth: int = 1,
    ) -> None:
        message_type = CompressedImageMessage if compressed else ImageMessage
        super().__init__(node, message_type, topic, bus, image_qos(reliable=True, depth=depth), report)

    def publish(self, image: ImageItem) -> None:
        """Publish one image."""
        if not self._publisher.is_activated:
            return
        self._bus.publish(self.topic, image)
        if self._publisher.get_subscription_count() > 0:
            if isinstance(image, CompressedImage):
                self._publisher.publish(cdr.serialize_compressed_image(image))
            else:
                self._publisher.publish(cdr.serialize_image(image))

    def publish_serialized(self, message: bytes) -> None:
        """Publish a message that is serialized already; nobody in this process gets it."""
        self._publisher.publish(message)


class MessageOutput(_Output):
    """One output of small typed messages."""

    def publish(self, message: Any) -> None:
        """Publish one message."""
        if not self._publisher.is_activated:
            return
        self._bus.publish(self.topic, message)
        self._publisher.publish(message)


class MessageInput:
    """One input of small typed messages, from this process where published here, else from DDS."""

    def __init__(
        self,
        node: LifecycleNode,
        message_type: type,
        topic: str,
        receiver: Callable[[Any], None],
        bus: LocalBus,
        qos: Any = None,
    ) -> None:
        self._node = node
        self._type = message_type
        self._receiver = receiver
        self._bus = bus
        self._qos = qos
        self.topic = node.resolve_topic_name(topic)
        self._subscription: Any = None
        self._unsubscribe: Callable[[], None] | None = None

    def open(self) -> None:
        """Start receiving."""
        if self._bus.has_publisher(self.topic):
            self._unsubscribe = self._bus.subscribe(self.topic, self._receiver)
        else:
            # Best effort hears every publisher; what must not be lost passes its own profile.
            self._subscription = self._node.create_subscription(
                self._type, self.topic, self._receiver, self._qos or image_qos(reliable=False)
            )

    def close(self) -> None:
        """Stop receiving."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
