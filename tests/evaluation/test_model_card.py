"""Model cards: counts and licences from the manifests, terms from the licences, figures as measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from thermal_enhance.evaluation import model_card
from thermal_enhance.evaluation.cross_modal_card import evidence
from thermal_enhance.evaluation.cross_modal_scores import Row, Scores
from thermal_enhance.runtime.backend import TensorSpec
from thermal_enhance.runtime.manifest import FileEntry, GraphEntry, ModelManifest
from thermal_enhance.runtime.store import ModelStore
from thermal_enhance.training.recipe import DataConfig, Recipe, SourceConfig

NAME = "cross_modal-edge"
SPEC = TensorSpec("thermal", (1, 3, 64, 64), "float32")
MANIFEST = ModelManifest(
    NAME, "cross_modal", "edge", "1", (4, 8), "Apache-2.0",
    weights=FileEntry("weights.safetensors", "0" * 64),
    graphs=tuple(
        GraphEntry(role, (512, 512), "fp32", f"{role}.onnx", "0" * 64, (SPEC,), (SPEC,))
        for role in ("two_view", "one_view")
    ),
)  # fmt: skip


def recipe(*licences: str) -> Recipe:
    sources = [SourceConfig("m3svd_lossless", 3, stride=2), SourceConfig("m3svd", use_rgb=False)]
    if "mit" not in licences:
        sources.append(SourceConfig("pbvsg", limit=1))
    return Recipe(NAME, "cross_modal", DataConfig(tuple(sources), licences), loss={"psnr": 1.0}, steps=9)


def scores() -> Scores:
    def row(method: str, condition: str, psnr: float) -> Row:
        return Row("pbvsg", "area", "a", condition, method, psnr, 0.9, 0.1, 0.2, 0.4, 1.0)

    return Scores(
        [row("bicubic", "none", 28.0), row("classical", "aligned", 28.6), row(NAME, "aligned", 29.0),
         row(NAME, "none", 27.5), row("another", "aligned", 10.0)]
    )  # fmt: skip


def test_provenance_counts_what_the_recipe_uses(tiny_pack):
    lossless, pairs, guided = model_card.provenance(recipe(), tiny_pack)
    assert (lossless.items, lossless.pictures, lossless.with_rgb, lossless.licence) == (1, 1, 1, "MIT")
    assert (pairs.items, pairs.pictures, pairs.with_rgb) == (2, 2, 0)
    assert (guided.items, guided.licence, guided.origins) == (1, "none stated", ("pbvsg@0",))


def test_terms_follow_the_licences(tiny_pack):
    full = model_card.terms(model_card.provenance(recipe(), tiny_pack))
    assert "pbvsg (licence: none stated)" in full and "take the weights for research" in full
    clear = model_card.terms(model_card.provenance(recipe("mit"), tiny_pack))
    assert clear.startswith("Trained from scratch on items under MIT alone.")


def test_a_card_tells_data_training_figures_and_limits(tiny_pack):
    run = model_card.Run(3900, 64.6, -7.1234, "two cores")
    text = model_card.card(
        MANIFEST, recipe(), model_card.provenance(recipe(), tiny_pack), evidence(MANIFEST, scores()),
        {"processor": "a CPU"}, run,
    )  # fmt: skip
    assert "| pbvsg | none stated | 1 | 1 | 1 | 1 | pbvsg@0 |" in text
    assert "3900 steps in 65 min on two cores; last logged loss -7.123." in text
    assert f"| PBVS-guided | 1 | {NAME} | 27.50 / 0.9000 / 0.1000 | 29.00 / 0.9000 / 0.1000 |" in text
    assert "| PBVS-guided | 1 | classical |" in text and "| another |" not in text
    assert "- no: PBVS-guided, aligned RGB, at least 1.5 dB over bicubic: +1.00 dB" in text
    assert "--profile 512x512" in text and f"bench cross_modal --model {NAME} --card" in text
    assert "pbvsg: not stated in repo" in text and "m3svd_lossless: the copies come from" in text
    assert "measured on a CPU" in text and not text.count("\n\n\n")


def test_a_second_run_is_told_with_the_first(tiny_pack):
    last = replace(recipe(), seed=7)
    text = model_card.card(
        MANIFEST, last, model_card.provenance(last, tiny_pack), evidence(MANIFEST, scores()), {},
        first=recipe(), open_model=True,
    )  # fmt: skip
    assert f"First `config/recipes/{NAME}.yaml`" in text
    assert f"`config/recipes/{NAME}-continued.yaml`: crops" in text and "seed 7" in text
    assert f"--set init_from=$PWD/out/train/{NAME}/best.safetensors" in text
    assert f"export out/train/{NAME}-continued/best.safetensors" in text
    assert "or the `-open` model" in text


def test_pictures_below_bicubic_are_a_limit():
    rows = [row for row in scores().rows if row.method != NAME]
    rows.append(replace(scores().rows[2], psnr=27.4))
    limits = "\n".join(evidence(MANIFEST, Scores(rows)).limits)
    assert "1 of 1 pictures come out below bicubic, the worst by 0.60 dB" in limits


def test_it_is_written_beside_the_model(tiny_pack, tmp_path, monkeypatch):
    folder = tmp_path / "models" / NAME
    folder.mkdir(parents=True)
    MANIFEST.to_yaml(folder / "model.yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"{{name: {NAME}, method: cross_modal, steps: 1, data: {{sources: [{{dataset: msrs}}]}}}}"
    )
    monkeypatch.setattr(model_card, "find_recipe", lambda _name: path)
    written = model_card.write(
        ModelStore([tmp_path / "models"]), NAME, tiny_pack, lambda m: evidence(m, scores()), {}
    )
    assert written == folder.resolve() / "README.md"
    assert written.read_text().startswith(f"# {NAME}\n") and "| msrs |" in written.read_text()


def test_facts_of_a_run_are_its_last_row(tmp_path):
    assert model_card.read_run(tmp_path) is None
    (tmp_path / "log.csv").write_text("step,minutes,loss\n")
    assert model_card.read_run(tmp_path) is None
    (tmp_path / "log.csv").write_text("step,minutes,loss\n20,0.5,-6\n40,1.25,-7.5\n")
    assert model_card.read_run(tmp_path, "here") == model_card.Run(40, 1.25, -7.5, "here")


@pytest.mark.parametrize("name", ["cross_modal-edge", "cross_modal-edge-open"])
def test_shipped_models_have_recipes(name):
    assert Path(model_card.find_recipe(name)).is_file()
