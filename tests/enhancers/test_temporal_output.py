"""Stamps of the frames to make, and the envelope that their values stay in."""

import itertools

import numpy as np
import pytest

from thermal_enhance.enhancers.temporal_output import (
    MAX_BETWEEN,
    MAX_REACH_PX,
    bound_by_neighbours,
    hold_still_means,
    reach,
    stamps_between,
    stillness,
)
from thermal_enhance.imaging.consistency import area_down
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


def test_a_grid_that_falls_on_the_frames_does_not_repeat_them():
    """Three times 9 Hz: stamps are whole microseconds, and so never quite on the grid."""
    for before, after in itertools.pairwise(round(i * 1e6 / 9) * 1000 for i in range(40)):
        made = stamps_between(before, after, 27.0)
        assert len(made) == 2
        assert np.diff([before, *made, after]) / 1e6 == pytest.approx(1000 / 27, abs=0.01)
    assert stamps_between(999_999_000, 1_000_001_000, 1.0) == ()
    assert stamps_between(999_990_000, 1_000_010_000, 1.0) == (1_000_000_000,)


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


def test_a_place_is_still_while_nothing_moves_and_nothing_changes():
    rng = np.random.default_rng(2)
    before, after = (100 + rng.normal(0, 1, (24, 32)).astype(np.float32) for _ in range(2))
    motion = Motion.none(32, 32)  # padded below
    motion.forward[2:8, 2:8] = (0.5, 0.0)
    after[12:18, 20:28] += 30
    still = stillness(motion, before, after)
    assert still.shape == (24, 32) and still.min() >= 0 and still.max() <= 1
    assert still[3:7, 3:7].max() < 1e-6 and still[14:16, 22:26].max() < 1e-6
    assert np.median(still) > 0.9


def test_still_places_get_the_means_between_their_neighbours_and_moving_ones_keep_theirs():
    rng = np.random.default_rng(3)
    middle = rng.uniform(0, 100, (32, 40)).astype(np.float32)
    target = area_down(middle, 4) + rng.normal(0, 5, (8, 10)).astype(np.float32)
    still = np.ones((8, 10), np.float32)
    still[:, 6:] = 0
    held, before = middle.copy(), area_down(middle, 4)
    hold_still_means(held, target, still, 4)
    assert np.abs(area_down(held, 4) - target)[:, :6].max() < 1e-3
    # The smooth part reaches half a block beyond; what it does there stays small and ends.
    assert np.array_equal(held[:, 28:], middle[:, 28:])
    assert np.abs(area_down(held, 4) - before)[:, 7:].max() == 0
