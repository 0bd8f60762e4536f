"""What tiers share: reading the input, placing RGB, and staying true to the input."""

import math

import cv2
import numpy as np
import pytest

from tests.enhancers.scenes import pair, request
from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.enhancers.observation import (
    GuideAligner,
    ObservationConfig,
    Observer,
    Stopwatch,
    settle,
)
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame


def read(data, value_range=None, **config):
    return Observer(ObservationConfig(**config))(EnhanceRequest(ThermalFrame(data)), value_range)


def ramp(dtype, size=(24, 18)):
    width, height = size
    picture = np.add.outer(np.arange(height) * 40.0, np.arange(width) * 25.0) + 1000
    return picture.astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_levels_and_units_are_each_others_inverse(dtype):
    data = ramp(dtype)
    seen = read(data, (1000.0, 2255.0))
    levels = seen.levels()
    assert levels.dtype == np.float32 and levels[0, 0] == 0.0
    assert levels[1, 0] == pytest.approx(40 * 255 / 1255)
    np.testing.assert_allclose(seen.to_units(levels.copy()), data, rtol=1e-6)
    assert seen.gain == pytest.approx(255 / 1255) and seen.dtype == dtype
    assert seen.limit == 0.0 and seen.holes is None and seen.repaired == 0
    assert np.array_equal(seen.clean, seen.observed)


def test_holes_are_counted_and_filled():
    data = ramp(np.float32)
    data[3, 4], data[5, 6] = np.nan, np.inf
    seen = read(data)
    assert seen.repaired == 2 and np.isfinite(seen.observed).all() and seen.holes[3, 4]
    with pytest.raises(ValueError, match="no finite pixel"):
        read(np.full((8, 8), np.nan, np.float32))


def test_cleaning_stays_within_the_limit():
    rng = np.random.default_rng(0)
    data = np.clip(np.rint(rng.normal(5000, 20, (60, 80))), 0, 65535).astype(np.uint16)
    clean = read(data, netd=20.0).clean
    assert np.std(clean) < 0.6 * np.std(data.astype(float))
    assert np.abs(clean - data).max() <= 19.5 + 1e-3
    assert np.array_equal(read(data, netd=20.0, denoise=False).clean, data)
    noisy = read(data)
    assert 0.0 < noisy.degradation < 1.0 and noisy.sigma == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_settling_meets_the_block_means(dtype, scale):
    rng = np.random.default_rng(1)
    data = rng.uniform(0, 255, (9, 12)).astype(dtype)
    seen = read(data)
    anything = rng.normal(100, 60, (9 * scale, 12 * scale)).astype(np.float32)
    made, residual = settle(anything.copy(), seen, scale, ObservationConfig())
    assert made.dtype == dtype and made.shape == anything.shape
    gap = np.abs(area_down(made, scale) - data.astype(np.float32)).max()
    assert gap <= (0.5 if dtype != np.float32 else 1e-3)
    assert residual == pytest.approx(float(gap), abs=1e-6)
    free, more = settle(anything.copy(), seen, scale, ObservationConfig(sampling="off"))
    assert more > residual
    if dtype == np.float32:
        assert np.array_equal(free, anything)


def test_settling_restores_holes_where_asked():
    data = ramp(np.float32)
    data[2, 3] = np.nan
    seen = read(data)
    enlarged = cv2.resize(seen.observed, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    made, residual = settle(enlarged, seen, 2, ObservationConfig(non_finite="restore"))
    assert np.isnan(made[4:6, 6:8]).all() and np.isnan(made).sum() == 4 and residual < 1e-3


def test_the_aligner_reports_every_frame():
    truth, color = pair(2, 240, 320)
    aligner = GuideAligner(ObservationConfig(per_frame_alignment=True))
    asked = request(truth, 8, color)
    levels = np.asarray(asked.thermal.data, np.float32)
    alignment, gray = aligner(asked, levels)
    assert gray.shape == (240, 320) and gray.dtype == np.uint8
    assert aligner.last is alignment and 0.0 <= alignment.trust <= 1.0
    assert aligner(request(truth, 8), levels) == (None, None)
    tiny = EnhanceRequest(asked.thermal, ColorFrame(np.zeros((8, 8, 3), np.uint8)), 8)
    alignment, gray = aligner(tiny, levels)
    assert (alignment.trust, alignment.reason, gray) == (0.0, "too_small", None)
    assert aligner.last is alignment
    off = GuideAligner(ObservationConfig(guided=False))
    assert off(asked, levels) == (None, None)


def test_the_stopwatch_adds_laps_up():
    watch = Stopwatch()
    for stage in ("a", "b", "a"):
        watch.lap(stage)
    assert list(watch.stages) == ["a", "b"] and all(ms >= 0 for ms in watch.stages.values())


@pytest.mark.parametrize("field", ["netd", "consistency_k"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_bounds_must_be_bounds(field, value):
    with pytest.raises(ValueError, match=field):
        ObservationConfig(**{field: value})
