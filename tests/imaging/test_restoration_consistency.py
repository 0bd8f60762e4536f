from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.restoration_consistency import (
    LowFrequencyHold,
    clamp_to_envelope,
    fit_gain_offset,
    hold_low_frequencies,
    refit_gain_offset,
)


def _scene(rng: np.random.Generator, height: int, width: int, span: float = 2000.0) -> np.ndarray:
    image = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 3)
    return ((image - image.mean()) / np.ptp(image) * span + 29000).astype(np.float32)


# ---- LowFrequencyHold ----


@pytest.mark.parametrize("shape", [(64, 96), (120, 160), (37, 51), (5, 7)])
def test_hold_removes_a_smooth_bias(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    observed = _scene(rng, *shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    bias = 50 * np.sin(columns / 60) + 0.3 * rows + 20
    held = hold_low_frequencies(observed + bias, observed, LowFrequencyHold(), 0)
    whole = np.s_[: shape[0] // 16 * 16 or None, : shape[1] // 16 * 16 or None]
    difference = (held - observed)[whole]
    means = area_down(difference, 16) if min(shape) >= 16 else difference.mean()
    assert np.abs(means).max() < 0.02 * np.abs(bias).max()


def test_hold_keeps_what_restoration_removed() -> None:
    rng = np.random.default_rng(4)
    clean = _scene(rng, 128, 128)
    stripes = rng.normal(0, 10, (1, 128)).astype(np.float32)
    stripes -= np.repeat(stripes.reshape(8, 16).mean(1), 16)[None]
    held = LowFrequencyHold().update(clean, clean + stripes + rng.normal(0, 10, (128, 128)), 0)
    assert np.std(held - clean) < 1.5, "stripes or noise came back"


def test_hold_averages_the_noise_of_single_frames_over_time() -> None:
    rng = np.random.default_rng(5)
    clean = _scene(rng, 64, 64)
    hold = LowFrequencyHold(time_constant_s=2.0)
    errors = []
    for i in range(120):
        noisy = clean + rng.normal(0, 40, clean.shape).astype(np.float32)
        errors.append(float(np.std(hold.update(clean, noisy, i * 33_000_000) - clean)))
    assert np.mean(errors[-20:]) < 0.5 * errors[0]


def test_hold_does_not_smear_a_moving_object() -> None:
    hold = LowFrequencyHold(time_constant_s=5.0)
    for i in range(20):
        frame = np.full((64, 128), 1000.0, np.float32)
        frame[20:44, 4 * i : 4 * i + 24] = 3000.0
        held = hold.update(frame, frame, i * 33_000_000)
        np.testing.assert_allclose(held, frame, atol=1e-3)


def test_hold_starts_afresh_on_reset_backward_stamp_and_new_size() -> None:
    frame = np.full((32, 32), 100.0, np.float32)
    for restart in ("reset", "stamp", "size"):
        hold = LowFrequencyHold(time_constant_s=100.0)
        hold.update(frame, frame + 50, 10_000_000_000)
        assert hold.update(frame, frame, 10_033_000_000).mean() > 145, "the average was forgotten too early"
        stamp, now = 10_066_000_000, frame
        if restart == "reset":
            hold.reset()
        elif restart == "stamp":
            stamp = 1
        else:
            now = np.full((48, 32), 100.0, np.float32)
        np.testing.assert_allclose(hold.update(now, now, stamp), now, atol=1e-3)


def test_hold_ignores_unknown_pixels_and_refuses_broken_ones() -> None:
    frame = np.full((32, 32), 100.0, np.float32)
    observed = frame + 8
    observed[:20] = np.nan
    held = LowFrequencyHold().update(frame, observed, 0)
    assert np.isfinite(held).all()
    assert held[28:].mean() == pytest.approx(108, abs=1)
    frame[0, 0] = np.nan
    with pytest.raises(ValueError, match="non-finite"):
        LowFrequencyHold().update(frame, observed, 0)
    with pytest.raises(ValueError, match="differ"):
        LowFrequencyHold().update(np.zeros((4, 4)), np.zeros((4, 5)), 0)
    with pytest.raises(ValueError, match="block"):
        LowFrequencyHold(block=1)
    with pytest.raises(ValueError, match="time_constant_s"):
        LowFrequencyHold(time_constant_s=-1)


# ---- gain and offset ----


@settings(max_examples=40, deadline=None)
@given(
    gain=st.floats(0.4, 2.5),
    offset=st.floats(-500, 500),
    base=st.sampled_from([0.0, 300.0, 29000.0]),
    seed=st.integers(0, 99),
)
def test_refit_undoes_gain_and_offset(gain: float, offset: float, base: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    observed = _scene(rng, 48, 64, span=40) - 29000 + base
    output = ((observed - offset) / gain).astype(np.float32)
    # A coarser number format of the output is the only error left.
    tolerance = 1e-3 + 4e-6 * gain * np.abs(output).max()
    np.testing.assert_allclose(refit_gain_offset(output, observed), observed, atol=tolerance)


def test_refit_is_not_pulled_by_dead_pixels_or_noise() -> None:
    rng = np.random.default_rng(6)
    clean = _scene(rng, 120, 160)
    observed = clean + rng.normal(0, 20, clean.shape)
    dead = rng.random(clean.shape) < 0.003
    observed[dead] = 65535
    observed[:3] = np.nan
    gain, offset = fit_gain_offset(0.7 * clean + 500, observed)
    assert gain == pytest.approx(1 / 0.7, rel=0.02)
    assert np.abs(gain * (0.7 * clean + 500) + offset - clean).mean() < 10


@pytest.mark.parametrize("output", [np.full((32, 32), 7.0), "inverted"])
def test_refit_falls_back_to_the_offset(output: Any) -> None:
    observed = np.random.default_rng(7).normal(100, 5, (32, 32))
    output = 200 - observed if isinstance(output, str) else output
    gain, offset = fit_gain_offset(output, observed)
    assert gain == 1.0
    assert np.median(output + offset) == pytest.approx(np.median(observed), abs=3)
    assert fit_gain_offset(output, np.full((32, 32), np.nan)) == (1.0, 0.0)
    with pytest.raises(ValueError, match="differ"):
        fit_gain_offset(output, observed[:16])


# ---- envelope ----


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    radius=st.integers(0, 2),
    margin=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 999),
)
def test_envelope_bounds_and_keeps_what_is_inside(dtype: Any, radius: int, margin: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, mid = (rng.uniform(10, 240, (9, 11)).astype(dtype) for _ in range(3))
    clamped, fraction = clamp_to_envelope(mid, a, b, margin, radius)
    assert clamped.dtype == dtype
    low, high = np.minimum(a, b).astype(float), np.maximum(a, b).astype(float)
    wide_low, wide_high = np.empty_like(low), np.empty_like(high)
    for y in range(9):
        for x in range(11):
            near = np.s_[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            wide_low[y, x], wide_high[y, x] = low[near].min() - margin, high[near].max() + margin
    assert (clamped >= wide_low - 1e-4).all()
    assert (clamped <= wide_high + 1e-4).all()
    inside = (mid >= wide_low) & (mid <= wide_high)
    np.testing.assert_array_equal(clamped[inside], mid[inside])
    assert fraction == pytest.approx(1 - inside.mean(), abs=1e-6)


def test_envelope_leaves_an_edge_between_its_two_places() -> None:
    a, b, mid = (np.zeros((8, 16), np.float32) for _ in range(3))
    a[:, :6], mid[:, :7], b[:, :8] = 100, 100, 100
    thin_a, thin_b, thin_mid = (np.zeros((8, 16), np.float32) for _ in range(3))
    thin_a[:, 5], thin_mid[:, 6], thin_b[:, 7] = 100, 100, 100
    np.testing.assert_array_equal(clamp_to_envelope(mid, a, b, radius=0)[0], mid)
    np.testing.assert_array_equal(clamp_to_envelope(thin_mid, thin_a, thin_b)[0], thin_mid)
    assert clamp_to_envelope(thin_mid, thin_a, thin_b, radius=0)[0].max() == 0


def test_envelope_with_unknown_neighbours() -> None:
    a = np.full((4, 4), 10.0, np.float32)
    b = np.full((4, 4), 20.0, np.float32)
    a[:], b[0, 0] = np.nan, np.inf
    clamped, _ = clamp_to_envelope(np.full((4, 4), 30.0, np.float32), a, b, radius=0)
    assert clamped[0, 0] == 30, "nothing is known there"
    assert clamped[1, 1] == 20
    with pytest.raises(ValueError, match="non-finite"):
        clamp_to_envelope(a, b, b)
    with pytest.raises(ValueError, match="differ"):
        clamp_to_envelope(b[:2], b, b)
    with pytest.raises(ValueError, match="negative"):
        clamp_to_envelope(b[1:], b[1:], b[1:], margin=-1)
