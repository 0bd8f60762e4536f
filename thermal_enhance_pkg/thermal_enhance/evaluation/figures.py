"""Files of figures that `--json` of a benchmark writes and `--figures` reads again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

Row = TypeVar("Row")


class BadFigures(ValueError):  # noqa: N818  (as the store's errors: it reads as what it says)
    """A file of figures cannot be used."""


def write(
    path: Path,
    rows: Iterable[Any],
    where: Mapping[str, Any],
    verdicts: Mapping[str, Sequence[Any]],
    **settings: Any,
) -> None:
    """Write rows and verdicts (dataclasses), the machine and whatever else describes the run."""
    content = {
        "machine": dict(where),
        **settings,
        "rows": [asdict(row) for row in rows],
        "verdicts": {name: [asdict(line) for line in lines] for name, lines in verdicts.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")


def read(path: Path, kind: type[Row]) -> tuple[list[Row], dict[str, Any]]:
    """(rows, machine) of a file that `write` wrote.

    Args:
        path: the file.
        kind: dataclass of its rows.

    Raises:
        BadFigures: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        rows = []
        for entry in content["rows"]:
            values: list[Any] = [math.nan if entry[name] is None else entry[name] for name in names]
            rows.append(kind(*values))
        return rows, dict(content["machine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFigures(f"{path}: not a file that --json wrote: {error}") from error


def plain(value: Any) -> Any:
    """NaN is no JSON: null instead."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
