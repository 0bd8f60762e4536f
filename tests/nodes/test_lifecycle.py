"""Transitions that fail half-way, callbacks that raise, and signals at the worst moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")

from std_msgs.msg import UInt8

from thermal_enhance.nodes import process
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.lifecycle import SuiteNode
from thermal_enhance.nodes.parameters import parameter
from thermal_enhance.nodes.process import StopSignal, Suite
from thermal_enhance.nodes.topics import MessageOutput

TOPIC = "/suite/example"


@dataclass(frozen=True)
class ExampleConfig:
    rate: float = parameter(1.0, "A rate.")


class ExampleNode(SuiteNode):
    """Takes two things in every transition and fails between them where it is told to."""

    config_type = ExampleConfig

    def __init__(self, bus: LocalBus | None = None, **kwargs: Any) -> None:
        self.fails: list[str] = []
        self.held: set[str] = set()
        self.calls: list[str] = []
        self.out: MessageOutput | None = None
        super().__init__("example", bus, **kwargs)

    def _step(self, name: str) -> None:
        if name in self.fails:
            self.fails.remove(name)
            raise RuntimeError(f"{name} fails half-way")

    def configure(self) -> None:
        self.calls.append("configure")
        self.out = MessageOutput(self, UInt8, TOPIC, self.bus)
        self.held.add("configured 1")
        self._step("configure")
        self.held.add("configured 2")

    def activate(self) -> None:
        self.calls.append("activate")
        self.held.add("active 1")
        self._step("activate")
        self.held.add("active 2")

    def deactivate(self) -> None:
        self.calls.append("deactivate")
        self.held.discard("active 2")
        self._step("deactivate")
        self.held.discard("active 1")

    def cleanup(self) -> None:
        self.calls.append("cleanup")
        self.held.discard("configured 2")
        self._step("cleanup")
        self.held.discard("configured 1")
        if self.out is not None:
            self.out.close()
            self.out = None


@pytest.fixture
def node() -> Iterator[ExampleNode]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = ExampleNode(context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def assert_works(node: ExampleNode) -> None:
    """From unconfigured or inactive to active, and messages come out."""
    if node.state_label == "unconfigured":
        node.trigger_configure()
        assert node.state_label == "inactive"
    node.trigger_activate()
    assert node.state_label == "active"
    assert node.held == {"configured 1", "configured 2", "active 1", "active 2"}
    got: list[int] = []
    end = node.bus.subscribe(TOPIC, lambda message: got.append(message.data))
    assert node.out is not None
    node.out.publish(UInt8(data=7))
    end()
    assert got == [7]


def assert_freed(node: ExampleNode) -> None:
    assert node.state_label == "unconfigured"
    assert node.held == set()
    assert not node.bus.has_publisher(TOPIC)


def test_configure_that_fails_is_undone(node: ExampleNode) -> None:
    node.fails = ["configure"]
    node.trigger_configure()
    assert_freed(node)
    assert_works(node)


def test_activate_that_fails_leaves_a_silent_inactive_node(node: ExampleNode) -> None:
    node.fails = ["activate"]
    node.trigger_configure()
    node.trigger_activate()
    assert node.state_label == "inactive"
    assert node.held == {"configured 1", "configured 2"}
    got: list[Any] = []
    end = node.bus.subscribe(TOPIC, got.append)
    assert node.out is not None
    node.out.publish(UInt8(data=1))
    end()
    assert got == [], "publishers of an inactive node are not activated"
    assert_works(node)


def test_deactivate_that_fails_is_tried_again_before_everything_is_freed(node: ExampleNode) -> None:
    node.trigger_configure()
    node.trigger_activate()
    node.fails = ["deactivate"]
    node.trigger_deactivate()
    assert node.calls[-3:] == ["deactivate", "deactivate", "cleanup"]
    assert_freed(node)
    assert_works(node)


def test_cleanup_that_fails_is_tried_again(node: ExampleNode) -> None:
    node.trigger_configure()
    node.fails = ["cleanup"]
    node.trigger_cleanup()
    assert_freed(node)
    assert_works(node)


def test_deactivate_that_always_fails_does_not_keep_cleanup_from_freeing(node: ExampleNode) -> None:
    node.trigger_configure()
    node.trigger_activate()
    node.fails = ["deactivate", "deactivate"]
    node.trigger_deactivate()
    assert node.state_label == "unconfigured"
    assert node.calls[-1] == "cleanup"
    assert node.held == {"active 1"}, "what deactivate itself cannot give back"
    assert not node.bus.has_publisher(TOPIC)


@pytest.mark.parametrize("fails", [["deactivate"], ["cleanup"], ["deactivate", "cleanup"]])
def test_stop_ends_in_finalized_whatever_fails(node: ExampleNode, fails: list[str]) -> None:
    node.trigger_configure()
    node.trigger_activate()
    node.fails = fails
    node.stop()
    assert node.state_label == "finalized"
    assert "cleanup" in node.calls
    node.stop()


class RaisingNode(ExampleNode):
    """Has a timer that is always due and always raises."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raised = 0
        self.create_timer(1e-4, self._raise)

    def _raise(self) -> None:
        self.raised += 1
        raise ValueError("every time")


def test_a_callback_that_always_raises_does_not_spin_hot(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    thrice = threading.Event()
    wait = threading.Event().wait

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) >= 3:
            thrice.set()
        wait(seconds)

    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=sleep))
    rclpy.init()
    try:
        suite = Suite([RaisingNode])
        raising: RaisingNode = suite.node(RaisingNode)
        assert thrice.wait(20), "the executor goes on after a callback that raised"
        suite.stop()
        # The last one may have raised while the suite was being stopped.
        assert raising.raised - len(pauses) in (0, 1), "a pause for each exception"
        assert set(pauses) == {process.PAUSE_AFTER_ERROR_S}
    finally:
        rclpy.try_shutdown()


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield StopSignal()
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_it_and_ends_the_wait(stop: StopSignal, number: signal.Signals) -> None:
    assert not stop.is_set()
    assert not stop.wait(0)
    assert not stop.wait(0.01)
    # From another process in effect: the main thread sits in wait() when it comes.
    timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
    timer.start()
    assert stop.wait()
    timer.join()
    assert stop.is_set()
    assert stop.wait(0)
    assert stop.wait()


def test_any_number_of_threads_wake_when_it_is_set(stop: StopSignal) -> None:
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(20))) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.set()
    stop.set()
    for thread in threads:
        thread.join()
    assert woken == [True] * 3


def test_signals_after_ignore_further_change_nothing(stop: StopSignal) -> None:
    StopSignal.ignore_further()
    signal.raise_signal(signal.SIGTERM)
    assert not stop.is_set()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["wait", "set", "is_set"])
def test_a_signal_at_any_line_of_it_cannot_deadlock(stop: StopSignal, what: str) -> None:
    """A signal before every line that the main thread runs in a call, down to the standard library."""
    interrupted: set[str] = set()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            interrupted.add(frame.f_code.co_name)
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        {"wait": lambda: stop.wait(0.05), "set": stop.set, "is_set": stop.is_set}[what]()
    finally:
        sys.settrace(before)
    assert what in interrupted
    assert stop.wait(0)


def test_its_pipe_is_closed_with_it() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    stop = StopSignal()
    descriptors = (stop._readable, stop._writable)
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)
    del stop
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
