"""Speed of the networks: what is printed, and what happens where a way or a device is missing."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")
pytest.importorskip("diffusers", reason="needs diffusers (pip install 'thermal_enhance[train]')")

from thermal_enhance.evaluation import bench_networks


def test_a_table_line_for_every_way_with_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    arguments = ["--sizes", "edge", "--ways", "eager", "graphed", "--side", "64", "--runs", "1"]
    assert bench_networks.main([*arguments, "--device", "cpu", "--json", str(out)]) == 0
    table = capsys.readouterr().out
    assert "| edge | 3." in table and "eager" in table
    assert "not run: CUDA graphs need a CUDA device" in table
    figures = json.loads(out.read_text())
    eager, graphed = figures["rows"]
    assert eager["ms"] > 0 and 0 < eager["share"] < 1.5
    assert eager["gflop"] == pytest.approx(eager["share"] * figures["rate"] * eager["ms"] / 1e3)
    assert graphed["ms"] is None


def test_a_missing_device_and_bad_sizes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_networks.main(["--device", "cuda"]) == 2
    assert "use cpu" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench_networks.main(["--side", "100"])
