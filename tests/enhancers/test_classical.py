"""The classical tier: units, dtypes, consistency, RGB that helps and RGB that must not hurt."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.enhancers.scenes import error, pair, request
from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest
from thermal_enhance.enhancers.classical import ClassicalConfig, ClassicalEnhancer
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units


def offline(**more):
    return ClassicalEnhancer(ClassicalConfig(per_frame_alignment=True, **more))


def test_it_is_an_enhancer():
    tier = ClassicalEnhancer()
    assert isinstance(tier, Enhancer) and not tier.needs_rgb and tier.uses_rgb and not tier.isolated
    assert not ClassicalEnhancer(ClassicalConfig(guided=False)).uses_rgb


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("quality", ["full", "fast"])
def test_better_than_bicubic_and_true_to_the_input(scale, quality):
    truth, _ = pair()
    asked = request(truth, scale)
    result = offline(quality=quality)(asked)
    bicubic = cv2.resize(asked.thermal.data, (640, 480), interpolation=cv2.INTER_CUBIC)
    assert error(result, truth) < 0.95 * float(np.sqrt(np.mean((bicubic - truth) ** 2)))
    measured = float(np.abs(area_down(result.thermal.data, scale) - asked.thermal.data).max())
    assert measured < 1e-3
    assert result.consistency_residual == pytest.approx(measured)


@pytest.mark.parametrize(
    ("dtype", "gain", "offset", "rounding"),
    [(np.uint8, 1.0, 0.0, 0.5), (np.uint16, 20.0, 28000.0, 0.5), (np.float32, 0.1, 290.0, 1e-3)],
)
def test_units_change_nothing_but_units(dtype, gain, offset, rounding):
    truth, color = pair(1)
    reference = offline()(request(truth, 4, color))
    result = offline()(request(truth, 4, color, dtype=dtype, gain=gain, offset=offset))
    assert result.thermal.data.dtype == dtype
    assert (result.thermal.stamp_ns, result.thermal.frame_id, result.thermal.units) == (
        123,
        "cam",
        Units.COUNTS,
    )
    assert result.consistency_residual <= rounding
    back = (result.thermal.data.astype(np.float64) - offset) / gain
    # Input rounding is amplified a little by the steps that sharpen.
    assert np.percentile(np.abs(back - reference.thermal.data), 99) < 1.5


def test_aligned_rgb_helps_and_is_reported():
    truth, color = pair(2)
    alone = offline()(request(truth, 8))
    guided = offline()(request(truth, 8, color))
    assert error(guided, truth) < 0.96 * error(alone, truth)
    assert guided.rgb_trust > 0.9 and math.isnan(alone.rgb_trust)
    assert list(guided.stage_ms) == ["prepare", "align", "guide", "upsample", "consistency"]
    assert list(alone.stage_ms) == ["prepare", "upsample", "consistency"]


def test_misaligned_rgb_still_helps():
    truth, color = pair(2)
    turn = cv2.getRotationMatrix2D((320, 240), 5.0, 1.05)
    turn[:, 2] += (20, -14)
    moved = ColorFrame(cv2.warpAffine(color.data, turn, (640, 480)))
    alone = offline()(request(truth, 4))
    guided = offline()(request(truth, 4, moved))
    assert guided.rgb_trust > 0.5
    assert error(guided, truth) < 0.98 * error(alone, truth)


def test_rgb_that_cannot_help_costs_less_than_a_tenth_of_a_decibel():
    truth, color = pair(3)
    _, stranger = pair(33)
    alone = error(offline()(request(truth, 4)), truth)
    for useless in (stranger, ColorFrame((color.data * 0.02).astype(np.uint8))):
        assert error(offline()(request(truth, 4, useless)), truth) < 1.0115 * alone


def test_trust_nought_is_exactly_the_thermal_result():
    truth, color = pair(4)
    black = ColorFrame(np.zeros_like(color.data))
    alone, dark = offline()(request(truth, 4)), offline()(request(truth, 4, black))
    assert dark.rgb_trust == 0.0
    assert np.array_equal(alone.thermal.data, dark.thermal.data)
    late = offline()(EnhanceRequest(request(truth, 4).thermal, color, 4, pair_skew_s=-2.0))
    assert late.rgb_trust == 0.0 and np.array_equal(alone.thermal.data, late.thermal.data)
    off = ClassicalEnhancer(ClassicalConfig(guided=False))(request(truth, 4, color))
    assert math.isnan(off.rgb_trust) and np.array_equal(alone.thermal.data, off.thermal.data)


def test_a_live_stream_locks_on():
    truth, color = pair(5)
    tier = ClassicalEnhancer()
    asked = request(truth, 4, color)
    results = [tier(asked) for _ in range(3)]
    assert results[-1].rgb_trust > 0.9  # the first guess was right, so it is used from the start
    assert tier.last_alignment is not None and tier.last_alignment.significance > 7


def test_noise_is_reduced_within_the_limit():
    truth = cv2.GaussianBlur(pair(6)[0], (0, 0), 9)
    rng = np.random.default_rng(0)
    low = area_down(truth, 4) * 20 + 3000 + rng.normal(0, 30, (120, 160))
    frame = ThermalFrame(low.astype(np.uint16), Units.COUNTS)
    exact = ClassicalEnhancer(ClassicalConfig(estimate_noise=False))(EnhanceRequest(frame, scale=4))
    denoised = ClassicalEnhancer(ClassicalConfig(netd=30.0, consistency_k=2.0))(
        EnhanceRequest(frame, scale=4)
    )
    assert exact.consistency_residual <= 0.5
    assert denoised.consistency_residual <= 60.5
    aim = truth * 20 + 3000
    assert error(denoised, aim) < 0.85 * error(exact, aim)
    assert denoised.degradation > 0.2
    clean = ThermalFrame((area_down(truth, 4) * 20 + 3000).astype(np.uint16))
    assert ClassicalEnhancer()(EnhanceRequest(clean, scale=4)).degradation < 0.1


def noisy_request(sigma, seed=0, span=4000.0):
    """(request, truth at full size, span): counts of a smooth scene with noise of a known strength."""
    truth = cv2.GaussianBlur(pair(6)[0], (0, 0), 9)
    truth = (truth - truth.min()) / np.ptp(truth) * span + 20000
    noise = np.random.default_rng(seed).normal(0, sigma, (120, 160))
    return EnhanceRequest(
        ThermalFrame(np.rint(area_down(truth, 4) + noise).astype(np.uint16)), scale=4
    ), truth


def test_without_netd_the_noise_is_estimated_and_a_noisy_stream_is_denoised():
    asked, truth = noisy_request(30.0)
    exact = ClassicalEnhancer(ClassicalConfig(estimate_noise=False))(asked)
    result = ClassicalEnhancer(ClassicalConfig(estimate_noise=True))(asked)
    assert exact.consistency_residual <= 0.5
    assert error(result, truth) < 0.9 * error(exact, truth)
    assert 5.0 < result.consistency_residual <= 1.15 * 30.0 + 0.5, "K times the estimate, estimated well"
    assert (
        ClassicalEnhancer(ClassicalConfig(estimate_noise=True, consistency_k=0.0))(asked).consistency_residual
        <= 0.5
    )
    assert (
        ClassicalEnhancer(ClassicalConfig(estimate_noise=True, consistency_k=0.5))(asked).consistency_residual
        <= 0.5 * 34.5 + 0.5
    )


def test_estimated_noise_moves_a_block_by_no_more_than_a_hundredth_of_the_range():
    asked, _ = noisy_request(400.0)
    asked = EnhanceRequest(asked.thermal, scale=4, value_range=(19000.0, 25000.0))
    assert ClassicalConfig(estimate_noise=True).limit(400.0, 6000.0) == 60.0
    assert 10.0 < ClassicalEnhancer(ClassicalConfig(estimate_noise=True))(asked).consistency_residual <= 60.5
    told = ClassicalEnhancer(ClassicalConfig(netd=400.0))(asked)
    assert told.consistency_residual > 100.0, "the cap is for estimates, not for a NETD that was given"


def test_a_clean_stream_is_followed_exactly_although_noise_is_estimated():
    asked, _ = noisy_request(0.0)
    tier, exact = (
        ClassicalEnhancer(ClassicalConfig(estimate_noise=True)),
        ClassicalEnhancer(ClassicalConfig(estimate_noise=False)),
    )
    for _ in range(3):
        result = tier(asked)
        assert result.consistency_residual <= 0.5
        assert np.array_equal(result.thermal.data, exact(asked).thermal.data)


def test_the_estimate_is_slewed_over_the_stream_and_forgotten_on_reset():
    clean, noisy = noisy_request(0.0)[0], noisy_request(30.0)[0]
    tier = ClassicalEnhancer(ClassicalConfig(estimate_noise=True))
    tier(clean)
    assert tier(noisy).consistency_residual <= 0.15 * 30.0 + 0.5, "one noisy frame among clean ones"
    for seed in range(40):
        last = tier(noisy_request(30.0, seed)[0])
    assert last.consistency_residual > 20.0
    tier.reset("gap")
    assert tier(clean).consistency_residual <= 0.5


def test_stripes_are_removed_when_asked():
    truth, _ = pair(7)
    rng = np.random.default_rng(0)
    low = area_down(truth, 4) + rng.normal(0, 3, (1, 160)).astype(np.float32)
    asked = EnhanceRequest(ThermalFrame(low.astype(np.float32)), scale=4)
    plain = ClassicalEnhancer(ClassicalConfig(netd=6.0, denoise=False))(asked)
    clean = ClassicalEnhancer(ClassicalConfig(netd=6.0, denoise=False, destripe=True))(asked)
    assert error(clean, truth) < 0.97 * error(plain, truth)
    assert clean.consistency_residual <= 6.001


def test_dead_pixels_are_filled_or_put_back():
    truth, _ = pair(8)
    asked = request(truth, 4)
    broken = asked.thermal.data.copy()
    broken[10, 20], broken[50, 60] = np.nan, np.inf
    given_frame = EnhanceRequest(ThermalFrame(broken), scale=4)
    filled = ClassicalEnhancer()(given_frame)
    assert filled.repaired == 2 and np.isfinite(filled.thermal.data).all()
    kept = ClassicalEnhancer(ClassicalConfig(non_finite="restore"))(given_frame)
    missing = np.isnan(kept.thermal.data)
    assert missing.sum() == 32 and missing[40:44, 80:84].all()
    with pytest.raises(ValueError, match="no finite pixel"):
        ClassicalEnhancer()(EnhanceRequest(ThermalFrame(np.full((8, 8), np.nan, np.float32)), scale=2))


@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20))
    ),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.sampled_from(["full", "fast"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_integer_frame_comes_back_whole_and_true(data, scale, quality, estimate):
    config = ClassicalConfig(quality=quality, estimate_noise=estimate)
    result = ClassicalEnhancer(config)(EnhanceRequest(ThermalFrame(data), scale=scale))
    made = result.thermal.data
    assert made.dtype == data.dtype and made.shape == (data.shape[0] * scale, data.shape[1] * scale)
    # A picture of noise is smoothed, but never by more than a hundredth of its range (at least 16).
    allowed = 0.01 * max(16.0, float(np.ptp(data))) if estimate else 0.0
    assert float(np.abs(area_down(made, scale) - data).max()) <= max(allowed, 0.5) + 0.1
    assert result.consistency_residual <= max(allowed, 0.5) + 0.1


def test_tiny_frames_with_rgb_go_on_alone():
    data = np.arange(60, dtype=np.uint8).reshape(6, 10)
    color = ColorFrame(np.zeros((6, 10, 3), np.uint8))
    assert ClassicalEnhancer()(EnhanceRequest(ThermalFrame(data), color, 2)).rgb_trust == 0.0


def test_saturated_values_stay_and_do_not_wrap():
    data = np.zeros((24, 32), np.uint16)
    data[:, 16:] = 65535
    made = ClassicalEnhancer()(EnhanceRequest(ThermalFrame(data), scale=4)).thermal.data
    assert made[:, :40].max() < 3000 and made[:, 90:].min() > 62000


def test_a_stream_at_rest_does_not_flicker():
    truth, color = pair(9)
    tier = ClassicalEnhancer(ClassicalConfig(netd=1.0))
    asked = request(truth, 4, color)
    for _ in range(12):
        tier(asked)
    a, b = tier(asked).thermal.data, tier(asked).thermal.data
    assert float(np.abs(a - b).max()) < 0.5


def test_value_range_rules_normalisation():
    truth, _ = pair(10)
    tier = ClassicalEnhancer()
    first = tier(request(truth, 4, value_range=(0.0, 255.0))).thermal.data
    tier(request(truth * 0.2, 4, value_range=(0.0, 255.0)))
    again = tier(request(truth, 4, value_range=(0.0, 255.0))).thermal.data
    assert np.array_equal(first, again)


def test_a_new_size_starts_over_and_results_repeat():
    truth, color = pair(11)
    a, b = ClassicalEnhancer(), ClassicalEnhancer()
    b(request(truth, 2, color))
    b.reset("size")
    one, two = a(request(truth, 4, color)), b(request(truth, 4, color))
    assert np.array_equal(one.thermal.data, two.thermal.data)


def test_aliased_input_is_measured_but_not_corrected():
    truth, _ = pair(12)
    low = np.ascontiguousarray(truth[2::4, 2::4])
    result = ClassicalEnhancer(ClassicalConfig(sampling="off"))(EnhanceRequest(ThermalFrame(low), scale=4))
    assert result.consistency_residual > 1.0
    assert error(result, truth) < error(
        ClassicalEnhancer()(EnhanceRequest(ThermalFrame(low), scale=4)), truth
    )


@pytest.mark.parametrize("scale", [0, -2, 17])
def test_a_senseless_scale_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        ClassicalEnhancer()(EnhanceRequest(ThermalFrame(np.zeros((8, 8), np.uint8)), scale=scale))


@pytest.mark.parametrize(
    "wrong",
    [
        {"netd": -1.0},
        {"netd": math.nan},
        {"consistency_k": -1.0},
        {"sampling": "bicubic"},
        {"quality": "best"},
        {"non_finite": "drop"},
        {"min_trust": 2.0},
    ],
)
def test_config_names_the_parameter_to_change(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClassicalConfig(**wrong)
