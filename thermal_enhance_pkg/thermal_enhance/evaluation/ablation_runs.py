"""One run of an ablation or control: train by its recipe, then score the network alone on stills.

The network alone: RGB goes in as it comes, without the alignment stage, and what the paper's fusion makes of
it is all there is. Only the consistency with the input is met, as in validation.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.cross_modal_input import CrossModalInput, CrossModalInputBuilder
from thermal_enhance.evaluation import stills
from thermal_enhance.evaluation.bench_stats import machine
from thermal_enhance.evaluation.stills import Picture, Score, Still
from thermal_enhance.training.recipe import Recipe, load_recipe

SCALE = 8
CONDITIONS = ("none", "aligned", "misaligned")


@dataclass(frozen=True)
class Budget:
    """What each run gets, the same for all.

    Attributes:
        steps: instead of the recipe's; None for the recipe's.
        minutes: instead of steps: a run without RGB, whose steps are cheaper, then takes more of them.
        seed: of initialisation and data.
        threads: CPU threads of torch; 0 for its own choice.
        device: "auto", "cpu" or "cuda".
    """

    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    threads: int = 0
    device: str = "auto"

    def overrides(self) -> list[str]:
        """As `key=value` texts for a recipe."""
        texts = [f"seed={self.seed}"]
        if self.minutes is not None:
            return [*texts, "steps=null", f"max_minutes={self.minutes}"]
        return texts if self.steps is None else [*texts, f"steps={self.steps}", "max_minutes=null"]


def train_and_score(
    recipe_path: Path,
    data: Path,
    out: Path,
    budget: Budget,
    pictures: Sequence[Still],
    conditions: Sequence[str] = (),
) -> dict[str, Any]:
    """Train by a recipe and score the averaged weights.

    Args:
        recipe_path: the recipe.
        data: the data pack.
        out: folder of the training's own results; an earlier run there is replaced.
        budget: see `Budget`.
        pictures: what to score on.
        conditions: some of `CONDITIONS`; empty for all that the network has been trained for.

    Returns:
        Plain values: recipe, seed, steps, minutes, machine, parameters, and `scores`, one entry a picture and
        condition (set, still, condition, psnr, ssim, gmsd), with bicubic as the condition "bicubic" and, for
        a network with the classical guide, that by itself as "classical none" and "classical aligned".

    Raises:
        TrainingError: the training failed.
        RecipeError: the recipe cannot be used.
    """
    import torch

    from thermal_enhance.training.cross_modal_task import CrossModalTraining, build_task
    from thermal_enhance.training.mapping import from_mapping
    from thermal_enhance.training.run_log import progress_display
    from thermal_enhance.training.trainer import Trainer

    recipe = load_recipe(recipe_path, budget.overrides())
    if budget.threads:
        torch.set_num_threads(budget.threads)
    with progress_display() as progress:
        trainer = Trainer(
            recipe, build_task(recipe, data), out, device=budget.device, resume=False, progress=progress
        )
        outcome = trainer.run()
    began = time.monotonic()
    guided = from_mapping(CrossModalTraining, recipe.task, "task").classical_guide
    conditions = conditions or conditions_of(recipe)
    model = trainer.model
    with trainer.ema.applied(model) as averaged, torch.no_grad():
        scores = [
            row
            for still in pictures
            for row in score_still(averaged, still, classical_guide=guided, conditions=conditions)
        ]
    parameters = sum(p.numel() for p in model.parameters())
    return {**facts(recipe, trainer, outcome, parameters, time.monotonic() - began), "scores": scores}


def facts(recipe: Recipe, trainer: Any, outcome: Any, parameters: int, scoring_s: float) -> dict[str, Any]:
    """What results.json says of every run, whatever its method.

    Args:
        recipe: it was trained by.
        trainer: the `Trainer`, after the run.
        outcome: of the run.
        parameters: of the network.
        scoring_s: seconds that scoring took.
    """
    return {
        "recipe": recipe.name,
        "description": recipe.description,
        "seed": recipe.seed,
        "steps": outcome.step,
        "batch": recipe.batch,
        "minutes": round(outcome.minutes, 2),
        "scoring_minutes": round(scoring_s / 60, 2),
        "stopped": outcome.reason,
        "skipped": outcome.skipped,
        "parameters": parameters,
        "device": str(trainer.device),
        "machine": machine(),
    }


def conditions_of(recipe: Recipe) -> tuple[str, ...]:
    """What a network can be asked: one trained without RGB has never seen any."""
    return CONDITIONS if recipe.ablation.get("rgb", True) else ("none",)


def score_still(
    model: Any, still: Still, *, classical_guide: bool, conditions: Sequence[str]
) -> list[dict[str, Any]]:
    """Scores of a network on one still, and of bicubic.

    Args:
        model: a `CrossModalModel` in evaluation mode.
        still: the picture.
        classical_guide: see `CrossModalTraining`.
        conditions: some of `CONDITIONS`.
    """
    builder = CrossModalInputBuilder()
    truth, color = stills.read(still, SCALE)
    low = stills.reduce(truth, SCALE, "area")
    rows = [_row(still, "bicubic", stills.enlarge(low, SCALE), truth)]
    for condition in conditions:
        seen = {"none": None, "aligned": color}.get(condition)
        if condition == "misaligned":
            seen = stills.misaligned(color, still)
        ready = network_input(builder, low, seen, classical_guide=classical_guide)
        rows.append(_row(still, condition, enhance(model, ready, low), truth))
    for condition, seen in (("none", None), ("aligned", color)) if classical_guide else ():
        base = network_input(builder, low, seen, classical_guide=True).thermal[0]
        rows.append(_row(still, f"classical {condition}", to_picture(base, low), truth))
    return rows


def network_input(
    builder: CrossModalInputBuilder, low: Picture, color: Picture | None, *, classical_guide: bool
) -> CrossModalInput:
    """The network's input with RGB taken to be where thermal is."""
    thermal = low.astype(np.float32)
    if color is None:
        return builder(thermal, SCALE)
    guide = builder.place_color(color, np.eye(3), (low.shape[1], low.shape[0]), SCALE)
    return dataclasses.replace(builder, guided_base=classical_guide)(thermal, SCALE, guide)


def enhance(model: Any, ready: CrossModalInput, low: Picture) -> Picture:
    """Run the network on a whole picture and meet the input's block means."""
    import torch

    device = next(model.parameters()).device
    multiple = model.config.denoiser.multiple
    height, width = ready.thermal.shape[1:]

    def tensor(picture: NDArray[np.float32]) -> Any:
        pad = ((0, 0), (0, -height % multiple), (0, -width % multiple))
        return torch.from_numpy(np.pad(picture, pad, mode="reflect"))[None].to(device)

    rgb = None if ready.rgb is None else tensor(ready.rgb)
    made = model(tensor(ready.thermal), rgb).float()[0, 0, :height, :width]
    return to_picture(made.cpu().numpy(), low)


def to_picture(made: NDArray[np.float32], low: Picture) -> Picture:
    """What a network made, in [-1, 1], as a picture that meets the input's block means."""
    import torch

    from thermal_enhance.training.cross_modal_task import meet_block_means

    means = torch.from_numpy(low.astype(np.float32))[None, None] / 127.5 - 1.0
    met = meet_block_means(torch.from_numpy(np.ascontiguousarray(made))[None, None], means)[0, 0].numpy()
    return np.clip(np.rint((met + 1.0) * 127.5), 0, 255).astype(np.uint8)


def _row(still: Still, condition: str, made: Picture, truth: Picture) -> dict[str, Any]:
    return {
        "set": still.dataset,
        "still": still.name,
        "condition": condition,
        **asdict(Score.of(made, truth)),
    }
