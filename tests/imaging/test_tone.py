from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thermal_enhance.imaging.tone import ToneConfig, ToneCurve

FRAME_NS = 33_333_333


def _frame(
    rng: np.random.Generator,
    low: float = 20000,
    high: float = 30000,
    *,
    noise: float = 5.0,
    shape: tuple[int, ...] = (120, 160),
    dtype: Any = np.uint16,
) -> np.ndarray:
    ramp = np.linspace(low, high, shape[0] * shape[1]).reshape(shape)
    return (ramp + rng.normal(0, noise, shape)).astype(dtype)


def test_first_frame_sets_the_range_to_its_percentiles() -> None:
    rng = np.random.default_rng(0)
    data = rng.permutation(np.arange(10000, dtype=np.uint16)).reshape(100, 100)
    low, high = ToneCurve(ToneConfig(samples=10**6)).update(data, 0)
    assert (low, high) == pytest.approx((50, 9949), abs=1)


@pytest.mark.parametrize("mode", ["linear", "local"])
def test_static_scene_has_a_constant_curve(mode: str) -> None:
    rng = np.random.default_rng(1)
    curve = ToneCurve(ToneConfig(mode=mode))
    first = curve.update(_frame(rng), 0)
    probe = _frame(np.random.default_rng(9))
    view = curve.to_view8(probe)
    for i in range(1, 60):
        assert curve.update(_frame(rng), i * FRAME_NS) == first
    np.testing.assert_array_equal(curve.to_view8(probe), view)


def test_static_scene_stays_constant_even_after_the_curve_has_moved() -> None:
    rng = np.random.default_rng(2)
    curve = ToneCurve(ToneConfig(time_constant_s=0.5))
    curve.update(_frame(rng), 0)
    for i in range(1, 200):
        curve.update(_frame(rng, high=35000), i * FRAME_NS)
    settled = curve.range
    assert settled is not None
    assert settled[1] == pytest.approx(35000, rel=0.02)
    for i in range(200, 260):
        assert curve.update(_frame(rng, high=35000), i * FRAME_NS) == settled


def test_a_hot_object_does_not_jerk_the_curve() -> None:
    rng = np.random.default_rng(3)
    curve = ToneCurve()
    high = curve.update(_frame(rng), 0)[1]
    hot = _frame(rng)
    hot[:40] = 60000
    moved = curve.update(hot, FRAME_NS)
    assert moved[1] > high
    assert moved[1] - high < 0.03 * (60000 - high)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.floats(0.001, 0.8), min_size=1, max_size=6), tau=st.floats(0.2, 5))
def test_slew_depends_on_time_not_on_the_number_of_frames(steps: list[float], tau: float) -> None:
    config = ToneConfig(time_constant_s=tau, hysteresis=0.0)
    start, goal = np.full((8, 8), 100.0), np.full((8, 8), 900.0)
    start[:4], goal[:4] = 0.0, 500.0
    many, once = ToneCurve(config), ToneCurve(config)
    many.update(start, 0)
    once.update(start, 0)
    t = 0
    for step in steps:
        t += int(step * 1e9)
        many.update(goal, t)
    assert many.range == pytest.approx(once.update(goal, t), abs=1e-6)
    expected = 100 + 800 * (1 - np.exp(-t * 1e-9 / tau))
    assert many.range is not None
    assert many.range[1] == pytest.approx(expected, abs=1e-6)


def test_zero_time_constant_follows_at_once_and_a_standing_clock_moves_nothing() -> None:
    a, b = np.arange(64.0).reshape(8, 8), np.arange(64.0).reshape(8, 8) + 1000
    at_once = ToneCurve(ToneConfig(time_constant_s=0))
    at_once.update(a, 0)
    assert at_once.update(b, 1)[0] == pytest.approx(1000)
    slow = ToneCurve()
    before = slow.update(a, 10**9)
    assert slow.update(b, 10**9) == before
    assert slow.update(b, 0) == before


@settings(max_examples=150, deadline=None)
@given(
    data=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf]),
    ),
    again=hnp.arrays(np.float32, (5, 5), elements=st.floats(-1e6, 1e6, width=32)),
    mode=st.sampled_from(["linear", "local"]),
)
def test_any_frame_gives_an_ordered_finite_range_and_a_finite_picture(
    data: Any, again: np.ndarray, mode: str
) -> None:
    curve = ToneCurve(ToneConfig(mode=mode, hysteresis=0.2))
    for i, frame in enumerate((data, again, again, data)):
        low, high = curve.update(frame, i * 10**9)
        assert np.isfinite([low, high]).all()
        assert low < high
        if curve.range is not None:
            x = curve.normalise(frame)
            assert x.min() >= 0
            assert x.max() <= 1
            assert curve.to_view8(frame).shape == frame.shape


def test_non_finite_pixels_are_ignored_and_black() -> None:
    rng = np.random.default_rng(4)
    data = _frame(rng, 10, 40, noise=0.01, dtype=np.float32)
    clean_range = ToneCurve().update(data, 0)
    broken = data.copy()
    broken[::7, ::5] = np.nan
    broken[1::7, ::5] = np.inf
    curve = ToneCurve()
    assert curve.update(broken, 0) == pytest.approx(clean_range, abs=0.5)
    x = curve.normalise(broken)
    assert (x[::7, ::5] == 0).all()
    assert (x[1::7, ::5] == 1).all()


def test_frames_without_a_finite_pixel_change_nothing() -> None:
    curve = ToneCurve()
    assert curve.update(np.full((4, 4), np.nan, np.float32), 0) == (0.0, 1.0)
    assert curve.range is None
    with pytest.raises(RuntimeError, match="update"):
        curve.normalise(np.zeros((4, 4), np.float32))
    current = curve.update(np.arange(16, dtype=np.float32).reshape(4, 4), 1)
    assert curve.update(np.full((4, 4), np.nan, np.float32), 10**9) == current


@pytest.mark.parametrize(
    ("value", "dtype", "span"),
    [
        (0, np.uint8, 1),
        (29000, np.uint16, 1),
        (65535, np.uint16, 1),
        (300.0, np.float32, 0.03),
        (0.0, np.float32, 1e-4),
    ],
)
@pytest.mark.parametrize("mode", ["linear", "local"])
def test_flat_image_is_mid_gray(value: Any, dtype: Any, span: float, mode: str) -> None:
    curve = ToneCurve(ToneConfig(mode=mode))
    data = np.full((16, 16), value, dtype)
    low, high = curve.update(data, 0)
    assert high - low == pytest.approx(span)
    np.testing.assert_allclose(curve.normalise(data), 0.5, atol=0.02)
    assert abs(int(curve.to_view8(data)[0, 0]) - 128) < 5


def test_min_span_keeps_noise_from_being_stretched() -> None:
    rng = np.random.default_rng(5)
    curve = ToneCurve(ToneConfig(min_span=400.0))
    low, high = curve.update(_frame(rng, 29000, 29010), 0)
    assert high - low == pytest.approx(400)


def test_fixed_range_never_moves() -> None:
    curve = ToneCurve(ToneConfig(fixed_range=(0, 255)))
    data = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert curve.range == (0, 255)
    assert curve.update(data // 4, 0) == (0, 255)
    np.testing.assert_array_equal(curve.to_view8(data), data)


@settings(max_examples=60, deadline=None)
@given(
    data=hnp.arrays(np.uint16, (12, 9)),
    mode=st.sampled_from(["linear", "local"]),
)
def test_unclipped_normalise_and_denormalise_are_inverse(data: Any, mode: str) -> None:
    curve = ToneCurve(ToneConfig(mode=mode, low_percentile=20, high_percentile=80, min_span=2000.0))
    curve.update(data, 0)
    np.testing.assert_array_equal(curve.denormalise(curve.normalise(data, clip=False), np.uint16), data)


def test_kelvins_keep_their_millikelvins() -> None:
    data = (295 + np.linspace(0, 10, 4800).reshape(60, 80)).astype(np.float32)
    curve = ToneCurve()
    curve.update(data, 0)
    back = curve.denormalise(curve.normalise(data, clip=False), np.float32)
    np.testing.assert_allclose(back, data, atol=1e-4)


def test_freeze_holds_and_unfreeze_follows() -> None:
    rng = np.random.default_rng(6)
    curve = ToneCurve(ToneConfig(mode="local", time_constant_s=0.1))
    curve.freeze()
    assert curve.frozen
    first = curve.update(_frame(rng), 0)
    view = curve.to_view8(_frame(np.random.default_rng(1)))
    assert curve.update(_frame(rng, 40000, 60000), 10**9) == first
    np.testing.assert_array_equal(curve.to_view8(_frame(np.random.default_rng(1))), view)
    curve.unfreeze()
    assert curve.update(_frame(rng, 40000, 60000), 2 * 10**9)[0] > 39000


def test_reset_and_new_dtype_start_afresh() -> None:
    rng = np.random.default_rng(7)
    curve = ToneCurve()
    curve.update(_frame(rng), 0)
    curve.reset("shutter")
    assert curve.last_reset_reason == "shutter"
    assert curve.range is None
    assert curve.update(_frame(rng, 40000, 60000), 1)[0] > 39000
    assert curve.update(np.arange(256, dtype=np.uint8).reshape(16, 16), 2)[1] < 256
    assert "uint8" in curve.last_reset_reason


def test_local_view_shows_detail_that_a_global_line_hides() -> None:
    rng = np.random.default_rng(8)
    texture = np.kron(rng.integers(0, 2, (60, 80)), np.ones((4, 4)))
    data = (1000 + 60 * texture).astype(np.uint16)
    data[:, 160:] += 8000
    views = {}
    for mode in ("linear", "local"):
        curve = ToneCurve(ToneConfig(mode=mode))
        curve.update(data, 0)
        views[mode] = curve.to_view8(data)
    contrast = {mode: np.std(view[60:180, 20:80].astype(float)) for mode, view in views.items()}
    assert contrast["local"] > 4 * contrast["linear"]
    assert views["local"][:, 200:].mean() > views["local"][:, :100].mean(), "hot and cold changed places"


def test_local_view_does_not_flicker_when_something_hot_walks_in() -> None:
    rng = np.random.default_rng(9)
    curve = ToneCurve(ToneConfig(mode="local"))
    curve.update(_frame(rng), 0)
    probe = _frame(rng)
    before = curve.to_view8(probe).astype(int)
    hot = _frame(rng)
    hot[40:90, 60:100] = 50000
    curve.update(hot, FRAME_NS)
    assert np.abs(curve.to_view8(probe) - before).max() <= 8


def test_a_view_of_another_size_uses_the_same_curve() -> None:
    rng = np.random.default_rng(10)
    curve = ToneCurve(ToneConfig(mode="local", gamma=1.3))
    data = _frame(rng, noise=0)
    curve.update(data, 0)
    large = np.kron(data, np.ones((4, 4), np.uint16))
    small = curve.to_view8(data).astype(int)
    np.testing.assert_allclose(curve.to_view8(large)[2::4, 2::4], small, atol=4)


def test_clahe_and_gamma_act_on_the_view_only() -> None:
    rng = np.random.default_rng(11)
    data = _frame(rng)
    plain, adorned = (
        ToneCurve(ToneConfig(mode="local")),
        ToneCurve(ToneConfig(mode="local", gamma=2, clahe_clip=3)),
    )
    plain.update(data, 0)
    adorned.update(data, 0)
    np.testing.assert_array_equal(plain.normalise(data), adorned.normalise(data))
    assert (plain.to_view8(data) != adorned.to_view8(data)).mean() > 0.5


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.int64, np.float64])
@pytest.mark.parametrize("mode", ["linear", "local"])
def test_other_dtypes_work_too(dtype: Any, mode: str) -> None:
    curve = ToneCurve(ToneConfig(mode=mode))
    data = np.arange(1024).reshape(32, 32).astype(dtype)
    low, high = curve.update(data, 0)
    assert (low, high) == pytest.approx((5, 1018), abs=2)
    assert np.ptp(curve.to_view8(data)) > 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "auto"),
        ("low_percentile", 99.9),
        ("time_constant_s", -1.0),
        ("time_constant_s", float("nan")),
        ("hysteresis", 2.0),
        ("fixed_range", (255, 0)),
        ("fixed_range", (0, float("inf"))),
        ("min_span", 0.0),
        ("samples", 1),
        ("local_grid", 1),
        ("local_gain", 0.5),
        ("gamma", 0.0),
        ("clahe_clip", -1.0),
    ],
)
def test_config_names_what_is_wrong(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"tone.{name}"):
        ToneConfig(**{name: value})


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        ToneCurve().update(np.zeros((2, 2, 3)), 0)
