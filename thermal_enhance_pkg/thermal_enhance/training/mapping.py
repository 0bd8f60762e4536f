"""Configuration dataclasses from plain mappings; errors name the key, the reason and what is known."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class MappingError(ValueError):
    """A mapping does not fit its dataclass; the message names the key."""


def from_mapping(cls: type[T], mapping: object, where: str = "") -> T:
    """Build a dataclass from a mapping, nested ones included.

    Args:
        cls: a dataclass whose fields are numbers, strings, paths, mappings, tuples or dataclasses.
        mapping: key to value, as YAML gives it.
        where: dotted name of the mapping, for messages.

    Raises:
        MappingError: an unknown or missing key, or a value of another type or out of range.
    """
    if not isinstance(mapping, Mapping):
        raise MappingError(f"{where or 'the file'}: must be a mapping of keys to values, not {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = [str(key) for key in mapping if key not in fields]
    if unknown:
        raise MappingError(
            f"{_join(where, unknown[0])}: there is no such key; known: {', '.join(sorted(fields))}"
        )
    hints = typing.get_type_hints(cls)
    values = {key: coerce(value, hints[key], _join(where, key)) for key, value in mapping.items()}
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise MappingError(f"{_join(where, missing[0])}: this key is needed")
    try:
        return cls(**values)
    except MappingError:
        raise
    except ValueError as error:
        raise MappingError(str(error)) from error


def coerce(value: Any, kind: Any, where: str) -> Any:
    """A YAML value as the type that a field declares.

    Raises:
        MappingError: it is of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return coerce(value, next(a for a in arguments if a is not type(None)), where)
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast(type, kind), {} if value is None else value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise MappingError(f"{where}: must be a list, not {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(coerce(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(arguments):
            raise MappingError(f"{where}: must have {len(arguments)} values, not {value!r}")
        return tuple(coerce(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, arguments)))
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            raise MappingError(f"{where}: must be a mapping of keys to values, not {value!r}")
        inner = arguments[1] if arguments else Any
        return {str(key): coerce(v, inner, _join(where, str(key))) for key, v in value.items()}
    return _scalar(value, kind, where)


def _scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind is float:
        # YAML 1.1 takes 4e-4 for a string.
        try:
            if not isinstance(value, bool):
                return float(value)
        except (TypeError, ValueError):
            pass
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif isinstance(value, kind):
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string", Path: "a path"}
    raise MappingError(f"{where}: must be {names.get(kind, kind)}, not {value!r}")


def to_mapping(config: Any) -> dict[str, Any]:
    """A dataclass as plain values that JSON and YAML can write; `from_mapping` brings it back."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
