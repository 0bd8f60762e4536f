"""Windows of video for the temporal model: seeded, in order of time, alike in all frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")

from thermal_enhance.enhancers.temporal_input import TemporalInputBuilder
from thermal_enhance.imaging.motion import MotionConfig
from thermal_enhance.simulation.low_resolution import LowResolutionConfig
from thermal_enhance.simulation.moving_clips import MovingClipConfig
from thermal_enhance.training.clips import (
    ClipSampler,
    WindowConfig,
    WindowSampler,
    degrade,
    load_clips,
)
from thermal_enhance.training.footage import Clip, DataError, Source
from thermal_enhance.training.recipe import DataConfig, SourceConfig

PLAIN = LowResolutionConfig.plain()


def data(**change: object) -> DataConfig:
    return DataConfig((SourceConfig("x"),), crop=64, **change)  # type: ignore[arg-type]


def film(frames: int = 16, size: tuple[int, int] = (80, 96)) -> Clip:
    """A clip whose level is ten times the number of the frame, under a ramp to the right."""
    ramp = np.tile(np.arange(size[1], dtype=np.uint8) // 8, (size[0], 1))
    return Clip("film", [ramp + np.uint8(10 * i) for i in range(frames)])


def still(seed: int) -> Clip:
    image = cv2.GaussianBlur(np.random.default_rng(seed).random((120, 140)).astype(np.float32), (0, 0), 2)
    return Clip(f"still{seed}", [cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)])


def windows(clips: list[Clip], *, window: int = 3, seed: int = 0, **change: object) -> WindowSampler:
    upright = data(flip=False, rotate=False)
    return WindowSampler([Source("x", 1.0, clips)], upright, WindowConfig(**change), window, 2, seed)  # type: ignore[arg-type]


def sampler(clips: list[Clip], low: LowResolutionConfig = PLAIN, **change: object) -> ClipSampler:
    return ClipSampler(windows(clips, **change), low, TemporalInputBuilder(), MotionConfig())


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    clips = [film(), still(1), still(2)]
    first, again = (sampler(clips, LowResolutionConfig()).batch(5) for _ in range(2))
    for name, tensor in first.items():
        # But for rounding: OpenCV takes other paths for other alignments of memory.
        torch.testing.assert_close(tensor, again[name], atol=1e-5, rtol=0)
    assert not torch.equal(first["truth"], sampler(clips, LowResolutionConfig()).batch(6)["truth"])
    assert not torch.equal(first["truth"], sampler(clips, LowResolutionConfig(), seed=1).batch(5)["truth"])


def test_shapes_are_the_networks() -> None:
    batch = sampler([film(), still(1)]).batch(0)
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    assert shapes == {
        "frames": (2, 3, 2, 16, 16),
        "grid": (2, 2, 3, 8, 8, 2),
        "tau": (2, 2),
        "cues": (2, 2, 4, 16, 16),
        "base": (2, 2, 1, 64, 64),
        "truth": (2, 2, 1, 64, 64),
        "low": (2, 1, 16, 16),
        "exact": (2,),
        "previous": (2, 1, 64, 64),
        "even": (2,),
    }
    assert all(tensor.dtype == torch.float32 for tensor in batch.values())


@pytest.mark.parametrize("spacing", [2, 4])
@pytest.mark.parametrize("look_ahead", [0.0, 1.0])
def test_truths_are_at_their_times(spacing: int, look_ahead: float) -> None:
    sampler = windows(
        [film()], spacings=(spacing,), spacing_weights=(1.0,), look_ahead=look_ahead, any_time=0.5
    )
    for step in range(8):
        for window in sampler.batch(sampler.rng(step)):
            # The level tells the frame.
            levels = [float(frame.min()) for frame in window.inputs]
            assert np.ptp(np.diff(levels)) == 0 and levels[1] - levels[0] == 10 * spacing
            for truth, tau in zip(window.truths, window.taus):
                assert float(truth.min()) - levels[0] == pytest.approx(10 * spacing * tau, abs=1e-3)
            assert window.taus[1] == 2 - look_ahead
            assert window.taus[1] - 1 < window.taus[0] < window.taus[1]
            assert float(window.previous.min()) == levels[int(window.taus[1]) - 1]
            assert window.even == (window.taus[0] == window.taus[1] - 0.5)


def test_time_runs_backwards_only_when_allowed() -> None:
    for reverse in (False, True):
        sampler = windows([film()], reverse=reverse)
        drawn = [w for step in range(10) for w in sampler.batch(sampler.rng(step))]
        assert any(w.inputs[0].min() > w.inputs[-1].min() for w in drawn) == reverse


def test_a_window_is_cut_and_turned_alike() -> None:
    turned = WindowSampler([Source("x", 1.0, [film()])], data(zoom_max=1.2), WindowConfig(), 3, 4, 0)
    for step in range(4):
        for window in turned.batch(turned.rng(step)):
            first = window.inputs[0] - window.inputs[0].min()
            for frame in (*window.inputs, *window.truths):
                assert frame.shape == (64, 64)
                np.testing.assert_allclose(frame - frame.min(), first, atol=1e-3)


def test_stills_and_short_clips_are_made_to_move() -> None:
    for clip in (still(1), film(2)):
        moving = windows([clip], moving=MovingClipConfig(static_probability=0.0, ramp_probability=0.0))
        drawn = [w for step in range(3) for w in moving.batch(moving.rng(step))]
        assert all(np.abs(w.inputs[0] - w.inputs[-1]).mean() > 0.01 for w in drawn)


def test_sixteen_bit_stills_keep_their_levels() -> None:
    fine = still(1)
    fine.thermal[0] = fine.thermal[0].astype(np.uint16) * 256
    plain = windows([still(1)])
    deep = windows([fine])
    for one, other in zip(plain.batch(plain.rng(0)), deep.batch(deep.rng(0))):
        np.testing.assert_allclose(one.inputs[0], other.inputs[0], atol=0.05)


def test_a_clips_pattern_stays_and_its_noise_does_not() -> None:
    frames = [np.full((64, 64), 100.0, np.float32)] * 40
    rng = np.random.default_rng(0)
    low = LowResolutionConfig(
        area=1.0, psf_area=0.0, bicubic=0.0, aliased=0.0,
        netd=(4 / 255, 4 / 255), fixed_pattern=(6 / 255, 6 / 255), quantise=False,
    )  # fmt: skip
    noisy = np.stack(degrade(frames, 4, rng, low))
    pattern = noisy.mean(axis=0)
    assert pattern.std() == pytest.approx(np.hypot(6, 6), rel=0.35)
    assert (noisy - pattern).std() == pytest.approx(4.0, rel=0.1)


def test_one_kernel_a_clip() -> None:
    frame = film().thermal[0].astype(np.float32)
    low = LowResolutionConfig(noise_probability=0.0)
    for seed in range(6):
        made = degrade([frame] * 3, 4, np.random.default_rng(seed), low)
        np.testing.assert_array_equal(made[0], made[1])
        np.testing.assert_array_equal(made[0], made[2])


def test_exact_is_what_block_means_are() -> None:
    assert sampler([still(1)]).batch(0)["exact"].tolist() == [1.0, 1.0]
    noisy = LowResolutionConfig(noise_probability=1.0, netd=(0.02, 0.02))
    assert sampler([still(1)], noisy).batch(0)["exact"].tolist() == [0.0, 0.0]


def test_consecutive_frames_are_loaded(pack: Path) -> None:
    chosen = DataConfig((SourceConfig("m3svd_lossless"), SourceConfig("msrs")), crop=64)
    notes: list[str] = []
    video, stills = load_clips(pack, chosen, clip_frames=4, note=notes.append)
    assert [int(frame[0, 0]) for frame in video.sequences[0].thermal] == [10, 30, 50, 70]
    assert not video.sequences[0].rgb
    assert all(len(clip.thermal) == 1 for clip in stills.sequences)
    assert len(notes) == 2
    with pytest.raises(DataError, match="crops of 96"):
        load_clips(pack, DataConfig((SourceConfig("msrs"),), crop=96))
    with pytest.raises(DataError, match="nothing"):
        load_clips(pack, DataConfig((SourceConfig("nothing"),), crop=64))


def test_what_cannot_be_is_refused() -> None:
    for bad in (
        {"spacings": (3,), "spacing_weights": (1.0,)},
        {"spacings": (2, 4), "spacing_weights": (1.0,)},
        {"look_ahead": 1.5},
        {"clip_frames": 0},
    ):
        with pytest.raises(ValueError, match=r"task\.windows"):
            WindowConfig(**bad)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="too short"):
        windows([film()], window=2)
