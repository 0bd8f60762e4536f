"""The cross-modal tier: RGB that is used, RGB that is not, and true temperatures whatever the model says."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from tests.enhancers.models import NumpyStore
from tests.enhancers.scenes import pair, request
from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest, LoadingEnhancer
from thermal_enhance.enhancers.classical import ClassicalConfig, ClassicalEnhancer
from thermal_enhance.enhancers.cross_modal import CrossModalEnhancer, CrossModalEnhancerConfig
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.enhancers.learned import ModelUnavailableError, NonFiniteOutputError
from thermal_enhance.enhancers.registry import available_modes, build_ladder
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units
from thermal_enhance.runtime.backend import BackendError


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("onnxruntime")
    return NumpyStore(tmp_path)


def offline(store, **more):
    return CrossModalEnhancer(CrossModalEnhancerConfig(per_frame_alignment=True, **more), store)


def still(size=(20, 15), dtype=np.uint8, seed=0):
    width, height = size
    rng = np.random.default_rng(seed)
    levels = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), 1.5) * 150 + 120
    data = {np.uint8: levels, np.uint16: levels * 20 + 28000, np.float32: levels * 0.1 + 10}[dtype]
    if dtype != np.float32:
        data = np.clip(np.rint(data), 0, np.iinfo(dtype).max)
    units = {np.uint8: Units.AGC8, np.uint16: Units.CENTIKELVIN, np.float32: Units.CELSIUS}[dtype]
    return ThermalFrame(data.astype(dtype), units, 77, "cam")


def test_it_is_an_enhancer_that_loads(store):
    tier = offline(store)
    assert isinstance(tier, Enhancer) and isinstance(tier, LoadingEnhancer)
    assert tier.isolated and tier.uses_rgb and not tier.needs_rgb
    assert tier.description == "" and store.graphs == []
    assert tier.manifest.name == "numpy"
    assert not offline(store, guided=False).uses_rgb


def test_rgb_that_is_trusted_is_used_and_reported(store):
    truth, color = pair(2, 384, 512)
    alone, guided = (offline(store)(request(truth, 8, c, dtype=np.uint8)) for c in (None, color))
    assert guided.tier == "cross_modal" and guided.rgb_used and guided.rgb_trust > 0.9
    assert not alone.rgb_used and math.isnan(alone.rgb_trust)
    assert not np.array_equal(alone.thermal.data, guided.thermal.data)
    assert list(guided.stage_ms) == ["prepare", "align", "guide", "model", "consistency"]
    assert list(alone.stage_ms) == ["prepare", "guide", "model", "consistency"]
    for result in (alone, guided):
        assert result.thermal.size == (512, 384) and result.thermal.data.dtype == np.uint8
        assert (result.thermal.stamp_ns, result.thermal.frame_id) == (123, "cam")
        assert 0.0 <= result.degradation <= 1.0


def test_rgb_that_is_not_trusted_changes_no_bit(store):
    truth, color = pair(4, 384, 512)
    _, stranger = pair(44, 384, 512)
    alone = offline(store)(request(truth, 8)).thermal.data
    useless = {
        "wrong": (stranger, 0.0),
        "dark": (ColorFrame((color.data * 0.02).astype(np.uint8)), 0.0),
        "black": (ColorFrame(np.zeros_like(color.data)), 0.0),
        "late": (color, -2.0),
        "coarse": (ColorFrame(cv2.resize(color.data, (64, 48), interpolation=cv2.INTER_AREA)), 0.0),
        "tiny": (ColorFrame(np.zeros((4, 4, 3), np.uint8)), 0.0),
    }
    for name, (rgb, skew) in useless.items():
        result = offline(store)(EnhanceRequest(request(truth, 8).thermal, rgb, 8, pair_skew_s=skew))
        assert not result.rgb_used and not math.isnan(result.rgb_trust), name
        assert np.array_equal(result.thermal.data, alone), name
    off = offline(store, guided=False)(request(truth, 8, color))
    assert math.isnan(off.rgb_trust) and np.array_equal(off.thermal.data, alone)


def test_trust_decides_frame_by_frame(store):
    truth, color = pair(5, 384, 512)
    tier = offline(store)
    asked = request(truth, 8, color)
    good = tier(asked)
    dark = tier(dataclasses.replace(asked, color=ColorFrame(np.zeros_like(color.data))))
    again = tier(asked)
    assert [r.rgb_used for r in (good, dark, again)] == [True, False, True]
    assert np.array_equal(dark.thermal.data, offline(store)(request(truth, 8)).thermal.data)
    assert np.array_equal(good.thermal.data, again.thermal.data)
    assert offline(store, min_trust=1.0)(dataclasses.replace(asked, pair_skew_s=0.1)).rgb_used is False


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("scale", [4, 8])
def test_block_means_are_the_input(store, dtype, scale):
    frame = still((20, 15), dtype)
    result = offline(store)(EnhanceRequest(frame, scale=scale))
    assert result.thermal.data.dtype == dtype and result.thermal.units is frame.units
    measured = np.abs(area_down(result.thermal.data, scale) - frame.data.astype(np.float32))
    assert measured.max() <= (0.5 if dtype != np.float32 else 1e-3)
    assert np.sqrt(np.mean(measured**2)) <= 0.5
    assert result.consistency_residual == pytest.approx(float(measured.max()), abs=1e-6)


def test_units_change_nothing_but_units(store):
    """8-bit pictures are shown to the network as they are, others over the stream's range."""
    agc = still(dtype=np.uint8)
    counts = ThermalFrame(agc.data.astype(np.uint16) * 20 + 28000, Units.COUNTS)
    a = offline(store)(EnhanceRequest(agc, scale=4)).thermal.data.astype(float)
    b = offline(store)(EnhanceRequest(counts, scale=4, value_range=(28000, 28000 + 255 * 20))).thermal.data
    assert np.abs((b - 28000.0) / 20 - a).max() < 1.0
    # What the tone curve says of an 8-bit stream is not what the network has learnt from.
    ranged = offline(store)(EnhanceRequest(agc, scale=4, value_range=(90.0, 120.0))).thermal.data
    assert np.array_equal(ranged, a)


def test_netd_leaves_room_and_sampling_off_holds_nothing(store):
    noisy = still(dtype=np.uint16)
    noisy.data[:] = (28000 + np.random.default_rng(1).normal(0, 30, noisy.data.shape)).astype(np.uint16)
    asked = EnhanceRequest(noisy, scale=4)
    exact, loose = offline(store)(asked), offline(store, netd=30.0)(asked)
    assert exact.consistency_residual <= 0.5 < loose.consistency_residual <= 30.5
    free = offline(store, sampling="off")(asked)
    assert free.consistency_residual > 0.5


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 33), (20, 15), (33, 31), (64, 12)])
@pytest.mark.parametrize("scale", [4, 8])
def test_any_size(store, size, scale):
    frame = still(size)
    result = offline(store)(EnhanceRequest(frame, scale=scale))
    assert result.thermal.size == (size[0] * scale, size[1] * scale)
    assert result.consistency_residual <= 0.5


def test_tiles_make_the_picture_of_one_run(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole, tiled = NumpyStore(tmp_path / "a", (512, 384)), NumpyStore(tmp_path / "b", (160, 128))
    truth, color = pair(2, 384, 512)
    for rgb in (None, color):
        asked = request(truth, 8, rgb)
        one, many = (offline(store)(asked).thermal.data for store in (whole, tiled))
        assert np.abs(one - many).max() < 1.0
    assert 0 < whole.graphs[1][2].runs < tiled.graphs[1][2].runs


def test_graphs_are_loaded_once_and_no_later_frame_pays(store):
    truth, color = pair(6, 120, 160)
    tier = offline(store)
    asked = request(truth, 8)
    assert not tier.is_loaded(asked)
    tier.load(asked)
    assert [(role, profile) for role, profile, _ in store.graphs] == [
        ("two_view", (256, 192)),
        ("one_view", (256, 192)),
    ]
    assert all(graph.warmed for *_, graph in store.graphs)
    assert tier.is_loaded(asked) and "numpy, for tests" in tier.description
    tier(asked), tier(request(truth, 8, color))
    assert len(store.graphs) == 2
    small = EnhanceRequest(still((8, 6)), scale=8)
    assert not tier.is_loaded(small)
    tier(small)
    assert [profile for _, profile, _ in store.graphs[2:]] == [(64, 64), (64, 64)]
    tier.close()
    assert all(graph.closed for *_, graph in store.graphs) and tier.description == ""
    fresh = tier.factory()
    assert fresh is not tier and not fresh.is_loaded(asked) and fresh.config == tier.config
    thermal_only = offline(store, guided=False)
    thermal_only.load(small)
    assert [role for role, *_ in store.graphs[4:]] == ["one_view"]


@pytest.mark.parametrize("scale", [1, 2, 3, 16])
def test_other_scales_are_refused_by_name(store, scale):
    tier = offline(store)
    asked = EnhanceRequest(still(), scale=scale)
    says = f"scale {scale} is not one of model numpy: it makes 4 and 8"
    assert tier.refuses(asked) == says
    with pytest.raises(ValueError, match=says):
        tier(asked)
    assert tier.refuses(EnhanceRequest(still(), scale=8)) == ""
    ladder = QualityLadder([tier, ClassicalEnhancer()], LadderConfig(deadline_s=None))
    frame = ladder(asked)
    assert (frame.tier, frame.tier_reason) == ("classical", says)
    ladder.close()


def test_holes_are_filled_or_put_back(store):
    frame = still(dtype=np.float32)
    frame.data[4, 5], frame.data[9, 2] = np.nan, np.inf
    filled = offline(store)(EnhanceRequest(frame, scale=4))
    assert filled.repaired == 2 and np.isfinite(filled.thermal.data).all()
    restored = offline(store, non_finite="restore")(EnhanceRequest(frame, scale=4)).thermal.data
    assert np.isnan(restored[16:20, 20:24]).all() and np.isnan(restored).sum() == 32
    frame.data[:] = np.nan
    with pytest.raises(ValueError, match="no finite pixel"):
        offline(store)(EnhanceRequest(frame, scale=4))


def test_a_hot_spot_beyond_the_range_is_not_lost_on_the_way(store):
    frame = still(dtype=np.uint16)
    frame.data[7, 9] = 45000
    asked = EnhanceRequest(frame, scale=4, value_range=(28000.0, 33100.0))
    result, classical = offline(store)(asked), ClassicalEnhancer()(asked)
    assert result.consistency_residual <= 0.5
    rows, columns = np.unravel_index(np.argmax(result.thermal.data), (60, 80))
    assert 28 <= rows < 32 and 36 <= columns < 40
    # Nothing that a network makes of a number it has never seen.
    assert result.thermal.data.max() < 1.05 * classical.thermal.data.max()
    assert result.thermal.data.min() > 0.95 * classical.thermal.data.min()


def test_what_the_model_cannot_say_steps_down(store):
    asked = EnhanceRequest(still(), scale=4)
    ladder = build_ladder("cross_modal", ladder=LadderConfig(deadline_s=None), store=store)
    assert ladder(asked).tier == "cross_modal"
    store.spoil = True
    with pytest.raises(NonFiniteOutputError):
        offline(store)(asked)
    frame = ladder(asked)
    assert frame.tier == "classical" and "non-finite" in frame.tier_reason
    assert np.array_equal(frame.thermal.data, ClassicalEnhancer(ClassicalConfig())(asked).thermal.data), (
        "as if the model had never been there"
    )
    ladder.close()


def test_a_model_that_does_not_load_leaves_the_frames_to_classical(store):
    store.load_error = BackendError("weights are damaged: export the model again")
    ladder = build_ladder("cross_modal", ladder=LadderConfig(deadline_s=5.0), store=store)
    asked = EnhanceRequest(still(), scale=4)
    assert ladder(asked).tier == "classical"
    for _ in range(400):
        frame = ladder(asked)
        if frame.tier_reason != "loading":
            break
    assert frame.tier == "classical"
    assert frame.tier_reason == "disabled: BackendError: weights are damaged: export the model again"
    ladder.close()


def test_a_live_stream_locks_on_and_forgets_with_a_new_size(store):
    truth, color = pair(5, 384, 512)
    tier = CrossModalEnhancer(store=store)
    asked = request(truth, 8, color)
    for _ in range(80):
        result = tier(asked)
        if tier.last_alignment.accepted:
            break
    assert tier.last_alignment.accepted and result.rgb_used
    tier(EnhanceRequest(still(), color, 4, pair_skew_s=0.0))
    assert not tier.last_alignment.accepted


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"threads": -1}, "threads"),
        ({"min_trust": 1.5}, "min_trust"),
        ({"netd": -1.0}, "netd"),
        ({"sampling": "nearest"}, "sampling"),
        ({"non_finite": "zero"}, "non_finite"),
    ],
)
def test_bad_parameters_are_named(wrong, word):
    with pytest.raises(ValueError, match=word):
        CrossModalEnhancerConfig(**wrong)


def test_a_model_without_the_graphs_says_so(store):
    with pytest.raises(ModelUnavailableError, match="no fp16 graphs of two_view and one_view"):
        offline(store, precision="fp16")


def test_a_model_trained_on_another_view_is_not_run(store, tmp_path):
    path = tmp_path / "numpy" / "model.yaml"
    path.write_text(path.read_text().replace("[guided, contrast, detail]", "[base, bicubic]"))
    with pytest.raises(ModelUnavailableError, match="trained on the thermal channels base, bicubic"):
        offline(store)
    assert "cross_modal" not in available_modes(store)
