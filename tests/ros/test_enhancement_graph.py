"""The enhancement node as a real process over real DDS: what it publishes for good input."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from tests.ros.harness import NodeProcess, Probe, color_scene, scene, stream, unique_namespace, wait_until
from thermal_enhance.imaging.encodings import compress, decode_thermal
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.messages import from_time

pytestmark = pytest.mark.ros


def pixels(message: Image) -> np.ndarray:
    dtype = {"mono8": np.uint8, "mono16": np.uint16, "16UC1": np.uint16, "32FC1": np.float32}[
        message.encoding
    ]
    return np.frombuffer(bytes(message.data), dtype).reshape(message.height, message.width)


def test_frames_keep_stamp_frame_units_and_block_means(tmp_path: Path) -> None:
    namespace = unique_namespace()
    parameters = {"scale": 4, "netd": 2.0, "thermal_units": "centikelvin"}
    with (
        Probe(namespace) as probe,
        NodeProcess("enhancement_node", namespace, tmp_path / "log", parameters) as node,
    ):
        images, infos, camera_infos = probe.images(), probe.infos(), probe.camera_infos()
        calibration = CameraInfo(width=80, height=60)
        calibration.k = [100.0, 0.0, 39.5, 0.0, 100.0, 29.5, 0.0, 0.0, 1.0]
        calibration.p = [100.0, 0.0, 39.5, 0.0, 0.0, 100.0, 29.5, 0.0, 0.0, 0.0, 1.0, 0.0]
        probe.wait_connected()
        for _ in range(3):
            probe.publisher("thermal/camera_info", CameraInfo).publish(calibration)
            time.sleep(0.1)
        stamps = stream(probe, 40, rate=20, color=color_scene)
        wait_until(lambda: len(images) >= 35 and len(infos) >= 35, what="enhanced frames", timeout_s=10)
        assert node.process.poll() is None

    out = [from_time(m.header.stamp) for m in images]
    assert set(out) <= set(stamps)
    assert out == sorted(out)
    sources = {stamp: scene(i) for i, stamp in enumerate(stamps)}
    for message in images:
        assert message.encoding == "mono16"
        assert message.header.frame_id == "cam"
        assert (message.width, message.height) == (320, 240)
        means = pixels(message).reshape(60, 4, 80, 4).mean((1, 3))
        # K x NETD and half a count of rounding: enhancement may add detail, never heat.
        assert np.abs(means - sources[from_time(message.header.stamp)]).max() <= 2.0 + 0.5 + 1e-3
    by_stamp = {from_time(m.header.stamp): m for m in infos}
    for message in images:
        info = by_stamp.get(from_time(message.header.stamp))
        if info is None:
            continue  # small topics are best-effort for this probe too
        assert info.mode == "classical"
        assert info.units == "centikelvin"
        assert not info.interpolated
        assert info.consistency_residual <= 2.5 + 1e-3
        assert "total" in info.stage_names
        assert [from_time(s) for s in info.source_stamps] == [from_time(message.header.stamp)]
    last = infos[-1]
    assert last.frames_in >= last.frames_out > 0
    assert any(info.rgb_paired and abs(info.pair_skew) < 1e-6 for info in infos)
    scaled = [m for m in camera_infos if m.k[0] > 0][-1]
    assert scaled.k[0] == pytest.approx(400.0)
    assert scaled.k[2] == pytest.approx(4 * (39.5 + 0.5) - 0.5)
    assert (scaled.width, scaled.height) == (320, 240)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_encoding_out_is_encoding_in(tmp_path: Path, dtype: type) -> None:
    namespace = unique_namespace()
    with (
        Probe(namespace) as probe,
        NodeProcess("enhancement_node", namespace, tmp_path / "log", {"scale": 2}),
    ):
        images = probe.images()
        probe.wait_connected()
        stream(probe, 10, rate=20, thermal=lambda i: scene(i, dtype=dtype))
        wait_until(lambda: len(images) >= 5, what="enhanced frames")
    expected = {np.uint8: "mono8", np.float32: "32FC1"}[dtype]
    assert {m.encoding for m in images} == {expected}


def test_compressed_in_and_out_and_view(tmp_path: Path) -> None:
    namespace = unique_namespace()
    parameters = {"scale": 2, "thermal_transport": "compressed"}
    with Probe(namespace) as probe, NodeProcess("enhancement_node", namespace, tmp_path / "log", parameters):
        compressed = probe.listen("thermal/enhanced/image_raw/compressed", CompressedImage)
        views = probe.listen("thermal/enhanced/view", Image)
        publisher = probe.publisher("thermal/image_raw/compressed", CompressedImage)
        wait_until(lambda: publisher.get_subscription_count() > 0, 30, "a subscription")
        time.sleep(0.3)
        for i in range(20):
            image = compress(scene(i), "png", time.time_ns(), "cam")
            publisher.publish(cdr.serialize_compressed_image(image))
            time.sleep(0.05)
        wait_until(lambda: len(compressed) >= 5 and len(views) >= 5, what="compressed frames and views")
    message = compressed[-1]
    data = decode_thermal(cdr.parse_compressed_image(_serialized(message)))
    assert data.dtype == np.uint16
    assert data.shape == (120, 160)
    assert views[-1].encoding in ("rgb8", "bgr8")
    assert (views[-1].width, views[-1].height) == (160, 120)


def _serialized(message: object) -> bytes:
    from rclpy.serialization import serialize_message

    return bytes(serialize_message(message))


def test_outputs_cost_nothing_while_nobody_listens(tmp_path: Path) -> None:
    """Without a subscriber to it, the view is not even rendered: its latency stage is not there."""
    namespace = unique_namespace()
    with (
        Probe(namespace) as probe,
        NodeProcess("enhancement_node", namespace, tmp_path / "log", {"scale": 2}),
    ):
        infos = probe.infos()
        probe.wait_connected()
        stream(probe, 10, rate=20)
        wait_until(lambda: len(infos) >= 5, what="frame infos")
        assert probe.node.count_publishers(probe.node.resolve_topic_name("thermal/enhanced/view")) == 1
