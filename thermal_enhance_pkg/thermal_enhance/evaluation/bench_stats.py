"""Small measures that every benchmark needs: percentiles, processor time of a process, the machine's name."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class LatencySummary:
    """Percentiles of a set of latencies, milliseconds; NaN where nothing was measured."""

    count: int
    median_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, latencies_ms: Iterable[float]) -> LatencySummary:
        """Summarise latencies given in milliseconds (linear interpolation between ranks)."""
        values = np.fromiter(latencies_ms, dtype=np.float64)
        if values.size == 0:
            return cls(0, float("nan"), float("nan"), float("nan"))
        median, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
        return cls(int(values.size), median, p95, p99)


@dataclass(frozen=True)
class Spread:
    """Median and range of one figure over repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Median, smallest and largest of the values that are numbers; NaN when there are none."""
        kept = np.fromiter(values, dtype=np.float64)
        kept = kept[~np.isnan(kept)]
        if kept.size == 0:
            return cls(float("nan"), float("nan"), float("nan"))
        return cls(float(np.median(kept)), float(kept.min()), float(kept.max()))

    def text(self, digits: int = 1) -> str:
        """`median (low-high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def parse_process_cpu_s(stat: str, ticks_per_s: int) -> float:
    """User plus system time, seconds, from the text of /proc/PID/stat (proc(5), fields 14 and 15).

    Raises:
        ValueError: If the text is not of that form.
    """
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    _, parenthesis, rest = stat.rpartition(")")
    fields = rest.split()
    if not parenthesis or len(fields) < 13:
        raise ValueError("not the text of /proc/PID/stat")
    return (int(fields[11]) + int(fields[12])) / ticks_per_s


def process_cpu_s(pid: int) -> float:
    """Processor time a running process has used, seconds, all its threads together; NaN where unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return float("nan")
    return parse_process_cpu_s(text, os.sysconf("SC_CLK_TCK"))


def machine() -> dict[str, str | int]:
    """What a figure was measured on: processor, cores, Python, operating system."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.processor()
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
