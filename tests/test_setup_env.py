from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "setup_env.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module, on a machine that has everything."""
    spec = importlib.util.spec_from_file_location("setup_env", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").touch()
    monkeypatch.setattr(module.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _name: str(tmp_path / "include"))
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    return module


def sentence(tool: ModuleType) -> str:
    with pytest.raises(tool.SetupError) as raised:
        tool.check_prerequisites()
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_nothing_missing(tool: ModuleType) -> None:
    tool.check_prerequisites()


@pytest.mark.parametrize("missing", ["gcc", "g++", "make", "cmake"])
def test_missing_tool_is_named_with_its_package(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(tool.shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
    assert sentence(tool) == f"`{missing}` is missing: `sudo apt-get install {missing}`."
    tool.check_prerequisites(needs_build=False)


def test_missing_header(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tool.sysconfig, "get_path", lambda _name: str(tmp_path / "elsewhere"))
    assert "Python.h is missing: `sudo apt-get install python3-dev`" in sentence(tool)


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 14, 0)])
def test_wrong_python(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(tool.sys, "version_info", version)
    monkeypatch.setattr(tool.platform, "python_version", lambda: ".".join(map(str, version)))
    assert f"Python {'.'.join(map(str, version))} is not supported: use 3.10 to 3.13" in sentence(tool)


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 9)])
def test_supported_python(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(tool.sys, "version_info", version)
    tool.check_prerequisites()


def test_missing_venv(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tool.sys.modules, "ensurepip", None)
    assert "sudo apt-get install python3-venv" in sentence(tool)


def test_other_processors_need_a_distribution(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool.platform, "machine", lambda: "aarch64")
    assert "aarch64" in sentence(tool)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    tool.check_prerequisites()


def test_already_set_up_returns_at_once(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("nothing was to be done")

    venv_dir = tmp_path / "venv"
    venv_dir.mkdir()
    (venv_dir / ".thermal_enhance_setup").write_text(tool.fingerprint(["dev"], venv_dir))
    for name in ("check_prerequisites", "check_target", "run", "make_venv"):
        monkeypatch.setattr(tool, name, never)
    tool.setup(venv_dir, ["dev"])


def test_a_sourced_distribution_is_another_environment(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without = tool.fingerprint([], tmp_path)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert tool.fingerprint([], tmp_path) != without


def test_a_folder_of_somebody_elses_is_left_alone(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    precious = tmp_path / "home" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    monkeypatch.setattr(tool.sys, "argv", ["setup_env.py", "--venv", str(precious.parent)])
    assert tool.main() == 1
    assert precious.read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "include"]
    with pytest.raises(tool.SetupError, match="is not a virtual environment"):
        tool.check_target(precious)


def test_new_empty_and_former_environments_may_be_made_anew(tool: ModuleType, tmp_path: Path) -> None:
    tool.check_target(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    tool.check_target(tmp_path / "empty")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pyvenv.cfg").touch()
    (tmp_path / "old" / "lib").mkdir()
    tool.check_target(tmp_path / "old")
