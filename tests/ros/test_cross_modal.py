"""The enhancement node with a model, over real DDS."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (make setup)")

from tests.ros.harness import NodeProcess, Probe, stream, unique_namespace, wait_until
from thermal_enhance.enhancers.registry import available_modes
from thermal_enhance.nodes.messages import from_time

pytestmark = pytest.mark.ros

NODE = "enhancement_node"
PATIENT = {
    # Whatever else this machine does: it is the path that is tested here, not its speed.
    "deadline": 20.0, "hang_timeout": 100.0, "hold_rate": False, "max_age": 0.0, "scale": 4, "slop": 0.05,
    "reliability": "reliable",
}  # fmt: skip


def scene() -> tuple[np.ndarray, np.ndarray]:
    """(32x24 thermal, 128x96 RGB) of one scene of shapes."""
    rng = np.random.default_rng(2)
    thermal, color = np.full((96, 128), 100, np.float32), np.full((96, 128, 3), 140, np.uint8)
    for _ in range(60):
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 6, 6), (120, 90, 30, 30)))
        cv2.rectangle(thermal, (x, y), (x + w, y + h), float(rng.uniform(30, 220)), -1)
        cv2.rectangle(color, (x, y), (x + w, y + h), [int(v) for v in rng.integers(20, 230, 3)], -1)
    small = cv2.resize(thermal, (32, 24), interpolation=cv2.INTER_AREA)
    return np.rint(small).astype(np.uint8), color


def play(probe: Probe, infos: list, until: object, rounds: int = 120, color: bool = True) -> None:
    """Stream the scene, a few frames at a time, until something is seen."""
    thermal, rgb = scene()
    for _ in range(rounds):
        stream(probe, 4, 4.0, thermal=lambda _: thermal, color=(lambda _: rgb) if color else None)
        if until():  # type: ignore[operator]
            return
    raise AssertionError(f"not seen; the last frame: {infos[-1] if infos else None}")


@pytest.mark.skipif("cross_modal" not in available_modes(), reason="no cross_modal model runs here")
def test_frames_are_made_by_the_model_and_a_switch_is_live(tmp_path: Path) -> None:
    namespace = unique_namespace()
    parameters = {**PATIENT, "mode": "cross_modal", "device": "cpu", "model_threads": 1}
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", parameters) as node:
        infos, images = probe.infos(), probe.images()
        probe.wait_connected()

        def made_with_rgb() -> bool:
            return any(info.tier == "cross_modal" and info.rgb_paired for info in infos)

        play(probe, infos, made_with_rgb)
        assert infos[0].tier == "classical" and infos[0].tier_reason == "loading", (
            "no frame waits for a model"
        )
        made = next(info for info in infos if info.tier == "cross_modal" and info.rgb_paired)
        assert made.mode == "cross_modal" and made.tier_reason == ""
        assert 0.0 <= made.rgb_trust <= 1.0 and made.consistency_residual <= 0.5
        assert {"enhance/model", "enhance/align", "enhance/consistency"} <= set(made.stage_names)
        stamps = {from_time(m.header.stamp): m for m in images}
        picture = stamps.get(from_time(made.header.stamp))
        assert picture is None or (picture.width, picture.height, picture.encoding) == (128, 96, "mono8")

        def alone() -> bool:
            last = infos[-1]
            return last.tier == "cross_modal" and not last.rgb_paired and math.isnan(last.rgb_trust)

        play(probe, infos, alone, color=False)

        assert probe.set_parameter(NODE, "mode", "classical")[0]
        play(probe, infos, lambda: infos[-1].tier == "classical" and infos[-1].tier_reason == "")
        assert probe.set_parameter(NODE, "mode", "cross_modal")[0]
        play(probe, infos, lambda: infos[-1].tier == "cross_modal")
        # A scale that no graph was trained for is the classical tier's, and nobody's fault.
        assert probe.set_parameter(NODE, "scale", 2)[0]
        play(probe, infos, lambda: infos[-1].tier == "classical" and "scale 2" in infos[-1].tier_reason)
        assert probe.set_parameter(NODE, "scale", 4)[0]
        play(probe, infos, lambda: infos[-1].tier == "cross_modal")
        wait_until(lambda: "is ready" in node.output, 20, "the word that the model is ready")
        assert node.interrupt() == 0


def test_an_unknown_model_leaves_the_frames_to_classical_and_says_so(tmp_path: Path) -> None:
    namespace = unique_namespace()
    parameters = {**PATIENT, "mode": "cross_modal", "model": "magic"}
    with Probe(namespace) as probe, NodeProcess(NODE, namespace, tmp_path / "log", parameters) as node:
        infos = probe.infos()
        probe.wait_connected()
        play(probe, infos, lambda: len(infos) > 2)
        assert infos[-1].tier == "classical" and infos[-1].mode == "cross_modal"
        wait_until(lambda: "running classical instead" in node.output, 10, "the reason")
        assert "'magic' is unknown; known for cross_modal:" in node.output
