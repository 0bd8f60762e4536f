"""Which backend runs a graph, from what is installed and what is asked for, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from thermal_enhance.runtime.backend import Backend, BackendError
from thermal_enhance.runtime.onnxruntime_backend import OnnxRuntimeBackend, import_onnxruntime


@dataclass(frozen=True)
class Candidate:
    """One way to run a graph.

    Attributes:
        name: "<library> on <device>".
        reason: why it would be taken.
        open: loads a graph file: (path, threads, precision) -> backend.
    """

    name: str
    reason: str
    open: Callable[[Path, int, str], Backend]


def candidates(device: str) -> list[Candidate]:
    """Ways to run a graph on a device, best first; "auto" tries what is fastest and ends at the CPU.

    Raises:
        BackendError: nothing that runs models is installed, or the device is unknown.
    """
    onnxruntime = import_onnxruntime()
    version = f"onnxruntime {onnxruntime.__version__}"
    if device != "auto":
        return [_onnxruntime(device, f"{version}; device {device!r} was asked for")]
    found = []
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        found.append(_onnxruntime("cuda", f"{version} with CUDA is installed"))
    found.append(_onnxruntime("cpu", f"{version}; no CUDA in it" if not found else version))
    return found


def open_first(ways: list[Candidate], attempt: Callable[[Candidate], Backend]) -> Backend:
    """The first way that loads and passes its self-check, with the reason on it.

    Args:
        ways: result of `candidates`.
        attempt: loads and checks one; raises BackendError where it does not work.

    Raises:
        BackendError: none works; the message tells each failure.
    """
    failures: list[str] = []
    for way in ways:
        try:
            backend = attempt(way)
        except BackendError as error:
            failures.append(f"{way.name}: {error}")
            if len(ways) == 1:
                raise
            continue
        backend.choice_reason = "; ".join([way.reason, *(f"not {text}" for text in failures)])
        return backend
    raise BackendError("; ".join(failures))


def describe(device: str) -> Iterator[str]:
    """One line for each way `device` would be tried, for people."""
    return (f"{way.name} ({way.reason})" for way in candidates(device))


def _onnxruntime(device: str, reason: str) -> Candidate:
    def load(path: Path, threads: int, precision: str) -> Backend:
        return OnnxRuntimeBackend(path, device=device, threads=threads, precision=precision)

    return Candidate(f"onnxruntime on {device}", reason, load)
