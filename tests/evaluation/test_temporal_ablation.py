"""Temporal ablations: recipes differ in one switch, verdicts tell which way each points, a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thermal_enhance.evaluation import bench_ablation as bench
from thermal_enhance.evaluation import temporal_ablation_tables as tables
from thermal_enhance.training.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "config" / "recipes" / "temporal-ablation"


@pytest.mark.parametrize("name", tables.VARIANTS)
def test_each_ablation_changes_one_thing(name):
    base, mine = (load_recipe(RECIPES / f"{n}.yaml").to_mapping() for n in ("base", name))
    different = {key for key in base if base[key] != mine[key]} - {"name", "description"}
    assert different == (set() if name == "full" else {"task"} if name.startswith("tfm") else {"ablation"})


def run(observed: float, new: float, seed: int = 0) -> dict:
    figures = {
        ("bicubic", "observed"): 30.0, ("bicubic, optical flow", "new"): 29.0,
        ("input base", "observed"): 30.0, ("input base", "new"): 29.1,
        ("network", "observed"): observed, ("network", "new"): new,
    }  # fmt: skip
    rows = [
        {"dataset": dataset, "clip": "a", "group": "moving", "motion": 1.0, "method": method,
         "frames": frames, "count": 4, "psnr": psnr, "ssim": 0.9, "gmsd": 0.1, "flicker": None,
         "flicker_fine": None, "warp_error": 1.0}
        for dataset in ("m3svd_lossless", "synthetic")
        for (method, frames), psnr in figures.items()
    ]  # fmt: skip
    return {"seed": seed, "steps": 300, "batch": 4, "minutes": 2.5, "device": "cpu", "parameters": 1000,
            "machine": {"processor": "a CPU"}, "rows": rows}  # fmt: skip


def test_verdicts_say_which_way_each_ablation_points():
    runs = {
        "no_warp/0": run(30.9, 27.0), "no_mask/0": run(30.7, 29.3), "full/0": run(31.0, 29.5),
        "no_prompt/0": run(31.01, 29.5), "no_tfm/0": run(31.2, 29.5),
    }  # fmt: skip
    lines = tables.verdicts(tables.by_name(runs))
    assert [line[2:].partition(":")[0] for line in lines] == [
        "as the paper", "no difference", "against the paper", "worse than the full method",
    ]  # fmt: skip
    assert "no_mask -0.250 dB: observed -0.300, new -0.200 (paper: PSNR 21.37 -> 19.86)" in lines[0]
    text = tables.report(runs)
    assert "| bicubic, optical flow | - | 30.00 / 29.00 | 30.00 / 29.00 |" in text
    assert "| full | 1000 | 31.00 / 29.50 |" in text and "M3SVD lossless, moving (1)" in text
    assert "300 steps of 4 windows" in text and tables.report({}) == ""


def test_seeds_are_compared_with_their_like():
    runs = {
        "full/0": run(31.0, 29.0), "full/1": run(32.0, 29.0, 1),
        "no_mask/0": run(30.8, 29.0), "no_mask/1": run(31.6, 29.0, 1),
    }  # fmt: skip
    (line,) = tables.verdicts(tables.by_name(runs))
    assert "no_mask -0.150 dB (-0.200 to -0.100): observed -0.300, new +0.000" in line
    assert tables.verdicts({"no_mask": [run(1.0, 1.0)]}) == []


def test_mistakes_are_one_sentence(tmp_path, capsys):
    command = ["--method", "temporal", "--out", str(tmp_path)]
    assert bench.main([*command, "--only", "csm"]) == 2
    assert "--only csm: known: full, no_mask" in capsys.readouterr().err
    assert bench.main([*command, "--control", "overfit"]) == 2
    assert "of cross_modal alone" in capsys.readouterr().err


def test_a_run_of_two_steps(tiny_pack, tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch", reason="needs the train extra (make test)")
    lines = (RECIPES / "no_mask.yaml").read_text()
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "no_mask.yaml").write_text(
        lines.replace("base: base.yaml", f"base: {RECIPES / 'base.yaml'}")
        + "data: {crop: 64, sources: [{dataset: m3svd_lossless}, {dataset: pbvsg}]}\nbatch: 1\n"
    )
    monkeypatch.setattr(bench.resources, "resource", lambda *_: folder)
    command = ["--data", str(tiny_pack), "--method", "temporal", "--only", "no_mask", "--steps", "2",
               "--limit", "2", "--out", str(tmp_path / "out"), "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr(bench.temporal_ablation_runs, "SETS", ("synthetic",))
    monkeypatch.setattr(bench.temporal_ablation_runs, "FRAMES", 9)
    assert bench.main(command) == 0
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text()).items()
    assert entry[0] == "no_mask/0" and entry[1]["steps"] == 2
    found = {(row["method"], row["frames"]): row for row in entry[1]["rows"]}
    # Two steps from the base: still near it.
    base, network = (found[name, "new"]["psnr"] for name in ("input base", "network"))
    assert abs(base - network) < 3 and found["network", "observed"]["count"] == 3
    assert "2 steps of 1 windows" in capsys.readouterr().out
