"""The temporal network's input: bases, lookups and cues of constructed motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from thermal_enhance.enhancers.temporal_input import CUES, TemporalInputBuilder, to_levels
from thermal_enhance.imaging.motion import Motion, MotionEstimator


def view(shift: float, size: tuple[int, int] = (64, 48), scale: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(fine, coarse) pictures of a scene moved right by `shift` coarse pixels."""
    rng = np.random.default_rng(5)
    big = cv2.GaussianBlur(rng.random((size[1] * scale + 80, size[0] * scale + 160)), (0, 0), 7.0)
    big = cv2.normalize(big, None, 0, 255, cv2.NORM_MINMAX).astype(np.float32)
    matrix = np.array([[1, 0, shift * scale - 80], [0, 1, -40.0]])
    fine = cv2.warpAffine(big, matrix, (size[0] * scale, size[1] * scale), flags=cv2.INTER_CUBIC)
    return fine, cv2.resize(fine, size, interpolation=cv2.INTER_AREA)


def constant(dx: float) -> Motion:
    flow = np.zeros((48, 64, 2), np.float32)
    flow[..., 0] = dx
    return Motion(flow, -flow)


def test_shapes_and_ranges() -> None:
    frames = [view(float(i))[1] for i in range(3)]
    ready = TemporalInputBuilder()(frames, [constant(1.0)] * 2, (1.5, 2.0))
    assert ready.grid.shape == (2, 3, 24, 32, 2) and np.abs(ready.grid).max() <= 1
    assert ready.cues.shape == (2, len(CUES), 48, 64)
    assert ready.base.shape == (2, 192, 256)
    np.testing.assert_array_equal(ready.tau, np.float32([1.5, 2.0]))
    assert {a.dtype for a in (ready.grid, ready.cues, ready.base, ready.tau)} == {np.dtype(np.float32)}


def test_an_observed_base_is_bicubic_of_that_frame() -> None:
    frames = [view(float(i))[1] for i in range(2)]
    base = TemporalInputBuilder()(frames, [constant(1.0)], (1.0,)).base[0]
    np.testing.assert_array_equal(base, cv2.resize(frames[1], (256, 192), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize("tau", [0.5, 0.25])
def test_a_new_base_is_where_the_content_is(tau: float) -> None:
    first, second = view(0.0)[1], view(3.0)[1]
    truth = view(3.0 * tau)[0]
    base = TemporalInputBuilder()([first, second], [MotionEstimator()(first, second)], (tau,)).base[0]
    blend = sum(
        w * cv2.resize(f, (256, 192), interpolation=cv2.INTER_CUBIC)
        for w, f in ((1 - tau, first), (tau, second))
    )
    error, ghost = (np.abs(picture - truth)[16:-16, 32:-32].mean() for picture in (base, blend))
    assert error < 0.2 * ghost


def test_a_place_that_one_frame_does_not_show_comes_from_the_other() -> None:
    # The scene moves right by 8: at the middle, the left 4 columns are seen in the later frame alone.
    frames = [np.full((48, 64), 50.0, np.float32), np.full((48, 64), 200.0, np.float32)]
    ready = TemporalInputBuilder()(frames, [constant(8.0)], (0.5,))
    np.testing.assert_allclose(ready.base[0][:, :12], 200.0, atol=1)
    np.testing.assert_allclose(ready.base[0][:, -12:], 50.0, atol=1)
    np.testing.assert_allclose(ready.base[0][:, 100:150], 125.0, atol=1)
    outside = ready.cues[0, CUES.index("outside")]
    assert outside[:, :3].all() and outside[:, -3:].all() and not outside[:, 8:-8].any()


def test_weights_follow_the_time() -> None:
    frames = [np.full((48, 64), 50.0, np.float32), np.full((48, 64), 150.0, np.float32)]
    base = TemporalInputBuilder()(frames, [constant(0.0)], (0.25, 0.75)).base
    np.testing.assert_allclose(base[0], 75.0, atol=0.1)
    np.testing.assert_allclose(base[1], 125.0, atol=0.1)


def test_grid_looks_features_up() -> None:
    torch = pytest.importorskip("torch")
    # Features that say where they are; frame 0 lies 4 pixels to the left of time 1.
    frames = [np.zeros((48, 64), np.float32)] * 2
    ready = TemporalInputBuilder()(frames, [constant(4.0)], (1.0,))
    x = torch.arange(32, dtype=torch.float32).expand(1, 1, 24, 32)
    for frame, shift in ((0, -2.0), (1, 0.0)):
        found = torch.nn.functional.grid_sample(
            x, torch.from_numpy(ready.grid[:, frame]), padding_mode="border", align_corners=False
        )
        np.testing.assert_allclose(found[0, 0, :, 4:-4], np.asarray(x)[0, 0, :, 4:-4] + shift, atol=1e-3)


def test_cues_show_change_and_disagreement() -> None:
    frames = [np.full((48, 64), level, np.float32) for level in (100.0, 110.0, 110.0)]
    broken = Motion(constant(0.5).forward, constant(0.0).backward)
    cues = TemporalInputBuilder()(frames, [constant(0.0), broken], (0.5, 1.0, 2.0)).cues
    difference, gap = (cues[:, CUES.index(name)] for name in ("difference", "gap"))
    np.testing.assert_allclose(difference[0], 10 * 5 / 127.5, atol=1e-4)
    # An observed frame is held against the one before it.
    np.testing.assert_allclose(difference[1], 10 * 5 / 127.5, atol=1e-4)
    np.testing.assert_allclose(difference[2], 0.0, atol=1e-4)
    assert gap[0].max() == 0
    np.testing.assert_allclose(gap[2], 0.5, atol=1e-3)


def test_encoding() -> None:
    frame = view(0.0)[1]
    level, contrast = TemporalInputBuilder().encode(frame)
    np.testing.assert_allclose(level, frame / 127.5 - 1, atol=1e-6)
    # A change of the whole picture does not show in the contrast.
    np.testing.assert_allclose(TemporalInputBuilder().encode(frame + 20)[1], contrast, atol=1e-4)


def test_to_levels() -> None:
    np.testing.assert_allclose(to_levels(np.float32([100.0]), np.float32([0.1])), [112.75])


def test_what_cannot_be_is_refused() -> None:
    frame = np.zeros((48, 64), np.float32)
    build = TemporalInputBuilder()
    with pytest.raises(ValueError, match="one motion fewer"):
        build([frame, frame], [], (0.5,))
    with pytest.raises(ValueError, match="even sides"):
        build([frame[:47]] * 2, [constant(0.0)], (0.5,))
    with pytest.raises(ValueError, match="one size"):
        build([frame[:32], frame[:32]], [constant(0.0)], (0.5,))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        build([frame, frame], [constant(0.0)], (1.5,))
    with pytest.raises(ValueError, match="scale"):
        TemporalInputBuilder(scale=3)
