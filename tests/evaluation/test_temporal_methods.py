"""A temporal model through its real enhancer: frames are sorted by their stamps."""

from __future__ import annotations

import numpy as np
import pytest

from tests.enhancers.models import TemporalStore
from tests.evaluation.test_temporal_scores import clip_of
from thermal_enhance.enhancers.learned import ModelUnavailableError
from thermal_enhance.evaluation import temporal_methods as methods
from thermal_enhance.evaluation.temporal_scores import measure


@pytest.mark.parametrize("look_ahead", [0, 1])
def test_frames_land_where_their_stamps_say(tmp_path, look_ahead):
    store = TemporalStore(tmp_path, (32, 32))
    store.strength = 0.0
    make = methods.temporal(store, "numpy", look_ahead=look_ahead)
    clip = clip_of(2)
    made, base = make(clip), methods.input_base()(clip)
    last = len(clip.low) - 1 - look_ahead
    assert max(made.observed) == last and max(made.new) == last - 1
    # A network that adds nothing leaves the base, but for consistency with the input and the envelope.
    for index in range(2, last):
        for mine, theirs in ((made.observed, base.observed), (made.new, base.new)):
            assert np.abs(mine[index].astype(int) - theirs[index]).mean() < 1.5
    rows = measure([clip], {"numpy": make}, trailing=look_ahead)
    assert {row.count for row in rows if row.method == "numpy"} == {4 - look_ahead}


def test_frames_that_stand_still_are_frames(tmp_path):
    made = methods.temporal(TemporalStore(tmp_path, (32, 32)), "numpy")(clip_of(0))
    assert set(made.new) >= set(range(2, 6))


def test_a_model_that_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(ModelUnavailableError, match="nothing"):
        methods.temporal(TemporalStore(tmp_path), "nothing")
