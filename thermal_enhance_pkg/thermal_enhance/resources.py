"""Where the package's launch, config and model files are, however it was installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = "thermal_enhance"


class ResourceError(FileNotFoundError):
    """A file that belongs to the package is not where any kind of installation puts it."""


def share_directories() -> list[Path]:
    """Candidate share folders, best first: the checkout, the ament prefixes, the environment's prefix."""
    checkout = Path(__file__).resolve().parents[2]
    candidates = [checkout] if (checkout / "package.xml").exists() else []
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    # site-packages of an install prefix: <prefix>/lib/python3.x/site-packages/thermal_enhance.
    prefixes += [sys.prefix, str(Path(__file__).resolve().parents[4])]
    candidates += [Path(prefix) / "share" / PACKAGE for prefix in prefixes]
    return [path for path in candidates if path.is_dir()]


def resource(*parts: str) -> Path:
    """Path of a file or folder of the package, for example `resource("config", "tasks.yaml")`.

    Raises:
        ResourceError: it is in none of the candidate folders.
    """
    tried = share_directories()
    for base in tried:
        path = base.joinpath(*parts)
        if path.exists():
            return path
    raise ResourceError(
        f"{'/'.join(parts)} is not in {', '.join(map(str, tried)) or 'any share folder'}: "
        f"reinstall {PACKAGE} (`make setup`, or `colcon build` and source install/setup.bash)"
    )


def user_directory() -> Path:
    """Folder for what a user adds (models, prompts, settings)."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / PACKAGE
