"""Crops: aligned, seeded, and from the training split alone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from thermal_enhance.training.datasets import CropSampler, DataError, load_item, load_sources
from thermal_enhance.training.manifest import read_pack, select
from thermal_enhance.training.recipe import DataConfig, SourceConfig


def config(*names, **change):
    return DataConfig(tuple(SourceConfig(name) for name in names), **{"crop": 32, "margin": 8, **change})


def sampler(pack, data, batch=4, seed=0):
    return CropSampler(load_sources(pack, data), data, batch, seed)


def test_a_batch_is_a_function_of_seed_and_step(pack):
    data = config("msrs", "pbvsg", "tisr", zoom_max=2.0)
    one, two = sampler(pack, data), sampler(pack, data)
    for _ in range(3):
        two.batch(5)
    for a, b in zip(one.batch(7), two.batch(7)):
        assert a["id"] == b["id"]
        np.testing.assert_array_equal(a["hr"], b["hr"])
    assert any(
        not np.array_equal(a["hr"], b["hr"])
        for other in (sampler(pack, data, seed=1).batch(7), one.batch(8))
        for a, b in zip(one.batch(7), other)
    )


@pytest.mark.parametrize("zoom", [1.0, 1.9])
def test_views_get_the_same_crop_flip_and_turn(pack, zoom):
    # The RGB of the tiny pack shows the thermal itself in its red channel.
    batches = sampler(pack, config("msrs", "pbvsg", zoom_max=zoom), batch=24)
    for sample in batches.batch(0):
        assert sample["hr"].shape == (32, 32) and sample["hr"].dtype == np.float32
        assert sample["rgb"].shape == (32, 32, 3) and sample["rgb"].dtype == np.uint8
        assert sample["rgb_context"].shape == (48, 48, 3)
        np.testing.assert_array_equal(sample["rgb_context"][8:-8, 8:-8], sample["rgb"])
        difference = np.abs(sample["rgb"][..., 0] - sample["hr"])
        assert difference.max() <= (0 if zoom == 1 else 2.5)
        assert sample["rgb"][..., 2].min() == sample["rgb"][..., 2].max() == 40


def test_without_augmentation_crops_are_parts_of_the_picture(pack):
    data = config("tisr", flip=False, rotate=False)
    whole = cv2.imread(str(pack / "thermal_sr/train/pbvs_1.png"), 0).astype(np.float32)
    for sample in sampler(pack, data).batch(0):
        assert sample["rgb"] is None and sample["rgb_context"] is None
        scores = cv2.matchTemplate(whole, sample["hr"], cv2.TM_SQDIFF)
        assert scores.min() <= 1e-6 * whole.size * 255**2


def test_augmentation_turns_and_mirrors(pack):
    data = config("pbvsg", crop=64)
    found = {sample["hr"].tobytes() for step in range(6) for sample in sampler(pack, data).batch(step)}
    plain = config("pbvsg", crop=64, flip=False, rotate=False)
    few = {
        sample["rgb"][0, :, 0].tobytes() for step in range(6) for sample in sampler(pack, plain).batch(step)
    }
    assert len(found) > 12 and len(few) <= 24


def test_small_pictures_are_mirrored_out_and_tiny_ones_left_out(pack):
    notes = []
    data = config("msrs", crop=128)
    batches = CropSampler(load_sources(pack, data, note=notes.append), data, 4, 0)
    sample = batches.batch(0)[0]
    assert sample["hr"].shape == (128, 128)
    difference = np.abs(sample["rgb"][..., 0] - sample["hr"])
    assert difference.max() == 0
    assert notes[0].startswith("msrs: 2 pictures of 2 items (2 with RGB)")
    with pytest.raises(DataError, match="msrs has no train item for crops of 160"):
        load_sources(pack, config("msrs", crop=160))


def test_only_training_items_are_drawn(pack):
    names = ("msrs", "pbvsg", "m3svd", "tisr", "m3svd_lossless", "lepton")
    allowed = {item.id for item in select(read_pack(pack), "train")}
    batches = sampler(pack, config(*names), batch=16)
    drawn = {sample["id"] for step in range(20) for sample in batches.batch(step)}
    assert drawn == allowed


def test_weights_decide_how_often(pack):
    data = DataConfig((SourceConfig("msrs", 3.0), SourceConfig("tisr", 1.0)), crop=32, margin=0)
    drawn = [s["id"] for step in range(50) for s in sampler(pack, data).batch(step)]
    share = sum(name.startswith("msrs") for name in drawn) / len(drawn)
    assert 0.65 < share < 0.85


def test_clips_can_come_out_of_step(pack):
    late = config("m3svd_lossless", desync_frames=3, desync_probability=1.0)
    shifts = {
        round((float(s["rgb"][0, 0, 0]) - float(s["hr"][0, 0])) / 20)
        for step in range(20)
        for s in sampler(pack, late).batch(step)
    }
    assert shifts == {-3, -2, -1, 0, 1, 2, 3}
    for sample in sampler(pack, config("m3svd_lossless")).batch(0):
        assert sample["rgb"][0, 0, 0] == sample["hr"][0, 0]


def test_strides_limits_and_names_narrow_a_source(pack):
    def count(**change):
        entry = SourceConfig(change.pop("dataset"), **change)
        return len(load_sources(pack, DataConfig((entry,), crop=32))[0].frames)

    assert count(dataset="m3svd_lossless") == 6
    assert count(dataset="m3svd_lossless", stride=4) == 2
    assert count(dataset="msrs", limit=1) == 1
    assert count(dataset="msrs", ids=("msrs_00001",)) == 1
    bare = load_sources(pack, DataConfig((SourceConfig("msrs", use_rgb=False),), crop=32))
    assert not bare[0].sequences[0].rgb


def test_a_stride_keeps_rgb_and_thermal_together(pack):
    item = next(i for i in read_pack(pack) if i.id == "m3svd_lossless/a")
    for whole in (False, True):
        clip = load_item(item, stride=2, all_rgb=whole)
        assert len(clip.thermal) == 3 and len(clip.rgb) == (6 if whole else 3)
        for thermal, index in zip(clip.thermal, clip.rgb_index):
            assert clip.rgb[index][0, 0, 0] == thermal[0, 0]


def test_sixteen_bit_clips_share_one_range(pack):
    item = next(i for i in read_pack(pack) if i.bits == 16)
    clip = load_item(item)
    first, second = (frame / 256 for frame in clip.thermal)
    assert first.dtype == float and 0 <= first.min() < 5 and 250 < second.max() <= 255
    inside = (first > 1) & (second < 254)
    step = (second - first)[inside]
    assert step.std() < 0.01 and step.mean() > 5, "a clip-wide range keeps the difference between frames"


def test_compressed_video_is_halved(pack, tmp_path):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (96, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write mp4")
    for level in (50, 100, 150):
        writer.write(np.full((64, 96, 3), level, np.uint8))
    writer.release()
    item = replace(read_pack(pack)[0], thermal=path, rgb=path, frames=2, halve=True)
    clip = load_item(item)
    assert [frame.shape for frame in clip.thermal] == [(32, 48)] * 2
    assert clip.rgb[1].shape == (32, 48, 3)
    assert abs(int(clip.thermal[1][10, 10]) - 100) < 4


def test_what_is_missing_is_named(pack, tmp_path):
    item = replace(read_pack(pack)[0], thermal=tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"msrs_00000: .*gone\.png"):
        load_item(item)
    with pytest.raises(DataError, match=r"data.sources: unknown data set nope; known: .*msrs"):
        load_sources(pack, config("nope"))
    with pytest.raises(DataError, match="msrs has no train item under mit"):
        load_sources(pack, config("msrs", licences=("mit",)))
    other = replace(read_pack(pack)[0], rgb=tmp_path / "small.png")
    cv2.imwrite(str(other.rgb), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="RGB of"):
        load_item(other)


@pytest.mark.shared_data
def test_real_pairs_load(shared_data):
    data = DataConfig((SourceConfig("pbvsg", limit=3), SourceConfig("road", limit=3)))
    for sample in sampler(shared_data, data, batch=8).batch(0):
        assert sample["hr"].shape == (256, 256) and sample["rgb_context"].shape == (384, 384, 3)
