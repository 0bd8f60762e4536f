"""Manifests: terms, splits, and no validation picture in training."""

import json

import pytest

from thermal_enhance.training.manifest import (
    LICENCES,
    ManifestError,
    find_pack,
    licence_class,
    read_pack,
    select,
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("not stated in repo (MSRS/MFNet: research use)", "none-stated"),
        ("not stated in repo; derived from FLIR ADAS starter set", "none-stated"),
        ("MIT in Linfeng-Tang/M3SVD; none stated in VideoFusion", "mit"),
        ("MIT (M3SVD repo)", "mit"),
        ("MIT", "mit"),
        ("CC-BY-4.0", "cc-by"),
        ("CC BY 4.0", "cc-by"),
        ("CC0-1.0", "cc0"),
        ("GNU GENERAL PUBLIC LICENSE", "gpl"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE", "agpl"),
        ("Apache License", "apache"),
        ("CC-BY-NC-4.0", "none-stated"),
        ("", "none-stated"),
        ("permitted", "none-stated"),
    ],
)
def test_licences_are_classed(words, expected):
    assert licence_class(words) == expected


def test_items_of_every_kind(pack):
    items = {item.id: item for item in read_pack(pack)}
    assert len(items) == 11
    pair = items["m3svd_00005"]
    assert (pair.dataset, pair.licence_class, pair.frames) == ("m3svd", "mit", 1)
    assert pair.thermal.is_file() and pair.rgb.is_file()
    assert "without a licence" in pair.licence_note
    clip = items["m3svd_lossless/a"]
    assert (clip.dataset, clip.scene, clip.frames, clip.halve) == ("m3svd_lossless", "m3svd_a", 6, False)
    assert items["thermal16/lepton_x"].bits == 16
    assert items["pbvs_1"].rgb is None


def test_no_validation_picture_or_scene_in_training(pack):
    items = read_pack(pack)
    train, val = select(items, "train"), select(items, "val")
    assert all(item.split == "train" for item in train) and all(item.split == "val" for item in val)
    assert not {item.thermal for item in train} & {item.thermal for item in val}
    names = {item.id for item in train}
    assert "pbvs_1" in names
    assert "pbvs_2" not in names, "its scene is in the validation split of rgbt_pairs"
    assert "msrs_00000" in names, "msrs_day is a collection of scenes, not one"


def test_licences_and_data_sets_narrow(pack):
    items = read_pack(pack)
    open_ones = select(items, "train", licences=["mit", "cc-by", "cc0"])
    assert {item.id for item in open_ones} == {"m3svd_00005", "m3svd_lossless/a"}
    assert {i.dataset for i in select(items, "train", datasets=["msrs", "pbvsg"])} == {"msrs", "pbvsg"}
    with pytest.raises(ValueError, match=r"licence class bsd; known: .*mit"):
        select(items, "train", licences=["bsd"])
    with pytest.raises(ValueError, match=r"data set flir; known: .*msrs"):
        select(items, "train", datasets=["flir"])
    with pytest.raises(ValueError, match="split"):
        select(items, "test")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "manifest.jsonl:2"),
        ('{"id": "msrs_9", "split": "train"}', "no 'thermal'"),
        ('{"id": "msrs_9", "split": "dev", "thermal": "x", "source": "", "licence": ""}', "split must be"),
        (
            '{"id": "who_9", "split": "train", "thermal": "x", "source": "", "licence": ""}',
            "starts with none",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, reason):
    (tmp_path / "rgbt_pairs").mkdir()
    good = {"id": "msrs_1", "split": "train", "thermal": "t", "source": "s", "licence": "MIT"}
    (tmp_path / "rgbt_pairs" / "manifest.jsonl").write_text(json.dumps(good) + "\n" + line + "\n")
    with pytest.raises(ManifestError, match=reason):
        read_pack(tmp_path)


def test_no_pack_and_twice_the_same(tmp_path):
    with pytest.raises(ManifestError, match=r"no manifest\.jsonl"):
        read_pack(tmp_path)
    (tmp_path / "rgbt_pairs").mkdir()
    good = json.dumps({"id": "msrs_1", "split": "train", "thermal": "t", "source": "s", "licence": "MIT"})
    (tmp_path / "rgbt_pairs" / "manifest.jsonl").write_text(good + "\n" + good)
    with pytest.raises(ManifestError, match="msrs_1 is listed twice"):
        read_pack(tmp_path)
    assert find_pack(tmp_path / "deep" / "file.py") is None


@pytest.mark.shared_data
def test_the_real_pack(shared_data):
    items = read_pack(shared_data)
    train, val = select(items, "train"), select(items, "val")
    assert all(item.thermal.exists() and (item.rgb is None or item.rgb.exists()) for item in items)
    assert {item.licence_class for item in items} <= set(LICENCES)
    collections = {"msrs_day", "msrs_night", "flir_adas_drive"}
    assert not {i.scene for i in train} & ({i.scene for i in val} - collections)
    assert not {i.thermal for i in train} & {i.thermal for i in val}
    assert len(select(items, "train", datasets=["pbvsg"])) >= 90
    allowed = select(items, "train", licences=["mit", "cc-by", "cc0"])
    kinds = {"m3svd", "m3svd_lossless", "m3svd_mp4", "hituav", "drone_ir", "fieldscale"}
    assert {i.dataset for i in allowed} == kinds
