"""Guided detail: gained where thermal shares structure, not copied where it does not."""

import cv2
import numpy as np
import pytest

from thermal_enhance.enhancers.guided import GuideConfig, GuidedDetail, luma
from thermal_enhance.enhancers.upsampling import EdgeUpsampler, resize_area

SCALE = 4
ONES = np.ones((60, 80), np.float32)


def pair(seed=0):
    """(truth, guide): same shapes, other and partly reversed brightness, 240x320."""
    rng = np.random.default_rng(seed)
    truth = np.full((240, 320), 100, np.float32)
    guide = np.full((240, 320), 140, np.float32)
    for _ in range(60):
        x, y = int(rng.integers(0, 310)), int(rng.integers(0, 230))
        w, h = int(rng.integers(5, 40)), int(rng.integers(5, 40))
        cv2.rectangle(truth, (x, y), (x + w, y + h), float(rng.uniform(20, 230)), -1)
        cv2.rectangle(guide, (x, y), (x + w, y + h), float(rng.uniform(20, 230)), -1)
    return truth, guide.astype(np.uint8)


def enlarge(truth, gray, mask=ONES, config=None):
    low = resize_area(truth, (80, 60))
    tool = GuidedDetail(config)
    guide, seen = tool.place(gray, np.eye(3), (80, 60), SCALE)
    return low, EdgeUpsampler()(low, SCALE), tool(low, guide, seen * mask, SCALE)


def error(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


def test_an_aligned_guide_helps():
    truth, gray = pair()
    _, base, detail = enlarge(truth, gray)
    assert error(base + detail, truth) < 0.93 * error(base, truth)


def test_contrast_reversal_does_not_matter():
    truth, gray = pair(1)
    _, base, detail = enlarge(truth, gray)
    _, _, reverse = enlarge(truth, 255 - gray)
    assert np.abs(detail - reverse).max() < 1.0 and np.abs(detail).max() > 10.0
    assert error(base + detail, truth) < error(base, truth)


def test_texture_of_rgb_alone_is_not_copied():
    rng = np.random.default_rng(2)
    truth = cv2.GaussianBlur(rng.uniform(0, 255, (240, 320)).astype(np.float32), (0, 0), 20)
    truth = (truth - truth.min()) / np.ptp(truth) * 255
    checks = ((np.indices((240, 320)).sum(axis=0) // 3) % 2 * 200 + 20).astype(np.uint8)
    _, _, detail = enlarge(truth, checks)
    assert np.abs(detail).max() < 2.0


def test_another_scene_costs_next_to_nothing():
    truth, _ = pair(3)
    for seed in (30, 31):
        _, stranger = pair(seed)
        _, base, detail = enlarge(truth, stranger)
        assert error(base + detail, truth) < 1.012 * error(base, truth)  # 0.1 dB


def test_detail_adds_no_heat():
    truth, gray = pair(4)
    _, _, detail = enlarge(truth, gray)
    assert np.abs(resize_area(detail, (80, 60))).max() < 0.2 * np.abs(detail).max()
    assert abs(float(detail.mean())) < 0.1


def test_mask_and_limits_are_honoured():
    truth, gray = pair(5)
    mask = ONES.copy()
    mask[:, :40] = 0
    _, _, detail = enlarge(truth, gray, mask)
    assert not detail[:, :150].any() and detail[:, 170:].any()
    _, _, capped = enlarge(truth, gray, config=GuideConfig(detail_limit=3.0))
    assert np.abs(capped).max() <= 3.0
    low = resize_area(truth, (80, 60))
    gains = GuidedDetail(GuideConfig(gain_limit=0.5)).gains(low, resize_area(gray, (80, 60)))
    assert np.abs(gains).max() <= 0.5


def test_placing_follows_the_homography():
    gray = np.tile(np.arange(0, 256, dtype=np.uint8), (192, 1))
    half = np.array([[0.5, 0, 0.25], [0, 0.5, 0.25], [0, 0, 1.0]])
    guide, mask = GuidedDetail(GuideConfig(blur=0.0)).place(gray, half, (32, 24), 4)
    assert guide.shape == (96, 128) and mask.all()
    assert guide[50, 0] == pytest.approx(64, abs=1) and guide[50, -1] == pytest.approx(191, abs=1)
    beyond = np.array([[1.0, 0, 0.5], [0, 1.0, 0], [0, 0, 1.0]])
    _, mask = GuidedDetail().place(gray, beyond, (32, 24), 4)
    assert mask[:, :13].all() and not mask[:, 17:].any()


def test_a_guide_no_finer_than_thermal_is_not_worth_it():
    tool = GuidedDetail()
    gray = np.zeros((480, 640), np.uint8)
    assert tool.finer(gray, np.eye(3), 160)
    assert not tool.finer(gray, np.eye(3), 640)
    assert not tool.finer(gray, np.diag([0.3, 0.3, 1.0]), 320)


def test_luma_weights_green_most():
    picture = np.zeros((1, 3, 3), np.uint8)
    picture[0, 0, 0] = picture[0, 1, 1] = picture[0, 2, 2] = 255
    red, green, blue = luma(picture)[0]
    assert green > red > blue > 0


@pytest.mark.parametrize("wrong", [{"window_sigma": 0.0}, {"blur": -1.0}, {"regularisation": 0.0}])
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GuideConfig(**wrong)
