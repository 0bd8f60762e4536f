"""The temporal bench with stubs in the models' place: what it prints, keeps and writes."""

from __future__ import annotations

import json

import cv2
import pytest

from tests.evaluation.test_temporal_scores import perfect
from thermal_enhance.evaluation import bench_temporal as bench
from thermal_enhance.evaluation import model_card, temporal_methods
from thermal_enhance.evaluation.temporal_methods import Made
from thermal_enhance.runtime.manifest import ModelManifest

NAME = "temporal-nano"


@pytest.fixture
def command(tiny_pack, monkeypatch):
    monkeypatch.setattr(temporal_methods, "in_space", lambda *_: lambda clip: Made(perfect(clip).observed))
    monkeypatch.setattr(temporal_methods, "temporal", lambda *_, **__: perfect)
    return ["--data", str(tiny_pack), "--sets", "m3svd_lossless", "--warm-up", "1", "--model", NAME]


def test_the_command_measures_prints_keeps_figures_and_a_picture(command, tmp_path, capsys):
    files = {name: tmp_path / "deep" / name for name in ("f.json", "p.png")}
    status = bench.main([*command, "--json", str(files["f.json"]), "--picture", str(files["p.png"])])
    captured = capsys.readouterr()
    assert status == 0 and captured.err == ""
    assert f" | {NAME} | 60.00 | 1.0000 | 0.0000 |" in captured.out
    assert "\n- yes: M3SVD lossless, observed frames, at least 1 dB over bicubic: +" in captured.out
    content = json.loads(files["f.json"].read_text())
    assert content["verdicts"][NAME][0]["passed"] is True and content["machine"]["processor"]
    assert cv2.imread(str(files["p.png"])) is not None
    # The same text from the file, with nothing measured.
    assert bench.main(["--figures", str(files["f.json"])]) == 0
    assert capsys.readouterr().out == captured.out


def test_without_a_model_the_base_is_judged(command, capsys):
    assert bench.main(command[:-2]) == 0
    out = capsys.readouterr().out
    assert "\ninput base:\n" in out and NAME not in out and "| cross_modal-edge |" in out


def test_a_card_is_written_from_figures(command, tiny_pack, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "models" / NAME
    folder.mkdir(parents=True)
    manifest = ModelManifest(NAME, "temporal", "nano", "1", (4,), "Apache-2.0", parameters={"window": 3})
    monkeypatch.setattr(bench.ModelStore, "describe", lambda *_: manifest)
    monkeypatch.setattr(bench.ModelStore, "folder", lambda *_: folder)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"{{name: {NAME}, method: temporal, steps: 1, data: {{sources: [{{dataset: m3svd_lossless}}]}}}}"
    )
    monkeypatch.setattr(model_card, "find_recipe", lambda _name: recipe)
    assert bench.main([*command, "--card"]) == 0
    assert "README.md written" in capsys.readouterr().err
    text = (folder / "README.md").read_text()
    assert (
        text.startswith(f"# {NAME}\n") and "3 frames at a time" in text and "| m3svd_lossless | MIT |" in text
    )
    assert f"bench temporal --model {NAME} --card" in text and "Time was never reversed" in text
    assert not text.count("\n\n\n")


def test_mistakes_are_one_sentence(command, tiny_pack, tmp_path, capsys, monkeypatch):
    assert bench.main(["--data", str(tmp_path)]) == 2
    assert "no data pack found" in capsys.readouterr().err
    (tmp_path / "f.json").write_text("[]")
    assert bench.main(["--figures", str(tmp_path / "f.json")]) == 2
    assert "not a file that --json wrote" in capsys.readouterr().err
    assert bench.main(["--figures", str(tmp_path / "f.json"), "--picture", "p.png"]) == 2
    assert "--picture needs frames" in capsys.readouterr().err
    monkeypatch.undo()
    assert bench.main(["--data", str(tiny_pack), "--folder", str(tmp_path), "--space-model", "nothing"]) == 1
    assert "nothing" in capsys.readouterr().err
