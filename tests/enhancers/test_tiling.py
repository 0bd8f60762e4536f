"""Tiles: they cover any picture, their shares sum to 1, and what is local comes out as from one run."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.enhancers.tiling import OVERLAP, pad, plan_tiles, run_tiled

SHIPPED = [(256, 256), (512, 512), (640, 480), (640, 512)]
sides = st.integers(1, 1500)


@settings(max_examples=80, deadline=None)
@given(width=sides, height=sides, profile=st.sampled_from([*SHIPPED, (128, 96)]))
def test_shares_sum_to_one_and_neighbours_overlap(width, height, profile):
    plan = plan_tiles((width, height), [profile])
    for axis, length, tile in ((plan.x, width, profile[0]), (plan.y, height, profile[1])):
        assert axis.starts[0] == 0 and axis.padded >= length
        # Never more than a step of padding once there are several tiles.
        assert len(axis.starts) == 1 or axis.padded - length < 32
        assert all(start % 32 == 0 for start in axis.starts)
        assert all(after - before <= tile - OVERLAP for before, after in zip(axis.starts, axis.starts[1:]))
        total = np.zeros(axis.padded)
        for start, weights in zip(axis.starts, axis.weights()):
            assert weights.shape == (tile,) and weights.min() >= 0
            total[start : start + tile] += weights
        np.testing.assert_allclose(total, 1.0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 420), height=st.integers(1, 330), seed=st.integers(0, 9))
def test_the_identity_comes_out_as_it_went_in(width, height, seed):
    picture = np.random.default_rng(seed).normal(size=(3, height, width)).astype(np.float32)
    plan = plan_tiles((width, height), [(160, 128)])
    seen = []

    def run(tile):
        seen.append(tile["a"].shape)
        return tile["a"][1]

    made = run_tiled(plan, {"a": picture}, run)
    assert set(seen) == {(3, 128, 160)} and len(seen) == plan.tiles
    assert made.shape == (height, width)
    np.testing.assert_allclose(made, picture[1], atol=1e-5)


def test_a_local_filter_has_no_seams():
    """Tiles differ near their borders, where the filter sees padding; blending hides that."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.normal(size=(500, 700)).astype(np.float32), (0, 0), 3) * 200

    def run(tile):
        return cv2.GaussianBlur(tile["a"][0], (0, 0), 4, borderType=cv2.BORDER_CONSTANT)

    plan = plan_tiles((700, 500), [(256, 256)])
    assert plan.tiles > 1
    made = run_tiled(plan, {"a": picture[None]}, run)
    whole = run({"a": picture[None]})
    inner = (slice(0, 480), slice(0, 680))  # beyond, the filter sees the picture's own padding
    assert np.abs(made - whole)[inner].max() < 0.35
    assert np.abs(whole).max() > 20


@pytest.mark.parametrize(
    ("size", "profile", "tiles"),
    [
        ((512, 512), (512, 512), 1),
        ((640, 480), (640, 480), 1),
        ((640, 512), (640, 512), 1),
        ((320, 240), (256, 256), 2),
        ((100, 50), (256, 256), 1),
        ((600, 470), (640, 480), 1),
    ],
)
def test_the_cheapest_profile_is_taken(size, profile, tiles):
    plan = plan_tiles(size, SHIPPED)
    assert (plan.profile, plan.tiles) == (profile, tiles)
    assert plan.pixels == tiles * profile[0] * profile[1]


def test_padding_mirrors_where_it_can():
    picture = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    assert pad(picture, 6, 1) is picture
    np.testing.assert_array_equal(pad(np.repeat(picture, 4, axis=1), 8, 4)[0, 0], [0, 1, 2, 3, 4, 5, 4, 3])
    np.testing.assert_array_equal(pad(picture, 8, 2)[0], [[0, 1, 2, 3, 4, 5, 5, 5]] * 2)


def test_what_cannot_be_planned_is_told():
    with pytest.raises(ValueError, match="profiles"):
        plan_tiles((10, 10), [])
    with pytest.raises(ValueError, match="pixels"):
        plan_tiles((0, 10), SHIPPED)
    with pytest.raises(ValueError, match="cannot overlap"):
        plan_tiles((500, 10), [(64, 64)])
    # A small graph is no tile, but it serves small pictures.
    assert plan_tiles((50, 60), [(64, 64)]).tiles == 1
    assert plan_tiles((500, 500), [(64, 64), (256, 256)]).profile == (256, 256)
