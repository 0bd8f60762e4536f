"""Real graphs: a tiny exported model, and the one that ships, live and on files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.enhancers.temporal_models import export_tiny
from tests.enhancers.test_temporal import ask, frame, play
from thermal_enhance.enhancers.folder import main
from thermal_enhance.enhancers.ladder import LadderConfig
from thermal_enhance.enhancers.learned import LearnedConfig, ModelUnavailableError
from thermal_enhance.enhancers.registry import build_ladder
from thermal_enhance.enhancers.temporal import TemporalEnhancer, TemporalEnhancerConfig
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.runtime.store import FOLDERS_VARIABLE, ModelStore

SHIPPED = "temporal-nano"

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of models with one in it, "tiny", exported here."""
    folder = tmp_path_factory.mktemp("temporal_models")
    export_tiny(folder)
    return folder


@pytest.fixture(params=["tiny", SHIPPED])
def model(request):
    """(store, name): the exported one, and the shipped one where it is."""
    if request.param == "tiny":
        return ModelStore([request.getfixturevalue("tiny")]), "tiny"
    store = ModelStore()
    try:
        TemporalEnhancer(TemporalEnhancerConfig(model=SHIPPED), store)
    except ModelUnavailableError as error:
        pytest.skip(str(error))
    return store, SHIPPED


def enhancer(model, **more):
    store, name = model
    return TemporalEnhancer(TemporalEnhancerConfig(model=name, threads=1, **more), store)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_frames_of_any_type_keep_their_temperatures(model, dtype):
    frames = [frame(i, dtype) for i in range(4)]
    result = play(enhancer(model), frames)[-1]
    off = np.abs(area_down(result.thermal.data, 4) - frames[-1].data.astype(np.float32)).max()
    assert off <= (0.5 if dtype != np.float32 else 1e-3)
    between = area_down(result.extra[0].data, 4)
    span = float(np.ptp(frames[-1].data.astype(float)))
    assert abs(between.mean() - np.mean([f.data.mean() for f in frames[-2:]])) < 0.05 * span


@pytest.mark.parametrize("look_ahead", [0, 1])
def test_a_stream_gives_what_a_clip_gives(model, look_ahead):
    """To 1e-4 of the range, with features cached and without, at every frame of the stream."""
    frames = [frame(i, np.float32) for i in range(8)]
    known = {"value_range": (10.0, 35.5)}
    live, anew = (enhancer(model, look_ahead=look_ahead) for _ in range(2))
    window = live.window
    for end in range(8):
        (streamed,) = play(live, [frames[end]], **known)
        if end < window:
            continue
        anew.reset("test")
        clip = play(anew, frames[end - window : end + 1], **known)[-1]
        for a, b in ((clip.thermal, streamed.thermal), (clip.extra[0], streamed.extra[0])):
            assert a.stamp_ns == b.stamp_ns and np.abs(a.data - b.data).max() <= 1e-4 * 25.5
    assert live.ring.encoded == 8


def test_through_the_ladder_it_loads_while_classical_makes_the_frames(model):
    store, name = model
    learned = LearnedConfig(model=name, threads=1)
    ladder = build_ladder("temporal", None, LadderConfig(deadline_s=20.0), learned=learned, store=store)
    reasons = []
    for i in range(2000):
        made = ladder(ask(frame(i % 60, ms=i * 33)))
        reasons.append(made.tier_reason)
        if made.tier == "temporal":
            break
    assert reasons[0] == "loading" and reasons[-2:] == ["warming_up", ""]
    assert len(made.extra) == 1
    (status, *_) = ladder.status().tiers
    assert name in status.detail and status.counters["ring_length"] == 2
    ladder.close()


def test_the_command_line_finds_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDERS_VARIABLE, str(tiny))
    source = tmp_path / "in"
    source.mkdir()
    for i in range(3):
        cv2.imwrite(str(source / f"f{i}.png"), frame(i).data)
    command = ["--mode", "temporal", "--model", "tiny", "--device", "cpu"]
    assert main([*command, "--thermal", str(source), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 5
