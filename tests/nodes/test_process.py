from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")

from thermal_enhance.nodes import process
from thermal_enhance.resources import ResourceError

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
ONLY = "ROS_LOCALHOST_ONLY"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the environment that has none of the settings; DDS never sees it."""
    values = {k: v for k, v in os.environ.items() if k not in (RANGE, PROFILE, ONLY, "ROS_DISTRO")}
    monkeypatch.setattr(process.os, "environ", values)


@pytest.mark.parametrize(
    ("chosen", "reach", "profile"),
    [
        (None, "LOCALHOST", "fastdds.xml"),
        ("", "LOCALHOST", "fastdds.xml"),
        ("LOCALHOST", "LOCALHOST", "fastdds.xml"),
        ("OFF", "OFF", "fastdds.xml"),
        ("SUBNET", "SUBNET", "fastdds_subnet.xml"),
        ("SYSTEM_DEFAULT", "SYSTEM_DEFAULT", "fastdds_subnet.xml"),
    ],
)
def test_profile_follows_the_range(chosen: str | None, reach: str, profile: str) -> None:
    if chosen is not None:
        os.environ[RANGE] = chosen
    process.close_network()
    assert os.environ[RANGE] == reach
    assert Path(os.environ[PROFILE]).name == profile
    assert Path(os.environ[PROFILE]).is_file()
    assert ONLY not in os.environ


def test_the_users_profile_stays() -> None:
    os.environ[PROFILE] = "mine.xml"
    process.close_network()
    assert os.environ[PROFILE] == "mine.xml"


@pytest.mark.parametrize(("chosen", "value"), [(None, "1"), ("", "1"), ("0", "0")])
def test_humble_has_another_switch(chosen: str | None, value: str) -> None:
    os.environ["ROS_DISTRO"] = "humble"
    if chosen is not None:
        os.environ[ONLY] = chosen
    process.close_network()
    assert os.environ[ONLY] == value


def test_no_profile_installed_is_slower_but_still_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_parts: str) -> Path:
        raise ResourceError("not there")

    monkeypatch.setattr(process, "resource", missing)
    process.close_network()
    assert os.environ[RANGE] == "LOCALHOST"
    assert PROFILE not in os.environ
