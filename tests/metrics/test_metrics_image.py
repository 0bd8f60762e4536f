from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.metrics import (
    edge_correlation,
    fitted_psnr,
    gmsd,
    ms_ssim,
    psnr,
    radiometric_residual,
    ssim,
)


def _images(
    seed: int, shape: tuple[int, ...] = (40, 48), noise: float = 12.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = cv2.GaussianBlur(rng.uniform(0, 255, shape), (0, 0), 1.5)
    return np.clip(reference + rng.normal(0, noise, shape), 0, 255), reference


def _reference_ssim(x: np.ndarray, y: np.ndarray, span: float) -> float:
    """Wang et al.'s equation 13, window by window."""
    axis = np.arange(11) - 5
    kernel = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (kernel * a).sum(), (kernel * b).sum()
            va, vb = (kernel * (a - ma) ** 2).sum(), (kernel * (b - mb) ** 2).sum()
            cov = (kernel * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


def _reference_gmsd(x: np.ndarray, y: np.ndarray, span: float) -> float:
    c = 170 * (span / 255) ** 2
    magnitudes = []
    for z in (x, y):
        h, w = z.shape[0] // 2, z.shape[1] // 2
        small = np.array(
            [[z[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(w)] for i in range(h)]
        )
        p = np.pad(small, 1, mode="edge")
        gx, gy = np.zeros((h, w)), np.zeros((h, w))
        for k in range(3):
            gx += (p[k : k + h, :w] - p[k : k + h, 2:]) / 3
            gy += (p[:h, k : k + w] - p[2:, k : k + w]) / 3
        magnitudes.append(np.sqrt(gx**2 + gy**2))
    a, b = magnitudes
    return float(np.std((2 * a * b + c) / (a**2 + b**2 + c)))


@pytest.mark.parametrize("span", [1.0, 255.0, 65535.0])
def test_psnr_of_a_constant_offset(span: float) -> None:
    reference = np.linspace(0, span, 64).reshape(8, 8)
    assert psnr(reference + 0.1 * span, reference, span) == pytest.approx(20.0)
    assert psnr(reference, reference, span) == math.inf


def test_integers_do_not_wrap() -> None:
    assert psnr(np.full((4, 4), 5, np.uint8), np.full((4, 4), 250, np.uint8), 255) < 1


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.2, 4), offset=st.floats(-100, 100), seed=st.integers(0, 99))
def test_fitted_psnr_ignores_gain_and_offset(gain: float, offset: float, seed: int) -> None:
    image, reference = _images(seed)
    plain = fitted_psnr(image, reference, 255)
    assert fitted_psnr(gain * image + offset, reference, 255) == pytest.approx(plain, abs=1e-6)
    assert plain >= psnr(image, reference, 255) - 1e-9


def test_fitted_psnr_of_a_flat_image_is_that_of_the_mean() -> None:
    _, reference = _images(0)
    assert fitted_psnr(np.zeros_like(reference), reference, 255) == pytest.approx(
        psnr(np.full_like(reference, reference.mean()), reference, 255)
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 1 / 255, 257.0])
def test_ssim_matches_the_equation(seed: int, scale: float) -> None:
    x, y = _images(seed, (17, 21))
    assert ssim(x * scale, y * scale, 255 * scale) == pytest.approx(_reference_ssim(x, y, 255), abs=1e-9)


def test_ssim_is_exact_on_a_high_level() -> None:
    x, y = _images(1, (17, 21), noise=0.02)
    x, y = x * 1e-4 + 29000, y * 1e-4 + 29000
    assert ssim(x, y, 0.05) == pytest.approx(_reference_ssim(x, y, 0.05), abs=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (21, 18)])
@pytest.mark.parametrize("scale", [1.0, 257.0])
def test_gmsd_matches_the_equation(shape: tuple[int, ...], scale: float) -> None:
    x, y = _images(2, shape)
    assert gmsd(x * scale, y * scale, 255 * scale) == pytest.approx(_reference_gmsd(x, y, 255), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), noise=st.floats(1, 80))
def test_scores_are_symmetric_and_bounded(seed: int, noise: float) -> None:
    x, y = _images(seed, noise=noise)
    assert ssim(x, y, 255) == pytest.approx(ssim(y, x, 255), abs=1e-12)
    assert -1 <= ssim(x, y, 255) < 1
    assert 0 <= ms_ssim(x, y, 255, levels=2) < 1
    assert 0 < gmsd(x, y, 255) <= 1
    assert -1 <= edge_correlation(x, y) < 1
    assert edge_correlation(x, y) == pytest.approx(edge_correlation(y, x), abs=1e-12)


def test_equal_images_score_perfectly() -> None:
    x, _ = _images(3, (192, 200))
    assert ssim(x, x, 255) == pytest.approx(1.0)
    assert ms_ssim(x, x, 255) == pytest.approx(1.0)
    assert gmsd(x, x, 255) == 0.0
    assert edge_correlation(x, x) == pytest.approx(1.0)
    assert fitted_psnr(2 * x, x, 255) > 200


def test_an_inverted_image_has_negative_ssim_and_no_ms_ssim() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(128, 40, (64, 64))
    assert ssim(255 - x, x, 255) < -0.5
    assert ms_ssim(255 - x, x, 255, levels=2) == 0.0
    assert edge_correlation(255 - x, x) == pytest.approx(1.0)


def test_ms_ssim_at_one_level_is_ssim_and_weights_come_from_the_paper() -> None:
    x, y = _images(5, (192, 192))
    assert ms_ssim(x, y, 255, levels=1) == pytest.approx(ssim(x, y, 255))
    product, weights = 1.0, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    a, b = x, y
    for level, weight in enumerate(weights):
        # With equal means the luminance term is 1, so SSIM of mean-free windows is the structure term.
        if level == 4:
            product *= ssim(a, b, 255) ** weight
        else:
            product *= _structure(a, b) ** weight
            a, b = (z.reshape(z.shape[0] // 2, 2, z.shape[1] // 2, 2).mean(axis=(1, 3)) for z in (a, b))
    assert ms_ssim(x, y, 255) == pytest.approx(product, abs=1e-9)


def _structure(x: np.ndarray, y: np.ndarray) -> float:
    def window(z: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(z, (11, 11), 1.5)[5:-5, 5:-5]

    c2 = (0.03 * 255) ** 2
    covariance = window(x * y) - window(x) * window(y)
    variances = window(x * x) - window(x) ** 2 + window(y * y) - window(y) ** 2
    return float(np.mean((2 * covariance + c2) / (variances + c2)))


def test_blur_lowers_every_score() -> None:
    x, _ = _images(6, (192, 192))
    mild, strong = cv2.GaussianBlur(x, (0, 0), 1), cv2.GaussianBlur(x, (0, 0), 3)
    assert psnr(mild, x, 255) > psnr(strong, x, 255)
    assert ssim(mild, x, 255) > ssim(strong, x, 255)
    assert ms_ssim(mild, x, 255) > ms_ssim(strong, x, 255)
    assert gmsd(mild, x, 255) < gmsd(strong, x, 255)
    assert edge_correlation(mild, x) > edge_correlation(strong, x)


def test_edge_correlation_finds_edges_across_modalities() -> None:
    step = np.zeros((32, 32))
    step[:, 16:] = 100
    assert edge_correlation(3 * (100 - step) + 7, step) == pytest.approx(1.0)
    assert edge_correlation(np.roll(step, 8, axis=1), step) < 0.6
    flat = np.full((32, 32), 5.0)
    assert edge_correlation(flat, step) == 0.0
    assert edge_correlation(flat, flat) == 1.0


def test_radiometric_residual() -> None:
    observed = np.array([[10.0, 20.0], [np.nan, 40.0]], np.float32)
    enhanced = np.kron(np.array([[11.0, 20.0], [99.0, 37.0]]), np.ones((3, 3)))
    residual = radiometric_residual(enhanced, observed, 3)
    assert residual["max"] == pytest.approx(3.0)
    assert residual["rms"] == pytest.approx(math.sqrt(10 / 3))
    assert residual["bias"] == pytest.approx(-2 / 3)
    assert math.isnan(radiometric_residual(enhanced, np.full((2, 2), np.nan), 3)["max"])
    with pytest.raises(ValueError, match="scale 2"):
        radiometric_residual(enhanced, observed, 2)


@pytest.mark.parametrize("metric", [psnr, ssim, gmsd, fitted_psnr, ms_ssim])
def test_wrong_input_is_refused(metric: Any) -> None:
    good = np.zeros((200, 200))
    with pytest.raises(ValueError, match="differ in size"):
        metric(good, good[:100], 255)
    with pytest.raises(ValueError, match="data_range"):
        metric(good, good, 0)
    with pytest.raises(ValueError, match="data_range"):
        metric(good, good, float("nan"))
    bad = good.copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="reference has non-finite"):
        metric(good, bad, 255)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        metric(np.zeros((20, 20, 3)), np.zeros((20, 20, 3)), 255)
    with pytest.raises(ValueError, match="real numbers"):
        metric(good.astype(complex), good, 255)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="11x11"):
        ssim(np.zeros((10, 40)), np.zeros((10, 40)), 1)
    with pytest.raises(ValueError, match="176"):
        ms_ssim(np.zeros((160, 175)), np.zeros((160, 175)), 1)
    with pytest.raises(ValueError, match="levels"):
        ms_ssim(np.zeros((200, 200)), np.zeros((200, 200)), 1, levels=6)
    with pytest.raises(ValueError, match="2x2"):
        gmsd(np.zeros((1, 40)), np.zeros((1, 40)), 1)
