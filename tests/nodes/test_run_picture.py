from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

from thermal_enhance.enhancers.base import EnhancedFrame
from thermal_enhance.imaging.encodings import encode
from thermal_enhance.imaging.frames import ThermalFrame
from thermal_enhance.nodes.run_picture import SETTLE_FRAMES, PictureTap, before_after


def result(data: np.ndarray, color: bool = True, scale: int = 4) -> SimpleNamespace:
    rgb = encode(np.full((48, 64, 3), 90, np.uint8), "rgb8", 0, "rgb") if color else None
    return SimpleNamespace(
        input_frame=ThermalFrame(data),
        frame=EnhancedFrame(ThermalFrame(np.kron(data, np.ones((scale, scale), data.dtype))), "classical"),
        pair=SimpleNamespace(color=rgb),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_panels_side_by_side(dtype: type) -> None:
    data = (np.arange(192).reshape(12, 16) % 200).astype(dtype)
    with_rgb, alone = before_after(result(data)), before_after(result(data, color=False))
    assert with_rgb.shape[1] > alone.shape[1] > 2 * 600
    assert with_rgb.dtype == np.uint8


def test_flat_and_nan_frames_make_a_picture_too() -> None:
    assert before_after(result(np.zeros((12, 16), np.uint16))).size
    assert before_after(result(np.full((12, 16), np.nan, np.float32))).size


def test_the_picture_is_of_a_settled_frame_with_rgb(tmp_path: Path) -> None:
    node = SimpleNamespace(tap=None)
    tap = PictureTap(node)
    assert tap.write(tmp_path) is None
    frames = [
        result(np.full((12, 16), i, np.uint16), color=i > SETTLE_FRAMES + 5)
        for i in range(SETTLE_FRAMES + 20)
    ]
    for frame in frames:
        node.tap(frame)
    name = tap.write(tmp_path)
    assert name is not None
    assert cv2.imread(str(tmp_path / name)) is not None
    assert tap._kept is frames[SETTLE_FRAMES + 6]
