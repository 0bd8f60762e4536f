from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from thermal_enhance.metrics import (
    flicker,
    global_flicker,
    occlusion_mask,
    optical_flow,
    static_mask,
    warp_error,
)


def _world(seed: int = 0, shape: tuple[int, ...] = (120, 160)) -> np.ndarray:
    image = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=shape), (0, 0), 2.5)
    return (image - image.min()) / np.ptp(image) * 4000 + 20000


def _clip(noise: float, pump: float = 0.0, walker: bool = False, count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(1)
    frames = []
    for i in range(count):
        frame = _world()
        if walker:
            frame[30:90, 3 * i : 3 * i + 20] += 3000
        frames.append(frame + rng.normal(0, noise, frame.shape) + pump * (-1) ** i)
    return np.stack(frames)


def test_flicker_is_the_noise_of_a_static_scene() -> None:
    assert flicker(_clip(noise=25)) == pytest.approx(25, rel=0.05)
    assert flicker(_clip(noise=0)) == 0
    assert flicker([f.astype(np.uint16) for f in _clip(noise=25)]) == pytest.approx(25, rel=0.05)


def test_flicker_sees_through_a_walker() -> None:
    assert flicker(_clip(noise=25, walker=True)) == pytest.approx(25, rel=0.1)


def test_pumping_is_not_masked_away() -> None:
    clip = _clip(noise=5, pump=60, walker=True)
    assert flicker(clip) == pytest.approx(60, rel=0.1)
    assert global_flicker(clip) == pytest.approx(60, rel=0.1)
    assert global_flicker(_clip(noise=25)) < 2


def test_static_mask_leaves_out_what_moved() -> None:
    mask = static_mask(_clip(noise=10, walker=True))
    assert mask[40:80, 10:130].mean() < 0.05
    assert mask[100:].mean() > 0.95


def test_a_given_mask_is_used() -> None:
    clip = _clip(noise=5)
    clip[::2, :, :80] += 100
    left = np.zeros(clip.shape[1:], bool)
    left[:, :80] = True
    assert flicker(clip, left) > 40
    assert flicker(clip, ~left) == pytest.approx(5, rel=0.1)
    assert math.isnan(flicker(clip, np.zeros_like(left)))
    assert math.isnan(global_flicker(clip, np.zeros_like(left)))
    with pytest.raises(ValueError, match="mask"):
        flicker(clip, left[:5])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([np.zeros((8, 8))], "two frames"),
        ([np.zeros((8, 8)), np.zeros((8, 9))], "one size"),
        ([np.zeros((8, 8, 3))] * 2, "one size"),
        ([np.zeros((8, 8)), np.full((8, 8), np.nan)], "non-finite"),
    ],
)
def test_wrong_clips_are_refused(frames: Any, message: str) -> None:
    for metric in (flicker, global_flicker, static_mask):
        with pytest.raises(ValueError, match=message):
            metric(frames)


def test_flow_points_from_image_to_target() -> None:
    world = _world(2, (200, 240))
    image, target = world[40:160, 40:200], world[37:157, 45:205]
    flow = optical_flow(image, target)[20:-20, 20:-20]
    assert np.median(flow[..., 0]) == pytest.approx(-5, abs=0.3)
    assert np.median(flow[..., 1]) == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_warp_error_takes_camera_motion_out(dtype: Any) -> None:
    world = _world(2, (200, 240))
    prev, cur = world[40:160, 40:200].astype(dtype), world[37:157, 45:205].astype(dtype)
    plain = float(np.sqrt(np.mean((cur.astype(float) - prev) ** 2)))
    assert warp_error(prev, cur) < 0.1 * plain
    assert warp_error(prev, prev) == pytest.approx(0, abs=1e-6)


def test_warp_error_of_a_brightness_change_is_its_size() -> None:
    world = _world(3)
    still = np.zeros((*world.shape, 2), np.float32)
    assert warp_error(world, world + 50, still) == pytest.approx(50)


def test_warp_error_with_a_known_flow_leaves_the_outside_out() -> None:
    world = _world(2, (120, 200))
    prev, cur = world[:, :160], world[:, 30:190]
    flow = np.zeros((120, 160, 2), np.float32)
    flow[..., 0] = 30
    assert warp_error(prev, cur, flow) == pytest.approx(0, abs=1e-3)
    assert warp_error(prev, cur, -flow) > 300
    assert math.isnan(warp_error(prev, cur, flow * 10))
    right = np.zeros((120, 160), bool)
    right[:, 140:] = True
    assert math.isnan(warp_error(prev, cur, flow, right))


def test_occlusions_are_where_flows_disagree() -> None:
    flow = np.zeros((20, 30, 2), np.float32)
    back = np.zeros((20, 30, 2), np.float32)
    flow[..., 0], back[..., 0] = 2, -2
    back[5:10, 10:15] = 4
    mask = occlusion_mask(flow, back)
    assert not mask[5:10, 8:13].any(), "flow lands where the way back differs"
    assert not mask[:, 28:].any(), "flow leaves the image"
    assert mask[12:, :28].all()


def test_wrong_sizes_are_refused() -> None:
    frame = np.zeros((32, 32))
    with pytest.raises(ValueError, match="flow must be"):
        warp_error(frame, frame, np.zeros((32, 31, 2)))
    with pytest.raises(ValueError, match="mask"):
        warp_error(frame, frame, mask=np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="16 pixels"):
        optical_flow(frame[:8], frame[:8])
