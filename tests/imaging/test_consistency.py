from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thermal_enhance.imaging.consistency import (
    ConsistencyConfig,
    area_down,
    back_project,
    to_dtype,
)


def _bound(limit: float, observed: np.ndarray) -> float:
    """The promise of back_project: the limit plus float32 rounding."""
    finite = np.abs(observed[np.isfinite(observed)].astype(np.float64))
    return limit + 2.0**-20 * max(limit, float(finite.max(initial=0.0))) + 1e-37


def _true_means(image: np.ndarray, scale: int) -> np.ndarray:
    h, w = image.shape
    return image.astype(np.float64).reshape(h // scale, scale, w // scale, scale).mean(axis=(1, 3))


def _scene(rng: np.random.Generator, height: int, width: int, span: float = 2000.0) -> np.ndarray:
    image = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 3)
    return ((image - image.mean()) / np.ptp(image) * span + 29000).astype(np.float32)


# ---- area_down ----


@given(
    scale=st.integers(1, 8),
    h=st.integers(1, 6),
    w=st.integers(1, 6),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    seed=st.integers(0, 2**16),
)
def test_area_down_is_the_block_mean(scale: int, h: int, w: int, dtype: Any, seed: int) -> None:
    top = 255 if dtype is np.uint8 else 65535
    image = np.random.default_rng(seed).uniform(0, top, (h * scale, w * scale)).astype(dtype)
    small = area_down(image, scale)
    assert small.dtype == np.float32
    assert small.shape == (h, w)
    np.testing.assert_allclose(small, _true_means(image, scale), rtol=2e-6)


def test_area_down_at_scale_one_copies() -> None:
    image = np.ones((4, 4), np.float32)
    small = area_down(image, 1)
    small[0, 0] = 5
    assert image[0, 0] == 1


def test_area_down_takes_any_strides() -> None:
    image = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    np.testing.assert_allclose(area_down(image[:, ::-1].T, 4), _true_means(image[:, ::-1].T, 4))


@pytest.mark.parametrize(
    ("shape", "scale"), [((7, 8), 2), ((8, 7), 2), ((8, 8), 0), ((8, 8, 3), 2), ((0, 8), 1)]
)
def test_area_down_refuses(shape: tuple[int, ...], scale: int) -> None:
    with pytest.raises(ValueError):
        area_down(np.zeros(shape, np.float32), scale)


# ---- back_project ----


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    scale=st.sampled_from([1, 2, 3, 4, 8]),
    limit=st.sampled_from([0.0, 1e-3, 0.5, 40.0]),
    iterations=st.integers(0, 5),
)
def test_result_is_within_the_limit_for_any_input(
    data: Any, scale: int, limit: float, iterations: int
) -> None:
    h, w = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    wild = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-500, 500, width=32)
    observed_values = st.floats(-1e5, 1e5, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0])
    output = data.draw(hnp.arrays(np.float32, (h * scale, w * scale), elements=wild))
    observed = data.draw(hnp.arrays(np.float32, (h, w), elements=observed_values))
    corrected, report = back_project(output, observed, scale, limit, iterations)
    assert corrected.dtype == np.float32
    assert corrected.shape == output.shape
    known = np.isfinite(observed)
    off = np.abs(_true_means(corrected, scale) - np.where(known, observed, 0))[known]
    # The report measures in float32, so it may be off by one more rounding.
    assert off.max(initial=0.0) <= 2 * _bound(limit, observed) - limit
    assert report.residual_max <= _bound(limit, observed)
    assert 0 <= report.fraction_clamped <= 1


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    scale=st.sampled_from([1, 2, 3, 8]),
    limit=st.sampled_from([0.0, 0.7, 6.0]),
)
def test_integer_frames_stay_within_the_limit_and_half_after_rounding_and_saturation(
    data: Any, dtype: Any, scale: int, limit: float
) -> None:
    h, w = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    top = np.iinfo(dtype).max
    observed = data.draw(hnp.arrays(dtype, (h, w), elements=st.sampled_from([0, 1, top - 1, top, top // 3])))
    seed = data.draw(st.integers(0, 2**16))
    swing = data.draw(st.sampled_from([1.0, 100.0, 1e5]))
    rng = np.random.default_rng(seed)
    output = np.kron(observed, np.ones((scale, scale))) + rng.normal(0, swing, (h * scale, w * scale))
    corrected, _ = back_project(output.astype(np.float32), observed, scale, limit)
    off = _true_means(to_dtype(corrected, dtype), scale) - observed.astype(np.float64)
    assert np.abs(off).max() <= limit + 0.5 + 2.0**-19 * top


def test_contrast_survives_where_saturation_allows_it() -> None:
    observed = np.full((4, 4), 10, np.uint8)
    detail = np.kron(np.ones((4, 4)), np.array([[-30.0, 30.0], [30.0, -30.0]]))
    corrected, _ = back_project(detail + 10, observed, 2, limit=0.5)
    assert corrected.min() >= 0
    np.testing.assert_allclose(area_down(corrected, 2), 10, atol=0.51)
    assert np.ptp(corrected) > 15, "the block was flattened although 0..20 fits"


def test_sensor_noise_is_not_restored() -> None:
    rng = np.random.default_rng(1)
    truth = _scene(rng, 240, 320)
    observed = area_down(truth, 8) + rng.normal(0, 5, (30, 40)).astype(np.float32)
    held, report = back_project(truth, observed, 8, limit=5 * 4)
    np.testing.assert_array_equal(held, truth)
    assert report.fraction_clamped == 0
    assert report.residual_max == pytest.approx(report.residual_max_before)
    forced, _ = back_project(truth, observed, 8, limit=0)
    at_noise, _ = back_project(truth, observed, 8, limit=5)
    error_forced, error_at_noise = np.std(forced - truth), np.std(at_noise - truth)
    assert error_at_noise < 0.5 * error_forced


def test_a_hallucinated_hot_spot_is_cut_and_reported() -> None:
    rng = np.random.default_rng(2)
    truth = _scene(rng, 160, 160)
    observed = area_down(truth, 8)
    fake = truth.copy()
    fake[80:96, 80:96] += 700
    corrected, report = back_project(fake, observed, 8, limit=5, keep_map=True)
    assert report.residual_max_before == pytest.approx(700, abs=1)
    assert report.residual_max <= 5.1
    assert report.fraction_clamped == pytest.approx(4 / 400)
    assert report.hallucination is not None
    assert report.hallucination.shape == observed.shape
    assert set(zip(*np.nonzero(report.hallucination > 600))) == {(10, 10), (10, 11), (11, 10), (11, 11)}
    assert np.abs(corrected - truth)[80:96, 80:96].mean() < 0.35 * 700
    far = np.abs(corrected - truth)
    far[40:136, 40:136] = 0
    assert far.max() < 1, "a local correction reached far"


def test_correction_of_a_smooth_error_has_no_blocks() -> None:
    rows, columns = np.mgrid[:192, :256].astype(np.float32)
    truth = 30000 + 2 * columns + 3 * rows
    bias = 60 * np.sin(columns / 40) * np.cos(rows / 50)
    corrected, _ = back_project(truth + bias, area_down(truth, 8), 8, limit=1.0)
    assert np.abs(corrected - truth).max() < 10, "the correction went wrong somewhere, at the border perhaps"
    steps = np.abs(np.diff(corrected - truth, axis=1))
    at_seams, inside = steps[:, 7::8].max(), np.delete(steps, np.s_[7::8], axis=1).max()
    assert at_seams < 1.5 * inside + 0.05
    blocky = truth + bias + np.kron(area_down(truth, 8) - area_down(truth + bias, 8), np.ones((8, 8)))
    blocky_steps = np.abs(np.diff(blocky - truth, axis=1))
    assert at_seams < 0.3 * blocky_steps[:, 7::8].max()


def test_a_constant_error_is_corrected_by_a_constant_up_to_the_border() -> None:
    truth = _scene(np.random.default_rng(8), 64, 96)
    corrected, _ = back_project(truth + np.float32(60), area_down(truth, 8), 8, limit=1.0)
    assert np.ptp(corrected - truth) < 0.02
    assert np.abs(corrected - truth).max() == pytest.approx(1, abs=0.05)


def test_scale_one_is_a_plain_clamp() -> None:
    observed = np.array([[100.0, 200.0], [np.nan, 5.0]], np.float32)
    output = np.array([[110.0, 199.0], [77.0, -5.0]], np.float32)
    corrected, report = back_project(output, observed, 1, limit=2.0)
    np.testing.assert_allclose(corrected, [[102, 199], [77, 3]], atol=1e-3)
    assert report.fraction_clamped == pytest.approx(2 / 3)


def test_off_measures_without_touching() -> None:
    output = np.full((8, 8), 50.0, np.float32)
    observed = np.full((4, 4), 40.0, np.float32)
    corrected, report = back_project(output, observed, 2, limit=1.0, sampling="off")
    np.testing.assert_array_equal(corrected, output)
    assert report.residual_max == report.residual_max_before == 10.0
    assert report.fraction_clamped == 1.0


def test_the_input_arrays_are_left_alone() -> None:
    output = np.full((8, 8), 50.0, np.float32)
    observed = np.full((4, 4), 40, np.uint16)
    back_project(output, observed, 2, limit=0.0)
    assert (output == 50).all()
    assert (observed == 40).all()


def test_unknown_observations_constrain_nothing() -> None:
    output = np.random.default_rng(0).normal(0, 1, (8, 8)).astype(np.float32)
    corrected, report = back_project(output, np.full((4, 4), np.nan, np.float32), 2, limit=0.0)
    np.testing.assert_array_equal(corrected, output)
    assert report.residual_max == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_output_is_refused(bad: Any) -> None:
    output = np.zeros((16, 16), np.float32)
    output[3, 5] = bad
    with pytest.raises(ValueError, match="non-finite"):
        back_project(output, np.zeros((2, 2), np.float32), 8, limit=1.0)


@pytest.mark.parametrize(
    "change",
    [{"scale": 4}, {"scale": 0}, {"limit": -1.0}, {"limit": float("nan")}, {"sampling": "bicubic"}],
)
def test_wrong_arguments_are_refused(change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"scale": 2, "limit": 1.0, "sampling": "area"} | change
    with pytest.raises(ValueError):
        back_project(np.zeros((8, 8), np.float32), np.zeros((4, 4), np.float32), **arguments)


def test_config_applies_its_limit_and_names_what_is_wrong() -> None:
    config = ConsistencyConfig(netd=3.0, k=2.0)
    assert config.limit == 6.0
    _, report = config.apply(np.full((8, 8), 50.0, np.float32), np.full((4, 4), 40.0, np.float32), 2)
    assert report.limit == 6.0
    assert report.residual_max == pytest.approx(6.0, abs=1e-3)
    wrong: tuple[tuple[str, Any], ...] = (
        ("netd", -1.0),
        ("k", float("inf")),
        ("iterations", -1),
        ("sampling", "x"),
    )
    for name, value in wrong:
        with pytest.raises(ValueError, match=f"consistency.{name}"):
            ConsistencyConfig(**{name: value})


# ---- to_dtype ----


def test_to_dtype_rounds_and_saturates() -> None:
    x = np.array([-3.0, 0.49, 1.5, 254.6, 300.0], np.float32)
    np.testing.assert_array_equal(to_dtype(x, np.uint8), np.array([0, 0, 2, 255, 255], np.uint8))
    np.testing.assert_array_equal(to_dtype(np.array([70000.0]), np.uint16), [65535])
    np.testing.assert_array_equal(to_dtype(np.array([300, -1], np.int32), np.uint8), [255, 0])
    assert to_dtype(np.array([7], np.uint16), np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="uint8"):
        to_dtype(np.array([np.nan]), np.uint8)
