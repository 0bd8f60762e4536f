"""Low-resolution synthesis: seeded, true to its kernels, and safe at 16 bit."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.simulation.low_resolution import KERNELS, LowResolutionConfig, downsample, synthesize


def scene(height=96, width=128, seed=0):
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), 2)
    return (image - image.min()) / np.ptp(image) * 255


def test_the_same_seed_gives_the_same_picture():
    config = LowResolutionConfig(agc_probability=0.5)
    first, again, other = (synthesize(scene(), 8, np.random.default_rng(s), config) for s in (3, 3, 4))
    assert first.kernel == again.kernel
    np.testing.assert_array_equal(first.low, again.low)
    np.testing.assert_array_equal(first.high, again.high)
    assert not np.array_equal(first.low, other.low)


def test_plain_is_rounded_block_means():
    high = scene()
    made = synthesize(high, 8, np.random.default_rng(0), LowResolutionConfig.plain())
    np.testing.assert_array_equal(made.low, np.rint(area_down(high, 8)))
    np.testing.assert_array_equal(made.high, high)
    assert made.kernel == "area"


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_keep_flat_pictures_and_ramps(kernel, scale):
    side = 24 * scale
    flat = np.full((side, side), 77.0, np.float32)
    np.testing.assert_allclose(downsample(flat, scale, kernel, psf_sigma_px=2), 77, atol=1e-3)
    # On a ramp, every kernel that is centred gives the middle of its block.
    ramp = np.tile(np.arange(side, dtype=np.float32), (side, 1))
    middle = (np.arange(24) + 0.5) * scale - 0.5
    low = downsample(ramp, scale, kernel, psf_sigma_px=scale / 4)
    np.testing.assert_allclose(low[12, 4:-4], middle[4:-4], atol=0.01 * scale)


def test_only_the_aliased_kernel_aliases():
    """Waves too fine for the small picture come back as slow ones, unless they were filtered out."""
    wave = 127.5 + 127.5 * np.sin(2 * np.pi * np.arange(256) / 4.6)
    fine = np.tile(wave.astype(np.float32), (256, 1))
    spread = {k: np.std(downsample(fine, 8, k, psf_sigma_px=2)[4:-4, 4:-4]) for k in KERNELS}
    assert spread["aliased"] > 50
    assert max(spread[kernel] for kernel in ("psf_area", "bicubic")) < 5
    assert spread["area"] < 30


def test_aliased_is_the_challenge_kernel():
    high = scene(480, 640)
    np.testing.assert_array_equal(
        downsample(high, 8, "aliased"), cv2.resize(high, (80, 60), interpolation=cv2.INTER_CUBIC)
    )


def test_noise_has_the_strength_asked_for():
    config = LowResolutionConfig(1, 0, 0, 0, netd=(0.02, 0.02), fixed_pattern=(0, 0), quantise=False)
    flat = np.full((512, 512), 128.0, np.float32)
    made = synthesize(flat, 2, np.random.default_rng(0), config)
    assert np.std(made.low) == pytest.approx(0.02 * 255, rel=0.02)
    config = LowResolutionConfig(1, 0, 0, 0, netd=(0, 0), fixed_pattern=(0.02, 0.02), quantise=False)
    made = synthesize(flat, 2, np.random.default_rng(0), config)
    assert np.std(made.low.mean(axis=0)) == pytest.approx(0.02 * 255, rel=0.15)
    assert np.std(made.low - made.low.mean(axis=0) - made.low.mean(axis=1)[:, None]) < 0.01


def test_weights_choose_the_kernel():
    config = LowResolutionConfig(area=3, psf_area=1, bicubic=0, aliased=0, noise_probability=0)
    rng = np.random.default_rng(0)
    found = [synthesize(scene(32, 32), 8, rng, config).kernel for _ in range(200)]
    assert set(found) == {"area", "psf_area"}
    assert 120 < found.count("area") < 180


def test_sixteen_bits_keep_their_depth():
    high = (scene() * 257).astype(np.uint16)
    config = LowResolutionConfig(1, 0, 0, 0, noise_probability=0, full_scale=65535.0, levels=65536)
    low = synthesize(high, 4, np.random.default_rng(0), config).low
    np.testing.assert_allclose(low, area_down(high, 4), atol=0.51)
    assert low.max() > 255


@given(st.integers(0, 2**31), st.sampled_from([2, 4, 8]))
def test_everything_stays_in_range(seed, scale):
    config = LowResolutionConfig(0.25, 0.25, 0.25, 0.25, agc_probability=0.7, netd=(0, 0.1))
    rng = np.random.default_rng(seed)
    high = rng.choice([0.0, 255.0], (32, 32)).astype(np.float32)
    made = synthesize(high, scale, rng, config)
    assert made.low.shape == (32 // scale, 32 // scale)
    assert made.low.dtype == made.high.dtype == np.float32
    for image in (made.low, made.high):
        assert image.min() >= 0 and image.max() <= 255
    np.testing.assert_allclose(made.low, np.rint(made.low), atol=1e-4)


@given(st.integers(0, 2**31))
def test_agc_changes_both_pictures_alike_and_clips_nothing(seed):
    config = LowResolutionConfig(1, 0, 0, 0, noise_probability=0, agc_probability=1, quantise=False)
    high = scene(32, 32, seed)
    made = synthesize(high, 4, np.random.default_rng(seed), config)
    np.testing.assert_allclose(made.low, area_down(made.high, 4), atol=1e-3)
    gain, offset = np.polyfit(high.ravel(), made.high.ravel(), 1)
    np.testing.assert_allclose(made.high, high * gain + offset, atol=0.02)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"area": -1.0}, "area"),
        ({"area": 0.0, "psf_area": 0.0, "bicubic": 0.0, "aliased": 0.0}, "weights"),
        ({"netd": (0.2, 0.1)}, "netd"),
        ({"noise_probability": 1.5}, "noise_probability"),
        ({"agc_offset": 2.0}, "agc_offset"),
        ({"levels": 1}, "levels"),
    ],
)
def test_bad_settings_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        LowResolutionConfig(**change)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="does not divide"):
        downsample(np.zeros((30, 32)), 8)
    with pytest.raises(ValueError, match="psf_area"):
        downsample(np.zeros((32, 32)), 8, "lanczos")
