"""Edge-aware upsampling: no invention, steeper edges, better than bicubic."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.enhancers.upsampling import (
    EdgeUpsampler,
    UpsamplingConfig,
    resize_area,
    resize_cubic,
    sharpen_for_cubic,
)


def shapes_scene(seed=0, height=240, width=320):
    """High-resolution picture of overlapping shapes, 0 to 255."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 90, np.float32)
    for _ in range(30):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(rng.integers(6, 50)), int(rng.integers(6, 50)))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(20, 230)), -1)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


def error(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_it_beats_bicubic(scale):
    for seed in range(3):
        truth = shapes_scene(seed)
        size = (truth.shape[1], truth.shape[0])
        low = resize_area(truth, (size[0] // scale, size[1] // scale))
        bicubic = resize_cubic(low, size)
        plain = EdgeUpsampler(UpsamplingConfig(strength=0.0))(low, scale)
        edges = EdgeUpsampler()(low, scale)
        assert error(plain, truth) < 0.97 * error(bicubic, truth)
        assert error(edges, truth) < 0.98 * error(plain, truth)


@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 4), (17, 23)])
def test_every_size_and_factor(size, scale):
    image = np.random.default_rng(0).uniform(0, 255, size).astype(np.float32)
    made = EdgeUpsampler()(image, scale)
    assert made.shape == (size[0] * scale, size[1] * scale) and made.dtype == np.float32
    assert np.isfinite(made).all()


@given(st.floats(-1e4, 1e4), st.sampled_from([2, 4, 8]))
@settings(max_examples=20)
def test_a_constant_stays_constant(value, scale):
    image = np.full((12, 16), value, np.float32)
    assert np.allclose(EdgeUpsampler()(image, scale), value, rtol=1e-5, atol=1e-3)


def test_warping_does_not_overshoot():
    """The steepened picture stays between the extremes of the picture it was sampled from."""
    low = resize_area(shapes_scene(4), (80, 60))
    soft = EdgeUpsampler(UpsamplingConfig(strength=0.0))(low, 4)
    sharp = EdgeUpsampler()(low, 4)
    assert sharp.min() >= soft.min() - 1e-3 and sharp.max() <= soft.max() + 1e-3
    gradient = [np.abs(np.diff(p, axis=1)).max() for p in (soft, sharp)]
    assert gradient[1] > 1.1 * gradient[0]


def test_sharpened_input_reproduces_the_block_means():
    low = resize_area(shapes_scene(5), (80, 60))
    sharp = sharpen_for_cubic(low, 4, 6)
    back = resize_area(resize_cubic(sharp, (320, 240)), (80, 60))
    assert np.abs(back - low).max() < 0.15
    assert np.abs(resize_area(resize_cubic(low, (320, 240)), (80, 60)) - low).max() > 1.0


def test_point_sampled_input_is_not_sharpened():
    low = resize_area(shapes_scene(5), (80, 60))
    assert EdgeUpsampler(area_sampled=False).linear_base(low, 4) is low


@pytest.mark.parametrize(
    "wrong", [{"strength": 2.0}, {"edge_sigma": 0.0}, {"floor": -1.0}, {"iterations": -1}, {"max_shift": 3.0}]
)
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        UpsamplingConfig(**wrong)
