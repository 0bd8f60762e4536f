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


@pytest.fixture
def commands(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run; nothing is."""
    done: list[list[str]] = []
    monkeypatch.setattr(tool, "run", lambda command, *_arguments: done.append(command))
    for name in ("mend_wheel_cmake", "build_interfaces"):
        monkeypatch.setattr(tool, name, lambda *_arguments, **_keywords: None)
    return done


def environment(tool: ModuleType, folder: Path, groups: set[str], made: str | None = None) -> Path:
    """An environment that was set up with some extras."""
    venv_dir = folder / "venv"
    venv_dir.mkdir()
    (venv_dir / "pyvenv.cfg").touch()
    tool.write_stamp(venv_dir / tool.STAMP, made or tool.fingerprint(venv_dir), groups)
    return venv_dir


@pytest.mark.parametrize("asked", [[], ["dev"], ["train", "dev"]])
def test_already_set_up_returns_at_once(
    tool: ModuleType, commands: list[list[str]], tmp_path: Path, asked: list[str]
) -> None:
    venv_dir = environment(tool, tmp_path, {"dev", "train"})
    before = (venv_dir / tool.STAMP).read_text()
    tool.setup(venv_dir, asked)
    assert commands == []
    assert (venv_dir / tool.STAMP).read_text() == before
    assert not (tmp_path / "venv-setup.log").exists()


def test_more_extras_are_installed_on_top(
    tool: ModuleType, commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv_dir = environment(tool, tmp_path, {"dev"})
    tool.setup(venv_dir, ["dev", "train", "tensorrt"])
    assert len(commands) == 1
    assert commands[0][:4] == [str(venv_dir / "bin" / "python"), "-m", "pip", "install"]
    assert commands[0][-1] == f"{tool.ROOT}[dev,tensorrt,train]"
    assert "Adding tensorrt, train to " in capsys.readouterr().out
    tool.setup(venv_dir, ["train"])
    tool.setup(venv_dir, ["dev"])
    assert len(commands) == 1


def test_failing_to_add_leaves_what_was_there(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_arguments: object) -> None:
        raise tool.SetupError("no network")

    venv_dir = environment(tool, tmp_path, {"dev"})
    monkeypatch.setattr(tool, "run", fail)
    with pytest.raises(tool.SetupError):
        tool.setup(venv_dir, ["train"])
    assert tool.read_stamp(venv_dir / tool.STAMP) == (tool.fingerprint(venv_dir), {"dev"})


@pytest.mark.parametrize("made", ["of another checkout", "0" * 64])
def test_what_it_is_made_from_has_changed(
    tool: ModuleType, commands: list[list[str]], tmp_path: Path, made: str
) -> None:
    venv_dir = environment(tool, tmp_path, {"dev", "train"}, made)
    tool.setup(venv_dir, ["dev"])
    assert "--clear" in commands[0]
    assert commands[-1][-1] == f"{tool.ROOT}[dev]"
    assert tool.read_stamp(venv_dir / tool.STAMP) == (tool.fingerprint(venv_dir), {"dev"})


def test_run_time_only(tool: ModuleType, commands: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    tool.setup(tmp_path / "venv", [])
    assert commands[-1][-1] == str(tool.ROOT)


def test_a_stamp_of_former_versions_means_anew(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / tool.STAMP).write_text("a" * 64)
    assert tool.read_stamp(tmp_path / tool.STAMP) == ("a" * 64, set())
    assert tool.read_stamp(tmp_path / "none") == ("", set())


def test_a_sourced_distribution_is_another_environment(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without = tool.fingerprint(tmp_path)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert tool.fingerprint(tmp_path) != without


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
