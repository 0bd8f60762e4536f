"""The task router over real DDS: policies, service, and each frame to its task."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

from sensor_msgs.msg import CameraInfo, Image
from thermal_enhance_msgs.msg import TaskRequest
from thermal_enhance_msgs.srv import SetTask

from tests.ros.harness import NodeProcess, Probe, stream, unique_namespace, wait_until
from thermal_enhance.nodes.messages import from_time
from thermal_enhance.nodes.qos import latched_qos

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
