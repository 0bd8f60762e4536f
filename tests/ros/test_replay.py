"""The replay node over real DDS, as a process of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("thermal_enhance_msgs", reason="the interface package is not built")

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from thermal_enhance.imaging.raw import RawImage
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bags import CAMERA_INFO, IMAGE, STRING, BagReader, BagWriter
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.replay_node import ReplayNode

pytestmark = pytest.mark.ros

START = 1_700_000_000_000_000_000
FRAMES = 20
STEP = 50_000_000
WAIT_S = 30.0


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of a thermal and an RGB camera under other names, with a topic nobody here can import."""
    path = tmp_path_factory.mktemp("replay") / "bag"
    with BagWriter(path, custom_data={"thermal_units": "counts"}) as writer:
        writer.add_topic("/boson/image_raw", IMAGE)
        writer.add_topic("/boson/camera_info", CAMERA_INFO)
        writer.add_topic("/webcam/color", IMAGE, reliable=False)
        writer.add_topic("/note", STRING, latched=True)
        writer.add_topic(
            "/odd", "unheard_of_msgs/msg/Odd", definition="int32 a\n", type_hash="RIHS01_" + "1" * 64
        )
        writer.write("/note", START, cdr.serialize_string("hello"))
        writer.write("/odd", START, b"\0\1\0\0\1\0\0\0")
        for index in range(FRAMES):
            stamp = START + index * STEP
            info = cdr.CameraInfoData(stamp_ns=stamp, frame_id="boson", width=160, height=120)
            pixels = bytes([index]) * (160 * 120 * 2)
            writer.write("/boson/camera_info", stamp, cdr.serialize_camera_info(info))
            thermal = RawImage(stamp, "boson", 120, 160, "mono16", False, 320, pixels)
            writer.write("/boson/image_raw", stamp, cdr.serialize_image(thermal))
            if index % 2 == 0:
                color = RawImage(stamp, "webcam", 8, 8, "rgb8", False, 24, bytes(192))
                writer.write("/webcam/color", stamp, cdr.serialize_image(color))
    return path


class Listener:
    """Raw subscriptions in this process; what came is in `got`, by topic."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("listener", context=self.context)
        self.got: dict[str, list[bytes]] = defaultdict(list)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def listen(self, kind: type, topic: str) -> None:
        self.node.create_subscription(
            kind,
            topic,
            lambda message: self.got[topic].append(bytes(message)),
            QoSProfile(depth=100),
            raw=True,
        )

    def wait_for(self, ready: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + WAIT_S
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.02)
        return ready()

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    number = random.randint(20, 99)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number


@pytest.fixture
def listener(domain: int) -> Iterator[Listener]:
    made = Listener(domain)
    yield made
    made.close()


def replay(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "thermal_enhance.nodes.replay_command", *arguments],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_of(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=WAIT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return output


def stamps(messages: list[bytes]) -> list[int]:
    return [cdr.parse_header(m)[0] for m in messages]


def clock_ns(message: bytes) -> int:
    return int.from_bytes(message[4:8], "little", signed=True) * 10**9 + int.from_bytes(
        message[8:12], "little"
    )


def test_everything_arrives_as_it_was_recorded(bag: Path, listener: Listener) -> None:
    for kind, topic in ((Image, "thermal/image_raw"), (CameraInfo, "thermal/camera_info"), (Clock, "/clock")):
        listener.listen(kind, topic)
    process = replay(str(bag), "--rate", "4", "--wait")
    output = end_of(process)
    assert process.returncode == 0, output
    assert listener.wait_for(lambda: len(listener.got["thermal/camera_info"]) >= FRAMES), output
    # Byte for byte: nothing was deserialized on the way.
    recorded = [m.data for m in BagReader(bag).messages(["/boson/image_raw"])]
    assert listener.got["thermal/image_raw"] == recorded
    assert stamps(listener.got["thermal/camera_info"]) == [START + i * STEP for i in range(FRAMES)]
    clocks = [clock_ns(m) for m in listener.got["/clock"]]
    assert clocks == sorted(clocks) and len(set(clocks)) > 3
    assert clocks[0] >= START and clocks[-1] <= START + FRAMES * STEP
    assert "unheard_of_msgs" in output and "thermal 20" in output and "rgb 10" in output


def test_loop_jumps_back_until_interrupted_twice(bag: Path, listener: Listener) -> None:
    listener.listen(Image, "thermal/image_raw")
    listener.listen(Clock, "/clock")
    process = replay(str(bag), "--loop", "--rate", "20", "--wait", "--topics", "/boson/image_raw")
    looped = listener.wait_for(lambda: len(listener.got["thermal/image_raw"]) > 2 * FRAMES)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    output = end_of(process)
    assert looped, output
    assert process.returncode == 0, output
    got = stamps(listener.got["thermal/image_raw"])
    jumps = [i for i in range(1, len(got)) if got[i] < got[i - 1]]
    assert len(jumps) >= 2
    assert all(got[i] == START for i in jumps)
    clocks = [clock_ns(m) for m in listener.got["/clock"]]
    assert sum(later < earlier for earlier, later in pairwise(clocks)) >= 2


def test_a_bag_that_is_not_there_is_one_sentence(tmp_path: Path, domain: int) -> None:
    process = replay(str(tmp_path / "nope"))
    output = end_of(process)
    assert process.returncode == 1
    assert "no such bag" in output and "Traceback" not in output


@pytest.fixture
def context(domain: int) -> Iterator[Context]:
    made = Context()
    rclpy.init(context=made, domain_id=domain)
    yield made
    rclpy.try_shutdown(context=made)


def make_node(context: Context, bus: LocalBus, **parameters: object) -> ReplayNode:
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    return ReplayNode(bus=bus, context=context, parameter_overrides=overrides)


def test_in_process_pause_resume_and_again(bag: Path, context: Context) -> None:
    bus = LocalBus()
    node = make_node(context, bus, bag=str(bag), rate=100.0, publish_clock=False, topics=["boson/image_raw"])
    got: list[bytes] = []
    bus.subscribe("/thermal/image_raw", got.append)
    try:
        for _ in range(2):
            got.clear()
            node.trigger_configure()
            assert node.state_label == "inactive" and bus.has_publisher("/thermal/image_raw")
            for _ in range(2):
                # Once paused at once and resumed, once more from the beginning after the end.
                node.trigger_activate()
                node.trigger_deactivate()
                node.trigger_activate()
                assert node.finished.wait(WAIT_S)
                assert node.published_counts() == {"thermal": FRAMES}
                node.trigger_deactivate()
            assert len(got) == 2 * FRAMES and cdr.parse_image(got[0]).frame_id == "boson"
            node.trigger_cleanup()
            assert node.state_label == "unconfigured" and not bus.has_publisher("/thermal/image_raw")
    finally:
        node.stop()
        node.destroy_node()


def test_rate_changes_live_and_the_rest_is_refused(bag: Path, context: Context) -> None:
    node = make_node(context, LocalBus(), bag=str(bag), rate=0.01)
    try:
        node.trigger_configure()
        node.trigger_activate()
        assert not node.set_parameters([Parameter("bag", value="other")])[0].successful
        assert not node.set_parameters([Parameter("rate", value=1000.0)])[0].successful
        assert node.set_parameters([Parameter("rate", value=100.0)])[0].successful
        assert node.finished.wait(WAIT_S)
        assert node.published_counts()["thermal"] == FRAMES and node.progress > 0.9
        assert dict(node.skipped) == {"/odd": 1}
    finally:
        node.stop()
        node.destroy_node()


def test_what_cannot_be_played_fails_the_transition(bag: Path, context: Context) -> None:
    for parameters in (
        {},
        {"bag": "/nowhere/at/all"},
        {"bag": str(bag), "topics": ["/nope"]},
        {"bag": str(bag), "thermal_topic": "/note"},
        {"bag": str(bag), "start_offset": 100.0},
    ):
        node = make_node(context, LocalBus(), **parameters)
        try:
            node.trigger_configure()
            assert node.state_label == "unconfigured"
        finally:
            node.stop()
            node.destroy_node()


def test_frames_and_bags_without_a_thermal_camera_are_played_too(tmp_path: Path, context: Context) -> None:
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "clip" / "thermal").mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(tmp_path / "clip" / "thermal" / f"{index}.png"), np.full((4, 6), index, np.uint16))
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/note", STRING)
        writer.write("/note", START, cdr.serialize_string("no camera here"))
    for path, expected in (("clip", {"thermal": 3, "thermal/camera_info": 3}), ("bag", {"/note": 1})):
        node = make_node(context, LocalBus(), bag=str(tmp_path / path), rate=100.0)
        try:
            node.trigger_configure()
            node.trigger_activate()
            assert node.finished.wait(WAIT_S)
            assert node.published_counts() == expected
        finally:
            node.stop()
            node.destroy_node()


def test_a_damaged_bag_ends_the_replay_with_a_reason(bag: Path, tmp_path: Path, context: Context) -> None:
    shutil.copytree(bag, tmp_path / "bag")
    node = make_node(context, LocalBus(), bag=str(tmp_path / "bag"), topics=["/note"], publish_clock=False)
    try:
        node.trigger_configure()
        assert node.state_label == "inactive"
        os.truncate(tmp_path / "bag" / "bag.mcap", 20_000)
        node.trigger_activate()
        assert node.finished.wait(WAIT_S)
        assert "cannot be read" in node.error
    finally:
        node.stop()
        node.destroy_node()


def test_late_joiners_get_what_was_latched(bag: Path, listener: Listener) -> None:
    from rclpy.qos import DurabilityPolicy

    got: list[str] = []
    process = replay(str(bag), "--topics", "/note", "/boson/image_raw", "--rate", "0.1", "--no-clock")
    try:
        assert listener.wait_for(lambda: listener.node.count_publishers("/note") > 0)
        time.sleep(0.5)
        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        listener.node.create_subscription(String, "/note", lambda message: got.append(message.data), qos)
        assert listener.wait_for(lambda: bool(got))
    finally:
        process.send_signal(signal.SIGTERM)
        output = end_of(process)
    assert listener.node.count_publishers("/clock") == 0
    assert got == ["hello"] and process.returncode == 0, output
