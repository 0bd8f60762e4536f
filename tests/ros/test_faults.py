"""What can go wrong on a robot, over real DDS: the graph keeps publishing, says why, or stops with exit 0."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import CameraInfo, Image

from tests.ros.harness import NodeProcess, Probe, color_scene, scene, stream, unique_namespace, wait_until
from thermal_enhance.imaging.encodings import encode
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.messages import from_time

pytestmark = pytest.mark.ros
NODE = "enhancement_node"
FAST = {"scale": 2}


def last_counts(infos: list) -> dict[str, int]:
    return dict(zip(infos[-1].drop_reasons, infos[-1].drop_counts))


def messages(diagnostics: list, subject: str) -> list[tuple[int, str]]:
    return [
        (ord(status.level), status.message)
        for array in diagnostics
        for status in array.status
        if status.name.endswith(subject)
    ]


def test_rgb_stops_and_thermal_goes_on_alone(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST):
        images, infos = probe.images(), probe.infos()
        probe.wait_connected()
        probe.wait_connected("rgb/image_raw")
        with_rgb = stream(probe, 30, color=color_scene)
        alone = stream(probe, 45, first=30)
        wait_until(lambda: images and from_time(images[-1].header.stamp) == alone[-1], 10, "the last frame")
        out = {from_time(m.header.stamp) for m in images}
        assert len(out & set(alone)) >= 40
        assert any(i.rgb_paired for i in infos if from_time(i.header.stamp) in with_rgb)
        late = [i for i in infos if from_time(i.header.stamp) in alone[15:]]
        assert late and not any(i.rgb_paired for i in late)
        # RGB that has stopped costs no waiting any more.
        waits = [dict(zip(i.stage_names, i.stage_ms))["pairing"] for i in late[-10:]]
        assert np.median(waits) < 20.0


def test_thermal_stops_and_resumes(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST):
        images, diagnostics = probe.images(), probe.diagnostics()
        probe.wait_connected()
        stream(probe, 15)
        wait_until(lambda: len(images) >= 12, 10, "frames before the stop")
        wait_until(
            lambda: any(level == 2 and "stopped" in text for level, text in messages(diagnostics, "input")),
            15,
            "an ERROR diagnostic saying that thermal stopped",
        )
        again = stream(probe, 15, first=100)
        wait_until(lambda: from_time(images[-1].header.stamp) == again[-1], 10, "frames after the stop")


@pytest.mark.parametrize("seconds", [10, 60])
def test_stamps_jump_back(tmp_path: Path, seconds: int) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST):
        images, infos = probe.images(), probe.infos()
        probe.wait_connected()
        now = time.time_ns()
        stream(probe, 20, start_ns=now, color=color_scene)
        looped = stream(probe, 30, start_ns=now - seconds * 10**9, color=color_scene)
        wait_until(lambda: from_time(images[-1].header.stamp) == looped[-1], 10, "frames after the jump")
        after = [i for i in infos if from_time(i.header.stamp) in looped]
        assert len(after) >= 25
        assert sum(i.rgb_paired for i in after) >= 15, "pairing must work again after the jump"


def test_ffc_freeze_is_reported_and_frames_go_on(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with (
        Probe(namespace) as probe,
        NodeProcess(NODE, namespace, tmp_path / "log", {**FAST, "drop_duplicates": True}),
    ):
        infos = probe.infos()
        probe.wait_connected()
        stream(probe, 20)
        frozen = stream(probe, 30, thermal=lambda _i: scene(20))
        stream(probe, 20, thermal=lambda i: scene(i) + np.uint16(700), first=21)
        wait_until(lambda: len(infos) > 0 and infos[-1].ffc_state == 3, 10, "FFC complete")
        during = [i.ffc_state for i in infos if from_time(i.header.stamp) in frozen[15:]]
        assert during and set(during) == {2}, "frames of the freeze are published and marked"


def test_corrupt_messages_are_counted_and_cost_nothing_else(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST) as node:
        images, infos = probe.images(), probe.infos()
        probe.wait_connected()
        good = cdr.serialize_image(encode(scene(), "mono16", time.time_ns(), "cam"))
        bad = [
            good[: len(good) // 2],
            good[:12],
            Image(height=60, width=80, encoding="mono16", step=160),  # no data
            Image(height=60, width=80, encoding="mono16", step=10, data=bytes(600)),  # wrong step
            Image(height=0, width=0, encoding="mono16", step=0),
            Image(
                height=4_000_000_000,
                width=4_000_000_000,
                encoding="mono16",
                step=4_000_000_000,
                data=bytes(8),
            ),
            Image(height=60, width=80, encoding="no_such_encoding", step=160, data=bytes(9600)),
        ]
        sent = 0
        for i, message in enumerate(bad):
            if not isinstance(message, bytes):
                stamp = time.time_ns()
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            for topic in ("thermal/image_raw", "rgb/image_raw"):
                try:
                    probe.publisher(topic).publish(message)
                except Exception:
                    # Some truncations are refused by the middleware on the way out already.
                    continue
                sent += topic == "thermal/image_raw"
            time.sleep(0.05)
            stream(probe, 3, first=3 * i)
        wait_until(lambda: len(images) >= 15, 10, "good frames between the bad ones")
        assert node.process.poll() is None
        counts = last_counts(infos)
        assert sum(n for reason, n in counts.items() if reason.startswith("malformed")) >= 4, (counts, sent)
        assert "Traceback" not in node.output


def test_unusable_camera_info_costs_no_frame(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST) as node:
        infos, cameras = probe.infos(), probe.camera_infos()
        probe.wait_connected()
        broken = CameraInfo(width=80, height=60)
        broken.k = [float("nan")] * 9
        for _ in range(3):
            probe.publisher("thermal/camera_info", CameraInfo).publish(broken)
            time.sleep(0.1)
        stream(probe, 15)
        wait_until(lambda: len(infos) >= 10 and len(cameras) >= 10, 10, "frames with info")
        assert last_counts(infos).get("error", 0) == 0
        assert cameras[-1].k[0] == 0.0
        assert cameras[-1].width == 160
        assert "camera_info cannot be used" in node.output


def test_all_nan_frame_passes_through(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST):
        infos = probe.infos()
        probe.wait_connected()
        stream(probe, 5, thermal=lambda i: scene(i, dtype=np.float32))
        dead = stream(probe, 3, thermal=lambda _i: np.full((60, 80), np.nan, np.float32))
        stream(probe, 5, thermal=lambda i: scene(i, dtype=np.float32), first=9)
        wait_until(lambda: len(infos) >= 11, 10, "all frames")
        tiers = {from_time(i.header.stamp): (i.tier, i.tier_reason) for i in infos}
        assert all(tiers[s][0] == "passthrough" and tiers[s][1] for s in dead if s in tiers)


def test_qos_mismatch_is_reported_with_the_remedy(tmp_path: Path) -> None:
    namespace = unique_namespace()
    parameters = {**FAST, "reliability": "reliable"}
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", parameters) as node:
        diagnostics = probe.diagnostics()
        probe.publisher("thermal/image_raw", Image, reliable=False)
        wait_until(lambda: "incompatible QoS" in node.output, 20, "the QoS warning in the log")
        wait_until(
            lambda: any("best_effort" in text for _, text in messages(diagnostics, "qos")), 10, "the remedy"
        )


@pytest.mark.parametrize("reliable", [True, False])
def test_input_matches_the_cameras_reliability(tmp_path: Path, reliable: bool) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST):
        images = probe.images()
        probe.publisher("thermal/image_raw", Image, reliable)
        probe.wait_state(NODE, "active")
        topic = probe.node.resolve_topic_name("thermal/image_raw")

        def matched() -> bool:
            found = probe.node.get_subscriptions_info_by_topic(topic)
            return [int(info.qos_profile.reliability) for info in found] == [1 if reliable else 2]

        wait_until(matched, 15, "a subscription with the camera's reliability")
        time.sleep(0.3)
        for i in range(10):
            probe.send("thermal/image_raw", scene(i), time.time_ns(), "mono16", reliable=reliable)
            time.sleep(0.05)
        wait_until(lambda: len(images) >= 5, 10, "enhanced frames")


def test_parameters_are_accepted_or_refused_with_a_reason(tmp_path: Path) -> None:
    namespace = unique_namespace()
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", FAST):
        images = probe.images()
        probe.wait_connected()
        assert probe.set_parameter(NODE, "scale", 4) == (True, "")
        stream(probe, 10)
        wait_until(lambda: images and images[-1].width == 320, 10, "frames of the new scale")
        for name, value, word in [
            ("scale", 3, "scale"),
            ("slop", -1.0, "slop"),
            ("mode", "magic", "magic"),
            ("colormap", "no_such_palette", "colormap"),
            ("thermal_units", "kelvin", "read-only"),
            ("slop", "soon", "DOUBLE"),
        ]:
            accepted, reason = probe.set_parameter(NODE, name, value)
            assert not accepted, (name, value)
            assert word in reason, (name, reason)
        assert probe.get_parameter(NODE, "scale") == 4
        assert probe.set_parameter(NODE, "mode", "passthrough")[0]
        infos = probe.infos()
        time.sleep(0.5)
        stream(probe, 10)
        wait_until(lambda: bool(infos) and infos[-1].tier == "passthrough", 10, "the new mode")


@pytest.mark.parametrize("parameters", [{"scale": 5}, {"mode": "magic"}, {"slop": "soon"}, {"slop": -2.0}])
def test_bad_initial_parameters_end_with_a_clear_message(tmp_path: Path, parameters: dict) -> None:
    node = NodeProcess(NODE, unique_namespace(), tmp_path / "log", parameters)
    with node:
        assert node.process.wait(30) == 1
    assert next(iter(parameters)) in node.output
    assert "Traceback" not in node.output


def test_unavailable_mode_runs_classical_and_says_so(tmp_path: Path) -> None:
    namespace = unique_namespace()
    parameters = {**FAST, "mode": "restore+temporal"}
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", parameters) as node:
        infos = probe.infos()
        probe.wait_connected()
        stream(probe, 10)
        wait_until(lambda: len(infos) >= 5, 10, "frames")
        assert infos[-1].tier == "classical"
        assert infos[-1].mode == "restore+temporal"
        assert "not available" in node.output


def test_twenty_lifecycle_rounds_do_not_grow(tmp_path: Path) -> None:
    namespace = unique_namespace()
    rounds = [
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
    ]
    with (
        Probe(namespace) as probe,
        NodeProcess(NODE, namespace, tmp_path / "log", FAST, autostart=False) as node,
    ):
        probe.wait_state(NODE, "unconfigured")
        sizes = []
        for i in range(20):
            for transition in rounds:
                assert probe.transition(NODE, transition), (i, transition)
                if transition == Transition.TRANSITION_ACTIVATE and i % 5 == 0:
                    probe.wait_connected()
                    stream(probe, 5)
            sizes.append((node.resident_kib(), node.threads(), node.open_files()))
        # After the first rounds everything that is made once is there.
        early, late = sizes[5], sizes[-1]
        assert late[0] - early[0] < 8 * 1024, f"memory grew: {sizes}"
        assert late[1] <= early[1], f"threads grew: {sizes}"
        assert late[2] <= early[2] + 2, f"open files grew: {sizes}"
        assert node.interrupt() == 0


@pytest.mark.parametrize("state", ["starting", "unconfigured", "inactive", "active", "cleaned"])
@pytest.mark.parametrize("times", [1, 2])
def test_sigint_exits_zero_in_any_state(tmp_path: Path, state: str, times: int) -> None:
    namespace = unique_namespace()
    with (
        Probe(namespace) as probe,
        NodeProcess(NODE, namespace, tmp_path / "log", FAST, autostart=False) as node,
    ):
        if state == "starting":
            wait_until(node.holds_signals, 30, "Python to be up; ROS is not even imported")
        else:
            probe.wait_state(NODE, "unconfigured")
            wanted = {
                "unconfigured": [],
                "inactive": [Transition.TRANSITION_CONFIGURE],
                "active": [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE],
                "cleaned": [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP],
            }[state]
            for transition in wanted:
                assert probe.transition(NODE, transition)
            if state == "active":
                probe.wait_connected()
                stream(probe, 10)
        assert node.interrupt(times) == 0
        assert "Traceback" not in node.output
        assert "terminate called" not in node.output
