"""Rigs that imitate real cameras, and the parameter files that go with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from thermal_enhance.imaging.frames import Units
from thermal_enhance.imaging.telemetry import parse_lepton
from thermal_enhance.simulation.presets import PRESETS, rig_preset
from thermal_enhance.simulation.rig import CameraRig

CAMERAS = Path(__file__).resolve().parents[2] / "config" / "cameras"
EXPECTED = {
    "default": (np.uint16, (120, 160), "mono16", Units.COUNTS, 30.0),
    "lepton": (np.uint16, (122, 160), "16UC1", Units.CENTIKELVIN, 27.0),
    "boson": (np.uint16, (256, 320), "mono16", Units.COUNTS, 60.0),
    "seek": (np.float32, (156, 206), "32FC1", Units.CELSIUS, 9.0),
    "oak_t": (np.uint16, (192, 256), "16UC1", Units.COUNTS, 25.0),
    "spinnaker": (np.uint16, (512, 640), "mono16", Units.COUNTS, 30.0),
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_renders_as_its_camera_does(name):
    rig = CameraRig(rig_preset(name))
    dtype, shape, encoding, units, rate = EXPECTED[name]
    raw, frame = rig.thermal_raw(4), rig.thermal_frame(4)
    assert (frame.data.dtype, frame.data.shape, frame.units) == (dtype, shape, units)
    assert (raw.encoding, raw.height, raw.width) == (encoding, *shape)
    assert len(rig.thermal_times(1.0)) == rate
    assert frame.data.std() > 0
    assert rig.color_frame(1).data.shape == (480, 640, 3)
    has_telemetry = parse_lepton(frame.data[-2:]) is not None
    assert has_telemetry == (name == "lepton")


def test_overrides_reach_their_settings():
    config = rig_preset(
        "lepton",
        seed=7,
        thermal_rate=54.0,
        rgb_rate=15.0,
        thermal_offset=0.02,
        rgb_offset=-0.05,
        ffc_period=5.0,
        night=0.8,
        rgb_dropout=[2.0, 1.0, 10.0, 0.5],
    )
    assert (config.seed, config.night) == (7, 0.8)
    assert (config.thermal.rate_hz, config.color.rate_hz) == (54.0, 15.0)
    assert (config.thermal_timing.stamp_offset_s, config.color_timing.stamp_offset_s) == (0.02, -0.05)
    assert config.ffc.period_s == 5.0 and config.ffc.first_s <= 5.0
    assert config.color_timing.gaps == ((2.0, 1.0), (10.0, 0.5))
    assert rig_preset("boson", rgb_dropout=0.25).color_timing.drop == 0.25
    assert rig_preset("boson", ffc_period=0).ffc.period_s == 0


def test_neutral_overrides_leave_the_preset():
    neutral = {"thermal_rate": 0.0, "rgb_rate": 0.0, "ffc_period": -1.0, "night": -1.0, "rgb_dropout": []}
    assert rig_preset("seek", **neutral, seed=None, thermal_offset=None) == rig_preset("seek")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"colour": 1}, "colour"),
        ({"night": 2.0}, "night"),
        ({"rgb_dropout": 2.0}, "rgb_dropout"),
        ({"rgb_dropout": [1.0]}, "rgb_dropout"),
        ({"ffc_period": 0.1}, "ffc.period_s"),
    ],
)
def test_bad_overrides_are_named(changes, name):
    with pytest.raises(ValueError, match=name):
        rig_preset("default", **changes)


def test_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match=r"polaroid.*lepton.*spinnaker"):
        rig_preset("polaroid")


def _parameters(name: str, node: str) -> dict:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((CAMERAS / f"{name}.yaml").read_text())[f"/**/{node}"]["ros__parameters"]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "default"])
def test_parameter_files_agree_with_the_presets(name):
    told, rig = _parameters(name, "enhancement_node"), _parameters(name, "camera_rig_node")
    thermal = rig_preset(rig["preset"]).thermal
    assert rig["preset"] == name
    assert told["thermal_units"] == thermal.units.value
    assert told["telemetry_rows"] == thermal.telemetry_rows
    assert told["telemetry_position"] == thermal.telemetry_position
    assert told["drop_duplicates"] is (thermal.repeats > 1)
    assert math.isclose(told["netd"], thermal.netd_units, rel_tol=0.01)
    assert told["slop"] >= 0.5 / max(thermal.rate_hz / thermal.repeats, 30.0)
    assert told["scale"] in (0, 1, 2, 4, 8)
    floats = ("netd", "consistency_k", "slop", "rgb_offset", "max_age")
    assert all(isinstance(told[key], float) for key in floats)  # ROS refuses 1 for 1.0


def test_there_is_a_file_for_every_camera():
    assert {path.stem for path in CAMERAS.glob("*.yaml")} == set(PRESETS) - {"default"}
