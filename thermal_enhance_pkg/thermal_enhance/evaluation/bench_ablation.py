"""The papers' ablations at one small equal budget: `thermal-enhance bench ablation`.

Each variant (3M-TI: no RGB, no misalignment augmentation, no skips, cross-attention, concatenation) is
trained by its recipe in config/recipes/ablation on the same crops in the same order, and the network alone,
without the alignment stage, is scored x8 on validation pictures with RGB aligned and misaligned.
`--method temporal` does so for THERIS (no spectral mask, no thermal prompt, no TFM loss; beyond the paper, no
motion), scored x4 in space and x2 in time on validation clips.
`--control overfit` instead trains with and without perfectly aligned RGB on a handful of pictures and scores
on those same pictures: an upper bound of what RGB can give, never a claim of quality. Runs can be made one by
one; their results gather in results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from thermal_enhance import resources
from thermal_enhance.evaluation import (
    ablation_runs,
    stills,
    temporal_ablation_runs,
    temporal_ablation_tables,
)
from thermal_enhance.evaluation.ablation_tables import ablation_report, control_report
from thermal_enhance.evaluation.bench_enhance import find_data
from thermal_enhance.training.recipe import RecipeError, load_recipe

VARIANTS = ("csm", "no_rgb", "no_misalignment", "no_skip", "cross", "concat")
METHODS = {"cross_modal": VARIANTS, "temporal": temporal_ablation_tables.VARIANTS}
FOLDERS = {"cross_modal": "ablation", "temporal": "temporal-ablation"}
"""Of recipes, and of results."""
CONTROLS = {"overfit": ("overfit_rgb", "overfit_no_rgb")}
SETS = ("pbvsg", "m3svd")
RESULTS = "results.json"
_NAMES_HELP = "; ".join(f"{method}: some of {', '.join(names)}" for method, names in METHODS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score what was asked for; 0 on success, 1 when a run failed, 2 when it cannot start."""
    arguments = _parser().parse_args(argv)
    known = CONTROLS[arguments.control] if arguments.control else METHODS[arguments.method]
    if arguments.control and arguments.method != "cross_modal":
        sys.stderr.write(f"bench ablation: --control {arguments.control} is of cross_modal alone\n")
        return 2
    wanted = arguments.only or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.stderr.write(f"bench ablation: --only {unknown[0]}: known: {', '.join(known)}\n")
        return 2
    arguments.out = arguments.out or Path("out") / FOLDERS[arguments.method]
    results = Results(arguments.out / RESULTS)
    if not arguments.report:
        data = arguments.data or find_data()
        if data is None or not (data / "rgbt_pairs" / "manifest.jsonl").is_file():
            sys.stderr.write("bench ablation: no data pack found; give its folder as --data\n")
            return 2
        recipes = "control" if arguments.control else FOLDERS[arguments.method]
        folder = resources.resource("config", "recipes", recipes)
        for seed in arguments.seeds:
            for name in wanted:
                status = _run(arguments, folder / f"{name}.yaml", data, seed, results)
                if status:
                    return status
    text = _report(arguments)(results.read())
    sys.stdout.write((text or f"no results in {results.path} yet") + "\n")
    return 0


def _report(arguments: argparse.Namespace) -> Callable[[Mapping[str, Any]], str]:
    if arguments.control:
        return control_report
    return temporal_ablation_tables.report if arguments.method == "temporal" else ablation_report


def _run(arguments: argparse.Namespace, recipe_path: Path, data: Path, seed: int, results: Results) -> int:
    name = recipe_path.stem
    budget = ablation_runs.Budget(
        arguments.steps, arguments.minutes, seed, arguments.threads, arguments.device
    )
    try:
        prepared, words = _prepare(arguments, recipe_path, data)
        sys.stderr.write(f"{name}, seed {seed}: train, then score on {words}\n")
        found = prepared(out=arguments.out / f"{name}-{seed}", budget=budget)
    except RecipeError as error:
        sys.stderr.write(f"bench ablation: {error}\n")
        return 2
    except RuntimeError as error:  # TrainingError, which cannot be named without torch
        sys.stderr.write(f"bench ablation: {name}: {error}\n")
        return 1
    if found["stopped"] != "finished":
        sys.stderr.write(f"bench ablation: {name} was stopped by {found['stopped']}; not counted\n")
        return 1
    results.add(f"{name}/{seed}", found)
    return 0


def _prepare(
    arguments: argparse.Namespace, recipe_path: Path, data: Path
) -> tuple[Callable[..., dict[str, Any]], str]:
    """(the run, still without its budget and folder; what it is scored on, in words)."""
    if arguments.method == "temporal":
        clips = temporal_ablation_runs.choose_clips(data, arguments.limit)
        run = partial(temporal_ablation_runs.train_and_score, recipe_path, data, clips=clips)
        return run, f"{len(clips)} clips"
    conditions: tuple[str, ...] = ()
    if arguments.control:
        pictures = _trained_pictures(recipe_path, data)
        # What each was trained for, and no more.
        conditions = ("none",) if recipe_path.stem.endswith("no_rgb") else ("aligned",)
    else:
        pictures = [s for d in SETS for s in stills.list_stills(data, d, limit=arguments.limit)]
    run = partial(ablation_runs.train_and_score, recipe_path, data, pictures=pictures, conditions=conditions)
    return run, f"{len(pictures)} pictures"


def _trained_pictures(recipe_path: Path, data: Path) -> list[stills.Still]:
    """What a control was trained on: it is scored on the same."""
    recipe = load_recipe(recipe_path)
    return [
        still
        for source in recipe.data.sources
        for still in stills.list_stills(
            data, source.dataset, split="train", limit=source.limit, ids=source.ids
        )
    ]


class Results:
    """results.json: one entry a run, `name/seed`; runs made one by one add to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """All runs so far."""
        if not self.path.is_file():
            return {}
        found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return found

    def add(self, key: str, run: Mapping[str, Any]) -> None:
        """Add or replace a run."""
        runs = {**self.read(), key: run}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.part")
        partial.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="thermal-enhance bench ablation", description=__doc__)
    parser.add_argument("--data", type=Path, help="the data pack (default: ../shared/data of the checkout)")
    parser.add_argument("--method", choices=tuple(METHODS), default="cross_modal", help="whose ablations")
    parser.add_argument("--control", choices=tuple(CONTROLS), help="the control instead of the ablations")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=_NAMES_HELP)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, help="of each run (default: the recipe's)")
    budget.add_argument("--minutes", type=float, help="of each run, instead of steps")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run each (default: 0)")
    parser.add_argument("--limit", type=int, default=8, help="pictures or clips a set (default: 8; 0: all)")
    parser.add_argument("--out", type=Path, help="folder of results (default: out/ablation, by method)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch (default: its own)")
    parser.add_argument("--report", action="store_true", help="only print what results.json has")
    return parser
