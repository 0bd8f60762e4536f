"""Optics, noise, patterns and units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import Units
from thermal_enhance.simulation.sensor import (
    FixedPattern,
    ThermalConfig,
    expose,
    fixed_pattern,
    from_kelvin,
    stream_rng,
    temporal_noise,
    to_kelvin,
)

temperatures = arrays(np.float32, (8, 8), elements=st.floats(200, 380, width=32))
ENCODING = {
    Units.COUNTS: "mono16",
    Units.CENTIKELVIN: "16UC1",
    Units.KELVIN: "32FC1",
    Units.CELSIUS: "32FC1",
    Units.AGC8: "mono8",
}


@pytest.mark.parametrize(
    ("units", "dtype", "step_k"),
    [
        (Units.COUNTS, np.uint16, 1 / 40),
        (Units.CENTIKELVIN, np.uint16, 0.01),
        (Units.KELVIN, np.float32, 1e-3),
        (Units.CELSIUS, np.float32, 1e-3),
    ],
)
@settings(max_examples=30, deadline=None)
@given(scene=temperatures)
def test_units_keep_the_temperature(units, dtype, step_k, scene):
    config = ThermalConfig(units=units, encoding=ENCODING[units])
    data = from_kelvin(scene, config)
    assert data.dtype == dtype
    assert np.abs(to_kelvin(data, config) - scene).max() <= 0.51 * step_k + 1e-4


def test_counts_stay_within_14_bits():
    scene = np.array([[0.0, 300.0, 2000.0]] * 2, np.float32)
    data = from_kelvin(scene, ThermalConfig())
    assert data[0].tolist() == [0, 8000, 16383]


@settings(max_examples=30, deadline=None)
@given(scene=temperatures)
def test_agc8_stretches_every_frame_and_keeps_no_temperature(scene):
    config = ThermalConfig(units=Units.AGC8, encoding="mono8")
    data = from_kelvin(scene, config)
    assert data.dtype == np.uint8
    if np.ptp(scene) > 0.01:
        assert data.min() == 0 and data.max() == 255
    with pytest.raises(ValueError, match="units"):
        to_kelvin(data, config)


def test_netd_in_units():
    assert ThermalConfig(netd_k=0.05, counts_per_k=40).netd_units == pytest.approx(2)
    assert ThermalConfig(netd_k=0.05, units=Units.CENTIKELVIN).netd_units == pytest.approx(5)
    assert ThermalConfig(netd_k=0.05, units=Units.CELSIUS, encoding="32FC1").netd_units == 0.05
    assert np.isnan(ThermalConfig(units=Units.AGC8, encoding="mono8").netd_units)


def test_exposure_without_blur_is_the_block_mean():
    scene = np.random.default_rng(0).uniform(280, 300, (32, 64)).astype(np.float32)
    assert expose(scene, 8, 0.0) == pytest.approx(area_down(scene, 8), abs=1e-4)
    assert expose(scene, 1, 0.0) == pytest.approx(scene)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_blur_has_the_width_asked_for_and_keeps_the_heat(factor):
    sigma = 1.2
    scene = np.zeros((41 * factor, 41 * factor), np.float32)
    scene[20 * factor : 21 * factor, 20 * factor : 21 * factor] = 1.0
    spot = expose(scene, factor, sigma)
    assert spot.sum() == pytest.approx(1, abs=1e-3)
    offsets = np.arange(41) - 20
    variance = (spot.sum(axis=0) * offsets**2).sum()
    # Pixel footprints (in and out) of the fine grid widen it a little.
    assert sigma**2 * 0.97 < variance < sigma**2 + 0.2


def test_noise_is_white_and_a_function_of_seed_and_index():
    a = temporal_noise((100, 100), 0.05, stream_rng(1, 2, 3))
    assert a.dtype == np.float32
    assert a.std() == pytest.approx(0.05, rel=0.03)
    assert abs(np.corrcoef(a[:, 1:].ravel(), a[:, :-1].ravel())[0, 1]) < 0.04
    assert np.array_equal(a, temporal_noise((100, 100), 0.05, stream_rng(1, 2, 3)))
    for keys in ((1, 2, 4), (2, 2, 3), (1, 3, 3)):
        assert not np.array_equal(a, temporal_noise((100, 100), 0.05, stream_rng(*keys)))


def test_fixed_pattern_has_its_parts():
    size = (300, 400)
    strength = {"pixel_k": 0.0, "column_k": 0.0, "row_k": 0.0, "shading_k": 0.0}
    columns = fixed_pattern(size, **{**strength, "column_k": 0.1}, rng=stream_rng(0))
    assert np.ptp(columns, axis=0).max() == 0 and columns[0].std() == pytest.approx(0.1, rel=0.15)
    rows = fixed_pattern(size, **{**strength, "row_k": 0.1}, rng=stream_rng(0))
    assert np.ptp(rows, axis=1).max() == 0 and rows[:, 0].std() == pytest.approx(0.1, rel=0.15)
    pixels = fixed_pattern(size, **{**strength, "pixel_k": 0.1}, rng=stream_rng(0))
    assert pixels.std() == pytest.approx(0.1, rel=0.02)
    shading = fixed_pattern(size, **{**strength, "shading_k": 0.5}, rng=stream_rng(0))
    assert 0.05 < np.abs(shading).max() <= 0.5 and np.abs(np.diff(shading, axis=1)).max() < 0.02


def test_pattern_drifts_without_changing_strength_and_is_new_after_a_correction():
    config = ThermalConfig(shading_k=0.0, fpn_drift_s=100.0)
    pattern = FixedPattern(config, seed=5)
    start, soon, late = (pattern.at(0, t).ravel() for t in (0.0, 2.0, 100.0))
    assert np.corrcoef(start, soon)[0, 1] > 0.99
    assert abs(np.corrcoef(start, late)[0, 1]) < 0.25
    assert late.std() == pytest.approx(start.std(), rel=0.2)
    assert abs(np.corrcoef(start, pattern.at(1, 0.0).ravel())[0, 1]) < 0.25
    assert np.array_equal(pattern.at(0, 2.0).ravel(), soon)
    frozen = FixedPattern(ThermalConfig(fpn_drift_s=0.0), seed=5)
    assert np.array_equal(frozen.at(0, 0.0), frozen.at(0, 1e4))


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"width": 2}, "width"),
        ({"rate_hz": 0}, "rate_hz"),
        ({"repeats": 0}, "repeats"),
        ({"encoding": "mono8"}, "encoding"),
        ({"units": Units.CELSIUS}, "encoding"),
        ({"netd_k": -1}, "netd_k"),
        ({"fpn_column_k": float("nan")}, "fpn_column_k"),
        ({"counts_per_k": 0}, "counts_per_k"),
        ({"supersampling": 3}, "supersampling"),
        ({"telemetry_rows": 2, "width": 100}, "telemetry_rows"),
        ({"telemetry_position": "left"}, "telemetry_position"),
    ],
)
def test_config_names_the_bad_setting(bad, name):
    with pytest.raises(ValueError, match=name):
        ThermalConfig(**bad)
