"""What the documents say about the code is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_parameter_tables_are_those_of_the_code() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
    command = [sys.executable, str(ROOT / "tools" / "write_parameter_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_and_pictures_exist(page: str) -> None:
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}"
    for target in re.findall(r'<img[^>]+src="([^"]+)"', text):
        assert (path.parent / target).exists(), f"{page} shows {target}"


def test_config_files_name_only_declared_parameters() -> None:
    """A misspelt parameter in a YAML file would be ignored in silence."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
    import dataclasses

    import yaml

    from thermal_enhance.nodes.camera_rig_node import CameraRigConfig
    from thermal_enhance.nodes.enhancement_config import EnhancementConfig
    from thermal_enhance.nodes.task_router_node import RouterConfig

    known = {
        "enhancement_node": EnhancementConfig,
        "camera_rig_node": CameraRigConfig,
        "task_router_node": RouterConfig,
    }
    files = sorted((ROOT / "config").rglob("*.yaml"))
    checked = 0
    for file in files:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for section, body in content.items():
            name = section.rsplit("/", 1)[-1]
            if not isinstance(body, dict) or "ros__parameters" not in body:
                continue
            assert name in known, f"{file.name}: section {section} is for no node"
            declared = {field.name for field in dataclasses.fields(known[name])} | {"use_sim_time"}
            unknown = set(body["ros__parameters"]) - declared
            assert not unknown, f"{file.name}: {section} has no parameters {unknown}"
            checked += 1
    assert checked >= 5
