"""What `thermal-enhance run` plays, and how it tells which tier made the frames."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

import yaml

from thermal_enhance.nodes import run_command
from thermal_enhance.nodes.run_command import CLIPS_HZ, DEFAULT_MODE, RIG_HZ, choose_source, parser, tiers
from thermal_enhance.resources import resource


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes that can run; a test adds to them."""
    modes = ["classical", "passthrough"]
    monkeypatch.setattr(run_command, "available_modes", lambda: tuple(modes))
    return modes


@pytest.fixture
def clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in the place of the real clips."""
    monkeypatch.setattr(run_command, "shared_clips", lambda: tmp_path)
    return tmp_path


def played(*arguments: str) -> tuple[dict, dict]:
    source = choose_source(parser().parse_args(arguments))
    return source.parameters, source.enhancement


def test_the_default_mode_is_the_one_of_the_parameter_file() -> None:
    content = yaml.safe_load(resource("config", "cpu.yaml").read_text())
    assert content["/**/enhancement_node"]["ros__parameters"]["mode"] == DEFAULT_MODE


def test_clips_are_played_at_a_pace_the_model_can_follow(models: list[str], clips: Path) -> None:
    parameters, enhancement = played()
    assert (parameters["rate"], parameters["downscale"], enhancement["scale"]) == (0.0, 4, 4)
    models.append("cross_modal")
    parameters, enhancement = played()
    assert (parameters["rate"], parameters["downscale"], enhancement["scale"]) == (CLIPS_HZ, 8, 4)
    assert played("--mode", "classical")[0]["rate"] == 0.0
    parameters, _ = played("--rate", "20", "--downscale", "2")
    assert (parameters["rate"], parameters["downscale"]) == (20.0, 2)


def test_so_is_the_rig(models: list[str]) -> None:
    assert "thermal_rate" not in played("--source", "rig")[0]
    models.append("cross_modal")
    assert played("--source", "rig")[0]["thermal_rate"] == RIG_HZ
    assert "thermal_rate" not in played("--source", "rig", "--mode", "passthrough")[0]
    assert played("--source", "rig", "--rate", "12")[0]["thermal_rate"] == 12.0


def test_a_folder_keeps_its_own_pace(models: list[str], tmp_path: Path) -> None:
    models.append("cross_modal")
    parameters, enhancement = played("--data", str(tmp_path))
    assert (parameters["rate"], parameters["downscale"], enhancement) == (0.0, 1, {})


def test_the_tiers_are_told_with_their_reasons() -> None:
    assert tiers({"tiers": {}, "tier_reasons": {}}) == "no tier"
    summary = {"tiers": {"cross_modal": 240, "classical": 12}, "tier_reasons": {"loading": 11, "rate": 1}}
    assert tiers(summary) == "cross_modal 240, classical 12 (stepped down: loading 11, rate 1)"
