"""`thermal-enhance train`: train a model by a recipe."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from thermal_enhance.training.datasets import DataError
from thermal_enhance.training.manifest import ManifestError, find_pack
from thermal_enhance.training.recipe import RecipeError, load_recipe

METHODS = {
    "cross_modal": "thermal_enhance.training.cross_modal_task",
    "temporal": "thermal_enhance.training.temporal_task",
}
"""Module of each method; its `build_task(recipe, pack)` makes the task."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train by a recipe.

    Returns:
        0 when it ended or was stopped with a checkpoint, 1 when it failed, 2 when it cannot start as asked.
    """
    parser = argparse.ArgumentParser(prog="thermal-enhance train", description=__doc__)
    parser.add_argument("recipe", type=Path, help="YAML file that says what is trained and how")
    parser.add_argument("--out", type=Path, help="folder of results (default: out/train/NAME)")
    parser.add_argument("--data", type=Path, help="the data pack (default: shared/data beside the checkout)")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="end, annealed, after so many minutes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of torch (default: its own)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--resume", action="store_true", help="go on from the checkpoint; fail without one")
    choice.add_argument("--fresh", action="store_true", help="start anew, over a checkpoint that is there")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key, e.g. optimiser.lr=2e-4"
    )
    arguments = parser.parse_args(argv)
    try:
        return _train(arguments)
    except (RecipeError, ManifestError, DataError) as error:
        sys.stderr.write(f"thermal-enhance train: {error}\n")
        return 2


def _train(arguments: argparse.Namespace) -> int:
    recipe = load_recipe(arguments.recipe, arguments.set)
    if recipe.method not in METHODS:
        raise RecipeError(
            f"{arguments.recipe}: method: there is no {recipe.method!r}; known: {', '.join(METHODS)}"
        )
    if arguments.max_minutes is not None and not arguments.max_minutes > 0:
        raise RecipeError(f"--max-minutes must be greater than 0, not {arguments.max_minutes}")
    pack = arguments.data or find_pack()
    if pack is None:
        raise DataError("no data pack found; give its folder as --data")
    # Only now: a mistake in the recipe is told without waiting for torch.
    import torch

    from thermal_enhance.training import trainer
    from thermal_enhance.training.run_log import progress_display

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("out") / "train" / recipe.name
    if arguments.resume and not (out / trainer.CHECKPOINT).is_file():
        raise RecipeError(f"--resume: there is no {trainer.CHECKPOINT} in {out}")
    method = importlib.import_module(METHODS[recipe.method])
    try:
        with progress_display() as progress:
            try:
                run = trainer.Trainer(
                    recipe,
                    method.build_task(recipe, pack),
                    out,
                    device=arguments.device,
                    max_minutes=arguments.max_minutes,
                    resume=not arguments.fresh,
                    progress=progress,
                )
            except ValueError as error:  # the method's own keys
                raise RecipeError(f"{arguments.recipe}: {error}") from error
            outcome = run.run()
    except trainer.TrainingError as error:
        sys.stderr.write(f"thermal-enhance train: {error}\n")
        return 1
    if outcome.reason != trainer.FINISHED:
        sys.stdout.write(f"stopped by {outcome.reason}; the same command goes on from here\n")
    skipped = f", {outcome.skipped} steps skipped" if outcome.skipped else ""
    best = f", best {outcome.best:.4g} at step {outcome.best_step}" if outcome.best_step else ""
    sys.stdout.write(f"{outcome.step} steps in {outcome.minutes:.1f} min{skipped}{best}; results in {out}\n")
    return 0
