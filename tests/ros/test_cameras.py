"""Each camera of config/cameras with the rig imitating it: encoding, rate, telemetry, repeats, shutter."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

from tests.ros.harness import NodeProcess, Probe, unique_namespace, wait_until
from thermal_enhance.nodes.messages import from_time

pytestmark = pytest.mark.ros
CONFIG = Path(__file__).resolve().parents[2] / "config" / "cameras"

# camera: (encoding, width and height without telemetry, units, thermal frames a second that are worth having)
CAMERAS = {
    "lepton": ("16UC1", 160, 120, "centikelvin", 9.0),
    "boson": ("mono16", 320, 256, "counts", 60.0),
    "seek": ("32FC1", 206, 156, "celsius", 9.0),
    "oak_t": ("16UC1", 256, 192, "counts", 25.0),
    "spinnaker": ("mono16", 640, 512, "counts", 30.0),
}


@pytest.mark.parametrize("camera", CAMERAS)
def test_camera(tmp_path: Path, camera: str) -> None:
    encoding, width, height, units, rate = CAMERAS[camera]
    namespace = unique_namespace()
    arguments = ["--nodes", "camera_rig_node,enhancement_node"]
    ros = ["--params-file", str(CONFIG / f"{camera}.yaml")]
    # The smallest scale and, for the fast ones, half the rate: this is about formats, not about speed.
    parameters = {"scale": 1, "ffc_period": 5.0, "rgb_rate": 5.0}
    if rate > 25:
        parameters["thermal_rate"] = 10.0
        rate = 10.0
    with (
        Probe(namespace) as probe,
        NodeProcess(
            "composition", namespace, tmp_path / "log", parameters, arguments, ros_arguments=ros
        ) as node,
    ):
        images, infos, cameras = probe.images(), probe.infos(), probe.camera_infos()
        wait_until(lambda: len(infos) >= 1, 30, "the first frame")
        begin, start = time.monotonic(), len(infos)
        wait_until(lambda: any(i.ffc_state == 2 for i in infos), 15, "a shutter event")
        wait_until(lambda: any(i.ffc_state == 3 for i in infos), 15, "its end")
        elapsed = time.monotonic() - begin
        count = len(infos) - start
        assert node.process.poll() is None
        assert "Traceback" not in node.output

    last = images[-1]
    assert (last.encoding, last.width, last.height) == (encoding, width, height)
    assert {i.units for i in infos} == {units}
    assert {i.tier for i in infos} <= {"classical", "passthrough"}
    stamps = [from_time(m.header.stamp) for m in images]
    assert stamps == sorted(set(stamps))
    assert (cameras[-1].width, cameras[-1].height) == (width, height)
    assert cameras[-1].k[0] > 0
    counts = dict(zip(infos[-1].drop_reasons, infos[-1].drop_counts))
    assert not any(reason.startswith(("malformed", "error")) for reason in counts), counts
    if camera == "lepton":
        # 27 frames a second of a 9 Hz sensor: two of three are repeats, except while the shutter is closed.
        assert counts.get("duplicate", 0) > 0.4 * infos[-1].frames_in
    else:
        assert count > 0.5 * rate * elapsed, (count, elapsed)
