"""Repair, noise estimate, denoising, stripes, range: against constructed truths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.enhancers.conditioning import (
    Destriper,
    NoiseTracker,
    RangeTracker,
    SceneWatch,
    inpaint_non_finite,
    noise_sigma,
    wiener_denoise,
)


def ramp(height=60, width=80):
    return (np.arange(width)[None, :] * 2.0 + np.arange(height)[:, None] * 3.0).astype(np.float32)


def test_finite_frames_are_not_touched():
    image = ramp()
    repaired, holes = inpaint_non_finite(image)
    assert repaired is image and holes is None


@given(st.integers(0, 2**31), st.floats(0.01, 0.9))
@settings(max_examples=30)
def test_inpainting_fills_everything_within_the_known_values(seed, share):
    rng = np.random.default_rng(seed)
    image = rng.uniform(28000, 31000, (20, 30)).astype(np.float32)
    holes = rng.random(image.shape) < share
    holes[0, 0] = False
    bad = np.where(holes, rng.choice([np.nan, np.inf, -np.inf], image.shape), image).astype(np.float32)
    repaired, found = inpaint_non_finite(bad)
    assert np.isfinite(repaired).all()
    assert np.array_equal(repaired[~holes], image[~holes])
    if holes.any():
        assert np.array_equal(found, holes)
        known = image[~holes]
        assert repaired[holes].min() >= known.min() - 1 and repaired[holes].max() <= known.max() + 1


def test_a_dead_pixel_takes_its_neighbours_value():
    image = ramp()
    image[30, 40] = np.nan
    repaired, _ = inpaint_non_finite(image)
    assert repaired[30, 40] == pytest.approx(ramp()[30, 40], abs=1.0)


def test_no_finite_pixel_raises():
    with pytest.raises(ValueError, match="no finite pixel"):
        inpaint_non_finite(np.full((4, 4), np.nan, np.float32))


@pytest.mark.parametrize("sigma", [0.5, 3.0, 20.0])
def test_noise_is_estimated_on_a_slope(sigma):
    rng = np.random.default_rng(0)
    image = ramp(120, 160) + rng.normal(0, sigma, (120, 160)).astype(np.float32)
    assert noise_sigma(image) == pytest.approx(sigma, rel=0.1)


def test_noise_of_a_clean_or_tiny_picture_is_nil():
    assert noise_sigma(ramp()) == pytest.approx(0.0, abs=1e-5)
    assert noise_sigma(np.ones((2, 9), np.float32)) == 0.0


def test_denoising_lowers_the_error_and_keeps_an_edge():
    rng = np.random.default_rng(1)
    truth = np.full((80, 80), 30000.0, np.float32)
    truth[:, 40:] += 200
    noisy = truth + rng.normal(0, 5, truth.shape).astype(np.float32)
    clean = wiener_denoise(noisy, 5.0)
    flat = np.s_[:, :36]
    assert np.std(clean[flat] - truth[flat]) < 0.5 * np.std(noisy[flat] - truth[flat])
    step = clean[:, 42].mean() - clean[:, 37].mean()
    assert step == pytest.approx(200, abs=8)


def test_denoising_by_nothing_is_the_same_array():
    image = ramp()
    assert wiener_denoise(image, 0.0) is image


def test_stripes_go_within_the_limit():
    rng = np.random.default_rng(2)
    truth = ramp(96, 120) * 0.1
    columns = rng.normal(0, 4, (1, 120)).astype(np.float32)
    destriper = Destriper(blend=1.0)
    clean = destriper(truth + columns, 100.0)
    before, after = np.std(columns), np.std((clean - truth).mean(axis=0)[4:-4])
    assert after < 0.6 * before
    destriper.reset()
    held = destriper(truth + columns, 0.5)
    assert np.abs(held - truth - columns).max() <= 1.0 + 1e-4  # one limit per axis


def test_destriper_starts_over_with_another_size():
    destriper = Destriper()
    assert destriper(ramp(40, 60), 1.0).shape == (40, 60)
    assert destriper(ramp(60, 40), 1.0).shape == (60, 40)
    assert destriper(ramp(60, 50), 1.0).shape == (60, 50)
    with pytest.raises(ValueError, match="blend"):
        Destriper(0.0)


def test_range_is_taken_when_given_and_slewed_when_not():
    tracker = RangeTracker(blend=0.1)
    assert tracker(ramp(), (3.0, 9.0), 1.0) == (3.0, 9.0)
    low, high = tracker(ramp(), None, 1.0)
    jumped_low, jumped_high = tracker(ramp() + 1000, None, 1.0)
    assert jumped_low == pytest.approx(low + 100, abs=1e-3)
    assert jumped_high == pytest.approx(high + 100, abs=1e-3)
    tracker.reset()
    assert tracker(ramp() + 1000, None, 1.0)[0] == pytest.approx(low + 1000, abs=1e-2)


def test_the_noise_level_starts_at_once_then_moves_slowly():
    tracker = NoiseTracker(blend=0.1)
    assert [tracker(3.0), tracker(3.0), tracker(13.0)] == pytest.approx([3.0, 3.0, 4.0])
    tracker.reset()
    assert tracker(13.0) == 13.0


def test_a_scene_begins_with_another_picture_size_or_dtype():
    rng = np.random.default_rng(3)
    one, two = (np.repeat(np.repeat(rng.uniform(0, 200, (12, 16)), 5, 0), 5, 1) for _ in range(2))
    watch = SceneWatch()
    assert watch(one) and not watch(one)
    assert not watch(one * 1.1 + rng.normal(0, 10, one.shape)), "gain and noise make no other scene"
    assert watch(two) and watch(one)
    assert watch(one[:-5]) and not watch(one[:-5])
    assert watch(one.astype(np.uint8)) and watch(one.astype(np.float32))
    broken = one.astype(np.float32)
    broken[5, 7], broken[30, 30] = np.nan, np.inf
    assert not watch(broken)
    flat = np.full((60, 80), 7.0, np.float32)
    assert watch(flat) and watch(flat) and watch(np.full_like(flat, np.nan))


@pytest.mark.parametrize("given_range", [(5.0, 5.0), (float("nan"), 1.0), (9.0, 1.0)])
def test_a_senseless_range_is_not_used_and_flat_pictures_have_a_span(given_range):
    low, high = RangeTracker()(np.full((10, 10), 42.0, np.float32), given_range, 16.0)
    assert (low, high) == (42.0, 58.0)
