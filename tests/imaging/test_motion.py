"""Motion estimation: known shifts are found, chained and split; standing still stays still."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from thermal_enhance.imaging.motion import (
    Motion,
    MotionConfig,
    MotionEstimator,
    disagreement,
    displacement,
    displacements,
    sample,
    split_time,
)


def scene(shift: tuple[float, float], size: tuple[int, int] = (96, 64), seed: int = 0) -> np.ndarray:
    """Blobs whose content lies `shift` further right and down."""
    rng = np.random.default_rng(seed)
    big = cv2.GaussianBlur(rng.random((size[1] + 40, size[0] + 40)).astype(np.float32), (0, 0), 2.0)
    big = cv2.normalize(big, None, 0, 255, cv2.NORM_MINMAX)
    matrix = np.array([[1, 0, shift[0] - 20], [0, 1, shift[1] - 20]], np.float64)
    return cv2.warpAffine(big, matrix, size, flags=cv2.INTER_CUBIC)


def inner(flow: np.ndarray, margin: int = 10) -> np.ndarray:
    return flow[margin:-margin, margin:-margin]


@pytest.mark.parametrize("method", ["dense", "global"])
def test_a_shift_is_found_both_ways(method: str) -> None:
    motion = MotionEstimator(MotionConfig(method))(scene((0, 0)), scene((2.5, -1.5)))
    assert np.abs(inner(motion.forward) - (2.5, -1.5)).mean() < 0.15
    assert np.abs(inner(motion.backward) - (-2.5, 1.5)).mean() < 0.15


def test_noise_on_a_static_picture_is_not_motion() -> None:
    rng = np.random.default_rng(1)
    still = scene((0, 0))
    noisy = [still + rng.normal(0, 4, still.shape).astype(np.float32) for _ in range(2)]
    motion = MotionEstimator()(*noisy)
    assert np.abs(motion.forward).max() < 0.05 and np.abs(motion.backward).max() < 0.05
    # What it would be fitted to otherwise.
    fitted = MotionEstimator(MotionConfig(still=(0.0, 1e-6)))(*noisy)
    assert np.abs(fitted.forward).mean() > 0.05


def test_an_object_moves_on_a_static_background() -> None:
    first, second = scene((0, 0)), scene((0, 0))
    thing = scene((0, 0), (24, 24), seed=3)
    first[20:44, 30:54] = thing
    second[20:44, 33:57] = thing
    motion = MotionEstimator()(first, second)
    assert np.abs(motion.forward[26:38, 36:48] - (3, 0)).mean() < 0.3
    assert np.abs(motion.forward[:, :16]).mean() < 0.05


def test_none_is_none() -> None:
    motion = MotionEstimator(MotionConfig("none"))(scene((0, 0)), scene((3, 0)))
    assert not motion.forward.any() and not motion.backward.any()


def constant(dx: float, dy: float) -> Motion:
    flow = np.zeros((32, 48, 2), np.float32)
    flow[:] = dx, dy
    return Motion(flow, -flow)


def test_displacements_are_chained_and_split() -> None:
    motions = [constant(1.0, 0.0), constant(2.0, -1.0), constant(0.0, 4.0)]
    for tau, wanted in {
        0.0: [(0, 0), (1, 0), (3, -1), (3, 3)],
        2.0: [(-3, 1), (-2, 1), (0, 0), (0, 4)],
        1.25: [(-1.5, 0.25), (-0.5, 0.25), (1.5, -0.75), (1.5, 3.25)],
    }.items():
        found = displacements(tau, motions)
        assert len(found) == 4
        for d, one in zip(found, wanted):
            np.testing.assert_allclose(d, np.broadcast_to(np.float32(one), d.shape), atol=1e-5)
        np.testing.assert_array_equal(displacement(tau, 3, motions), found[3])


def test_the_flow_that_explains_the_frames_is_believed() -> None:
    right, wrong = constant(2.0, 0.0).forward, constant(-3.0, 0.0).forward
    low, high = np.zeros((32, 48), np.float32), np.full((32, 48), 400.0, np.float32)
    before, after = displacements(0.5, [Motion(right, wrong, low, high)])
    np.testing.assert_allclose(before[..., 0], -1.0, atol=0.01)
    np.testing.assert_allclose(after[..., 0], 1.0, atol=0.01)


def test_gap_is_zero_where_flows_agree() -> None:
    motion = constant(1.5, 0.5)
    assert max(gap.max() for gap in disagreement(motion)) < 1e-5
    broken = Motion(motion.forward, np.zeros_like(motion.backward))
    np.testing.assert_allclose(disagreement(broken)[0], np.hypot(1.5, 0.5), rtol=1e-5)


def test_sample_looks_up() -> None:
    ramp = np.tile(np.arange(48, dtype=np.float32), (32, 1))
    found = sample(ramp, constant(1.5, 0.0).forward)
    np.testing.assert_allclose(found[:, :-2], ramp[:, :-2] + 1.5, atol=0.02)


def test_split_time() -> None:
    assert split_time(2.0, 3) == (2, 0.0)
    assert split_time(1.99999, 3) == (2, 0.0)
    index, part = split_time(1.25, 3)
    assert index == 1 and part == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        split_time(2.5, 3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        MotionEstimator()(np.zeros((8, 32)), np.zeros((8, 32)))
    with pytest.raises(ValueError, match="at least two frames"):
        displacements(0.0, [])
    for bad in ({"method": "fast"}, {"patch_stride": 0}, {"still": (2.0, 1.0)}, {"still_floor": 0.0}):
        with pytest.raises(ValueError, match=r"motion\."):
            MotionConfig(**bad)
