from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from thermal_enhance import cli
from thermal_enhance.runtime.export_command import parse_profile, union_of_states
from thermal_enhance.runtime.onnx_graph import ExportError
from thermal_enhance.runtime.store import ModelStore

torch = pytest.importorskip("torch", reason="needs the train extra (make test)")
NAME = "thermal_enhance.networks.restore.exporting"


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A method whose network is one linear layer below a wrapper."""
    from thermal_enhance.runtime.export import GraphExport

    module = ModuleType(NAME)

    def graphs(checkpoint: Path, profiles: list[tuple[int, int]]) -> list[Any]:
        network = torch.nn.Sequential(torch.nn.Linear(4, 4))
        network[0].load_state_dict(torch.load(checkpoint, weights_only=True))
        return [
            GraphExport("body", profile, network, {"x": torch.rand(profile[1], 4)}, ["y"])
            for profile in profiles or [(4, 1)]
        ]

    vars(module).update(
        graphs=graphs, manifest=lambda _checkpoint: {"size": "edge", "scales": [1], "licence": "CC0-1.0"}
    )
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


def export(tmp_path: Path, *more: str) -> int:
    checkpoint = tmp_path / "best.pt"
    if not checkpoint.exists():
        torch.save(torch.nn.Linear(4, 4).state_dict(), checkpoint)
    words = [
        "export",
        str(checkpoint),
        "--method",
        "restore",
        "--name",
        "toy",
        "--out",
        str(tmp_path / "models"),
    ]
    return cli.main([*words, *more])


def test_exports_a_model_of_the_store(
    exporting: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        export(tmp_path, "--version", "0.3", "--profile", "4x1", "--profile", "4x2", "--licence", "MIT") == 0
    )
    model = ModelStore([tmp_path / "models"]).open("toy")
    assert (model.manifest.version, model.manifest.licence, model.manifest.scales) == ("0.3", "MIT", (1,))
    assert model.profiles("body") == ((4, 1), (4, 2))
    assert "toy: 2 graphs" in capsys.readouterr().out


def test_what_the_checkpoint_does_not_tell(
    exporting: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tmp_path) == 1
    assert "does not tell version: pass --version" in capsys.readouterr().err


def test_no_checkpoint(exporting: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none.pt")
    assert cli.main(["export", missing, "--method", "restore", "--name", "toy"]) == 1
    assert f"there is no checkpoint {missing}" in capsys.readouterr().err


def test_a_method_without_exporter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, NAME, None)
    assert export(tmp_path) == 1
    assert f"there is no {NAME} yet" in capsys.readouterr().err


def test_without_torch(
    exporting: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    (tmp_path / "best.pt").touch()
    monkeypatch.setattr("thermal_enhance.runtime.export_command.importlib.import_module", missing)
    from thermal_enhance.runtime.export_command import main

    assert main([str(tmp_path / "best.pt"), "--method", "restore", "--name", "toy"]) == 1
    assert "thermal_enhance[train]" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "size"), [("512x384", (512, 384)), ("1x1", (1, 1))])
def test_profile(text: str, size: tuple[int, int]) -> None:
    assert parse_profile(text) == size


@pytest.mark.parametrize("text", ["512", "0x4", "axb", "4x", "-4x4"])
def test_bad_profile(text: str) -> None:
    with pytest.raises(Exception, match="WIDTHxHEIGHT"):
        parse_profile(text)


def test_states_of_one_network_are_united() -> None:
    from types import SimpleNamespace

    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    outer = torch.nn.ModuleDict({"network": network})
    united = union_of_states([SimpleNamespace(module=network), SimpleNamespace(module=outer)])
    assert set(united) == set(network.state_dict())
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    with pytest.raises(ExportError, match=r"0\.weight is another tensor"):
        union_of_states([SimpleNamespace(module=network), SimpleNamespace(module=other)])
