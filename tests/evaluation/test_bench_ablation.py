"""Ablations: their recipes differ in what they say, runs add up, and tables tell which way they point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thermal_enhance.evaluation import ablation_runs, ablation_tables
from thermal_enhance.evaluation import bench_ablation as bench
from thermal_enhance.training.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "config" / "recipes"
CHANGES = {
    "csm": set(),
    "no_rgb": {"ablation"},
    "no_misalignment": {"task"},
    "no_skip": {"model"},
    "cross": {"model"},
    "concat": {"model"},
}


@pytest.mark.parametrize("name", bench.VARIANTS)
def test_each_ablation_changes_one_thing(name):
    base, mine = (load_recipe(RECIPES / "ablation" / f"{n}.yaml") for n in ("base", name))
    plain, changed = base.to_mapping(), mine.to_mapping()
    different = {key for key in plain if plain[key] != changed[key]} - {"name", "description"}
    assert different == CHANGES[name]
    assert not base.task["classical_guide"] and not base.model["guide_skips"]
    assert base.task["raw_misalignment"] == 1.0


def test_the_control_differs_in_rgb_alone():
    mine, other = (load_recipe(RECIPES / "control" / f"{n}.yaml") for n in bench.CONTROLS["overfit"])
    plain, changed = mine.to_mapping(), other.to_mapping()
    assert {key for key in plain if plain[key] != changed[key]} == {"name", "description", "ablation"}
    assert mine.task["raw_misalignment"] == 0.0 and tuple(mine.task["alignment_error_px"]) == (0.0,)


def test_a_budget_of_minutes_replaces_steps():
    assert ablation_runs.Budget(steps=5, seed=2).overrides() == ["seed=2", "steps=5", "max_minutes=null"]
    assert ablation_runs.Budget(minutes=1.5).overrides() == ["seed=0", "steps=null", "max_minutes=1.5"]
    assert ablation_runs.Budget().overrides() == ["seed=0"]


def run(seed: int = 0, **psnr: float) -> dict:
    scores = [
        {"set": dataset, "still": f"{dataset}{i}", "condition": condition, "psnr": value + i, "ssim": 0.9,
         "gmsd": 0.1}
        for dataset in ("pbvsg", "m3svd")
        for condition, value in {"bicubic": 27.0, **psnr}.items()
        for i in range(2)
    ]  # fmt: skip
    return {"seed": seed, "steps": 300, "batch": 4, "minutes": 2.5, "device": "cpu",
            "machine": {"processor": "a CPU"}, "scores": scores}  # fmt: skip


def test_verdicts_say_which_way_each_ablation_points():
    runs = {
        "csm/0": run(none=28.0, aligned=28.5, misaligned=28.3),
        "no_rgb/0": run(none=28.1),
        "no_misalignment/0": run(none=28.0, aligned=28.7, misaligned=28.31),
        "concat/0": run(none=28.0, aligned=28.6, misaligned=28.5),
    }
    lines = ablation_tables.verdicts(ablation_tables.by_name(runs))
    assert [line[2:].partition(":")[0] for line in lines] == [
        "as the paper", "no difference", "against the paper",
    ]  # fmt: skip
    assert "no_rgb -0.400 dB against csm with aligned RGB; misaligned -0.200" in lines[0]
    text = ablation_tables.ablation_report(runs)
    assert "| bicubic | - | 27.50 / 0.9000 / 0.1000 | 27.50 / 0.9000 / 0.1000 |" in text
    assert "| no_rgb | none | 28.60 / 0.9000 / 0.1000 |" in text and "PBVS-guided (2)" in text


def test_seeds_are_compared_with_their_like():
    runs = {
        "csm/0": run(0, aligned=28.0, misaligned=28.0),
        "csm/1": run(1, aligned=29.0, misaligned=29.0),
        "cross/0": run(0, aligned=27.9, misaligned=27.9),
        "cross/1": run(1, aligned=28.7, misaligned=28.7),
    }
    (line,) = ablation_tables.verdicts(ablation_tables.by_name(runs))
    assert "cross -0.200 dB (-0.300 to -0.100)" in line
    assert ablation_tables.verdicts({"cross": [run(aligned=1.0)]}) == []


def test_the_control_says_what_it_is():
    text = ablation_tables.control_report(
        {
            "overfit_rgb/0": run(aligned=30.0),
            "overfit_no_rgb/0": run(**{"none": 29.0, "classical none": 27.5, "classical aligned": 28.0}),
        }
    )
    assert text.startswith("Scored on the very pictures it was trained on: an upper bound")
    assert "- trained and asked with aligned RGB, against without any: +1.00 dB" in text
    assert "| classical | aligned | 28.50" in text and "| overfit without RGB | none | 29.50" in text
    assert ablation_tables.control_report({}) == "" and ablation_tables.ablation_report({}) == ""


def test_runs_add_up(tmp_path):
    results = bench.Results(tmp_path / "deep" / "results.json")
    assert results.read() == {}
    results.add("csm/0", run(aligned=1.0))
    results.add("cross/0", run(aligned=2.0))
    results.add("csm/0", run(aligned=3.0))
    assert sorted(results.read()) == ["cross/0", "csm/0"]
    assert results.read()["csm/0"]["scores"][2]["psnr"] == 3.0


def test_mistakes_are_one_sentence(tmp_path, capsys):
    assert bench.main(["--only", "magic", "--out", str(tmp_path)]) == 2
    assert "--only magic: known: csm, no_rgb" in capsys.readouterr().err
    assert bench.main(["--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no data pack found" in capsys.readouterr().err
    assert bench.main(["--report", "--out", str(tmp_path)]) == 0
    assert "no results in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "name", "conditions"),
    [
        (["--only", "no_rgb", "--limit", "1"], "no_rgb", {"bicubic", "none"}),
        (
            ["--control", "overfit", "--only", "overfit_rgb"],
            "overfit_rgb",
            {"bicubic", "aligned", "classical none", "classical aligned"},
        ),
    ],
)
def test_a_run_of_two_steps(tiny_pack, tmp_path, capsys, options, name, conditions):
    pytest.importorskip("torch", reason="needs the train extra (make test)")
    pytest.importorskip("diffusers", reason="needs the train extra (make test)")
    command = ["--data", str(tiny_pack), "--steps", "2", "--out", str(tmp_path), "--device", "cpu", *options]
    assert bench.main(command) == 0
    (entry,) = json.loads((tmp_path / "results.json").read_text()).items()
    assert entry[0] == f"{name}/0" and entry[1]["steps"] == 2
    assert {row["condition"] for row in entry[1]["scores"]} == conditions
    assert all(20 < row["psnr"] < 60 for row in entry[1]["scores"] if row["condition"] == "bicubic")
    if "--control" in options:
        assert all("train" in row["still"] for row in entry[1]["scores"])
    assert "2 steps of 4 crops" in capsys.readouterr().out
