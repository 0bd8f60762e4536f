"""Stills and their conditions: seeded one by one, on the grids they say."""

import cv2
import numpy as np
import pytest

from thermal_enhance.evaluation import stills
from thermal_enhance.imaging.consistency import area_down


def test_the_clip_has_every_frame_and_late_rgb_from_the_fourth_on(tiny_pack):
    found = stills.list_stills(tiny_pack, "m3svd_clip")
    assert [still.name for still in found] == [f"m3svd_lossless/aval/{i:04d}" for i in range(5)]
    assert [still.late is None for still in found] == [True, True, True, False, False]
    assert found[4].late == found[1].rgb
    assert [s.name for s in stills.list_stills(tiny_pack, "pbvsg")] == ["pbvsg_val0", "pbvsg_val1"]
    assert [s.name for s in stills.list_stills(tiny_pack, "pbvsg", split="train", ids=["pbvsg_train1"])] == [
        "pbvsg_train1"
    ]
    assert len(stills.list_stills(tiny_pack, "msrs", limit=1)) == 1


def test_conditions_do_not_depend_on_each_other(tiny_pack):
    still = stills.list_stills(tiny_pack, "pbvsg")[0]
    strangers = stills.list_strangers(tiny_pack)
    every = {v.condition: v for v in stills.views(still, strangers, 8, "area", [*stills.CONDITIONS, "none"])}
    assert set(every) == {*stills.CONDITIONS, *stills.CROP.values()} - {"late"}  # a picture has no past
    for name in ("misaligned", "perspective", "wrong", "dark"):
        (alone,) = stills.views(still, strangers, 8, "area", [name])
        np.testing.assert_array_equal(alone.color, every[name].color)
        assert alone.color.shape == (*alone.truth.shape, 3)
        assert not np.array_equal(alone.color, every["aligned"].color)
    assert every["dark"].color.mean() < 12
    assert every["none"].color is None


def test_a_wide_view_keeps_all_of_rgb_beside_the_middle_of_thermal(tiny_pack):
    still = stills.list_stills(tiny_pack, "road")[0]
    found = {v.condition: v for v in stills.views(still, [], 8, "area", ["wide_fov"])}
    wide, aligned = found["wide_fov"], found["crop_aligned"]
    assert wide.truth.shape == (int(128 / 1.21 / 8) * 8, int(160 / 1.62 / 8) * 8)
    assert wide.color.shape == (128, 160, 3) and aligned.color.shape == (*wide.truth.shape, 3)
    assert found["crop_none"].color is None
    # The inverse RGB of this pack tells whether the crop is the same part of the scene.
    np.testing.assert_array_equal(aligned.color[..., 0], 255 - aligned.truth)


@pytest.mark.parametrize("sampling", stills.SAMPLINGS)
def test_inputs_are_made_as_named(tiny_pack, sampling):
    still = stills.list_stills(tiny_pack, "pbvsg")[0]
    truth, _ = stills.read(still, 8)
    low = stills.reduce(truth, 8, sampling)
    if sampling == "area":
        assert np.abs(low - area_down(truth, 8)).max() <= 0.5
    else:
        np.testing.assert_array_equal(low, cv2.resize(truth, (20, 16), interpolation=cv2.INTER_CUBIC))
    with pytest.raises(ValueError, match="sampling must be one of area, challenge"):
        stills.reduce(truth, 8, "nearest")


def test_wrong_rgb_is_of_another_scene_or_refused(tiny_pack):
    still = stills.list_stills(tiny_pack, "pbvsg")[0]
    with pytest.raises(ValueError, match="no RGB of another scene"):
        list(stills.views(still, [still], 8, "area", ["wrong"]))
