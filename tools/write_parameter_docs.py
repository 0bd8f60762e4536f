#!/usr/bin/env python3
"""Write docs/parameters.md from the nodes' configuration dataclasses, so that the two cannot differ."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import get_type_hints

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "parameters.md"


def table(config_type: type) -> list[str]:
    """Markdown table of one node's parameters."""
    hints = get_type_hints(config_type)
    rows = ["| parameter | type | default | range | changes live | meaning |", "|---|---|---|---|---|---|"]
    for field in dataclasses.fields(config_type):
        meta = field.metadata
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
        if meta["choices"]:
            limits = ", ".join(f"`{choice}`" for choice in meta["choices"])
        elif meta["low"] is not None or meta["high"] is not None:
            low, high = ("" if meta[key] is None else meta[key] for key in ("low", "high"))
            limits = f"{low} … {high}"
        else:
            limits = ""
        kind = getattr(hints[field.name], "__name__", str(hints[field.name])) if hints[field.name] in (
            bool, int, float, str,
        ) else str(hints[field.name])  # fmt: skip
        shown = f"`{default}`" if default not in ("", []) else "(empty)"
        live = "no" if meta["read_only"] else "yes"
        rows.append(f"| `{field.name}` | {kind} | {shown} | {limits} | {live} | {meta['description']} |")
    return rows


def render() -> str:
    """The whole page."""
    from thermal_enhance.nodes.camera_rig_node import CameraRigConfig
    from thermal_enhance.nodes.enhancement_config import EnhancementConfig
    from thermal_enhance.nodes.frame_folder_node import FrameFolderConfig
    from thermal_enhance.nodes.replay_node import ReplayConfig
    from thermal_enhance.nodes.task_router_node import RouterConfig

    nodes = {
        "enhancement_node": EnhancementConfig,
        "task_router_node": RouterConfig,
        "camera_rig_node": CameraRigConfig,
        "frame_folder_node": FrameFolderConfig,
        "replay_node": ReplayConfig,
    }
    lines = [
        "# Parameters",
        "",
        "Written by `tools/write_parameter_docs.py` from the code. A parameter that does not change live is",
        "read when the node starts; `ros2 param set` refuses it with the reason.",
    ]
    for name, config_type in nodes.items():
        lines += ["", f"## {name}", "", *table(config_type)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    text = render()
    if "--check" in sys.argv:
        if TARGET.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{TARGET.name} is out of date: run tools/write_parameter_docs.py\n")
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
