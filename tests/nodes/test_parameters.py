from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")

from rclpy.node import Node
from rclpy.parameter import Parameter

from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.parameters import ParameterBinding, ParameterError, describe, parameter


@dataclass(frozen=True)
class Example:
    rate: float = parameter(1.0, "A rate.", low=0.0, high=10.0)
    count: int = parameter(3, "A count.", low=1)
    kind: str = parameter("a", "A kind.", choices=("a", "b"))
    fixed: bool = parameter(False, "Fixed at start.", read_only=True)
    names: list[str] = parameter([], "Names.")
    weights: list[int] = parameter([], "Weights.")


@pytest.fixture
def context() -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


def make(context: Any, check: Any = None, **overrides: Any) -> tuple[Node, ParameterBinding, list]:
    node = Node(
        "example",
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
    )
    changes: list = []
    binding = ParameterBinding(node, Example, check, lambda config, names: changes.append((config, names)))
    return node, binding, changes


def test_defaults_and_overrides(context: Any) -> None:
    _, binding, _ = make(context, rate=2.5, names=["x"], weights=[1, 2])
    assert binding.config == Example(rate=2.5, names=["x"], weights=[1, 2])


def test_a_change_is_taken_over_and_announced(context: Any) -> None:
    node, binding, changes = make(context)
    result = node.set_parameters([Parameter("rate", value=3.0)])[0]
    assert result.successful
    assert binding.config.rate == 3.0
    assert changes == [(binding.config, {"rate"})]
    node.set_parameters([Parameter("rate", value=3.0)])
    assert len(changes) == 1, "setting the same value changes nothing"


@pytest.mark.parametrize(
    ("name", "value"), [("rate", 11.0), ("count", 0), ("kind", "c"), ("fixed", True), ("rate", "x")]
)
def test_refusals_leave_everything_as_it_was(context: Any, name: str, value: Any) -> None:
    node, binding, changes = make(context)
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert result.reason
    assert binding.config == Example()
    assert not changes


def test_a_check_across_parameters_can_refuse(context: Any) -> None:
    node, binding, _ = make(context, lambda c: "weights need names" if len(c.weights) > len(c.names) else "")
    result = node.set_parameters([Parameter("weights", value=[1])])[0]
    assert not result.successful
    assert result.reason == "weights need names"
    both = [Parameter("weights", value=[1]), Parameter("names", value=["x"])]
    assert node.set_parameters_atomically(both).successful
    assert binding.config.weights == [1]


@pytest.mark.parametrize(
    ("name", "value", "word"), [("rate", "fast", "rate"), ("rate", 99.0, "rate"), ("kind", "z", "kind")]
)
def test_bad_initial_values_name_the_parameter(context: Any, name: str, value: Any, word: str) -> None:
    with pytest.raises(ParameterError, match=word):
        make(context, **{name: value})


def test_every_parameter_of_the_node_is_described() -> None:
    described = describe(EnhancementConfig)
    assert [name for name, _, _ in described] == [field.name for field in fields(EnhancementConfig)]
    assert all(len(descriptor.description) > 10 for _, descriptor, _ in described)
