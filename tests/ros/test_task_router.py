"""The task router over real DDS: policies, service, and each frame to its task."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from thermal_enhance_msgs.msg import FrameInfo, TaskRequest
from thermal_enhance_msgs.srv import SetTask

from tests.ros.harness import NodeProcess, Probe, scene, stream, unique_namespace, wait_until
from thermal_enhance.imaging.encodings import encode
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.diagnostics import OK, WARN
from thermal_enhance.nodes.messages import from_time, to_time
from thermal_enhance.nodes.qos import latched_qos
from thermal_enhance.nodes.task_router_node import MATCH_CAPACITY, WARNING_TICKS, TaskRouterNode

pytestmark = pytest.mark.ros
ROUTER = "task_router_node"
SET_TASK = f"{ROUTER}/set_task"


@pytest.fixture(params=["composed", "separate"])
def graph(request: pytest.FixtureRequest, tmp_path: Path):
    """Enhancement and router, in one process or in two."""
    namespace = unique_namespace()
    parameters = {"scale": 2}
    if request.param == "composed":
        with Probe(namespace) as probe, NodeProcess("composition", namespace, tmp_path / "log", parameters):
            probe.wait_connected()
            yield probe
    else:
        with (
            Probe(namespace) as probe,
            NodeProcess("enhancement_node", namespace, tmp_path / "log_enhancement", {"scale": 2}),
            NodeProcess("task_router_node", namespace, tmp_path / "log_router"),
        ):
            probe.wait_state(ROUTER, "active")
            probe.wait_connected()
            time.sleep(0.5)
            yield probe


def test_on_demand_serves_only_what_somebody_listens_to(graph: Probe) -> None:
    probe = graph
    infos = probe.infos()
    requests = probe.listen("task_request", TaskRequest, latched_qos())
    wait_until(lambda: len(requests) > 0, what="the latched task request")
    assert list(requests[-1].tasks) == []
    before = stream(probe, 8)
    wait_until(lambda: len(infos) >= 4, 10, "frames")
    assert {i.task for i in infos} == {""}

    detection = probe.listen("tasks/detection/image_raw", Image)
    cameras = probe.listen("tasks/detection/camera_info", CameraInfo)
    wait_until(lambda: list(requests[-1].tasks) == ["detection"], 10, "the demand to be noticed")
    time.sleep(0.3)
    stamps = stream(probe, 20)
    wait_until(lambda: len(detection) >= 12, 10, "frames for detection")
    assert {from_time(m.header.stamp) for m in detection} <= {*before, *stamps}
    assert detection[-1].width == 160
    assert cameras and cameras[-1].width == 160
    assert infos[-1].task == "detection"


def test_round_robin_by_weights_and_refusals(graph: Probe) -> None:
    probe = graph
    infos = probe.infos()
    boxes = probe.listen("tasks/detection/image_raw", Image)
    masks = probe.listen("tasks/segmentation/image_raw", Image)
    request = SetTask.Request(policy="round_robin", tasks=["detection", "segmentation"], weights=[2, 1])
    response = probe.call(SetTask, SET_TASK, request)
    assert response.success, response.message
    assert list(response.active_tasks) == ["detection", "segmentation"]
    time.sleep(0.5)
    stream(probe, 30, rate=20)
    wait_until(lambda: len(infos) >= 25, 10, "frames")
    tasks = [i.task for i in infos][-18:]
    assert set(tasks) == {"detection", "segmentation"}
    runs = [len(run) for run in "".join(t[0] for t in tasks).split("s") if run]
    assert max(runs) == 2, tasks
    assert len(boxes) > len(masks) > 0

    for bad, word in [
        (SetTask.Request(policy="fixed", tasks=["juggling"]), "juggling"),
        (SetTask.Request(policy="sometimes"), "sometimes"),
        (SetTask.Request(policy="round_robin", tasks=[]), "round_robin"),
        (SetTask.Request(policy="round_robin", tasks=["detection"], weights=[1, 2]), "weights"),
    ]:
        response = probe.call(SetTask, SET_TASK, bad)
        assert not response.success
        assert word in response.message
        assert "detection" in response.available_tasks
        assert response.policy == "round_robin", "a refused request changes nothing"


def test_fixed_task_from_the_next_frame_on(graph: Probe) -> None:
    probe = graph
    infos = probe.infos()
    response = probe.call(SetTask, SET_TASK, SetTask.Request(policy="fixed", tasks=["segmentation"]))
    assert response.success, response.message
    time.sleep(0.3)
    stream(probe, 10)
    wait_until(lambda: bool(infos) and infos[-1].task == "segmentation", 10, "the task")
    response = probe.call(SetTask, SET_TASK, SetTask.Request(policy="fixed", tasks=["detection"]))
    assert response.success
    time.sleep(0.3)
    before = len(infos)
    stream(probe, 10)
    wait_until(lambda: len(infos) >= before + 5, 10, "frames")
    assert {i.task for i in infos[before + 1 :]} == {"detection"}


def test_composed_enhancement_hears_the_request_that_came_before_it(tmp_path: Path) -> None:
    namespace = unique_namespace()
    parameters = {"scale": 2, "policy": "fixed", "tasks": "[detection]"}
    with Probe(namespace) as probe, NodeProcess("composition", namespace, tmp_path / "log", parameters):
        infos = probe.infos()
        probe.wait_connected()
        stream(probe, 8)
        wait_until(lambda: len(infos) >= 4, 10, "frames")
        assert [i.task for i in infos] == ["detection"] * len(infos)


def test_a_router_that_is_deactivated_takes_its_request_back(graph: Probe) -> None:
    probe = graph
    infos = probe.infos()
    requests = probe.listen("task_request", TaskRequest, latched_qos())
    response = probe.call(SetTask, SET_TASK, SetTask.Request(policy="fixed", tasks=["detection"]))
    assert response.success, response.message
    wait_until(lambda: requests and list(requests[-1].tasks) == ["detection"], 10, "the request")
    time.sleep(0.3)
    stream(probe, 8)
    wait_until(lambda: infos and infos[-1].task == "detection", 10, "frames for detection")

    assert probe.transition(ROUTER, Transition.TRANSITION_DEACTIVATE)
    wait_until(lambda: list(requests[-1].tasks) == [], 10, "the empty request")
    time.sleep(0.3)
    stamps = stream(probe, 8)
    wait_until(lambda: any(from_time(i.header.stamp) in stamps for i in infos), 10, "frames without a router")
    assert {i.task for i in infos if from_time(i.header.stamp) in stamps} == {""}

    assert probe.transition(ROUTER, Transition.TRANSITION_ACTIVATE)
    wait_until(lambda: list(requests[-1].tasks) == ["detection"], 10, "the request to be made again")
    time.sleep(0.3)
    stamps = stream(probe, 8)
    wait_until(lambda: any(from_time(i.header.stamp) in stamps for i in infos), 10, "frames with a router")
    assert {i.task for i in infos if from_time(i.header.stamp) in stamps} == {"detection"}


def test_what_belongs_to_a_frame_arrives_reliably_and_in_any_order(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with (
        Probe(namespace) as probe,
        NodeProcess(
            "task_router_node", namespace, tmp_path / "log", {"policy": "fixed", "tasks": "[detection]"}
        ),
    ):
        boxes = probe.listen("tasks/detection/image_raw", Image)
        cameras = probe.listen("tasks/detection/camera_info", CameraInfo)
        masks = probe.listen("tasks/segmentation/camera_info", CameraInfo)
        frame_infos = probe.publisher("thermal/enhanced/info", FrameInfo)
        camera_infos = probe.publisher("thermal/enhanced/camera_info", CameraInfo)
        probe.wait_state(ROUTER, "active")
        probe.wait_connected("thermal/enhanced/image_raw")
        wait_until(lambda: frame_infos.get_subscription_count() > 0, 10, "FrameInfo to be subscribed")
        wait_until(lambda: camera_infos.get_subscription_count() > 0, 10, "camera_info to be subscribed")
        wait_until(lambda: probe.node.count_publishers(f"{namespace}/tasks/detection/camera_info") > 0)
        for topic in ("info", "camera_info"):
            ends = probe.node.get_subscriptions_info_by_topic(f"{namespace}/thermal/enhanced/{topic}")
            assert [end.qos_profile.reliability for end in ends] == [ReliabilityPolicy.RELIABLE]

        def frame_info(stamp: int) -> None:
            message = FrameInfo(task="detection")
            message.header.stamp = to_time(stamp)
            frame_infos.publish(message)

        def camera_info(stamp: int) -> None:
            message = CameraInfo(width=80, height=60)
            message.header.stamp = to_time(stamp)
            camera_infos.publish(message)

        base = time.time_ns()
        late, early, never = base, base + 1, base + 2
        probe.send("thermal/enhanced/image_raw", scene(), late, "mono16")
        frame_info(late)
        wait_until(lambda: len(boxes) == 1, 10, "the frame")
        assert not cameras, "its camera_info has not been sent yet"
        camera_info(late)
        wait_until(lambda: [from_time(m.header.stamp) for m in cameras] == [late], 10, "the late camera_info")

        camera_info(never)
        camera_info(early)
        frame_info(early)
        time.sleep(0.2)
        probe.send("thermal/enhanced/image_raw", scene(1), early, "mono16")
        wait_until(lambda: len(cameras) == 2, 10, "the early camera_info")
        assert [from_time(m.header.stamp) for m in cameras] == [late, early]
        assert [from_time(m.header.stamp) for m in boxes] == [late, early]
        assert masks == []


@pytest.fixture
def router():
    """A router in this process whose enhanced images come over the bus."""
    context = rclpy.Context()
    rclpy.init(context=context)
    bus = LocalBus()
    node = TaskRouterNode(bus=bus, context=context, namespace=unique_namespace())
    for topic in ("image_raw", "info", "camera_info"):
        bus.advertise(node.resolve_topic_name(f"thermal/enhanced/{topic}"))
    node.trigger_configure()
    node.trigger_activate()
    assert node.state_label == "active"
    yield node
    node.stop()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_the_warning_about_missing_frame_info_ends(
    router: TaskRouterNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list = []
    monkeypatch.setattr(router._diagnostics, "publish", sent.append)
    images = router.resolve_topic_name("thermal/enhanced/image_raw")

    def lose(first: int, count: int) -> None:
        for stamp in range(first, first + count):
            router.bus.publish(images, encode(scene(), "mono16", stamp, "cam"))

    def tick() -> tuple[bytes, str, dict[str, str]]:
        router._tick()
        state = sent[-1].status[0]
        return state.level, state.message, {pair.key: pair.value for pair in state.values}

    lose(1, MATCH_CAPACITY)
    assert tick()[0] == OK, "they may still come"
    lose(100, 3)
    level, text, _ = tick()
    assert level == WARN
    assert text.startswith("3 enhanced frames")
    ticks = [tick() for _ in range(WARNING_TICKS)]
    assert [level for level, _, _ in ticks] == [WARN] * (WARNING_TICKS - 1) + [OK]
    assert ticks[-1][2]["unmatched"] == "3", "the total stays"
    lose(200, 2)
    level, text, values = tick()
    assert level == WARN
    assert text.startswith("2 enhanced frames")
    assert values["unmatched"] == "5"


def test_frames_that_wait_for_their_camera_info_are_bounded(router: TaskRouterNode) -> None:
    router.set_parameters(
        [
            rclpy.parameter.Parameter("policy", value="fixed"),
            rclpy.parameter.Parameter("tasks", value=["detection"]),
        ]
    )
    topic = router.resolve_topic_name
    routed: list = []
    cameras: list = []
    router.bus.subscribe(topic("tasks/detection/image_raw"), routed.append)
    router.bus.subscribe(topic("tasks/detection/camera_info"), cameras.append)
    count = 3 * MATCH_CAPACITY
    for stamp in range(1, count + 1):
        info = FrameInfo(task="detection")
        info.header.stamp = to_time(stamp)
        router.bus.publish(topic("thermal/enhanced/image_raw"), encode(scene(), "mono16", stamp, "cam"))
        router.bus.publish(topic("thermal/enhanced/info"), info)
    assert len(routed) == count
    for stamp in range(1, count + 1):
        camera = CameraInfo()
        camera.header.stamp = to_time(stamp)
        router.bus.publish(topic("thermal/enhanced/camera_info"), camera)
    stamps = [from_time(m.header.stamp) for m in cameras]
    assert stamps == list(range(count - MATCH_CAPACITY + 1, count + 1)), "the newest, each once"
