"""The training loop, for any task: AdamW, warm-up and cosine, averaged weights, checkpoints that resume."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from thermal_enhance.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
)
from thermal_enhance.training.device import StopRequest, TrainingError, pick_device
from thermal_enhance.training.ema import Ema, copy_state, trained_state
from thermal_enhance.training.optimiser import build_optimiser, load_optimiser_state, optimiser_state
from thermal_enhance.training.prefetch import Prefetcher
from thermal_enhance.training.recipe import Recipe
from thermal_enhance.training.run_log import CsvLog, Means, Progress, plot_curves, write_picture
from thermal_enhance.training.schedule import Budget, learning_rate
from thermal_enhance.training.task import Sampler, Task

__all__ = ["CHECKPOINT", "FINISHED", "Outcome", "Sampler", "Task", "Trainer", "TrainingError", "pick_device"]

CHECKPOINT = "checkpoint.safetensors"
FINISHED = "finished"
MAX_BAD_STEPS = 20
"""Steps in a row without a finite loss after which a run is given up."""
_RESULTS = (CHECKPOINT, "best.safetensors", "last.safetensors", "log.csv", "validation.csv", "curves.png")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        reason: "finished" or the name of the signal that stopped it.
        step: steps done.
        minutes: of all sittings.
        best: best value of the monitored score; NaN if never validated.
        best_step: when.
        skipped: steps skipped for a loss or gradient that was not finite.
    """

    reason: str
    step: int
    minutes: float
    best: float
    best_step: int
    skipped: int


class Trainer:
    """Trains a task by a recipe.

    Into `out` go checkpoint.safetensors, last.safetensors and best.safetensors (averaged weights), log.csv,
    validation.csv, curves.png and montages/.

    Args:
        recipe: the run.
        task: what is trained.
        out: folder of results.
        device: "auto", "cpu", "cuda" or "cuda:1".
        max_minutes: instead of the recipe's.
        resume: go on from a checkpoint in `out`; otherwise what an earlier run left there is removed.
        progress: shows how far it is.

    Raises:
        TrainingError: no such device, or the checkpoint in `out` belongs to another recipe or is damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        out: Path,
        *,
        device: str = "auto",
        max_minutes: float | None = None,
        resume: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self.recipe = recipe
        self.task = task
        self.out = out
        self.device = pick_device(device)
        self.step = 0
        self.skipped = 0
        self.best, self.best_step = math.nan, 0
        self._bad = 0
        self._progress = progress or Progress(lambda _text: None)
        self._max_minutes = recipe.max_minutes if max_minutes is None else max_minutes
        torch.manual_seed(recipe.seed)
        self.model = task.build_model(recipe)
        if recipe.init_from is not None:
            self._initialise(recipe.init_from)
        self.model.to(self.device)
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = build_optimiser(task, self.model, recipe.optimiser)
        self.ema = Ema(self.model, recipe.optimiser.ema)
        minutes = 0.0
        if resume and (out / CHECKPOINT).is_file():
            minutes = self._restore(out / CHECKPOINT)
        elif not resume:
            _clear(out)
        out.mkdir(parents=True, exist_ok=True)
        self.log = CsvLog(out / "log.csv", self.step)
        self.scores = CsvLog(out / "validation.csv", self.step)
        self._compiled = cast(nn.Module, torch.compile(self.model)) if recipe.compile else self.model
        self.budget = Budget(recipe.steps, self._max_minutes, minutes)

    def run(self) -> Outcome:
        """Train to the end of the budget, or until SIGINT or SIGTERM, which leave a checkpoint.

        Raises:
            TrainingError: the loss stays non-finite, or the monitored score does not exist.
        """
        recipe = self.recipe
        sampler = self.task.sampler(recipe, "train")
        self.budget = Budget(recipe.steps, self._max_minutes, self.budget.before)
        saved = self.budget.minutes
        means = Means(saved)
        stop = StopRequest()
        workers = recipe.data.workers
        batches = Prefetcher(sampler.batch, self.step, recipe.steps, workers=workers, depth=2 * workers)
        with stop, batches:
            while not stop.reason and not self.budget.spent(self.step):
                parts = self._train_step(batches.get(self.step))
                self.step += 1
                means.add(parts)
                if self.step % recipe.log_every == 0:
                    self._log_row(*means.take(self.budget.minutes))
                self._show(parts)
                every = recipe.validation.every
                due = bool(every) and self.step % every == 0 and not self.budget.spent(self.step)
                if due:
                    self.validate()
                if due or self.budget.minutes - saved >= recipe.checkpoint_minutes:
                    self.save()
                    saved = self.budget.minutes
        # A stopped run is not validated: whoever stops it does not want to wait.
        if not stop.reason and self.step and self.scores.series("step")[0][-1:] != [float(self.step)]:
            self.validate()
        self.save()
        return Outcome(
            stop.reason or FINISHED, self.step, self.budget.minutes, self.best, self.best_step, self.skipped
        )

    def _train_step(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One optimiser step; the log's values, empty where the step was skipped."""
        recipe, config = self.recipe, self.recipe.optimiser
        # Randomness on the device is a function of the step too, so that nothing of it needs saving.
        torch.manual_seed((recipe.seed << 32) + self.step)
        rate = learning_rate(config, self.step, self.budget.progress(self.step))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["lr_scale"]
        moved = {name: self._to_device(tensor) for name, tensor in batch.items()}
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss, parts = self.task.loss(self._compiled, moved, self.step)
        value = float(loss.detach())
        if not math.isfinite(value):
            return self._skip(f"loss is {value}")
        loss.backward()
        norm = float(
            nn.utils.clip_grad_norm_(
                [p for p in self.model.parameters() if p.grad is not None], config.clip or math.inf
            )
        )
        if not math.isfinite(norm):
            return self._skip(f"gradient norm is {norm}")
        self._bad = 0
        self.optimiser.step()
        self.ema.update(self.model)
        return {"loss": value, **parts, "grad_norm": norm}

    def _skip(self, reason: str) -> dict[str, float]:
        self._bad += 1
        self.skipped += 1
        self.optimiser.zero_grad(set_to_none=True)
        if self._bad >= MAX_BAD_STEPS:
            raise TrainingError(
                f"{reason} at step {self.step}, the {self._bad}th in a row that is not finite: lower "
                f"optimiser.lr ({self.recipe.optimiser.lr:g}) or raise optimiser.warmup_steps and start "
                "again with --fresh (init_from: best.safetensors keeps what was learnt)"
            )
        return {}

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self.recipe.channels_last and tensor.ndim == 4:
            return tensor.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        return tensor.to(self.device, non_blocking=True)

    def validate(self) -> dict[str, float]:
        """Score the averaged weights, keep them if they are the best, and draw the run so far.

        Raises:
            TrainingError: the monitored score is not among the task's.
        """
        rule = self.recipe.validation
        with self.ema.applied(self.model) as model, torch.no_grad():
            scores = self.task.validate(model)
            picture = self.task.montage(model)
            monitor = rule.monitor or next(iter(scores), "")
            if monitor not in scores:
                raise TrainingError(
                    f"validation.monitor {monitor!r} is not a score of {self.recipe.method}; known: "
                    f"{', '.join(scores) or 'none'}"
                )
            value = scores[monitor]
            better = value > self.best if rule.mode == "max" else value < self.best
            if better or (math.isnan(self.best) and not math.isnan(value)):
                self.best, self.best_step = value, self.step
                self._write_weights(model, "best.safetensors")
            self._write_weights(model, "last.safetensors")
        self.scores.add({"step": self.step, "minutes": self.budget.minutes, **scores})
        write_picture(self.out / "montages" / f"{self.step:07d}.png", picture)
        plot_curves(self.out / "curves.png", self.log, self.scores)
        self._progress.say(f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        return scores

    def save(self) -> None:
        """Write the checkpoint."""
        state = optimiser_state(self.optimiser, self.model)
        save_checkpoint(
            self.out / CHECKPOINT,
            {"model": trained_state(self.model), "ema": self.ema.shadow, **state},
            {
                "recipe": self.recipe.identity(),
                "name": self.recipe.name,
                "step": self.step,
                "minutes": self.budget.minutes,
                "ema_updates": self.ema.updates,
                "skipped": self.skipped,
                "bad": self._bad,
                "best": None if math.isnan(self.best) else self.best,
                "best_step": self.best_step,
            },
        )

    def _restore(self, path: Path) -> float:
        """Take over a checkpoint; the minutes it has used."""
        try:
            groups, scalars = load_checkpoint(path)
        except CheckpointError as error:
            raise TrainingError(f"cannot resume: {error}; start again with --fresh") from error
        known, mine = scalars.get("recipe", {}), self.recipe.identity()
        changed = sorted(key for key in known.keys() | mine.keys() if known.get(key) != mine.get(key))
        if changed:
            raise TrainingError(
                f"cannot resume from {path}: the recipe has changed in {', '.join(changed)}; "
                "give another --out, or start again with --fresh"
            )
        try:
            for group, target in (("model", trained_state(self.model)), ("ema", self.ema.shadow)):
                _check_same(groups.get(group, {}), target)
                copy_state(groups[group], target)
            load_optimiser_state(self.optimiser, self.model, groups)
        except (KeyError, ValueError) as error:
            raise TrainingError(
                f"cannot resume from {path}: it holds another network ({error}); start again with --fresh"
            ) from error
        self.step, self.skipped, self._bad = scalars["step"], scalars["skipped"], scalars["bad"]
        self.best = math.nan if scalars["best"] is None else scalars["best"]
        self.best_step, self.ema.updates = scalars["best_step"], scalars["ema_updates"]
        self._progress.say(f"going on from step {self.step}")
        return float(scalars["minutes"])

    def _initialise(self, path: Path) -> None:
        """Start from weights: a task's own way where it has one, else by the names of the tensors."""
        loader = getattr(self.task, "load_weights", None)
        try:
            if loader is not None:
                loader(self.model, path)
                return
            found, _ = load_tensors(path)
        except CheckpointError as error:
            raise TrainingError(f"init_from: {error}") from error
        state = self.model.state_dict()
        shared = found.keys() & state.keys()
        wrong = sorted(name for name in shared if found[name].shape != state[name].shape)
        if wrong or not shared:
            reason = (
                f"{wrong[0]} has another shape in the model"
                if wrong
                else "none of its tensors is in the model"
            )
            raise TrainingError(f"init_from: {path}: {reason}")
        copy_state(found, {name: state[name] for name in shared})
        self._progress.say(
            f"init_from {path.name}: {len(shared)} tensors taken, {len(state) - len(shared)} as initialised, "
            f"{len(found) - len(shared)} not used"
        )

    def _write_weights(self, model: nn.Module, name: str) -> None:
        partial = self.out / f".part-{name}"
        self.task.save_weights(model, partial)
        os.replace(partial, self.out / name)

    def _log_row(self, means: dict[str, float], rate: float) -> None:
        lr = self.optimiser.param_groups[0]["lr"] / self.optimiser.param_groups[0]["lr_scale"]
        head = {"step": self.step, "minutes": self.budget.minutes, "lr": lr, "steps_per_s": rate}
        self.log.add({**head, "skipped": self.skipped, **means})

    def _show(self, parts: Mapping[str, float]) -> None:
        loss = f"loss {parts['loss']:.4g}" if parts else "step skipped"
        done = f" of {self.recipe.steps}" if self.recipe.steps else ""
        best = "" if math.isnan(self.best) else f", best {self.best:.4g}"
        text = f"step {self.step}{done}, {self.budget.minutes:.1f} min, {loss}{best}"
        self._progress.update(self.budget.progress(self.step), text)


def _check_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    different = sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape
    )
    if different:
        raise ValueError(f"{len(different)} tensors differ, {different[0]} first")


def _clear(out: Path) -> None:
    """Remove an earlier run's results: its best weights must not pass for this one's."""
    for path in (*(out / name for name in _RESULTS), *(out / "montages").glob("*.png")):
        path.unlink(missing_ok=True)
