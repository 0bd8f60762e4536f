"""The known tasks, read from a tasks.yaml."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9_]*")
HASH_DIGITS = 16


class TaskFileError(ValueError):
    """A tasks file cannot be used; the message names the file, the entry and what to change."""


class UnknownTask(KeyError):  # noqa: N818  (reads as what it says: raise UnknownTask)
    """A task that is not in the registry; the message lists those that are."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"unknown task {self.name!r}; known: {', '.join(self.known) or 'none'}"


def check_name(name: object) -> str:
    """Return a task name, which is a token of ROS topic names, or say what is wrong with it.

    Raises:
        ValueError: not lower-case letters, digits and underscores beginning with a letter, or with two
            underscores in a row or one at the end, which ROS keeps for itself.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or "__" in name or name.endswith("_"):
        raise ValueError(
            f"task name {name!r} must be a ROS name token: a lower-case letter, then lower-case letters, "
            "digits or single underscores, e.g. small_target"
        )
    return name


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: token of the task's topic names (tasks/<name>/image_raw).
        description: what its frames are for.
        prompt_file: file of the task's prompt (512 float32, safetensors); None while it has none, which
            leaves the enhancer at identity.
        hash: first 16 hex digits of the sha256 of the prompt file; empty for none.
    """

    name: str
    description: str = ""
    prompt_file: Path | None = None
    hash: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def has_prompt(self) -> bool:
        """Does this task steer the enhancer?"""
        return self.prompt_file is not None


class TaskRegistry:
    """Tasks by name, in the order given.

    Args:
        tasks: the tasks.

    Raises:
        ValueError: two tasks have one name.
    """

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._tasks: dict[str, Task] = {}
        for task in tasks:
            if task.name in self._tasks:
                raise ValueError(f"task {task.name!r} is given twice")
            self._tasks[task.name] = task

    @classmethod
    def from_yaml(cls, path: str | Path) -> TaskRegistry:
        """Read a tasks file: a mapping `tasks` of name to {description, prompt}, both optional.

        Args:
            path: the file; prompt files in it are relative to its folder.

        Raises:
            FileNotFoundError: there is no such file.
            TaskFileError: the file or a prompt file in it cannot be used.
        """
        import yaml

        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise TaskFileError(f"{path}: not YAML: {error}") from error
        entries = content.get("tasks") if isinstance(content, dict) else None
        if not isinstance(entries, dict) or not entries:
            raise TaskFileError(f"{path}: needs a mapping `tasks:` of task names to their settings")
        return cls(_read_task(path, name, entry) for name, entry in entries.items())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tasks, in order."""
        return tuple(self._tasks)

    def get(self, name: str) -> Task:
        """The task of a name.

        Raises:
            UnknownTask: there is none.
        """
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(name, self._tasks) from None

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)


def _read_task(path: Path, name: object, entry: object) -> Task:
    try:
        name = check_name(name)
    except ValueError as error:
        raise TaskFileError(f"{path}: {error}") from error
    where = f"{path}: tasks.{name}"
    entry = {} if entry is None else entry
    if not isinstance(entry, dict):
        raise TaskFileError(f"{where} must be a mapping with `description` and `prompt`, not {entry!r}")
    unknown = sorted(str(key) for key in entry.keys() - {"description", "prompt"})
    if unknown:
        raise TaskFileError(f"{where}: unknown setting {', '.join(unknown)}; known: description, prompt")
    for key, value in entry.items():
        if not isinstance(value, str) or not value:
            raise TaskFileError(f"{where}.{key} must be a text, not {value!r}")
    prompt = entry.get("prompt")
    if prompt is None:
        return Task(name, entry.get("description", ""))
    file = path.parent / prompt
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise TaskFileError(f"{where}.prompt: cannot read {file}: {error.strerror}") from error
    return Task(name, entry.get("description", ""), file, digest[:HASH_DIGITS])
