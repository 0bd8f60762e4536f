"""Recipes: what is wrong is named with file, key, reason and what is known."""

from pathlib import Path

import pytest
import yaml

from thermal_enhance.training.mapping import from_mapping, to_mapping
from thermal_enhance.training.recipe import Recipe, RecipeError, load_recipe, merge

ROOT = Path(__file__).resolve().parents[2]
BASIC = """
name: toy
method: cross_modal
steps: 10
data:
  sources: [{dataset: msrs, weight: 2}]
  licences: [mit]
optimiser: {lr: 4e-4, betas: [0.9, 0.95]}
model: {width: 8, deep: {a: 1}}
"""


def write(folder, text, name="recipe.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_values_arrive(tmp_path):
    recipe = load_recipe(write(tmp_path, BASIC))
    assert recipe.optimiser.lr == 4e-4, "YAML 1.1 reads 4e-4 as text"
    assert recipe.optimiser.betas == (0.9, 0.95)
    assert recipe.data.sources[0].weight == 2.0
    assert recipe.model == {"width": 8, "deep": {"a": 1}}
    assert from_mapping(Recipe, yaml.safe_load(yaml.safe_dump(to_mapping(recipe)))) == recipe


def test_overrides_come_last(tmp_path):
    path = write(tmp_path, BASIC)
    recipe = load_recipe(path, ["optimiser.lr=1e-3", "model.deep.a=[1, 2]", "data.crop=64", "steps=null",
                                "max_minutes=2"])  # fmt: skip
    assert (recipe.optimiser.lr, recipe.model["deep"]["a"], recipe.data.crop) == (1e-3, [1, 2], 64)
    assert (recipe.steps, recipe.max_minutes) == (None, 2.0)
    for text, reason in (("steps", "key=value"), ("name.x=1", "no keys of its own"), ("steps=[", "not YAML")):
        with pytest.raises(RecipeError, match=reason):
            load_recipe(path, [text])


def test_a_recipe_can_build_on_another(tmp_path):
    write(tmp_path, BASIC + "init_from: weights/a.safetensors\n", "base.yaml")
    (tmp_path / "ablations").mkdir()
    path = write(tmp_path / "ablations", "base: ../base.yaml\nname: b\nmodel: {deep: {c: 3}}\nseed: 5\n")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.seed, recipe.steps) == ("b", 5, 10)
    assert recipe.model == {"width": 8, "deep": {"a": 1, "c": 3}}
    assert recipe.init_from == tmp_path / "weights/a.safetensors", "relative to the file that says it"
    write(tmp_path, "base: ablations/recipe.yaml\n", "base.yaml")
    with pytest.raises(RecipeError, match="leads back"):
        load_recipe(path)
    assert merge({"a": {"b": 1}, "c": [1]}, {"a": {"d": 2}, "c": [2]}) == {"a": {"b": 1, "d": 2}, "c": [2]}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("stepz", 3, r"recipe.yaml: stepz: there is no such key; known: .*steps"),
        ("optimiser.rate", 3, r"optimiser.rate: there is no such key; known: .*lr"),
        ("optimiser.lr", "fast", r"optimiser.lr: must be a number, not 'fast'"),
        ("optimiser.lr", -1, r"optimiser.lr must be greater than 0"),
        ("optimiser.betas", [0.9], r"optimiser.betas: must have 2 values"),
        ("optimiser.schedule", "step", r"optimiser.schedule must be cosine or constant"),
        ("batch", 2.5, r"batch: must be a whole number"),
        ("batch", True, r"batch: must be a whole number"),
        ("channels_last", 1, r"channels_last: must be true or false"),
        ("data.crop", 100, r"data.crop must be a multiple of 32"),
        ("data.licences", ["bsd"], r"data.licences: unknown bsd; known: .*mit"),
        ("data.sources", [], r"data.sources: at least one"),
        ("data.sources", [{"weight": 1}], r"data.sources\[0\].dataset: this key is needed"),
        ("data.sources", "msrs", r"data.sources: must be a list"),
        ("low_resolution.netd", [0.2, 0.1], r"low_resolution.netd must be a range"),
        ("misalignment.shift", 2.0, r"misalignment.shift must be within"),
        ("validation.mode", "best", r"validation.mode must be max or min"),
        ("precision", "fp16", r"precision must be one of fp32, bf16"),
        ("steps", None, r"steps or max_minutes"),
        ("model", 3, r"model: must be a mapping"),
        ("loss.psnr", "much", r"loss.psnr: must be a number"),
        ("seed", -1, r"seed must be within"),
        ("name", "a/b", r"name must be a word"),
    ],
)
def test_mistakes_are_named(tmp_path, key, value, reason):
    mapping = yaml.safe_load(BASIC)
    *path, last = key.split(".")
    place = mapping
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    with pytest.raises(RecipeError, match=reason):
        load_recipe(write(tmp_path, yaml.safe_dump(mapping)))


@pytest.mark.parametrize(("text", "reason"), [("a: [", "not a YAML file"), ("- 1", "must be a mapping")])
def test_files_that_are_no_recipe(tmp_path, text, reason):
    with pytest.raises(RecipeError, match=reason):
        load_recipe(write(tmp_path, text))
    with pytest.raises(RecipeError, match=r"nothing\.yaml"):
        load_recipe(tmp_path / "nothing.yaml")


def test_only_what_matters_decides_whether_a_run_goes_on(tmp_path):
    path = write(tmp_path, BASIC)
    first = load_recipe(path).identity()
    assert load_recipe(path, ["steps=99", "max_minutes=3"]).identity() == first
    changed = load_recipe(path, ["optimiser.lr=1e-3"]).identity()
    assert [key for key in first if first[key] != changed[key]] == ["optimiser"]


SHIPPED = sorted((ROOT / "config" / "recipes").glob("**/*.yaml"))


@pytest.mark.skipif(not SHIPPED, reason="config/recipes holds no recipe")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_open_ones_are_open(path):
    recipe = load_recipe(path)
    assert recipe.name and recipe.method
    if "-open" in path.stem:
        assert recipe.data.licences and set(recipe.data.licences) <= {"mit", "cc-by", "cc0", "apache"}
