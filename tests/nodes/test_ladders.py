"""From the node's parameters to tiers: what is asked for, or classical and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

from tests.enhancers.models import stub_model, temporal_stub_model
from thermal_enhance import resources
from thermal_enhance.enhancers.ladder import LadderStatus, TierStatus
from thermal_enhance.nodes.diagnostics import TierWatch
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.ladders import make_ladder
from thermal_enhance.runtime.store import FOLDERS_VARIABLE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with one in it, which is found first."""
    pytest.importorskip("onnxruntime")
    stub_model(tmp_path, "mine")
    monkeypatch.setenv(FOLDERS_VARIABLE, str(tmp_path))
    return tmp_path


def names(config: EnhancementConfig) -> tuple[list[str], str, str]:
    ladder, choice = make_ladder(config)
    tiers = [tier.name for tier in ladder.status().tiers]
    ladder.close()
    return tiers, choice.mode, choice.reason


def test_a_learned_mode_stands_on_the_classical_one(folder: Path) -> None:
    config = EnhancementConfig(mode="cross_modal", model="mine", model_threads=1, use_rgb=False, netd=2.0)
    assert names(config) == (["cross_modal", "classical", "passthrough"], "cross_modal", "")
    ladder, _ = make_ladder(config)
    tier = ladder._rungs[0].enhancer
    assert tier.config.threads == 1 and tier.config.netd == 2.0 and not ladder.uses_rgb
    ladder.close()


@pytest.mark.parametrize("pin", [False, True])
def test_an_unknown_model_is_classical_with_the_known_ones_listed(folder: Path, pin: bool) -> None:
    tiers, mode, reason = names(EnhancementConfig(mode="cross_modal", model="magic", pin_tier=pin))
    assert tiers == ["classical", "passthrough"] and mode == "classical"
    assert "'magic' is unknown" in reason and "mine" in reason
    assert reason.endswith("running classical instead")


def test_a_model_for_a_mode_without_models_is_named(folder: Path) -> None:
    tiers, mode, reason = names(EnhancementConfig(mode="classical", model="mine"))
    assert tiers == ["classical", "passthrough"] and mode == "classical"
    assert reason == "mode 'classical' has no models: model 'mine' is not used"
    _, mode, reason = names(EnhancementConfig(mode="restore", model="mine"))
    assert mode == "classical" and "not available in this version" in reason


@pytest.mark.parametrize("pin", [False, True])
def test_a_temporal_mode_is_told_what_is_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pin: bool
) -> None:
    monkeypatch.setattr(resources, "share_directories", list)  # none of the shipped models
    config = EnhancementConfig(mode="temporal", look_ahead=1, fps_out=25.0, motion="global", pin_tier=pin)
    tiers, mode, reason = names(config)
    assert (tiers, mode) == (["classical", "passthrough"], "classical")
    assert "there is no temporal model in" in reason and reason.endswith("running classical instead")
    temporal_stub_model(folder, "still")
    assert names(config) == (["temporal", "classical", "passthrough"], "temporal", "")
    ladder, _ = make_ladder(config)
    tier = ladder._rungs[0].enhancer.config
    assert (tier.look_ahead, tier.fps_out, tier.motion) == (1, 25.0, "global")
    assert tier.alone == pin, "nobody below makes the first frame"
    assert not ladder.uses_rgb, "no frame waits for RGB that only a lower tier would look at"
    ladder.close()


def report(current: str, state: str = "ok", detail: str = "", reason: str = "") -> LadderStatus:
    tier = TierStatus(
        "cross_modal", state, "broken" if state == "disabled" else "", 0.0, 0, {}, 0, 1.0, detail
    )
    return LadderStatus(current, reason, (tier,))


def test_each_change_of_a_tier_is_said_once() -> None:
    watch = TierWatch()
    assert watch.changes(report("")) == []
    first = watch.changes(report("classical", "busy", reason="loading"))
    assert first == [("info", "frames are now made by tier classical: loading")]
    assert watch.changes(report("classical", "busy", reason="loading")) == []
    ready = watch.changes(report("cross_modal", detail="edge 1, onnxruntime"))
    assert ready == [
        ("info", "tier cross_modal is ready: edge 1, onnxruntime"),
        ("info", "frames are now made by tier cross_modal"),
    ]
    assert watch.changes(report("cross_modal", detail="edge 1, onnxruntime")) == []
    lost = watch.changes(report("classical", "disabled", reason="disabled: broken"))
    assert lost[0] == ("error", "tier cross_modal is disabled: broken")
    assert watch.changes(report("classical", "disabled", reason="disabled: broken")) == []
