from __future__ import annotations

import builtins
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from thermal_enhance import cli


@pytest.fixture(autouse=True)
def _no_held_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal mask is the test process's: leave it alone."""
    monkeypatch.setattr(cli, "hold_signals", lambda: None)


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make `package` not importable, and drop the modules of ours that have imported it."""
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top == package or name.startswith("thermal_enhance.nodes"):
            monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize("command", ["run", "replay", "bag"])
def test_missing_rosbags_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    if command == "run":
        pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
        pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")
    hide(monkeypatch, "rosbags")
    assert cli.main([command, "nothing"]) == 1
    assert capsys.readouterr().err == (
        f"thermal-enhance {command} needs the Python package rosbags: `pip install rosbags`\n"
    )


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("cv2", "`pip install opencv-python-headless`"),
        ("rich.console", "`pip install rich`"),
        ("yaml", "`pip install PyYAML`"),
        ("rclpy.node", "source your ROS installation"),
        ("std_srvs", "needs ROS 2"),
    ],
)
@pytest.mark.parametrize("when", ["import", "run"])
def test_every_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str, advice: str, when: str
) -> None:
    def missing(_argument: object) -> Any:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    later = SimpleNamespace(main=missing)
    monkeypatch.setattr(cli.importlib, "import_module", missing if when == "import" else lambda _name: later)
    assert cli.main(["enhance"]) == 1
    error = capsys.readouterr().err
    assert advice in error
    assert error.count("\n") == 1


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> Any:
        raise ModuleNotFoundError("No module named 'thermal_enhance.oops'", name="thermal_enhance.oops")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["enhance"])


def test_unknown_command_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fly"]) == 2
    error = capsys.readouterr().err
    assert "'fly'" in error
    assert all(name in error for name in cli.COMMANDS)


def test_listing_a_recording_lets_ctrl_c_through(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags (make setup)")
    from thermal_enhance.nodes import replay_command

    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        assert replay_command.main(["--list", "no_such_bag"]) == 1
        assert not held & signal.pthread_sigmask(signal.SIG_BLOCK, set())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert "no_such_bag" in capsys.readouterr().err
