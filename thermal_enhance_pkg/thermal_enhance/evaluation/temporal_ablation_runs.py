"""One run of a temporal ablation: train by its recipe, then score the network alone on validation clips.

The network alone: window by window as in training, with the input that its recipe gives it, and the observed
frame true to its block means; no ring, no envelope.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.temporal_input import TemporalInputBuilder, to_levels
from thermal_enhance.evaluation import figures
from thermal_enhance.evaluation.ablation_runs import Budget, facts, to_picture
from thermal_enhance.evaluation.temporal_clips import TemporalClip, list_clips
from thermal_enhance.evaluation.temporal_methods import BASE, Made, Method, input_base
from thermal_enhance.evaluation.temporal_methods import to_picture as rounded
from thermal_enhance.evaluation.temporal_scores import measure
from thermal_enhance.imaging.motion import MotionConfig, MotionEstimator
from thermal_enhance.training.recipe import load_recipe

SETS = ("m3svd_lossless", "m3svd_mp4", "synthetic")
FRAMES = 17
"""Of a clip, at full rate."""
NETWORK = "network"
_MULTIPLE = 8
"""Of the low-resolution sides that every size of the network takes."""


def choose_clips(data: Path, limit: int) -> list[TemporalClip]:
    """Validation clips to score on: so many a set, evenly spread; 0 for all."""
    chosen = []
    for name in SETS:
        clips = list(list_clips(data, [name], limit=FRAMES))
        if limit and len(clips) > limit:
            clips = [clips[i] for i in np.linspace(0, len(clips) - 1, limit).astype(int)]
        chosen += clips
    return chosen


def train_and_score(
    recipe_path: Path, data: Path, out: Path, budget: Budget, clips: Sequence[TemporalClip]
) -> dict[str, Any]:
    """Train by a recipe and score the averaged weights.

    Args:
        recipe_path: the recipe.
        data: the data pack.
        out: folder of the training's own results; an earlier run there is replaced.
        budget: see `Budget`.
        clips: what to score on.

    Returns:
        Plain values: recipe, seed, steps, minutes, machine, parameters, and `rows`, those of
        `temporal_scores.measure` with the network as "network".

    Raises:
        TrainingError: the training failed.
        RecipeError: the recipe cannot be used.
    """
    import torch

    from thermal_enhance.training.run_log import progress_display
    from thermal_enhance.training.temporal_task import build_task
    from thermal_enhance.training.trainer import Trainer

    recipe = load_recipe(recipe_path, budget.overrides())
    if budget.threads:
        torch.set_num_threads(budget.threads)
    task = build_task(recipe, data)
    with progress_display() as progress:
        trainer = Trainer(recipe, task, out, device=budget.device, resume=False, progress=progress)
        outcome = trainer.run()
    began = time.monotonic()
    with trainer.ema.applied(trainer.model) as averaged, torch.no_grad():
        motion = task.settings.windows.motion
        network = of_network(averaged, task.builder, task.config.window, motion)
        rows = measure(clips, {BASE: input_base(), NETWORK: network}, warm_up=task.config.window - 1)
    # The network alone: what is learnt with it for the loss does not ship.
    named = trainer.model.named_parameters()
    parameters = sum(p.numel() for name, p in named if name.startswith("model."))
    told = facts(recipe, trainer, outcome, parameters, time.monotonic() - began)
    return {**told, "rows": figures.plain([asdict(row) for row in rows])}


def of_network(model: Any, builder: TemporalInputBuilder, window: int, motion: MotionConfig) -> Method:
    """A network in torch as a method: at every step the newest frame and the one before it in time.

    Args:
        model: a `TemporalModel` or what forwards to one, in evaluation mode.
        builder: makes its input.
        window: X.
        motion: how motion is found; as in training.
    """
    estimate = MotionEstimator(motion)

    def run(clip: TemporalClip) -> Made:
        padded = [_pad(frame.astype(np.float32)) for frame in clip.low]
        motions = [estimate(*pair) for pair in pairwise(padded)]
        encoded = [builder.encode(frame) for frame in padded]
        height, width = clip.truth[0].shape
        made = Made()
        for last in range(window - 1, len(padded)):
            first = last - window + 1
            taus = (window - 1.5, window - 1.0)
            ready = builder(padded[first : last + 1], motions[first:last], taus)
            residual = _forward(
                model, np.stack(encoded[first : last + 1]), ready.grid, ready.tau, ready.cues
            )[:, 0]
            new, observed = to_levels(ready.base, residual)[:, :height, :width]
            made.new[last - 1] = rounded(new)
            made.observed[last] = to_picture(observed / 127.5 - 1.0, clip.low[last])
        return made

    return run


def _forward(model: Any, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    device = next(model.parameters()).device
    tensors = [torch.from_numpy(np.ascontiguousarray(value))[None].to(device) for value in inputs]
    return np.asarray(model(*tensors)[0].float().cpu().numpy(), np.float32)


def _pad(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = levels.shape
    return np.pad(levels, ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE)), mode="reflect")
