"""The enhancement node in mode temporal, over real DDS."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (make setup)")

from sensor_msgs.msg import CameraInfo, Image
from thermal_enhance_msgs.msg import FrameInfo

from tests.enhancers.temporal_models import export_tiny
from tests.ros.harness import NodeProcess, Probe, scene, stream, unique_namespace, wait_until
from thermal_enhance.nodes.messages import from_time
from thermal_enhance.runtime.store import FOLDERS_VARIABLE

pytestmark = pytest.mark.ros

NODE = "enhancement_node"
PATIENT = {
    # Whatever else this machine does: it is the path that is tested here, not its speed.
    "mode": "temporal", "deadline": 20.0, "hang_timeout": 100.0, "hold_rate": False, "max_age": 0.0,
    "reliability": "reliable", "device": "cpu", "model_threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which there is one model, for 32x24 frames."""
    folder = tmp_path_factory.mktemp("models")
    export_tiny(folder)
    return {FOLDERS_VARIABLE: str(folder)}


class Camera:
    """A 10 Hz camera whose time goes on from one stretch to the next."""

    def __init__(self, probe: Probe) -> None:
        self.probe, self.sent, self.next_ns = probe, [], time.time_ns()

    def play(self, until: Callable[[], bool], what: str, rounds: int = 60) -> None:
        """Stream, a few frames at a time, until something is seen."""
        for _ in range(rounds):
            first = len(self.sent)
            self.sent += stream(
                self.probe, 4, 10.0, self.next_ns, lambda i: scene(i, (32, 24), np.uint8), first=first
            )
            self.next_ns += 400_000_000
            if until():
                return
        raise AssertionError(f"not seen: {what}")


def stamps(messages: list) -> list[int]:
    return [from_time(m.header.stamp) for m in messages]


def rising(numbers: list[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))


def test_twice_the_rate_marked_and_in_order_and_switched_live(tmp_path: Path, models: dict[str, str]) -> None:
    namespace = unique_namespace()
    with (
        Probe(namespace) as probe,
        NodeProcess(NODE, namespace, tmp_path / "log", PATIENT, environment=models) as node,
    ):
        images, infos, camera_infos = probe.images(), probe.infos(), probe.camera_infos()
        aside = probe.listen("thermal/interpolated/image_raw", Image)
        aside_infos = probe.listen("thermal/interpolated/info", FrameInfo)
        aside_cameras = probe.listen("thermal/interpolated/camera_info", CameraInfo)
        boards = probe.diagnostics()
        probe.wait_connected()
        camera = Camera(probe)

        def interpolated() -> list[FrameInfo]:
            return [info for info in infos if info.interpolated]

        camera.play(lambda: len(interpolated()) >= 8, "interpolated frames")
        assert (infos[0].tier, infos[0].tier_reason) == ("classical", "loading")
        assert any((i.tier, i.tier_reason) == ("classical", "warming_up") for i in infos)
        made = stamps(images)
        assert rising(made)
        sources = {*camera.sent}
        for info in interpolated():
            stamp = from_time(info.header.stamp)
            before = max(s for s in sources if s < stamp)
            after = min(s for s in sources if s > stamp)
            assert stamp == (before + after) // 2 and stamp not in sources
            assert (info.tier, info.mode) == ("temporal", "temporal") and np.isnan(info.consistency_residual)
            assert before in stamps_of(info) and after in stamps_of(info)
        newest = [info for info in infos if info.tier == "temporal" and not info.interpolated]
        assert newest and all(from_time(i.header.stamp) in sources for i in newest)
        assert all(i.consistency_residual <= 0.5 for i in newest)
        assert {"enhance/encode", "enhance/align", "enhance/model"} <= set(newest[-1].stage_names)
        last = interpolated()[-2]
        picture = next(m for m in images if m.header == last.header)
        assert (picture.width, picture.height, picture.encoding) == (128, 96, "mono8")
        assert any(c.header == last.header and c.width == 128 for c in camera_infos)
        assert last.frames_in >= last.frames_out, "interpolated frames are not counted as those of the camera"
        assert not aside

        # The newest first, and the others aside.
        assert probe.set_parameter(NODE, "newest_first", True)[0]
        camera.play(lambda: len(aside_infos) >= 4 and len(aside_cameras) >= 4, "frames aside")
        assert rising(stamps(aside)) and all(i.interpolated for i in aside_infos)
        known = len(interpolated())
        camera.play(lambda: True, "")
        time.sleep(0.5)
        assert len(interpolated()) == known, "none on the main topic"
        assert probe.set_parameter(NODE, "newest_first", False)[0]

        # Another mode, and back: order holds throughout.
        assert probe.set_parameter(NODE, "mode", "classical")[0]
        camera.play(lambda: (infos[-1].tier, infos[-1].tier_reason) == ("classical", ""), "classical frames")
        assert probe.set_parameter(NODE, "mode", "temporal")[0]
        known = len(interpolated())
        camera.play(lambda: len(interpolated()) > known + 2, "interpolated frames again")
        assert probe.set_parameter(NODE, "look_ahead", 1)[0]
        known = len(interpolated())
        camera.play(lambda: len(interpolated()) > known + 4, "interpolated frames, looking ahead")
        assert rising(stamps(images))

        def counters() -> dict[str, str]:
            found = [s for board in boards for s in board.status if s.name.endswith(f"{NODE}: tier")]
            return {v.key: v.value for v in found[-1].values} if found else {}

        wait_until(lambda: counters().get("ring_length_temporal") == "3", 5, "the ring on the board")
        assert counters()["reencodes_temporal"] == "0"

        accepted, reason = probe.set_parameter(NODE, "look_ahead", 2)
        assert not accepted and "look_ahead" in reason
        accepted, reason = probe.set_parameter(NODE, "motion", "psychic")
        assert not accepted and "dense" in reason
        # A frame the model has no graph for is classical's, and nobody's fault.
        assert probe.set_parameter(NODE, "scale", 8)[0]
        camera.play(lambda: "scale 8" in infos[-1].tier_reason, "the reason")
        wait_until(lambda: "is ready" in node.output, 20, "the word that the model is ready")
        assert node.interrupt() == 0


def stamps_of(info: FrameInfo) -> list[int]:
    return [from_time(stamp) for stamp in info.source_stamps]
