"""`thermal-enhance train`: from a recipe to weights, and mistakes in one sentence."""

import builtins
import sys
import types

import numpy as np
import pytest

from thermal_enhance import cli
from thermal_enhance.training import train_command

TEXT = """
name: toy
method: toy
steps: 6
log_every: 2
data: {sources: [{dataset: msrs}], crop: 32, margin: 0}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(train_command.METHODS, "toy", "toy_task_of_the_tests")
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def toy(monkeypatch):
    torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")
    from thermal_enhance.training.checkpoint import save_tensors
    from thermal_enhance.training.datasets import CropSampler, load_sources

    class Task:
        def __init__(self, recipe, pack):
            if recipe.model:
                raise ValueError("model.depth: there is no such key")
            self.sources = load_sources(pack, recipe.data)

        def build_model(self, recipe):
            return torch.nn.Conv2d(1, 1, 3, padding=1)

        def sampler(self, recipe, split):
            crops = CropSampler(self.sources, recipe.data, recipe.batch, recipe.seed)

            class Sampler:
                def batch(self, step):
                    return {
                        "hr": torch.from_numpy(np.stack([s["hr"] for s in crops.batch(step)]))[:, None] / 255
                    }

            return Sampler()

        def loss(self, model, batch, step):
            return (model(batch["hr"]) - batch["hr"]).abs().mean(), {}

        def validate(self, model):
            return {"score": 1.0}

        def montage(self, model):
            return np.zeros((8, 8, 3), np.uint8)

        def save_weights(self, model, path):
            save_tensors(path, model.state_dict())

    module = types.ModuleType("toy_task_of_the_tests")
    module.build_task = Task
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_recipe_trains_and_goes_on(recipe, toy, pack, tmp_path, capsys):
    common = ["train", str(recipe), "--data", str(pack), "--device", "cpu"]
    out = tmp_path / "out"
    assert cli.main([*common, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("6 steps in 0.") and "best 1 at step 6" in captured.out
    assert "step 6: score 1" in captured.err
    assert cli.main([*common, "--out", str(out), "--resume", "--set", "steps=8"]) == 0
    assert "going on from step 6" in capsys.readouterr().err
    assert cli.main([*common, "--out", str(out), "--set", "seed=3"]) == 1
    assert "the recipe has changed in seed" in capsys.readouterr().err
    assert cli.main([*common, "--out", str(out), "--set", "seed=3", "--fresh", "--max-minutes", "5"]) == 0


def test_results_go_to_a_folder_of_the_name(recipe, toy, pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(recipe), "--data", str(pack), "--set", "steps=1", "--device", "cpu"]) == 0
    assert (tmp_path / "out" / "train" / "toy" / "last.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--set", "batches=3"], "recipe.yaml: batches: there is no such key; known: ablation, batch"),
        (["--set", "method=magic"], "method: there is no 'magic'; known: cross_modal"),
        (["--max-minutes", "0"], "--max-minutes must be greater than 0"),
        (["--resume"], "--resume: there is no checkpoint.safetensors"),
        (["--set", "model.depth=3"], "recipe.yaml: model.depth: there is no such key"),
        (["--set", "data.licences=[cc0]"], "msrs has no train item under cc0"),
    ],
)
def test_mistakes_are_one_sentence(recipe, toy, pack, tmp_path, capsys, options, reason):
    command = ["train", str(recipe), "--data", str(pack), "--out", str(tmp_path / "out"), *options]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_no_data_is_told(recipe, toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_command, "find_pack", lambda: None)
    assert cli.main(["train", str(recipe)]) == 2
    assert "--data" in capsys.readouterr().err
    assert cli.main(["train", str(recipe), "--data", str(tmp_path)]) == 2
    assert "no manifest.jsonl" in capsys.readouterr().err


def test_without_torch_the_extra_is_named(recipe, pack, capsys, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *arguments, **keywords)

    for name in [n for n in sys.modules if n.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert cli.main(["train", str(recipe), "--data", str(pack)]) == 1
    error = capsys.readouterr().err
    assert "pip install 'thermal_enhance[train]'" in error and error.count("\n") == 1
