"""Misalignment: invertible maps within their ranges, and pictures warped as the matrix says."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.simulation.misalignment import (
    MisalignmentConfig,
    corner_displacement,
    darken,
    degrade_color,
    motion_blur,
    random_homography,
    warp_color,
)

SIZE = (160, 120)
seeds = st.integers(0, 2**31)


def only(**change):
    return replace(MisalignmentConfig.off(), **change)


def draw(seed, config):
    return random_homography(np.random.default_rng(seed), SIZE, config)[0]


def picture(seed=0):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((120, 160, 3)).astype(np.float32), (0, 0), 3)
    return np.clip((noise - 0.3) * 600, 0, 255).astype(np.uint8)


@given(seeds)
def test_all_off_is_the_identity(seed):
    matrix = draw(seed, MisalignmentConfig.off())
    np.testing.assert_array_equal(matrix, np.eye(3))
    rng = np.random.default_rng(seed)
    color = picture()
    np.testing.assert_array_equal(warp_color(color, matrix), color)
    assert degrade_color(color, rng, MisalignmentConfig.off()) is color


@given(seeds)
def test_maps_are_invertible_over_the_picture(seed):
    config = MisalignmentConfig(fov_probability=0.5, perspective=0.2, shift=0.3, rotation_deg=45)
    matrix = draw(seed, config)
    x, y = np.meshgrid(np.linspace(0, 159, 9), np.linspace(0, 119, 9))
    points = np.stack([x.ravel(), y.ravel(), np.ones(81)])
    mapped = matrix @ points
    assert (mapped[2] > 0).all(), "the picture crosses the horizon"
    back = np.linalg.inv(matrix) @ (mapped / mapped[2])
    np.testing.assert_allclose(back[:2] / back[2], points[:2], atol=1e-6)


@given(seeds)
def test_corners_stay_within_their_range(seed):
    width, height = SIZE
    half = math.hypot(width, height) / 2
    cases = {
        "shift": (only(shift_probability=1.0, shift=0.08), 0.08 * math.hypot(width, height)),
        "scale": (only(scale_probability=1.0), half * (1 / 0.85 - 1)),
        "rotation": (only(rotation_probability=1.0), half * 2 * math.sin(math.radians(6))),
        "perspective": (only(perspective_probability=1.0), 0.08 * math.hypot(width, height)),
        "fov": (only(fov_probability=1.0), half * 0.8),
    }
    for name, (config, bound) in cases.items():
        moved = np.linalg.norm(corner_displacement(draw(seed, config), SIZE), axis=1)
        assert moved.max() <= bound + 1e-3, name


def test_content_moves_the_way_the_names_say():
    blob = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(blob, (120, 60), 6, (255, 255, 255), -1)

    def found(config):
        matrix = draw(1, config)
        ys, xs = np.nonzero(warp_color(blob, matrix)[..., 0] > 128)
        # The truth for whoever estimates alignment: inv(matrix) leads from thermal to the warped picture.
        truth = np.linalg.inv(matrix) @ (120, 60, 1)
        np.testing.assert_allclose((xs.mean(), ys.mean()), truth[:2] / truth[2], atol=0.6)
        return xs.mean(), len(xs)

    x, area = found(only(scale_probability=1.0, scale=(1.2, 1.2)))
    assert x == pytest.approx(79.5 + 40.5 * 1.2, abs=0.6) and area > 130
    x, _ = found(only(fov_probability=1.0, fov_ratio=(1.62, 1.62)))
    assert x == pytest.approx(79.5 + 40.5 / 1.62, abs=0.6)
    found(only(rotation_probability=1.0))
    found(only(shift_probability=1.0))
    found(only(perspective_probability=1.0))


def test_a_margin_shows_real_surroundings():
    whole = picture()
    inner = np.ascontiguousarray(whole[20:-20, 20:-20])
    matrix = np.array([[1, 0, 15.0], [0, 1, -10.0], [0, 0, 1]])
    with_margin = warp_color(whole, matrix, "black", margin=20)
    np.testing.assert_array_equal(with_margin, whole[10:-30, 35:-5])
    without = warp_color(inner, matrix, "black")
    assert not without[:, -14:].any() and not without[:9].any()
    assert warp_color(inner, matrix, "reflect")[:, -14:].any()
    np.testing.assert_array_equal(warp_color(whole, np.eye(3), margin=20), inner)


def test_strength_shrinks_the_ranges():
    config = MisalignmentConfig(fov_probability=1.0)
    np.testing.assert_allclose(draw(5, config.scaled(0)), np.eye(3), atol=1e-9)
    assert config.scaled(1) == config
    small, large = (np.abs(corner_displacement(draw(5, config.scaled(s)), SIZE)).max() for s in (0.1, 1.0))
    assert small < 0.3 * large
    with pytest.raises(ValueError, match="strength"):
        config.scaled(1.5)


@given(seeds)
def test_seeds_repeat(seed):
    config = MisalignmentConfig(fov_probability=0.5)
    np.testing.assert_array_equal(draw(seed, config), draw(seed, config))


def test_probabilities_are_kept():
    rng = np.random.default_rng(0)
    config = MisalignmentConfig()
    untouched = sum(np.array_equal(random_homography(rng, SIZE, config)[0], np.eye(3)) for _ in range(600))
    assert 15 < untouched < 65  # one in sixteen


def test_darkening_and_smearing():
    color = picture()
    dark = darken(color, 3.0)
    assert dark.mean() < color.mean() and dark.max() <= color.max()
    np.testing.assert_array_equal(darken(color, 1.0), color)
    spot = np.zeros((41, 41, 3), np.uint8)
    spot[20, 20] = 255
    smeared = motion_blur(spot, 9, 0.0)
    assert np.count_nonzero(smeared[20, :, 0]) >= 9 and not smeared[:19].any()
    assert motion_blur(spot, 1.0, 0.0) is spot
    flat = np.full((30, 30, 3), 90, np.uint8)
    np.testing.assert_allclose(motion_blur(flat, 7, 0.6), flat, atol=1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shift_probability": 1.1}, "shift_probability"),
        ({"perspective": 0.3}, "perspective"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"dark_gamma": (2.0, 1.0)}, "dark_gamma"),
        ({"motion_blur_px": -1.0}, "motion_blur_px"),
    ],
)
def test_bad_settings_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        MisalignmentConfig(**change)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="fill"):
        warp_color(picture(), np.eye(3), "white")
    with pytest.raises(ValueError, match="margin"):
        warp_color(picture(), np.eye(3), margin=60)
