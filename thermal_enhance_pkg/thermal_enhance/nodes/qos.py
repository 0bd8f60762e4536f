"""Quality of service: inputs fit the camera, outputs are reliable, a mismatch names its remedy."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

RELIABILITY_CHOICES = ("match", "reliable", "best_effort")


THERMAL_DEPTH = 10
"""Depth of the thermal input. From a driver on the default transport, images larger than a datagram come in
fragments; with depth 1 the next image pushes out one whose last fragment is being resent, and frames are
lost (docs/benchmarks.md). Nothing is queued all the same: what arrives is taken at once, the newest wins."""

BURST_DEPTH = 2
"""Depth of the enhanced outputs: an interpolated frame and the newest leave one right after the other."""


def image_qos(reliable: bool, depth: int = 1) -> QoSProfile:
    """Depth 1 by default: the newest image wins, nothing is queued."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def latched_qos() -> QoSProfile:
    """Reliable, depth 1, delivered to late joiners too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def wanted_reliability(node: Node, topic: str, choice: str) -> bool:
    """Should a subscription to `topic` be reliable?

    "match" follows the publishers: reliable only if all of them are, since a reliable subscription
    gets nothing from a best-effort camera. Best effort, which every publisher can serve, until one
    is discovered.
    """
    if choice != "match":
        return choice == "reliable"
    publishers = node.get_publishers_info_by_topic(topic)
    return bool(publishers) and all(
        info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers
    )


def subscription_events(topic: str, report: Callable[[str], None]) -> SubscriptionEventCallbacks:
    """Event callbacks that report a publisher this subscription cannot hear, with the remedy."""

    def incompatible(event: object) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)  # type: ignore[attr-defined]
        report(
            f"{topic}: a publisher offers an incompatible QoS ({policy}) and its images cannot arrive. "
            "Set the parameter `reliability` to match or best_effort, or make the publisher reliable."
        )

    return SubscriptionEventCallbacks(incompatible_qos=incompatible)


def publisher_events(topic: str, report: Callable[[str], None]) -> PublisherEventCallbacks:
    """Event callbacks that report a subscriber this publisher cannot serve, with the remedy."""

    def incompatible(event: object) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)  # type: ignore[attr-defined]
        report(
            f"{topic}: a subscriber asks for an incompatible QoS ({policy}) and gets nothing. "
            "This topic is reliable and volatile: subscribe with durability volatile."
        )

    return PublisherEventCallbacks(incompatible_qos=incompatible)
