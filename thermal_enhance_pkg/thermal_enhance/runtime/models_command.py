"""`thermal-enhance models`: the models on this machine, and with --verbose whether they work here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thermal_enhance.runtime import choice
from thermal_enhance.runtime.backend import BackendError
from thermal_enhance.runtime.manifest import FILE_NAME, ManifestError, ModelManifest
from thermal_enhance.runtime.store import FOLDERS_VARIABLE, ModelFileError, ModelStore

PLAIN_WIDTH = 200
"""Columns of the table where there is no terminal to fit it to."""


@dataclass(frozen=True)
class Row:
    """One model of the list.

    Attributes:
        name: the model's.
        folder: where it lies.
        manifest: what its model.yaml says; None where it cannot be used.
        bytes: size of its files.
        checks: with --verbose, a line for each graph: what runs it and how far it is off its reference.
        problem: what is wrong with the model; empty for nothing.
    """

    name: str
    folder: Path
    manifest: ModelManifest | None = None
    bytes: int = 0
    checks: tuple[str, ...] = ()
    problem: str = ""


def look(store: ModelStore, name: str, *, verbose: bool = False, device: str = "auto") -> Row:
    """Everything the list says about a model; a broken one becomes a row with its problem."""
    folder = store.folder(name)
    try:
        manifest = store.describe(name)
    except ManifestError as error:
        return Row(name, folder, problem=str(error))
    files = [graph.file for graph in manifest.graphs]
    files += [entry.file for entry in (manifest.weights, manifest.reference) if entry is not None]
    paths = [folder / file for file in [*files, FILE_NAME]]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    checks: list[str] = []
    problem = ""
    if verbose:
        try:
            model = store.open(name)
            for graph in manifest.graphs:
                backend = model.load(graph.role, graph.profile, device, precision=graph.precision)
                checks.append(
                    f"{graph.key}: {backend.name} on {backend.device}, off its reference by "
                    f"{model.self_check:.1g} ({backend.choice_reason})"
                )
                backend.close()
        except (ModelFileError, BackendError) as error:
            problem = str(error)
    return Row(name, folder, manifest, size, tuple(checks), problem)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 when every model can be used, 1 when one is broken or nothing runs models here."""
    parser = argparse.ArgumentParser(prog="thermal-enhance models", description=__doc__)
    parser.add_argument(
        "--verbose", action="store_true", help="check every file, load every graph and compare its output"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        help=f"look here only (default: {FOLDERS_VARIABLE}, yours, ours)",
    )
    arguments = parser.parse_args(argv)
    store = ModelStore(arguments.folder)
    names = store.names()
    if not names:
        places = ", ".join(str(folder) for folder in store.folders)
        sys.stdout.write(f"no models in {places}; more folders: {FOLDERS_VARIABLE}\n")
        return 0
    rows = [look(store, name, verbose=arguments.verbose, device=arguments.device) for name in names]
    _show(rows)
    for row in rows:
        if row.problem:
            sys.stderr.write(f"models: {row.name}: {row.problem}\n")
    try:
        ways = " or else ".join(choice.describe(arguments.device))
        sys.stdout.write(f"backend for device {arguments.device}: {ways}\n")
    except BackendError as error:
        sys.stderr.write(f"models: {error}\n")
        return 1
    return 1 if any(row.problem for row in rows) else 0


def _show(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "name", "method", "size", "scales", "graphs", "licence", "MB", "folder", box=None, pad_edge=False
    )
    table.columns[0].no_wrap = True
    table.columns[6].justify = "right"
    for row in rows:
        table.add_row(*_cells(row), style="red" if row.problem else None)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    console.print(table)
    for row in rows:
        for line in row.checks:
            console.print(f"{row.name} {line}", markup=False)


def _cells(row: Row) -> list[str]:
    manifest = row.manifest
    if manifest is None:
        return [row.name, "broken", "", "", "", "", "", str(row.folder)]
    profiles: dict[str, list[str]] = {}
    for graph in manifest.graphs:
        size = f"{graph.profile[0]}x{graph.profile[1]}"
        profiles.setdefault(graph.role, []).append(
            size if graph.precision == "fp32" else f"{size} {graph.precision}"
        )
    return [
        row.name,
        manifest.method,
        manifest.size,
        " ".join(f"x{scale}" for scale in manifest.scales),
        "\n".join(f"{role} {', '.join(sizes)}" for role, sizes in profiles.items()),
        manifest.licence,
        f"{row.bytes / 1e6:.1f}",
        str(row.folder),
    ]
