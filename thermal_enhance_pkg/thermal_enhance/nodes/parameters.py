"""Parameters as a frozen dataclass: one field, one declared parameter, one description."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_type_hints

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

Config = TypeVar("Config")

_TYPES: dict[Any, tuple[int, str]] = {
    bool: (ParameterType.PARAMETER_BOOL, "true or false"),
    int: (ParameterType.PARAMETER_INTEGER, "an integer"),
    float: (ParameterType.PARAMETER_DOUBLE, "a number with a decimal point (1.0, not 1)"),
    str: (ParameterType.PARAMETER_STRING, "a string"),
    list[str]: (ParameterType.PARAMETER_STRING_ARRAY, "a list of strings"),
    list[int]: (ParameterType.PARAMETER_INTEGER_ARRAY, "a list of integers"),
}


class ParameterError(ValueError):
    """A parameter value that cannot be used; the message names the parameter and what to change."""


def parameter(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    read_only: bool = False,
) -> Any:
    """A dataclass field that becomes a ROS parameter.

    Args:
        default: its default; the only place where it is written.
        description: one sentence with the unit, shown by `ros2 param describe`.
        low: smallest value allowed (numbers).
        high: largest value allowed (numbers).
        choices: allowed values (strings).
        read_only: fixed at start-up; later changes are refused.
    """
    metadata = {
        "description": description,
        "low": low,
        "high": high,
        "choices": tuple(choices),
        "read_only": read_only,
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def describe(config_type: type) -> list[tuple[str, ParameterDescriptor, Any]]:
    """(name, descriptor, default) of every parameter of a configuration dataclass."""
    hints = get_type_hints(config_type)
    described = []
    for field in dataclasses.fields(config_type):
        kind = hints[field.name]
        meta = field.metadata
        descriptor = ParameterDescriptor(
            name=field.name,
            type=_TYPES[kind][0],
            description=meta["description"],
            read_only=meta["read_only"],
            additional_constraints=f"one of: {', '.join(meta['choices'])}" if meta["choices"] else "",
        )
        low, high = meta["low"], meta["high"]
        if low is not None or high is not None:
            if kind is int:
                descriptor.integer_range = [
                    IntegerRange(
                        from_value=int(low if low is not None else -(2**31)),
                        to_value=int(high if high is not None else 2**31 - 1),
                        step=0,
                    )
                ]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(
                        from_value=float(low if low is not None else -1e300),
                        to_value=float(high if high is not None else 1e300),
                        step=0.0,
                    )
                ]
        if field.default is not dataclasses.MISSING:
            default = field.default
        else:
            assert field.default_factory is not dataclasses.MISSING
            default = field.default_factory()
        described.append((field.name, descriptor, default))
    return described


class ParameterBinding:
    """Keeps a frozen configuration dataclass in step with a node's parameters.

    Args:
        node: the node to declare on.
        config_type: frozen dataclass whose fields were made by `parameter`.
        check: called with a candidate configuration; returns why it is refused, or "" to accept it.
        on_change: called with the new configuration and the names that changed, after acceptance.

    Raises:
        ParameterError: an initial value (YAML file, command line) is of the wrong type or out of range.
    """

    def __init__(
        self,
        node: Node,
        config_type: type[Config],
        check: Callable[[Any], str] | None = None,
        on_change: Callable[[Any, set[str]], None] | None = None,
    ) -> None:
        self._config_type = config_type
        self._fields = {field.name: field for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
        self._check = check or (lambda _config: "")
        self._on_change = on_change or (lambda _config, _names: None)
        values = {}
        for name, descriptor, default in describe(config_type):
            values[name] = _declare(node, name, descriptor, default)
        self.config: Any = config_type(**values)
        self._refuse_bad_choices(values)
        problem = self._check(self.config)
        if problem:
            raise ParameterError(problem)
        node.add_on_set_parameters_callback(self._on_set)

    def _refuse_bad_choices(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            problem = self._choice_problem(name, value)
            if problem:
                raise ParameterError(problem)

    def _choice_problem(self, name: str, value: Any) -> str:
        choices = self._fields[name].metadata["choices"]
        if choices and value not in choices:
            return f"{name} is '{value}': use one of {', '.join(map(repr, choices))}"
        return ""

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in self._fields}
        if not changes:
            return SetParametersResult(successful=True)
        for name, value in changes.items():
            problem = self._choice_problem(name, value)
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        candidate = dataclasses.replace(self.config, **changes)
        problem = self._check(candidate)
        if problem:
            return SetParametersResult(successful=False, reason=problem)
        changed = {name for name, value in changes.items() if value != getattr(self.config, name)}
        self.config = candidate
        if changed:
            self._on_change(candidate, changed)
        return SetParametersResult(successful=True)


def _declare(node: Node, name: str, descriptor: ParameterDescriptor, default: Any) -> Any:
    expected = next(text for kind, text in _TYPES.values() if kind == descriptor.type)
    try:
        if isinstance(default, list) and not default:
            # An empty list has no type of its own in rclpy.
            value = node.declare_parameter(name, Parameter.Type(descriptor.type), descriptor).value
            return list(value) if value is not None else []
        value = node.declare_parameter(name, default, descriptor).value
    except InvalidParameterTypeException as error:
        raise ParameterError(
            f"parameter {name} must be {expected}: change it in the params file ({error})"
        ) from None
    except InvalidParameterValueException as error:
        raise ParameterError(
            f"parameter {name} is out of range: {descriptor.description} ({error})"
        ) from None
    return list(value) if isinstance(default, list) else value
