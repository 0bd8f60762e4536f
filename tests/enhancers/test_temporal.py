"""The temporal tier: the same live and offline, true to what was measured, and honest about what was not."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from tests.enhancers.models import TemporalStore
from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest, FrameDeclined, LoadingEnhancer
from thermal_enhance.enhancers.classical import ClassicalEnhancer
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.enhancers.learned import ModelUnavailableError, NonFiniteOutputError
from thermal_enhance.enhancers.temporal import TemporalEnhancer, TemporalEnhancerConfig
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ThermalFrame, Units
from thermal_enhance.runtime.store import ModelStore

MS = 1_000_000
T0 = 1_700_000_000_000_000_000
UNITS = {np.uint8: Units.AGC8, np.uint16: Units.CENTIKELVIN, np.float32: Units.CELSIUS}


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("onnxruntime")
    return TemporalStore(tmp_path)


def tier(store, **more):
    return TemporalEnhancer(TemporalEnhancerConfig(**more), store)


def picture(i, size=(32, 24), seed=0, step=0.8):
    """(h, w) float32 levels of a textured scene that drifts by `step` pixels a frame."""
    rng = np.random.default_rng(seed)
    world = cv2.GaussianBlur(rng.normal(size=(160, 240)).astype(np.float32), (0, 0), 2.0) * 250 + 120
    matrix = np.float32([[1, 0, -20 - i * step], [0, 1, -20]])
    return cv2.warpAffine(world, matrix, size, borderMode=cv2.BORDER_REFLECT).clip(0, 255)


def frame(i, dtype=np.uint8, ms=None, **scene):
    levels = picture(i, **scene)
    data = {np.uint8: levels, np.uint16: levels * 20 + 28000, np.float32: levels * 0.1 + 10}[dtype]
    data = data if dtype == np.float32 else np.rint(data)
    stamp = T0 + round((i * 111 if ms is None else ms) * MS)
    return ThermalFrame(data.astype(dtype), UNITS[dtype], stamp, "cam")


def ask(given, scale=4, **more):
    return EnhanceRequest(given, scale=scale, **more)


def play(enhancer, frames, **more):
    """What each frame gives; None where it is declined."""
    results = []
    for given in frames:
        try:
            results.append(enhancer(ask(given, **more)))
        except FrameDeclined:
            results.append(None)
    return results


def test_it_is_an_enhancer_that_loads(store):
    enhancer = tier(store)
    assert isinstance(enhancer, Enhancer) and isinstance(enhancer, LoadingEnhancer)
    assert enhancer.isolated and not enhancer.uses_rgb and not enhancer.needs_rgb
    assert enhancer.description == "" and store.graphs == [] and enhancer.window == 3
    asked = ask(frame(0))
    assert not enhancer.is_loaded(asked)
    enhancer.load(asked)
    assert [(role, profile) for role, profile, _ in store.graphs] == [
        ("encoder", (32, 24)),
        ("body", (32, 24)),
    ]
    assert enhancer.is_loaded(asked) and "numpy, for tests" in enhancer.description
    fresh = enhancer.factory()
    assert fresh is not enhancer and not fresh.is_loaded(asked) and fresh.config == enhancer.config
    enhancer.close()
    assert all(graph.closed for *_, graph in store.graphs) and enhancer.description == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_newest_is_true_to_its_input_and_the_middle_has_the_middle_stamp(store, dtype):
    frames = [frame(i, dtype) for i in range(6)]
    results = play(tier(store), frames, value_range=(28000.0, 33100.0) if dtype == np.uint16 else None)
    assert results[0] is None, "one frame is no window"
    for given, before, result in zip(frames[1:], frames, results[1:]):
        assert result.tier == "temporal" and result.observed is None
        made = result.thermal
        assert (made.stamp_ns, made.frame_id, made.units) == (given.stamp_ns, "cam", given.units)
        assert made.data.dtype == dtype and made.size == (128, 96)
        off = np.abs(area_down(made.data, 4) - given.data.astype(np.float32)).max()
        assert off <= (0.5 if dtype != np.float32 else 1e-4)
        assert result.consistency_residual == pytest.approx(float(off), abs=1e-6)
        (middle,) = result.extra
        assert middle.stamp_ns == (before.stamp_ns + given.stamp_ns) // 2
        assert (middle.size, middle.data.dtype, middle.units, middle.frame_id) == (
            made.size, dtype, made.units, "cam",
        )  # fmt: skip
        assert 0.0 <= result.degradation <= 1.0
    stages = list(results[-1].stage_ms)
    assert stages == ["prepare", "encode", "align", "model", "consistency", "envelope"]
    assert results[-1].source_stamps_ns == tuple(f.stamp_ns for f in frames[-3:])


def test_a_window_that_is_not_full_is_filled_with_its_oldest(store):
    enhancer = tier(store)
    play(enhancer, [frame(0), frame(1)])
    role, feeds = store.feeds[-1]
    assert role == "body"
    first, second, third = feeds["features"][0]
    assert np.array_equal(first, second) and not np.array_equal(second, third)
    assert feeds["tau"].tolist() == [[1.5, 2.0]]
    assert enhancer.ring.encoded == 2


def test_each_frame_is_encoded_once(store):
    enhancer = tier(store)
    play(enhancer, [frame(i) for i in range(9)])
    runs = {role: graph.runs for role, _, graph in store.graphs}
    assert runs == {"encoder": 9, "body": 8}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("look_ahead", [0, 1])
def test_a_stream_gives_what_a_clip_gives(store, dtype, look_ahead):
    """What the body is fed depends on the window alone; what leaves, on it and the frame before it."""
    more = {"value_range": (28000.0, 33100.0)} if dtype == np.uint16 else {}
    frames = [frame(i, dtype) for i in range(10)]
    live = tier(store, look_ahead=look_ahead)
    for end in range(10):
        play(live, [frames[end]], **more)
        if end < 3:
            continue
        streamed = store.feeds[-1][1]
        result = live._latest
        play(tier(store, look_ahead=look_ahead), frames[end - 2 : end + 1], **more)
        for name, value in store.feeds[-1][1].items():
            assert np.abs(value - streamed[name]).max() <= 1e-4, name
        clip = play(tier(store, look_ahead=look_ahead), frames[end - 3 : end + 1], **more)[-1]
        assert len(clip.extra) == len(result.extra) == 1
        for a, b in ((clip.thermal, result.thermal), (clip.extra[0], result.extra[0])):
            assert a.stamp_ns == b.stamp_ns
            assert np.abs(a.data.astype(float) - b.data).max() <= 1e-4 * (255 if dtype == np.uint8 else 5100)


def test_what_is_cached_is_what_would_be_encoded_now(store):
    enhancer = tier(store)
    low, high = 28000.0, 33100.0
    for i in range(20):
        low, high = low - 90 * (i > 8), high + 110 * (i > 8)
        play(enhancer, [frame(i, np.uint16)], value_range=(low, high))
        before = [(f.features.copy(), f.motion) for f in enhancer.ring.frames]
        enhancer.ring.invalidate()
        for (features, motion), anew in zip(before, enhancer.ring.frames, strict=True):
            assert np.array_equal(features, anew.features)
            assert (motion is None) == (anew.motion is None)
            assert motion is None or np.array_equal(motion.forward, anew.motion.forward)
    assert enhancer.ring.reencodes - 20 > 0, "the range has moved"
    agc = tier(store)
    for i in range(8):
        play(agc, [frame(i)], value_range=(0.0, 90.0 + 30 * i))
    assert agc.ring.reencodes == 0 and agc.ring.range == (0.0, 255.0)


def test_units_change_nothing_but_units(store):
    counts = {"value_range": (28000.0, 28000.0 + 20 * 255)}
    levels = [np.rint(picture(i)) for i in range(4)]
    agc = [ThermalFrame(p.astype(np.uint8), Units.AGC8, T0 + i * MS) for i, p in enumerate(levels)]
    raw = [
        ThermalFrame((p * 20 + 28000).astype(np.uint16), Units.COUNTS, T0 + i * MS)
        for i, p in enumerate(levels)
    ]
    a = play(tier(store), agc)[-1]
    b = play(tier(store), raw, **counts)[-1]
    for x, y in ((a.thermal, b.thermal), (a.extra[0], b.extra[0])):
        assert np.abs((y.data - 28000.0) / 20 - x.data).max() < 1.0


@pytest.mark.parametrize("size", [(17, 13), (32, 24), (33, 24), (40, 48), (64, 48), (3, 2), (1, 1)])
def test_any_size_is_padded_to_a_graph_and_cropped(store, size):
    frames = [frame(i, size=size) for i in range(4)]
    for given in frames:  # not to be taken for repeats where they are too small to show motion
        given.data[0, 0] = given.stamp_ns // MS % 251
    result = play(tier(store), frames)[-1]
    assert result.thermal.size == (size[0] * 4, size[1] * 4) == result.extra[0].size
    assert result.consistency_residual <= 0.5
    assert store.graphs[0][1] == ((32, 24) if size[0] <= 32 and size[1] <= 24 else (64, 48))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (ask(frame(0), scale=8), "scale 8 is not that of model numpy: it makes 4"),
        (ask(frame(0, size=(65, 20))), "65x20 frames are too large for model numpy, which takes up to 64x48"),
    ],
)
def test_what_the_model_does_not_make_is_refused_by_name(store, asked, says):
    enhancer = tier(store)
    assert enhancer.refuses(asked) == says and enhancer.refuses(ask(frame(0))) == ""
    with pytest.raises(ValueError, match=says):
        enhancer(asked)
    ladder = QualityLadder([enhancer, ClassicalEnhancer()], LadderConfig(deadline_s=None))
    made = ladder(asked)
    assert (made.tier, made.tier_reason) == ("classical", says)
    ladder.close()


def test_looking_ahead_gives_the_frame_before(store):
    frames = [frame(i) for i in range(5)]
    results = play(tier(store, look_ahead=1), frames)
    assert results[0] is None
    assert [r.thermal.stamp_ns for r in results[1:]] == [f.stamp_ns for f in frames[:-1]]
    assert [len(r.extra) for r in results[1:]] == [0, 1, 1, 1]
    for given, before, result in zip(frames[1:], frames, results[2:]):
        assert result.observed.stamp_ns == given.stamp_ns
        assert np.array_equal(result.observed.data, given.data)
        assert result.extra[0].stamp_ns == (before.stamp_ns + given.stamp_ns) // 2
        assert np.abs(area_down(result.thermal.data, 4) - given.data).max() <= 0.5
    assert store.feeds[-1][1]["tau"].tolist() == [[0.5, 1.0]]


def test_jitter_is_in_the_stamps_not_in_the_times(store):
    results = play(tier(store), [frame(0), frame(1), frame(2), frame(3, ms=3 * 111 + 40)])
    assert results[-1].extra[0].stamp_ns == T0 + round((222 + 373) / 2 * MS)
    assert store.feeds[-1][1]["tau"].tolist() == [[1.5, 2.0]]


def test_a_fixed_rate_between_the_frames(store):
    results = play(tier(store, fps_out=30.0), [frame(i) for i in range(12)])
    stamps = [extra.stamp_ns for r in results[1:] for extra in r.extra]
    steps = np.diff(stamps) / MS
    assert len(stamps) > 30 and steps.min() >= 33 and (np.abs(steps - 33.3) < 0.1).mean() > 0.95
    runs = {role: graph.runs for role, _, graph in store.graphs}
    assert runs["body"] == len(stamps) and runs["encoder"] == 12
    for r in results[1:]:
        assert all(a.stamp_ns < b.stamp_ns for a, b in zip(r.extra, (*r.extra[1:], r.thermal)))
    many = play(tier(store, fps_out=200.0), [frame(i) for i in range(4)])[-1]
    assert len(many.extra) == 8
    few = play(tier(store, fps_out=2.0), [frame(i) for i in range(5)])
    assert sum(len(r.extra) for r in few[1:]) <= 1 and all(r.thermal is not None for r in few[1:])


def test_interpolated_frames_have_no_value_their_neighbours_have_not(store):
    store.strength = 3.0  # a model that has lost its mind
    results = play(tier(store), [frame(i, np.float32, step=2.0) for i in range(6)])
    for before, after in itertools.pairwise(results[1:]):
        around = np.stack([before.thermal.data, after.thermal.data])
        middle = after.extra[0].data
        assert middle.min() >= around.min() and middle.max() <= around.max()
        low = cv2.erode(around.min(axis=0), np.ones((65, 65)))
        high = cv2.dilate(around.max(axis=0), np.ones((65, 65)))
        assert (middle >= low).all() and (middle <= high).all()


def test_a_hot_spot_beyond_the_range_is_not_lost_on_the_way(store):
    frames = [frame(i, np.uint16) for i in range(5)]
    for given in frames:
        given.data[11, 14] = 45000
    result = play(tier(store), frames, value_range=(28000.0, 33100.0))[-1]
    assert result.consistency_residual <= 0.5
    for made in (result.thermal.data, result.extra[0].data):
        rows, columns = np.unravel_index(np.argmax(made), made.shape)
        assert 42 <= rows < 50 and 54 <= columns < 62 and made.max() > 40000


def test_holes_are_filled_or_put_back(store):
    frames = [frame(i, np.float32) for i in range(4)]
    for given in frames:
        given.data[9, 10] = np.nan
    filled = play(tier(store), frames)[-1]
    assert filled.repaired == 1 and np.isfinite(filled.thermal.data).all()
    assert np.isfinite(filled.extra[0].data).all()
    restored = play(tier(store, non_finite="restore"), frames)[-1]
    assert np.isnan(restored.thermal.data).sum() == np.isnan(restored.extra[0].data).sum() == 16


def test_a_reset_leaves_nothing_to_interpolate_from(store):
    enhancer = tier(store)
    play(enhancer, [frame(i) for i in range(4)])
    enhancer.reset("ffc")
    assert play(enhancer, [frame(4)]) == [None]
    result = play(enhancer, [frame(5)])[0]
    assert result.source_stamps_ns == (frame(4).stamp_ns, frame(5).stamp_ns)
    assert enhancer.counters["resets_ffc"] == 1 and enhancer.counters["ring_length"] == 2


@pytest.mark.parametrize(
    "later", [frame(4, ms=2000), frame(4, np.uint16), frame(4, size=(20, 20)), frame(4, ms=-1000)]
)
def test_nothing_is_interpolated_across_a_break(store, later):
    enhancer = tier(store)
    play(enhancer, [frame(i) for i in range(4)])
    assert play(enhancer, [later]) == [None]
    following = dataclasses.replace(later, data=later.data + 1, stamp_ns=later.stamp_ns + 111 * MS)
    (result,) = play(enhancer, [following])
    assert result.source_stamps_ns == (later.stamp_ns, following.stamp_ns)
    assert later.stamp_ns < result.extra[0].stamp_ns < following.stamp_ns


def test_a_closed_shutter_is_no_scene(store):
    enhancer = tier(store)
    play(enhancer, [frame(i) for i in range(4)])
    for i in range(4, 7):
        with pytest.raises(FrameDeclined, match="shutter_closed"):
            enhancer(ask(frame(i, seed=9), shutter_closed=True))
    assert len(enhancer.ring) == 0 and enhancer.counters["resets_ffc"] == 1
    results = play(enhancer, [frame(7), frame(8)])
    assert results[0] is None and results[1].source_stamps_ns == (frame(7).stamp_ns, frame(8).stamp_ns)


def test_a_picture_that_repeats_gives_the_same_again_and_nothing_between(store):
    enhancer = tier(store)
    play(enhancer, [frame(i) for i in range(4)])
    made = enhancer._latest
    for k in range(1, 3):
        again = enhancer(ask(frame(3, ms=333 + 37 * k)))
        assert again.thermal.stamp_ns == T0 + (333 + 37 * k) * MS and again.extra == ()
        assert np.array_equal(again.thermal.data, made.thermal.data)
    result = enhancer(ask(frame(4)))
    assert result.source_stamps_ns[-2:] == (frame(3).stamp_ns, frame(4).stamp_ns)
    fresh = tier(store)
    assert play(fresh, [frame(0), frame(0, ms=37)]) == [None, None]
    ahead = tier(store, look_ahead=1)
    play(ahead, [frame(i) for i in range(4)])
    repeated = ahead(ask(frame(3, ms=370)))
    assert repeated.thermal.stamp_ns == frame(2).stamp_ns and repeated.extra == ()
    kept = tier(store, keep_repeats=True, alone=True)
    static = play(kept, [frame(0, ms=33 * i) for i in range(4)])
    assert [len(r.extra) for r in static] == [0, 1, 1, 1]


def test_frames_out_of_order_change_nothing(store):
    enhancer = tier(store)
    play(enhancer, [frame(i) for i in range(4)])
    kept = enhancer.ring.frames
    for late, word in ((frame(2), "out_of_order"), (frame(3), "duplicate"), (frame(0), "stale")):
        late.data[:] += 1
        with pytest.raises(FrameDeclined, match=word):
            enhancer(ask(late))
    assert enhancer.ring.frames == kept and enhancer.counters["refused_stale"] == 1


def test_alone_makes_the_first_frame_too(store):
    first, second = play(tier(store, alone=True), [frame(0), frame(1)])
    assert first.extra == () and len(second.extra) == 1
    assert first.thermal.stamp_ns == frame(0).stamp_ns and first.consistency_residual <= 0.5


def test_warming_up_is_no_failure_of_the_tier(store):
    ladder = QualityLadder([tier(store), ClassicalEnhancer()], LadderConfig(deadline_s=None))
    results = [ladder(ask(frame(i))) for i in range(3)]
    ladder.reset("ffc")
    results += [ladder(ask(frame(i))) for i in range(3, 6)]
    assert [r.tier for r in results] == ["classical", "temporal", "temporal"] * 2
    assert [r.tier_reason for r in results] == ["warming_up", "", ""] * 2
    (status, *_) = ladder.status().tiers
    assert status.state == "ok" and status.troubles == {"warming_up": 2}
    assert status.counters["resets_ffc"] == 1 and status.counters["ring_length"] == 3
    ladder.close()


@pytest.mark.parametrize("role", ["encoder", "body"])
def test_what_the_model_cannot_say_steps_down_and_poisons_nothing(store, role):
    enhancer = tier(store)
    ladder = QualityLadder([enhancer, ClassicalEnhancer()], LadderConfig(deadline_s=None, climb_after_s=1e-9))
    for i in range(3):
        ladder(ask(frame(i)))
    store.spoil = role
    spoilt = ladder(ask(frame(3)))
    assert spoilt.tier == "classical" and NonFiniteOutputError.__name__ in spoilt.tier_reason
    store.spoil = ""
    after = [ladder(ask(frame(i))) for i in range(4, 7)]
    assert after[-1].tier == "temporal" and np.isfinite(after[-1].thermal.data).all()
    ladder.close()


def test_a_repeat_of_a_frame_that_failed_is_not_the_frame_before(store):
    enhancer = tier(store)
    play(enhancer, [frame(i) for i in range(3)])
    store.spoil = "body"
    with pytest.raises(NonFiniteOutputError):
        enhancer(ask(frame(3)))
    store.spoil = ""
    with pytest.raises(FrameDeclined, match="repeat"):
        enhancer(ask(frame(3, ms=370)))
    with pytest.raises(FrameDeclined, match="repeat"):
        enhancer(ask(frame(3, ms=5000)))  # a freeze that began with it
    assert play(enhancer, [frame(4, ms=5111), frame(5, ms=5222)])[1].source_stamps_ns[0] == T0 + 5111 * MS


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"look_ahead": 2}, "look_ahead"),
        ({"fps_out": -1.0}, "fps_out"),
        ({"fps_out": 1000.0}, "fps_out"),
        ({"fps_out": float("nan")}, "fps_out"),
        ({"motion": "psychic"}, "motion"),
        ({"threads": -1}, "threads"),
        ({"sampling": "nearest"}, "sampling"),
    ],
)
def test_bad_parameters_are_named(wrong, word):
    with pytest.raises(ValueError, match=word):
        TemporalEnhancerConfig(**wrong)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"channels": ["level"]}, "trained on the channels level, and this version gives it level, contrast"),
        ({"cues": ["gap"]}, "trained on the cues gap"),
        ({"window": 2}, "window of 3 to 16"),
        ({"scale": 3}, "a scale of 4"),
    ],
)
def test_a_model_trained_on_other_inputs_is_not_run(tmp_path, parameters, says):
    pytest.importorskip("onnxruntime")
    store = TemporalStore(tmp_path)
    path = tmp_path / "numpy" / "model.yaml"
    manifest = store.describe("numpy")
    dataclasses.replace(manifest, parameters={**manifest.parameters, **parameters}).to_yaml(path)
    with pytest.raises(ModelUnavailableError, match=says):
        tier(ModelStore([tmp_path]))


def test_a_model_without_the_graphs_says_so(store):
    with pytest.raises(ModelUnavailableError, match="no fp16 graphs of encoder and body"):
        tier(store, precision="fp16")
