"""Where a run computes, and what stops it."""

from __future__ import annotations

import signal
import threading
from types import TracebackType

import torch


class TrainingError(RuntimeError):
    """A run cannot start or go on; the message says which setting or file to change."""


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


class StopRequest:
    """While entered, the first SIGINT or SIGTERM asks the loop to stop; a second one acts as it always did.

    Attributes:
        reason: name of the signal that came; empty if none did.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        # Python lets the main thread alone set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, _frame: object) -> None:
        self.reason = signal.Signals(number).name
        self._restore(signal.Signals(number))

    def _restore(self, number: signal.Signals) -> None:
        signal.signal(number, self._before[number])  # type: ignore[arg-type]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._before:
            self._restore(number)
        self._before = {}
