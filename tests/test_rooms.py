"""The package is a stack of rooms: each imports only rooms above it, and most need neither ROS nor torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "thermal_enhance_pkg" / "thermal_enhance"

# DESIGN: what each room may import, itself and the package's root helpers aside.
BELOW_NODES = {
    "imaging", "metrics", "simulation", "pairing", "tasks", "networks", "runtime", "enhancers", "perception",
}  # fmt: skip
ALLOWED = {
    "imaging": set(),
    "metrics": {"imaging"},
    "simulation": {"imaging"},
    "pairing": {"imaging"},
    "tasks": set(),
    "networks": set(),
    "runtime": {"networks"},
    "enhancers": {"imaging", "tasks", "runtime"},
    "perception": {"imaging", "runtime"},
    "nodes": BELOW_NODES,
    "training": BELOW_NODES,
    "evaluation": BELOW_NODES | {"nodes", "training"},
}
ROOT_HELPERS = {"resources", "entry"}
NO_ROS = [
    "imaging",
    "metrics",
    "simulation",
    "pairing",
    "tasks",
    "runtime",
    "enhancers",
    "perception",
    "evaluation",
]


def imports_of(path: Path) -> set[str]:
    """Dotted names of everything that a module imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module:
                names.add(node.module)
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_downwards(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    assert room in ALLOWED, f"{room} is not a room of the house"
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "thermal_enhance" or len(parts) < 2:
            continue
        target = parts[1]
        if target in ROOT_HELPERS or target == "__version__":
            continue
        assert target == room or target in ALLOWED[room], f"{room} must not import {name}"


def test_every_room_is_a_package() -> None:
    rooms = {p.relative_to(PACKAGE).parts[0] for p in modules()}
    for room in rooms:
        assert (PACKAGE / room / "__init__.py").exists()


@pytest.mark.parametrize("room", [r for r in NO_ROS if (PACKAGE / r).exists()])
def test_imports_without_ros_and_torch(room: str) -> None:
    """In a fresh interpreter in which neither can be imported."""
    names = [
        "thermal_enhance." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts)
        for p in sorted((PACKAGE / room).rglob("*.py"))
        if p.name != "__init__.py" and "bench_transport" not in p.name
    ]
    code = (
        "import sys, importlib\n"
        "for name in ('rclpy', 'torch', 'thermal_enhance_msgs', 'sensor_msgs', 'message_filters'):\n"
        "    sys.modules[name] = None\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_run_time_needs_no_torch() -> None:
    """The whole run-time, nodes included, where torch cannot be imported; and it is not a requirement."""
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'peft'):\n"
        "    sys.modules[name] = None\n"
        "import thermal_enhance.cli, thermal_enhance.enhancers.folder, thermal_enhance.resources\n"
        "try:\n"
        "    import rclpy\n"
        "except ImportError:\n"
        "    sys.exit(0)\n"
        "import thermal_enhance.nodes.composition, thermal_enhance.nodes.enhancement_node\n"
        "import thermal_enhance.nodes.task_router_node, thermal_enhance.nodes.run_command\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    from importlib.metadata import requires

    needed = [r for r in requires("thermal_enhance") or [] if "extra ==" not in r]
    assert needed and not any(name in r for r in needed for name in ("torch", "diffusers", "peft"))
