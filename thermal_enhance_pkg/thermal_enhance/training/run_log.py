"""What a run leaves to look at: CSV rows, a plot of its curves, pictures, and a line while it goes."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Say = Callable[[str], object]


class CsvLog:
    """A CSV file whose columns grow as new keys appear; always whole on disk.

    Args:
        path: file to make.
        before: rows of an earlier sitting are kept up to this step; 0 to start anew.
    """

    def __init__(self, path: Path, before: int = 0) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if before and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= before]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; it must have a `step`."""
        self.rows.append({key: _short(value) for key, value in row.items()})
        columns = list(dict.fromkeys(key for entry in self.rows for key in entry))
        partial = self._path.with_name(f".{self._path.name}.part")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self._path)

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """(steps, values) of the rows that have the key."""
        pairs = [(float(row["step"]), float(row[key])) for row in self.rows if row.get(key) not in (None, "")]
        return [p[0] for p in pairs], [p[1] for p in pairs]


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def plot_curves(path: Path, log: CsvLog, scores: CsvLog) -> bool:
    """Draw losses, learning rate and validation scores over steps; False without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    hidden = ("step", "minutes", "lr", "steps_per_s", "skipped", "grad_norm")
    losses = [key for key in dict.fromkeys(k for row in log.rows for k in row) if key not in hidden]
    names = [key for key in dict.fromkeys(k for row in scores.rows for k in row) if key not in hidden]
    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, 1, sharex=True)
    for axis, table, keys, title in (
        (panels[0], log, losses, "loss"),
        (panels[1], log, ["lr"], "learning rate"),
        (panels[2], scores, names, "validation"),
    ):
        for key in keys:
            steps, values = table.series(key)
            axis.plot(steps, values, label=key, marker="." if len(steps) < 40 else None)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        if 1 < len(keys) <= 16:
            axis.legend(fontsize=7, ncols=4)
    positive = [v for key in losses for v in log.series(key)[1]]
    if positive and min(positive) > 0:
        panels[0].set_yscale("log")
    panels[-1].set_xlabel("step")
    figure.savefig(path, dpi=90, format="png")
    return True


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) uint8 RGB picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR))
    if not ok:
        raise OSError(f"{path}: cannot be encoded")
    data.tofile(path)


class Means:
    """Running means of what the steps report, and their rate.

    Args:
        minutes: the time now.
    """

    def __init__(self, minutes: float) -> None:
        self._since = minutes
        self._sums: dict[str, tuple[float, int]] = {}
        self._steps = 0

    def add(self, parts: Mapping[str, float]) -> None:
        """Count a step; a skipped one reports nothing."""
        self._steps += 1
        for key, value in parts.items():
            total, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = (total + value, count + 1)

    def take(self, minutes: float) -> tuple[dict[str, float], float]:
        """(means, steps per second) since the last call."""
        rate = self._steps / max(60 * (minutes - self._since), 1e-9)
        means = {key: total / count for key, (total, count) in self._sums.items()}
        self._since, self._sums, self._steps = minutes, {}, 0
        return means, rate


class Progress:
    """One line of state: a bar on a terminal, else a log line a minute.

    Args:
        say: told each log line.
        bar: moves the bar; None without a terminal.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        say: Say,
        bar: Callable[[float, str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.say = say
        self._bar = bar
        self._clock = clock
        self._last = -60.0 + clock()

    def update(self, fraction: float, text: str) -> None:
        """Show how far the run is (0 to 1) and what it is doing."""
        if self._bar is not None:
            self._bar(fraction, text)
        elif self._clock() - self._last >= 60:
            self._last = self._clock()
            self.say(f"{fraction:6.1%}  {text}")


@contextmanager
def progress_display() -> Iterator[Progress]:
    """Progress on stderr: a bar while it is a terminal."""
    if not sys.stderr.isatty():

        def line(text: str) -> None:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

        yield Progress(line)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=1.0)

        def move(fraction: float, text: str) -> None:
            bars.update(task, completed=fraction, description=text)

        def above(text: str) -> None:
            bars.console.print(text, markup=False, highlight=False)

        yield Progress(above, move)
