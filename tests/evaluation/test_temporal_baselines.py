"""Interpolation baselines: a blend is a mean; flow finds the middle of what moves, and borders survive."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.test_temporal_clips import panned
from thermal_enhance.evaluation.temporal_baselines import enlarge, flow_interpolation, linear_blend
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.metrics.image import psnr


def low(step: int, frames: int = 3):
    return [area_down(frame, 4) for frame in panned(step, frames)]


def test_a_blend_is_the_mean_of_both_enlarged():
    before, _, after = low(8)
    assert np.allclose(linear_blend(before, after, 4), (enlarge(before, 4) + enlarge(after, 4)) / 2)


@pytest.mark.parametrize("step", [4, 8])
def test_flow_finds_the_middle_of_a_pan_where_a_blend_shows_it_twice(step):
    before, between, after = low(step)
    inner = np.s_[24:-24, 24:-24]
    truth = enlarge(between, 4)[inner]
    flow, blend = (psnr(f(before, after, 4)[inner], truth, 255.0) for f in (flow_interpolation, linear_blend))
    assert flow > 38 and flow > blend + 5


def test_times_are_reached_from_either_side():
    before, _, after = low(8)
    near, far = (flow_interpolation(before, after, 4, time) for time in (0.02, 0.98))
    # A pixel that both frames show comes from the nearer one, moved by 2 % of the way.
    for made, own, other in ((near, before, after), (far, after, before)):
        gap = np.abs(made - enlarge(own, 4))[24:-24, 24:-24].mean()
        assert gap < 0.1 * np.abs(made - enlarge(other, 4))[24:-24, 24:-24].mean()


def test_what_stands_still_is_left_alone():
    (frame, _, _) = low(0)
    assert np.abs(flow_interpolation(frame, frame, 4) - enlarge(frame, 4)).max() < 0.01
