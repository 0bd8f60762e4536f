"""How far a run has come, by steps and by the clock, and the learning rate there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from thermal_enhance.training.recipe import OptimiserConfig


@dataclass
class Budget:
    """Ends a run after some steps or some minutes, whichever comes first.

    Attributes:
        steps: most steps; None for no limit.
        max_minutes: most minutes, of all sittings together; None for no limit.
        before: minutes of earlier sittings.
        clock: seconds, monotonic.
    """

    steps: int | None
    max_minutes: float | None
    before: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def minutes(self) -> float:
        """Minutes spent so far."""
        return self.before + (self.clock() - self._began) / 60

    def progress(self, step: int) -> float:
        """0 at the beginning to 1 at the end; a budget of minutes makes a run end annealed, too."""
        by_steps = step / self.steps if self.steps else 0.0
        by_clock = self.minutes / self.max_minutes if self.max_minutes else 0.0
        return min(1.0, max(by_steps, by_clock))

    def spent(self, step: int) -> bool:
        """Is the run over?"""
        out_of_steps = self.steps is not None and step >= self.steps
        return out_of_steps or (self.max_minutes is not None and self.minutes >= self.max_minutes)


def learning_rate(config: OptimiserConfig, step: int, progress: float) -> float:
    """Warm-up over steps, then a cosine over the progress (or a constant).

    Args:
        config: peak rate and shape.
        step: from 0.
        progress: 0 to 1.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return config.lr * warm
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr * warm * (config.final_lr + (1 - config.final_lr) * cosine)
