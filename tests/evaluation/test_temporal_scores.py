"""Scores of temporal methods: which frames count, what flicker and warp error are held against."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.evaluation.test_temporal_clips import panned, scene
from thermal_enhance.evaluation import temporal_methods as methods
from thermal_enhance.evaluation.temporal_clips import TemporalClip
from thermal_enhance.evaluation.temporal_scores import MissingFrame, Scores, measure


def clip_of(step: int, frames: int = 13, noise: float = 0.0) -> TemporalClip:
    return TemporalClip.of(
        f"step{step}", "synthetic", panned(step, frames), 4, noise, np.random.default_rng(0)
    )


def perfect(clip: TemporalClip) -> methods.Made:
    return methods.Made(dict(enumerate(clip.truth[::2])), dict(enumerate(clip.truth[1::2])))


def without_warm_up(count: int):
    def make(clip: TemporalClip) -> methods.Made:
        made = perfect(clip)
        return methods.Made(
            {i: p for i, p in made.observed.items() if i >= count},
            {i: p for i, p in made.new.items() if i >= count - 1},
        )

    return make


def table(rows):
    return {(row.method, row.frames): row for row in rows}


def test_baselines_come_by_themselves_and_stand_once():
    found = table(measure([clip_of(2)], {"perfect": perfect}))
    assert set(found) == {
        ("input", "observed"), ("truth", "observed"), ("truth", "new"), (methods.BICUBIC, "observed"),
        (methods.BLEND, "new"), (methods.FLOW, "new"), ("perfect", "observed"), ("perfect", "new"),
    }  # fmt: skip
    # Seven shown frames: three for warming up, and a new one before each that counts.
    assert {row.count for key, row in found.items() if key[0] not in ("input", "truth")} == {4}
    assert found["perfect", "new"].psnr == 60.0 and found["perfect", "observed"].ssim == pytest.approx(1.0)
    assert found[methods.FLOW, "new"].psnr > found[methods.BLEND, "new"].psnr + 1
    assert found["perfect", "new"].warp_error == found["truth", "new"].warp_error
    assert found[methods.BLEND, "new"].warp_error > 2 * found["truth", "new"].warp_error
    assert all(math.isnan(row.flicker) for row in found.values())  # what is static in a pan?


def test_frames_of_the_warm_up_count_for_nobody():
    late = without_warm_up(3)
    found = table(measure([clip_of(2)], {"late": late}))
    assert found["late", "new"].count == 4
    with pytest.raises(MissingFrame, match="made no observed frame 2"):
        measure([clip_of(2)], {"late": late}, warm_up=2)
    with pytest.raises(MissingFrame, match="made no new frame 2"):
        measure([clip_of(2)], {"late": lambda clip: methods.Made(perfect(clip).observed, {3: clip.truth[7]})})
    with pytest.raises(ValueError, match="too few"):
        measure([clip_of(2, 7)], {})
    assert {r.count for r in measure([clip_of(2)], {}, trailing=1) if r.count} == {3}


def test_a_method_in_space_alone_has_no_new_frames():
    found = table(measure([clip_of(2)], {"space": lambda clip: methods.Made(perfect(clip).observed)}))
    assert ("space", "observed") in found and ("space", "new") not in found


def test_flicker_compares_block_means_with_the_inputs_pixels():
    found = table(measure([clip_of(0, 25, noise=2.0)], {"perfect": perfect}))
    assert found["input", "observed"].flicker == pytest.approx(2.0, rel=0.3)
    assert found["perfect", "observed"].flicker == found["perfect", "observed"].flicker_fine == 0.0
    bicubic = found[methods.BICUBIC, "observed"]
    assert bicubic.flicker_fine == found["input", "observed"].flicker_fine > 0
    assert found[methods.BLEND, "new"].flicker < bicubic.flicker  # means of two frames between


def test_every_clip_is_shown_with_what_was_made_of_it():
    seen = []
    measure([clip_of(0)], {"perfect": perfect}, watch=lambda clip, made: seen.append((clip.name, set(made))))
    assert seen == [("step0", {methods.BLEND, methods.FLOW, "perfect"})]


def test_gains_are_taken_clip_by_clip():
    rows = measure([clip_of(0), clip_of(2)], {"perfect": perfect})
    scores = Scores(rows)
    gains = scores.gains("synthetic", "new", "perfect", methods.FLOW, "moving")
    flow = scores.of("synthetic", methods.FLOW, "new")["step2"].psnr
    assert gains == {"step2": pytest.approx(60.0 - flow)}
    assert scores.groups("synthetic") == ["static", "moving"] and scores.sets() == ["synthetic"]
    assert scores.methods("new") == [methods.BLEND, methods.FLOW, "perfect"]
    assert math.isnan(scores.mean("synthetic", "nobody", "new", "", "psnr"))


def test_the_base_is_bicubic_where_it_was_shown_and_follows_motion_between():
    found = table(measure([clip_of(2)], {methods.BASE: methods.input_base()}))
    assert found[methods.BASE, "observed"].psnr == found[methods.BICUBIC, "observed"].psnr
    assert found[methods.BASE, "new"].psnr > found[methods.BLEND, "new"].psnr + 1


def test_output_is_ordered_in_time():
    a, b, c = (scene()[:16, i : i + 16] for i in range(3))
    assert [id(p) for p in methods.interleaved([a, c], [b])] == [id(a), id(b), id(c)]
    with pytest.raises(ValueError, match="do not lie between"):
        methods.interleaved([a, c], [])
