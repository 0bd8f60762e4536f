"""Processes of a benchmark: started with a DDS graph of their own, listened to line by line, always ended."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
END_TIMEOUT_S = 5.0


class BenchmarkError(RuntimeError):
    """A process of the benchmark failed; the message holds the end of what it wrote."""


def graph_environment(base: Mapping[str, str], domain: int, profile: Path | None) -> dict[str, str]:
    """Environment of a process that meets only those of the same domain, on this machine.

    Args:
        base: Environment to start from.
        domain: ROS domain.
        profile: Fast DDS profile file, or None for the default transport.
    """
    environment = {key: value for key, value in base.items() if key not in PROFILE_VARIABLES}
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment["ROS_DOMAIN_ID"] = str(domain)
    # Otherwise Fast DDS also reads a DEFAULT_FASTRTPS_PROFILES.xml that happens to lie in the folder.
    environment["SKIP_DEFAULT_XML"] = "1"
    if profile is not None:
        environment["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(profile)
    return environment


class Child:
    """One process; its standard output is one JSON object a line."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        # A session of its own: Ctrl-C reaches the benchmark alone, which then ends its children in order.
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name=f"{name} output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def event(self, name: str, timeout_s: float) -> dict[str, Any]:
        """The next event of this name the process reports; other output is passed over.

        Raises:
            BenchmarkError: If the process ends or stays silent instead.
        """
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                raise BenchmarkError(
                    f"{self.name}: no '{name}' within {timeout_s:.0f} s{self._tail()}"
                ) from None
            if line is None:
                raise BenchmarkError(f"{self.name} ended before '{name}'{self._tail()}")
            if not line.startswith("{"):
                continue
            event: dict[str, Any] = json.loads(line)
            if event.get("event") == name:
                return event

    def check_alive(self) -> None:
        """Raise BenchmarkError if the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise BenchmarkError(f"{self.name} ended with status {status}{self._tail()}")

    def finish(self) -> None:
        """Close the process's standard input, which asks the driver and the receiver to report and end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self) -> None:
        """End the process: asked first, then told, then made to."""
        self.finish()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_TIMEOUT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _tail(self, size: int = 2000) -> str:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - size))
        text = self._errors.read().decode(errors="replace").strip()
        return f":\n{text}" if text else " (it wrote no error)"


class Children:
    """Processes that share a graph and end together, whatever happens inside the `with`.

    Args:
        domain: ROS domain of all of them.
    """

    def __init__(self, domain: int) -> None:
        self._domain = domain
        self._children: list[Child] = []

    def start(self, name: str, arguments: Sequence[str], profile: Path | None) -> Child:
        """Start `python *arguments` on the given Fast DDS profile (None: the default transport)."""
        child = Child(name, arguments, graph_environment(os.environ, self._domain, profile))
        self._children.append(child)
        return child

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Newest first: the driver falls silent before its listeners go. A second Ctrl-C must not leave any.
        with _undisturbed():
            while self._children:
                self._children.pop().end()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM inside the `with`, where that is possible (the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: installed from C; there is nothing to put back but the default.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that its processes are ended too (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
