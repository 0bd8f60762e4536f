"""Which task the next frame is made for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from thermal_enhance.tasks.registry import UnknownTask, check_name

POLICIES = ("fixed", "round_robin", "on_demand")
MAX_WEIGHT = 1000


@dataclass(frozen=True)
class PolicyConfig:
    """How tasks share the frames.

    Attributes:
        policy: `fixed` (one task, or none for identity), `round_robin` (each task in turn) or `on_demand`
            (as round_robin, over the tasks that somebody listens to).
        tasks: the tasks, in the order of their turns; on_demand: those that may be demanded, empty for all.
        weights: frames in a row for each task, 1 to 1000; empty for one each. Not with `fixed`.

    Raises:
        ValueError: a value cannot be used; the message names the field.
    """

    policy: str = "fixed"
    tasks: tuple[str, ...] = ()
    weights: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Lists come from parameters and messages.
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "weights", tuple(int(weight) for weight in self.weights))
        if self.policy not in POLICIES:
            raise ValueError(f"policy {self.policy!r} must be one of {', '.join(POLICIES)}")
        for name in self.tasks:
            check_name(name)
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        if twice:
            raise ValueError(f"tasks names {', '.join(twice)} more than once; use weights to give it more")
        if self.policy == "fixed" and len(self.tasks) > 1:
            raise ValueError(
                f"tasks: policy 'fixed' takes one task, not {len(self.tasks)}; use policy 'round_robin'"
            )
        if self.policy == "round_robin" and not self.tasks:
            raise ValueError("tasks: policy 'round_robin' needs at least one task")
        if self.weights and self.policy == "fixed":
            raise ValueError("weights has no meaning with policy 'fixed'; leave it empty")
        if self.weights and len(self.weights) != len(self.tasks):
            raise ValueError(
                f"weights has {len(self.weights)} entries and tasks {len(self.tasks)}: give one each"
            )
        for weight in self.weights:
            if not 1 <= weight <= MAX_WEIGHT:
                raise ValueError(f"weights must be 1 to {MAX_WEIGHT} frames, not {weight}")


class RoutingPolicy:
    """Picks a task for each frame: deterministic, and fair by the weights.

    A task keeps its turn for as many frames in a row as its weight says, fewer if it is no longer demanded;
    then the next one in order that is demanded gets its turn. So no demanded task waits longer than one
    turn of each of the others.

    Args:
        config: the policy; its tasks must not be empty unless the policy is `fixed` (`make_policy` fills
            in those of an `on_demand` policy).
    """

    def __init__(self, config: PolicyConfig) -> None:
        if config.policy == "on_demand" and not config.tasks:
            raise ValueError("tasks: policy 'on_demand' needs the tasks that may be demanded")
        self.config = config
        self._weights = dict(zip(config.tasks, config.weights or (1,) * len(config.tasks)))
        self._turn = 0
        self._given = 0

    def active(self, demanded: Collection[str] = frozenset()) -> tuple[str, ...]:
        """Tasks that get frames now, in the order of their turns; empty: identity, no task.

        Args:
            demanded: tasks somebody listens to; only `on_demand` heeds it, and only tasks it knows.
        """
        if self.config.policy != "on_demand":
            return self.config.tasks
        return tuple(task for task in self.config.tasks if task in demanded)

    def next(self, demanded: Collection[str] = frozenset()) -> str:
        """Task of the next frame; empty for none. Each call is one frame."""
        active = self.active(demanded)
        if not active:
            return ""
        tasks = self.config.tasks
        if tasks[self._turn] not in active or self._given >= self._weights[tasks[self._turn]]:
            self._given = 0
            for step in range(1, len(tasks) + 1):
                turn = (self._turn + step) % len(tasks)
                if tasks[turn] in active:
                    self._turn = turn
                    break
        self._given += 1
        return tasks[self._turn]

    def weights(self, demanded: Collection[str] = frozenset()) -> tuple[int, ...]:
        """Frames in a row of each active task, in the order of `active`."""
        return tuple(self._weights[task] for task in self.active(demanded))

    def reset(self) -> None:
        """Begin again with the first task's turn."""
        self._turn = self._given = 0


def make_policy(config: PolicyConfig, known: Collection[str]) -> RoutingPolicy:
    """Build a policy whose tasks all exist.

    Args:
        config: the policy; `on_demand` without tasks gets all known ones.
        known: names of the registry, in order.

    Raises:
        UnknownTask: the policy names a task that is not known.
    """
    for name in config.tasks:
        if name not in known:
            raise UnknownTask(name, known)
    if config.policy == "on_demand" and not config.tasks:
        config = PolicyConfig("on_demand", tuple(known))
    return RoutingPolicy(config)
