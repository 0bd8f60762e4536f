"""Stamps of the frames to make, and the envelope that their values stay in."""

import itertools

import numpy as np
import pytest

from thermal_enhance.enhancers.temporal_output import (
    MAX_BETWEEN,
    MAX_REACH_PX,
    bound_by_neighbours,
    reach,
    stamps_between,
)
from thermal_enhance.imaging.motion import Motion

T0 = 1_700_000_000_123_456_789


def test_the_middle_is_exact_to_the_nanosecond():
    assert stamps_between(T0, T0 + 111_111_111) == ((2 * T0 + 111_111_111) // 2,)
    assert stamps_between(T0, T0 + 1) == () and stamps_between(T0, T0) == ()


@pytest.mark.parametrize("fps", [10.0, 18.0, 25.0, 29.97, 30.0, 60.0, 0.5])
def test_a_grid_is_the_same_wherever_it_is_looked_at(fps):
    rng = np.random.default_rng(0)
    stamps = T0 + np.cumsum(rng.integers(20_000_000, 120_000_000, 400))
    grid = [s for a, b in itertools.pairwise(stamps) for s in stamps_between(int(a), int(b), fps)]
    steps = np.diff(grid)
    assert np.abs(steps - 1e9 / fps).max() <= 1.0
    assert len(grid) == pytest.approx((stamps[-1] - stamps[0]) * 1e-9 * fps, abs=1.5)


def test_a_grid_that_is_too_fine_is_thinned_evenly():
    found = stamps_between(T0, T0 + 1_000_000_000, 240.0)
    assert len(found) == MAX_BETWEEN
    steps = np.diff([T0, *found, T0 + 1_000_000_000])
    assert steps[1:-1].max() - steps[1:-1].min() < 5e6 and steps[0] < 1e8 and steps[-1] < 1e8


def test_a_stamp_on_a_frame_is_that_frame():
    assert stamps_between(1_000_000_000, 1_200_000_000, 10.0) == (1_100_000_000,)


def test_reach_is_how_far_things_move():
    motion = Motion.none(40, 60)
    assert reach(motion) == 0
    motion.backward[10:30, 10:30] = (3.0, -4.0)
    assert reach(motion) == 5
    motion.forward[0, 0] = 50.0
    assert reach(motion) == 5
    motion.forward[:] = 100.0
    assert reach(motion) == MAX_REACH_PX


def test_an_edge_may_move_but_nothing_new_may_appear():
    before = np.zeros((32, 64), np.float32)
    before[:, 32:] = 100.0
    after = np.roll(before, 16, axis=1)
    after[:, :16] = 0.0
    middle = np.roll(before, 8, axis=1)
    middle[:, :8] = 0.0
    assert np.array_equal(bound_by_neighbours(middle.copy(), before, after, 4, 4), middle)
    middle[2, 3] = 70.0  # a hot spot far from the edge
    middle[20, 60] = 170.0
    made = bound_by_neighbours(middle.copy(), before, after, 4, 1)
    assert made[2, 3] == 0.0 and made[20, 60] == 100.0


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_whatever_comes_in_what_leaves_lies_in_the_envelope(scale):
    rng = np.random.default_rng(scale)
    a, b = (rng.normal(20, 5, (24, 40)).astype(np.float32) for _ in range(2))
    made = bound_by_neighbours(rng.normal(20, 50, (24, 40)).astype(np.float32), a, b, scale, 0)
    for y in range(24):
        for x in range(40):
            rows = slice(max(0, (y // scale - 1) * scale), (y // scale + 2) * scale)
            columns = slice(max(0, (x // scale - 1) * scale), (x // scale + 2) * scale)
            around = np.concatenate([a[rows, columns].ravel(), b[rows, columns].ravel()])
            assert around.min() <= made[y, x] <= around.max()


def test_holes_bound_nothing_and_stay_where_both_have_them():
    a, b = np.full((8, 8), 10.0, np.float32), np.full((8, 8), 12.0, np.float32)
    a[:4, :4] = np.nan
    made = bound_by_neighbours(np.full((8, 8), 30.0, np.float32), a, b, 4, 0)
    assert np.array_equal(made, np.full((8, 8), 12.0))
    b[:4, :4] = np.nan
    made = bound_by_neighbours(np.full((8, 8), 30.0, np.float32), a, b, 4, 0)
    assert np.isnan(made[:4, :4]).all() and (made[4:] == 12.0).all()
    nothing = np.full((8, 8), np.nan, np.float32)
    assert np.isnan(bound_by_neighbours(np.ones((8, 8), np.float32), nothing, nothing, 4, 0)).all()
