"""The training loop, for any task: AdamW, warm-up and cosine, averaged weights, checkpoints that resume."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thermal_enhance.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
)
from thermal_enhance.training.ema import Ema, copy_state, trained_state
from thermal_enhance.training.prefetch import Prefetcher
from thermal_enhance.training.recipe import Recipe
from thermal_enhance.training.run_log import CsvLog, Progress, plot_curves, write_picture
from thermal_enhance.training.schedule import Budget, learning_rate

CHECKPOINT = "checkpoint.safetensors"
MAX_BAD_STEPS = 20
"""Steps in a row without a finite loss after which a run is given up."""
_FINISHED = "finished"


class TrainingError(RuntimeError):
    """A run cannot start or go on; the message says which setting or file to change."""


class Sampler(Protocol):
    """Gives the batch of each step."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """Tensors on the CPU; a pure function of the step, called from worker threads."""
        ...


class Task(Protocol):
    """What is trained: everything that differs between methods."""

    def build_model(self, recipe: Recipe) -> nn.Module:
        """The network, on the CPU, initialised from torch's generator; frozen parameters without gradient."""
        ...

    def sampler(self, recipe: Recipe, split: str) -> Sampler:
        """Batches of a split; `batch(step)` is called from worker threads."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """(scalar to minimise, its parts for the log); the batch is on the model's device."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Scores with the averaged weights; in evaluation mode, without gradient."""
        ...

    def montage(self, model: nn.Module) -> NDArray[np.uint8]:
        """A picture of samples, (H, W, 3) uint8 RGB."""
        ...

    def save_weights(self, model: nn.Module, path: Path) -> None:
        """Write the model's weights as safetensors."""
        ...


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
        resume: go on from a checkpoint in `out`; otherwise one that is there is overwritten.
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
        self._stop = ""
        self._progress = progress or Progress(lambda _text: None)
        self._max_minutes = recipe.max_minutes if max_minutes is None else max_minutes
        torch.manual_seed(recipe.seed)
        self.model = task.build_model(recipe)
        if recipe.init_from is not None:
            self._initialise(recipe.init_from)
        self.model.to(self.device)
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = self._build_optimiser()
        self.ema = Ema(self.model, recipe.optimiser.ema)
        path = out / CHECKPOINT
        minutes = self._restore(path) if resume and path.is_file() else 0.0
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
        recipe, sampler = self.recipe, self.task.sampler(self.recipe, "train")
        self.budget = Budget(recipe.steps, self._max_minutes, self.budget.before)
        saved = last_log = self.budget.minutes
        sums: dict[str, float] = {}
        count = 0
        with (
            self._signals(),
            Prefetcher(sampler.batch, self.step, recipe.steps, workers=recipe.data.workers) as batches,
        ):
            while not self._stop and not self.budget.spent(self.step):
                parts = self._train_step(batches.get(self.step))
                self.step += 1
                for key, value in parts.items():
                    sums[key] = sums.get(key, 0.0) + value
                count += bool(parts)
                minutes = self.budget.minutes
                if self.step % recipe.log_every == 0:
                    rate = recipe.log_every / max(60 * (minutes - last_log), 1e-9)
                    last_log = minutes
                    self._log_row({k: v / count for k, v in sums.items()} if count else {}, rate)
                    sums, count = {}, 0
                self._show(parts)
                every = recipe.validation.every
                if every and self.step % every == 0 and not self.budget.spent(self.step):
                    self.validate()
                if minutes - saved >= recipe.checkpoint_minutes:
                    self.save()
                    saved = minutes
        # A stopped run is not validated: whoever stops it does not want to wait.
        if not self._stop and self.step and self.scores.series("step")[0][-1:] != [float(self.step)]:
            self.validate()
        self.save()
        return Outcome(
            self._stop or _FINISHED, self.step, self.budget.minutes, self.best, self.best_step, self.skipped
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
                f"optimiser.lr ({self.recipe.optimiser.lr:g}) or raise optimiser.warmup_steps, "
                f"and start again with --fresh or from an earlier checkpoint"
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
        state = self._optimiser_state()
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
            self._load_optimiser_state(groups)
        except (KeyError, ValueError) as error:
            raise TrainingError(
                f"cannot resume from {path}: it holds another network ({error}); start again with --fresh"
            ) from error
        self.step, self.skipped, self._bad = scalars["step"], scalars["skipped"], scalars["bad"]
        self.best = math.nan if scalars["best"] is None else scalars["best"]
        self.best_step, self.ema.updates = scalars["best_step"], scalars["ema_updates"]
        self._progress.say(f"going on from step {self.step}")
        return float(scalars["minutes"])

    def _build_optimiser(self) -> torch.optim.AdamW:
        """AdamW; biases and norms are not decayed. A task may set `lr_scale` by `parameter_groups(model)`."""
        config = self.recipe.optimiser
        groups_of = getattr(self.task, "parameter_groups", None)
        given = groups_of(self.model) if groups_of else [{"params": list(self.model.parameters())}]
        groups: list[dict[str, Any]] = []
        for group in given:
            trained = [p for p in group["params"] if p.requires_grad]
            for members, decay in (
                ([p for p in trained if p.ndim >= 2], config.weight_decay),
                ([p for p in trained if p.ndim < 2], 0.0),
            ):
                if members:
                    scale = float(cast(float, group.get("lr_scale", 1.0)))
                    groups.append({"params": members, "weight_decay": decay, "lr_scale": scale})
        if not groups:
            raise TrainingError(f"the model of {self.recipe.name} has no parameter to train")
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)

    def _optimiser_state(self) -> dict[str, dict[str, Tensor]]:
        names = {id(p): name for name, p in self.model.named_parameters()}
        state: dict[str, dict[str, Tensor]] = {}
        for parameter, entries in self.optimiser.state.items():
            for key, tensor in entries.items():
                state.setdefault(f"optimiser.{key}", {})[names[id(parameter)]] = tensor
        return state

    def _load_optimiser_state(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        parameters = dict(self.model.named_parameters())
        for group, members in groups.items():
            if not group.startswith("optimiser."):
                continue
            key = group.removeprefix("optimiser.")
            for name, tensor in members.items():
                parameter = parameters[name]
                # AdamW keeps its step count on the CPU.
                where = "cpu" if key == "step" else parameter.device
                value = tensor.to(where)
                if value.ndim == 4 and self.recipe.channels_last:
                    value = value.contiguous(memory_format=torch.channels_last)
                self.optimiser.state[parameter][key] = value

    def _initialise(self, path: Path) -> None:
        """Start from weights: a task's own way where it has one, else by the names of the tensors."""
        loader = getattr(self.task, "load_weights", None)
        try:
            if loader is not None:
                loader(self.model, path)
                return
            tensors, _ = load_tensors(path)
            missing, unexpected = self.model.load_state_dict(tensors, strict=False)
        except (CheckpointError, RuntimeError) as error:
            raise TrainingError(f"init_from: {error}") from error
        if len(unexpected) == len(tensors):
            raise TrainingError(f"init_from: {path}: none of its tensors is in the model")
        self._progress.say(
            f"init_from {path.name}: {len(missing)} tensors missing, {len(unexpected)} not used"
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

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ask the loop to stop on the first SIGINT or SIGTERM; a second one acts as it always did."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}

        def handle(number: int, _frame: object) -> None:
            self._stop = signal.Signals(number).name
            signal.signal(number, before[signal.Signals(number)])

        for number in numbers:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises:
        TrainingError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"--device {name}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs")
    return device


def _check_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    different = sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape
    )
    if different:
        raise ValueError(f"{len(different)} tensors differ, {different[0]} first")
