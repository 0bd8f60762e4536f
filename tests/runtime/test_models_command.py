from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from thermal_enhance import cli


@pytest.fixture
def models(toy: Any, tmp_path: Path) -> Path:
    shutil.copytree(toy.folder, tmp_path / "models" / toy.folder.name)
    return tmp_path / "models"


def test_table(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--folder", str(models)]) == 0
    out = capsys.readouterr().out
    for word in ("toy-edge", "cross_modal", "edge", "x2", "two_view 16x16", "one_view 16x16", "CC0-1.0"):
        assert word in out
    assert "backend for device auto: onnxruntime on c" in out


def test_verbose_loads_and_checks(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--verbose", "--device", "cpu", "--folder", str(models)]) == 0
    out = capsys.readouterr().out
    assert "toy-edge two_view_16x16_fp32: onnxruntime on cpu, off its reference by " in out
    assert "device 'cpu' was asked for" in out


def test_broken_ones_are_named(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "half").mkdir()
    (models / "half" / "model.yaml").write_text("name: half\n")
    (models / "toy-edge" / "one_view_16x16_fp32.onnx").unlink()
    assert cli.main(["models", "--verbose", "--folder", str(models)]) == 1
    captured = capsys.readouterr()
    assert "half" in captured.out
    assert "models: half: " in captured.err
    assert "method: is missing" in captured.err
    assert "one_view_16x16_fp32.onnx is missing" in captured.err


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--folder", str(tmp_path)]) == 0
    assert str(tmp_path) in capsys.readouterr().out


def test_unknown_device(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--folder", str(models), "--verbose", "--device", "npu"]) == 1
    assert "device must be" in capsys.readouterr().err
