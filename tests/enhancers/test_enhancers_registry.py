"""Modes by name: what is there is built, what is not says so."""

import dataclasses

import numpy as np
import pytest

from tests.enhancers.models import stub_model, temporal_stub_model
from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.enhancers.classical import ClassicalConfig
from thermal_enhance.enhancers.ladder import LadderConfig
from thermal_enhance.enhancers.learned import LearnedConfig
from thermal_enhance.enhancers.observation import ObservationConfig
from thermal_enhance.enhancers.registry import (
    UnavailableModeError,
    available_modes,
    build_ladder,
    build_tiers,
    cross_modal_config,
    default_scale,
)
from thermal_enhance.enhancers.temporal import TemporalOptions
from thermal_enhance.imaging.frames import ThermalFrame
from thermal_enhance.runtime.store import ModelStore

LATER = ("restore", "restore+cross_modal", "restore+temporal")


@pytest.mark.parametrize("mode", available_modes())
def test_every_available_mode_builds_a_ladder_that_runs(mode):
    ladder = build_ladder(mode, ClassicalConfig(guided=False), LadderConfig(deadline_s=None))
    for index in range(2):  # one frame is no window for a temporal model
        picture = np.full((12, 16), index, np.uint8)
        frame = ladder(EnhanceRequest(ThermalFrame(picture, stamp_ns=index * 33_000_000), scale=4))
    assert frame.tier == mode and frame.tier_reason == ""
    assert frame.thermal.size == (64, 48)
    ladder.close()


@pytest.mark.parametrize("mode", LATER)
def test_a_known_mode_that_is_not_here_says_so(mode):
    with pytest.raises(UnavailableModeError) as caught:
        build_tiers(mode)
    assert caught.value.known and not caught.value.reason
    assert str(caught.value) == (
        f"mode {mode!r} is not available in this version; available: {', '.join(available_modes())}"
    )
    assert mode not in available_modes()


def test_an_unknown_mode_is_told_apart():
    with pytest.raises(UnavailableModeError, match="'magic' is unknown; available: classical") as caught:
        build_ladder("magic")
    assert not caught.value.known
    with pytest.raises(UnavailableModeError):
        default_scale("magic")


def test_default_scales_are_the_contract():
    assert [default_scale(m) for m in ("classical", "cross_modal", "temporal", "restore")] == [8, 8, 4, 1]


def test_a_learned_mode_is_there_once_its_model_is(tmp_path):
    pytest.importorskip("onnxruntime")
    store = ModelStore([tmp_path])
    assert "cross_modal" not in available_modes(store)
    with pytest.raises(UnavailableModeError, match="there is no cross_modal model in ") as caught:
        build_tiers("cross_modal", store=store)
    assert caught.value.known and str(tmp_path) in str(caught.value)
    stub_model(tmp_path, "mine")
    assert "cross_modal" in available_modes(store)
    tiers = build_tiers("cross_modal", store=store)
    assert [tier.name for tier in tiers] == ["cross_modal", "classical"]
    assert tiers[0].manifest.name == "mine"


def test_the_model_is_chosen_by_name(tmp_path):
    pytest.importorskip("onnxruntime")
    for name in ("another", "cross_modal-edge", "mine"):
        stub_model(tmp_path, name)
    stub_model(tmp_path, "cleaner", method="restore")
    store = ModelStore([tmp_path])
    assert build_tiers("cross_modal", store=store)[0].manifest.name == "cross_modal-edge"
    chosen = build_tiers("cross_modal", learned=LearnedConfig(model="mine"), store=store)[0]
    assert chosen.manifest.name == "mine"
    known = "known for cross_modal: another, cross_modal-edge, mine"
    with pytest.raises(UnavailableModeError, match=f"'magic' is unknown; {known}"):
        build_tiers("cross_modal", learned=LearnedConfig(model="magic"), store=store)
    with pytest.raises(UnavailableModeError, match=f"'cleaner' is for restore, not cross_modal; {known}"):
        build_tiers("cross_modal", learned=LearnedConfig(model="cleaner"), store=store)


def test_a_temporal_model_brings_its_mode(tmp_path):
    pytest.importorskip("onnxruntime")
    store = ModelStore([tmp_path])
    with pytest.raises(UnavailableModeError, match="there is no temporal model in "):
        build_tiers("temporal", store=store)
    for name in ("temporal-base", "temporal-nano"):
        temporal_stub_model(tmp_path, name)
    assert available_modes(store) == ("classical", "passthrough", "temporal")
    options = TemporalOptions(look_ahead=1, fps_out=25.0, motion="global")
    shared = ClassicalConfig(netd=3.0, sampling="off")
    tiers = build_tiers("temporal", shared, LearnedConfig(threads=2), store, options)
    assert [tier.name for tier in tiers] == ["temporal", "classical"]
    config = tiers[0].config
    assert tiers[0].manifest.name == "temporal-nano", "what runs everywhere, where nothing else is asked for"
    assert (config.netd, config.sampling, config.threads) == (3.0, "off", 2)
    assert (config.look_ahead, config.fps_out, config.motion) == (1, 25.0, "global")


def test_without_onnxruntime_the_reason_is_what_to_install(tmp_path, monkeypatch):
    stub_model(tmp_path, "mine")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableModeError, match="pip install onnxruntime"):
        build_tiers("cross_modal", store=ModelStore([tmp_path]))


def test_a_broken_manifest_is_told_only_when_it_is_asked_for(tmp_path):
    pytest.importorskip("onnxruntime")
    stub_model(tmp_path, "mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.yaml").write_text("name: [")
    store = ModelStore([tmp_path])
    assert build_tiers("cross_modal", store=store)[0].manifest.name == "mine"
    with pytest.raises(UnavailableModeError, match=r"broken/model\.yaml"):
        build_tiers("cross_modal", learned=LearnedConfig(model="broken"), store=store)


def test_a_learned_tier_takes_what_it_shares_with_the_classical_one():
    shared = ClassicalConfig(netd=3.0, sampling="off", guided=False, min_trust=0.01, quality="fast")
    config = cross_modal_config(shared, LearnedConfig(model="mine", device="cpu", threads=2))
    for field in dataclasses.fields(ObservationConfig):
        if field.name != "min_trust":
            assert getattr(config, field.name) == getattr(shared, field.name)
    assert (config.model, config.device, config.threads) == ("mine", "cpu", 2)
    assert config.min_trust > 0.1  # a network is led further astray than a filter
