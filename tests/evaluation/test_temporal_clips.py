"""Validation clips: every other frame is shown, groups follow the motion, seeds give the same again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from thermal_enhance.evaluation.temporal_clips import TemporalClip, list_clips, measured_motion
from thermal_enhance.imaging.consistency import area_down


def scene(width: int = 256, height: int = 128):
    noise = np.random.default_rng(3).random((height, width)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.clip((field - field.min()) / np.ptp(field) * 255, 0, 255).astype(np.uint8)


def panned(step: int, frames: int, size: int = 128):
    return [np.ascontiguousarray(scene()[:, step * i : step * i + size]) for i in range(frames)]


def test_every_other_frame_is_shown_and_the_rest_is_truth():
    frames = panned(2, 6)
    clip = TemporalClip.of("a", "drone_ir", [frame[:, :126] for frame in frames], 4)
    assert len(clip.truth) == 5 and len(clip.low) == 3  # nothing comes after the sixth
    assert clip.truth[0].shape == (128, 124) and clip.low[0].shape == (32, 31)
    for index, low in enumerate(clip.low):
        assert np.array_equal(low, np.rint(area_down(clip.truth[2 * index], 4)))
    with pytest.raises(ValueError, match="at least three"):
        TemporalClip.of("a", "drone_ir", frames[:2], 4)


def test_motion_is_what_edges_travel_between_shown_frames():
    still = TemporalClip.of("a", "drone_ir", panned(0, 5), 4)
    moving = TemporalClip.of("b", "drone_ir", panned(2, 5), 4)
    assert (still.group, moving.group) == ("static", "moving")
    # Four pixels of the truth from one shown frame to the next.
    assert still.motion < 0.01 and moving.motion == pytest.approx(1.0, abs=0.2)
    assert measured_motion([np.full((32, 32), 7, np.uint8)] * 2) == 0.0


def test_a_pack_gives_real_and_synthetic_clips_seeded(tiny_pack):
    (real,) = list_clips(tiny_pack, ["m3svd_lossless"])
    assert real.name == "aval" and len(real.truth) == 5 and real.group == "moving"
    assert len(next(iter(list_clips(tiny_pack, ["m3svd_lossless"], limit=3))).truth) == 3
    assert not list(list_clips(tiny_pack, ["drone_ir"]))
    made = list(list_clips(tiny_pack, ["synthetic"], limit=5))
    again = list(list_clips(tiny_pack, ["synthetic"], limit=5))
    assert [c.name for c in made] == [f"moving/{i}" for i in range(16)] + [f"still/{i}" for i in range(8)]
    assert all(np.array_equal(a.low, b.low) for a, b in zip(made, again))
    groups = {kind: {c.group for c in made if c.name.startswith(kind)} for kind in ("moving", "still")}
    assert groups["moving"] == {"moving"} and "static" in groups["still"]
    # Nothing moves at all in every other one; what differs is the input's noise.
    still = next(c for c in made if c.name == "still/1")
    assert np.ptp(np.stack(still.truth).astype(int), axis=0).max() <= 8
    noise = np.diff([still.low[0].astype(int), still.low[1]], axis=0)
    assert 0.8 < noise.std() / np.sqrt(2) < 1.4
