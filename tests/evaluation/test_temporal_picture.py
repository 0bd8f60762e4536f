"""The montage: one row observed, one new; a column for each method; where the clip moves."""

from __future__ import annotations

import numpy as np

from tests.evaluation.test_temporal_scores import clip_of, perfect
from thermal_enhance.evaluation import temporal_methods as methods
from thermal_enhance.evaluation.temporal_picture import ENLARGED, Montage, montage


def test_a_row_each_for_observed_and_new_frames():
    clip = clip_of(2)
    made = {"perfect": perfect(clip), "space": methods.Made(perfect(clip).observed)}
    picture = montage(clip, made)
    height, width = picture.shape
    tile = (height // 2, width // 4)
    assert tile == (120 * ENLARGED + 20, 128 * ENLARGED + 2)  # the clip is narrower than a crop
    rows = picture.reshape(2, tile[0], 4, tile[1]).transpose(0, 2, 1, 3)
    body = np.s_[18:-2, :-2]
    for row in (0, 1):
        assert np.array_equal(rows[row, 1][body], rows[row, 3][body])  # perfect, and the truth
    assert not np.array_equal(rows[0, 3][body], rows[1, 3][body])
    assert rows[0, 2][body].any() and not rows[1, 2][body].any()  # in space alone: no new frame


def test_the_clip_that_moves_most_is_shown_or_the_one_named():
    still, moving = clip_of(0), clip_of(2)
    for name, wanted in (("", moving), ("synthetic step0", still)):
        keep = Montage(name)
        for clip in (still, moving, still):
            keep(clip, {"perfect": perfect(clip)})
        assert np.array_equal(keep.picture(), montage(wanted, {"perfect": perfect(wanted)}))
    assert Montage("nobody").picture() is None
