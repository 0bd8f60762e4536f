"""A recording in the place of the cameras: rosbag2, or a clip, published as it was recorded."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bag_reader import (
    COMPRESSED_IMAGE,
    IMAGE,
    BagError,
    BagMessage,
    BagReader,
    BagTopic,
)
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.camera_topics import CameraTopics, find_camera_topics
from thermal_enhance.nodes.frame_messages import FrameSource
from thermal_enhance.nodes.lifecycle import SuiteNode
from thermal_enhance.nodes.parameters import parameter
from thermal_enhance.nodes.player import RATE_LIMITS, Player, PlayerCounts
from thermal_enhance.nodes.process import run_node
from thermal_enhance.nodes.recordings import open_recording

OUTPUT_DEPTH = 10
NOT_REPLAYED = ("/clock", "/rosout", "/parameter_events")
"""What the nodes that run now say themselves; played only when named in `topics`."""

_SETTLE_S = 0.3
_ACKNOWLEDGE_S = 1.0
_JOIN_S = 10.0


@dataclass(frozen=True)
class ReplayConfig:
    """Parameters of the replay node; every field is a ROS parameter of the same name."""

    bag: str = parameter(
        "",
        "rosbag2 folder, .mcap or .db3 file; a folder or video of frames is played as well.",
        read_only=True,
    )
    rate: float = parameter(
        1.0, "Seconds of the recording per second.", low=RATE_LIMITS[0], high=RATE_LIMITS[1]
    )
    loop: bool = parameter(False, "Begin again at the end; the stamps jump back then.")
    start_offset: float = parameter(0.0, "Seconds to leave out at the beginning.", low=0.0, read_only=True)
    duration: float = parameter(
        0.0, "Seconds of the recording to play; 0 to its end.", low=0.0, read_only=True
    )
    publish_clock: bool = parameter(True, "Publish /clock for nodes with use_sim_time.", read_only=True)
    clock_rate: float = parameter(100.0, "/clock messages a second.", low=1.0, high=1000.0, read_only=True)
    topics: list[str] = parameter([], "Topics to play; empty for all.", read_only=True)
    thermal_topic: str = parameter(
        "", "Image topic of the recording to publish as thermal/image_raw; empty to find it.", read_only=True
    )
    rgb_topic: str = parameter(
        "", "Image topic to publish as rgb/image_raw; empty to find it, 'none' for none.", read_only=True
    )
    wait_for_subscribers: bool = parameter(
        False, "Begin when somebody listens to the thermal images.", read_only=True
    )
    wait_timeout: float = parameter(
        10.0, "Begin after this many seconds even if nobody listens.", low=0.0, high=600.0, read_only=True
    )


@dataclass(frozen=True)
class _Output:
    """Where a topic of the recording goes; `key` is what it is counted as."""

    publisher: Any
    topic: str
    key: str
    local: bool
    reliable: bool


def message_class(msgtype: str) -> type:
    """The Python class of "package/msg/Name".

    Raises:
        ImportError: the package is not installed, or has no such message.
    """
    package, kind, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)  # type: ignore[no-any-return]
    except AttributeError:
        raise ImportError(f"{package} has no {name}") from None


class ReplayNode(SuiteNode):
    """Lifecycle node `replay_node`: publishes a recording at its moments, messages as they were serialized.

    The thermal and the RGB camera go to the relative topics `thermal/image_raw` and `rgb/image_raw` with
    their camera_info; everything else keeps its name. Activate plays, deactivate pauses, activate goes on.

    Attributes:
        finished: set when the recording (or the part asked for) has been played.
        published: messages by "thermal", "rgb" or topic name.
        skipped: messages of the recording that cannot be published, by topic.
        error: why playing ended early, or "".
    """

    config_type = ReplayConfig

    def __init__(self, bus: LocalBus | None = None, name: str = "replay_node", **kwargs: Any) -> None:
        self.finished = threading.Event()
        self.published: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.error = ""
        self.recording: BagReader | FrameSource | None = None
        self.cameras = CameraTopics("")
        self._outputs: dict[str, _Output] = {}
        self._player: Player | None = None
        self._clock_out: Any = None
        self._clock_lock = threading.Lock()
        self._end_ns = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        super().__init__(name, bus, **kwargs)

    @property
    def progress(self) -> float:
        """Share of the part to play that is over, 0 to 1."""
        if self._player is None:
            return 0.0
        length = max(1, min(self._player.stop_ns, self._end_ns) - self._player.start_ns)
        return min(1.0, max(0.0, (self._player.now_ns() - self._player.start_ns) / length))

    @property
    def player_counts(self) -> PlayerCounts:
        """Messages, lateness and loops so far."""
        return self._player.counts if self._player is not None else PlayerCounts()

    def published_counts(self) -> dict[str, int]:
        """{"thermal", "rgb" or topic name: messages published}."""
        return dict(self.published)

    def config_changed(self, config: ReplayConfig, names: set[str]) -> None:
        """Rate and loop change while playing."""
        if self._player is not None:
            self._player.set_rate(config.rate)
            self._player.loop = config.loop

    def configure(self) -> None:
        """Open the recording and advertise its topics.

        Raises:
            BagError: it cannot be read, or the cameras named are not in it.
            ValueError: a part that is not in it.
        """
        config: ReplayConfig = self.config
        if not config.bag:
            raise BagError("parameter bag is empty: name a rosbag2 folder or file")
        self.skipped.clear()
        self.recording = open_recording(config.bag)
        self.cameras = self._find_cameras()
        self._advertise(self.recording.topics)
        if not self._outputs:
            raise BagError(
                f"{config.bag}: nothing to play; its topics are {', '.join(self.recording.topics)}"
            )
        if config.publish_clock:
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
            self._clock_out = self.create_lifecycle_publisher(Clock, "/clock", qos)
        self._end_ns = self.recording.end_ns
        self._player = self._new_player()
        units = self.recording.custom_data.get("thermal_units")
        thermal = f"{self.cameras.thermal or 'unknown'}{f' ({units})' if units else ''}"
        self.get_logger().info(
            f"{config.bag}: {self.recording.duration_ns / 1e9:.2f} s, {len(self._outputs)} topics, "
            f"thermal camera {thermal}, RGB {self.cameras.rgb or 'none'}"
        )

    def activate(self) -> None:
        """Play, or go on playing."""
        assert self._player is not None
        playing = any(thread.name == "player" and thread.is_alive() for thread in self._threads)
        if playing and not self.finished.is_set():
            self._player.resume()
            return
        self._join()
        self._player = self._new_player()
        self._stop.clear()
        self.finished.clear()
        self.error = ""
        self.published.clear()
        self._threads = [
            threading.Thread(target=self._play, args=(self._player,), name="player", daemon=True)
        ]
        if self._clock_out is not None:
            self._threads.append(threading.Thread(target=self._tick, name="clock", daemon=True))
        for thread in self._threads:
            thread.start()

    def deactivate(self) -> None:
        """Pause."""
        if self._player is not None:
            self._player.pause()

    def cleanup(self) -> None:
        """Stop playing and withdraw the topics."""
        self._join()
        for output in self._outputs.values():
            if output.local:
                self.bus.withdraw(output.topic)
            self.destroy_lifecycle_publisher(output.publisher)
        self._outputs = {}
        if self._clock_out is not None:
            self.destroy_lifecycle_publisher(self._clock_out)
            self._clock_out = None
        if self.recording is not None:
            self.recording.close()
        self.recording = None
        self._player = None

    def _new_player(self) -> Player:
        assert self.recording is not None
        config: ReplayConfig = self.config
        return Player(
            self.recording,
            rate=config.rate,
            loop=config.loop,
            start_offset=config.start_offset,
            duration=config.duration or None,
            topics=list(self._outputs),
        )

    def _find_cameras(self) -> CameraTopics:
        assert self.recording is not None
        config: ReplayConfig = self.config
        if isinstance(self.recording, FrameSource):
            thermal, color = self.recording.camera_topics
            return find_camera_topics(self.recording, thermal, color or "none")
        try:
            return find_camera_topics(self.recording, config.thermal_topic or None, config.rgb_topic or None)
        except BagError as error:
            if config.thermal_topic or config.rgb_topic:
                raise
            # Any recording can be played; only the enhancement needs to know the cameras.
            self.get_logger().warning(f"{error}. Topics keep their names.")
            return CameraTopics("")

    def _names(self, topics: Mapping[str, BagTopic]) -> dict[str, tuple[str, str]]:
        """{topic of the recording: (topic to publish, what to count it as)}."""
        chosen = {f"/{name.lstrip('/')}" for name in self.config.topics}
        unknown = sorted(chosen - set(topics))
        if unknown:
            raise BagError(
                f"topics: {unknown[0]} is not in the recording; its topics are {', '.join(topics)}"
            )
        cameras = self.cameras
        renamed: dict[str, tuple[str, str]] = {}
        for stream, image, info in (
            ("thermal", cameras.thermal, cameras.thermal_info),
            ("rgb", cameras.rgb, cameras.rgb_info),
        ):
            if image:
                suffix = "/compressed" if topics[image].msgtype == COMPRESSED_IMAGE else ""
                renamed[image] = (f"{stream}/image_raw{suffix}", stream)
            if info:
                renamed[info] = (f"{stream}/camera_info", f"{stream}/camera_info")
        taken = {self.resolve_topic_name(name): source for source, (name, _) in renamed.items()}
        names = {}
        for topic in topics:
            if chosen and topic not in chosen:
                continue
            if not chosen and topic in NOT_REPLAYED:
                continue
            if taken.get(topic, topic) != topic:
                self.get_logger().warning(
                    f"{topic} is not played: {taken[topic]} is published under this name"
                )
                continue
            names[topic] = renamed.get(topic, (topic, topic))
        return names

    def _advertise(self, topics: Mapping[str, BagTopic]) -> None:
        for source, (name, key) in self._names(topics).items():
            topic = topics[source]
            reliable = topic.reliable is not False
            qos = QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=OUTPUT_DEPTH,
                reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE,
            )
            try:
                publisher = self.create_lifecycle_publisher(message_class(topic.msgtype), name, qos)
            except Exception as error:
                # A missing package costs its topics, never the replay.
                self.get_logger().warning(
                    f"{source} is not played: {topic.msgtype} cannot be imported ({error}); "
                    "install or build its package, or leave it out with `topics`"
                )
                self.skipped[source] = topic.count
                continue
            local = topic.msgtype in (IMAGE, COMPRESSED_IMAGE)
            if local:
                self.bus.advertise(publisher.topic_name)
            self._outputs[source] = _Output(publisher, publisher.topic_name, key, local, reliable)

    def _play(self, player: Player) -> None:
        try:
            if self.config.wait_for_subscribers:
                self._wait_for_listeners()
            loops = 0
            for message in player:
                if player.counts.loops != loops:
                    # Before the first message of a turn, so that it does not look an age old by the clock.
                    loops = player.counts.loops
                    self._publish_clock()
                self._publish(message)
            self._let_arrive()
        except Exception as error:
            self.error = str(error)
            self.get_logger().error(f"replay stopped: {error}")
        finally:
            counts = player.counts
            late = f", {counts.late} late (worst {counts.worst_lateness * 1e3:.0f} ms)" if counts.late else ""
            listing = (
                ", ".join(f"{key} {count}" for key, count in sorted(self.published.items())) or "nothing"
            )
            if not self._stop.is_set():
                self.get_logger().info(f"played {listing}{late}")
            self.finished.set()

    def _publish(self, message: BagMessage) -> None:
        output = self._outputs[message.topic]
        if output.local:
            self.bus.publish(output.topic, message.data)
        output.publisher.publish(message.data)
        self.published[output.key] += 1

    def _wait_for_listeners(self) -> None:
        wanted = self._outputs.get(self.cameras.thermal)
        watched = [wanted] if wanted is not None else list(self._outputs.values())
        deadline = time.monotonic() + self.config.wait_timeout
        while time.monotonic() < deadline and not self._stop.is_set():
            if any(o.publisher.get_subscription_count() or self.bus.receiver_count(o.topic) for o in watched):
                # Matched on this side; the other side may still be on its way.
                self._stop.wait(_SETTLE_S)
                return
            self._stop.wait(0.05)
        if not self._stop.is_set():
            self.get_logger().warning(
                f"nobody listens after {self.config.wait_timeout:g} s: playing all the same"
            )

    def _let_arrive(self) -> None:
        """Wait until reliable subscribers have the last messages: the process may end right after."""
        deadline = time.monotonic() + _ACKNOWLEDGE_S
        for output in self._outputs.values():
            left = deadline - time.monotonic()
            if left > 0 and output.reliable and hasattr(output.publisher, "wait_for_all_acked"):
                output.publisher.wait_for_all_acked(Duration(seconds=left))

    def _tick(self) -> None:
        period = 1.0 / self.config.clock_rate
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._publish_clock()
            due = max(due + period, time.monotonic())

    def _publish_clock(self) -> None:
        player, publisher = self._player, self._clock_out
        if player is not None and publisher is not None and publisher.is_activated:
            with self._clock_lock:  # reading and sending in one, or two threads could send out of order
                publisher.publish(cdr.serialize_clock(player.now_ns()))

    def _join(self) -> None:
        self._stop.set()
        if self._player is not None:
            self._player.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_JOIN_S)
        self._threads = []


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(ReplayNode, args)


if __name__ == "__main__":
    sys.exit(main())
