"""Clips from stills: seeded, within range, and moving as they say."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from thermal_enhance.imaging.motion import MotionEstimator
from thermal_enhance.simulation.moving_clips import MovingClipConfig, moving_clip

PLAIN = {
    "zoom": (1.0, 1.0),
    "zoom_rate": 0.0,
    "rotation_deg": 0.0,
    "turn": 0.0,
    "shake_probability": 0.0,
    "objects": (0, 0),
    "ramp_probability": 0.0,
}


def still(seed: int = 0, size: tuple[int, int] = (200, 160)) -> np.ndarray:
    image = cv2.GaussianBlur(np.random.default_rng(seed).random(size[::-1]).astype(np.float32), (0, 0), 2)
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def make(seed: int = 0, frames: int = 5, **changes: object) -> np.ndarray:
    config = MovingClipConfig(**changes)
    return moving_clip(still(), frames, (64, 48), np.random.default_rng(seed), config, still(1))


def test_a_seed_is_a_clip() -> None:
    first = make(3)
    assert first.shape == (5, 48, 64) and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 255
    np.testing.assert_array_equal(first, make(3))
    assert np.abs(first - make(4)).mean() > 1


def test_a_static_camera_stands_still() -> None:
    clip = make(static_probability=1.0, objects=(0, 0), ramp_probability=0.0)
    np.testing.assert_array_equal(clip, np.broadcast_to(clip[:1], clip.shape))


def test_the_camera_pans_at_its_speed() -> None:
    clip = make(static_probability=0.0, pan_px=(2.5, 2.5), **PLAIN)
    for one, other in itertools.pairwise(clip):
        flow = MotionEstimator()(one, other).forward[10:-10, 10:-10]
        assert np.hypot(*np.median(flow, axis=(0, 1))) == pytest.approx(2.5, abs=0.1)


def test_objects_move_before_a_static_background() -> None:
    quiet = make(1, static_probability=1.0, **PLAIN)
    busy = make(1, static_probability=1.0, **{**PLAIN, "objects": (2, 2), "object_px": (2.0, 2.0)})
    changed = np.abs(busy - quiet).max(axis=0) > 0
    moving = np.abs(busy - busy[:1]).max(axis=0) > 2
    assert changed.any() and moving.any()
    # What no object touches is the still's.
    assert not moving[~changed].any()


def test_a_region_warms_evenly() -> None:
    clip = make(2, static_probability=1.0, **{**PLAIN, "ramp_probability": 1.0})
    steps = np.diff(clip, axis=0)
    assert np.abs(steps).max() > 0.05
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:1], steps.shape), atol=1e-3)


def test_the_path_stays_inside_a_large_still() -> None:
    # A ramp still has no two equal places, so a mirrored border would show as a fall.
    ramp = np.tile(np.linspace(0, 255, 400, dtype=np.float32), (300, 1))
    config = MovingClipConfig(static_probability=0.0, **PLAIN)
    for seed in range(10):
        clip = moving_clip(ramp, 5, (64, 48), np.random.default_rng(seed), config)
        assert (np.diff(clip, axis=2) > 0).all()


def test_a_small_still_is_mirrored() -> None:
    clip = moving_clip(still(size=(40, 30)), 3, (64, 48), np.random.default_rng(0), MovingClipConfig())
    assert np.isfinite(clip).all() and clip.std() > 5


def test_times_between_frames() -> None:
    def clip(times: list[float] | None) -> np.ndarray:
        rng = np.random.default_rng(6)
        return moving_clip(still(), 5, (64, 48), rng, MovingClipConfig(), still(1), times=times)

    whole = clip(None)
    part = clip([0.0, 1.5, 4.0])
    np.testing.assert_array_equal(part[[0, 2]], whole[[0, 4]])
    assert np.abs(part[1] - whole[1]).mean() < np.abs(whole[2] - whole[0]).mean()


def test_sixteen_bit_range() -> None:
    wide = still().astype(np.float32) * 256
    clip = moving_clip(wide, 3, (64, 48), np.random.default_rng(0), MovingClipConfig(), full_scale=65280.0)
    narrow = moving_clip(still(), 3, (64, 48), np.random.default_rng(0), MovingClipConfig())
    np.testing.assert_allclose(clip / 256, narrow, atol=0.05)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a frame"):
        moving_clip(still(), 0, (64, 48), np.random.default_rng(0), MovingClipConfig())
    for bad in ({"pan_px": (2.0, 1.0)}, {"zoom": (0.0, 1.0)}, {"turn": 2.0}, {"zoom_rate": -1.0}):
        with pytest.raises(ValueError, match=r"moving\."):
            MovingClipConfig(**bad)
