"""The models on this machine: found by name, checked by hash, loaded behind the backend seam."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from thermal_enhance import resources
from thermal_enhance.runtime import choice, reference, weights
from thermal_enhance.runtime.backend import Backend, BackendError
from thermal_enhance.runtime.manifest import FILE_NAME, GraphEntry, ManifestError, ModelManifest

FOLDERS_VARIABLE = "THERMAL_ENHANCE_MODELS"


class UnknownModel(KeyError):  # noqa: N818  (reads as what it says: raise UnknownModel)
    """A model that is in no folder; the message lists those that are, and the folders."""

    def __init__(self, name: str, known: Iterable[str], folders: Iterable[Path]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)
        self.folders = tuple(folders)

    def __str__(self) -> str:
        places = ", ".join(map(str, self.folders)) or "no folder (none exists)"
        return (
            f"unknown model {self.name!r}; known: {', '.join(self.known) or 'none'}; looked in {places}. "
            f"More folders: {FOLDERS_VARIABLE}"
        )


class ModelFileError(RuntimeError):
    """A file of a model is missing or damaged; the message names it."""


class UnknownGraph(KeyError):  # noqa: N818
    """A model has no graph of that role, profile and precision; the message lists those it has."""

    def __str__(self) -> str:
        return str(self.args[0])


def default_folders() -> list[Path]:
    """Where models are looked for, best first: the environment's folders, the user's, the package's."""
    named = [Path(part) for part in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if part]
    return [
        *named,
        resources.user_directory() / "models",
        *(share / "models" for share in resources.share_directories()),
    ]


class ModelStore:
    """Models by name. A model is a folder with a model.yaml; of two with one name the first folder's counts.

    Args:
        folders: where to look, best first; None for `default_folders()`.
    """

    def __init__(self, folders: Sequence[str | Path] | None = None) -> None:
        wanted = default_folders() if folders is None else [Path(folder) for folder in folders]
        self.folders = [folder.expanduser() for folder in wanted]
        self._hashes: dict[Path, tuple[int, int, str]] = {}

    def names(self) -> tuple[str, ...]:
        """Names of all models, sorted; those with a broken model.yaml too."""
        return tuple(sorted(self._locations()))

    def folder(self, name: str) -> Path:
        """The model's folder.

        Raises:
            UnknownModel: there is none.
        """
        found = self._locations()
        if name not in found:
            raise UnknownModel(name, sorted(found), (f for f in self.folders if f.is_dir()))
        return found[name]

    def describe(self, name: str) -> ModelManifest:
        """What its model.yaml says; files are not checked.

        Raises:
            UnknownModel: there is none.
            ManifestError: its model.yaml cannot be used.
        """
        path = self.folder(name) / FILE_NAME
        manifest = ModelManifest.from_yaml(path)
        if manifest.name != name:
            raise ManifestError(f"{path}: name: {manifest.name!r} must be that of its folder, {name!r}")
        return manifest

    def open(self, name: str) -> StoredModel:
        """The model, its files checked against their hashes; unchanged ones are not read again.

        Raises:
            UnknownModel: there is none.
            ManifestError: its model.yaml cannot be used.
            ModelFileError: a file is missing or not what model.yaml says.
        """
        manifest, folder = self.describe(name), self.folder(name)
        entries = [(graph.file, graph.sha256) for graph in manifest.graphs]
        entries += [(e.file, e.sha256) for e in (manifest.weights, manifest.reference) if e is not None]
        for file, digest in entries:
            self._verify(folder / file, digest)
        return StoredModel(folder, manifest)

    def _verify(self, path: Path, digest: str) -> None:
        try:
            status = path.stat()
            known = self._hashes.get(path)
            if known is None or known[:2] != (status.st_mtime_ns, status.st_size):
                known = (status.st_mtime_ns, status.st_size, weights.sha256(path))
        except FileNotFoundError:
            raise ModelFileError(f"{path} is missing: fetch or export the model again") from None
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
        if known[2] != digest:
            raise ModelFileError(
                f"{path} is not the file {FILE_NAME} was written for (its sha256 begins {known[2][:12]}, not "
                f"{digest[:12]}): fetch or export the model again"
            )
        self._hashes[path] = known

    def _locations(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self.folders:
            if not folder.is_dir():
                continue
            for path in folder.iterdir():
                if not path.name.startswith(".") and (path / FILE_NAME).is_file():
                    found.setdefault(path.name, path)
        return found


class StoredModel:
    """A model whose files were checked.

    Attributes:
        folder: where it lies.
        manifest: what its model.yaml says.
        choice_reason: why the last loaded graph runs where it runs; empty before `load`.
        self_check: how far that graph was off its stored reference; NaN without a reference.
    """

    def __init__(self, folder: Path, manifest: ModelManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.choice_reason = ""
        self.self_check = float("nan")

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of its graphs, in order of the manifest."""
        return tuple(dict.fromkeys(graph.role for graph in self.manifest.graphs))

    def entry(self, role: str, width: int, height: int, precision: str = "fp32") -> GraphEntry:
        """What the manifest says of a graph.

        Raises:
            UnknownGraph: there is none of that role, size and precision.
        """
        for graph in self.manifest.graphs:
            if (graph.role, graph.profile, graph.precision) == (role, (width, height), precision):
                return graph
        raise UnknownGraph(
            f"model {self.manifest.name} has no graph {role} {width}x{height} {precision}; it has "
            + ", ".join(graph.key for graph in self.manifest.graphs)
        )

    def graph(self, role: str, width: int, height: int, precision: str = "fp32") -> Path:
        """File of a graph.

        Args:
            role: what it computes.
            width: of its profile, pixels.
            height: of its profile, pixels.
            precision: "fp32" or "fp16".

        Raises:
            UnknownGraph: there is none.
        """
        return self.folder / self.entry(role, width, height, precision).file

    def profiles(self, role: str, precision: str = "fp32") -> tuple[tuple[int, int], ...]:
        """(width, height) of all graphs of a role, smallest first."""
        found = {g.profile for g in self.manifest.graphs if (g.role, g.precision) == (role, precision)}
        return tuple(sorted(found, key=lambda size: (size[0] * size[1], size)))

    def best_profile(self, role: str, width: int, height: int, precision: str = "fp32") -> tuple[int, int]:
        """The smallest profile that covers a picture; else the largest, to be used in tiles.

        Raises:
            UnknownGraph: the model has no graph of that role.
        """
        profiles = self.profiles(role, precision)
        if not profiles:
            raise UnknownGraph(
                f"model {self.manifest.name} has no graph {role} {precision}; it has "
                + ", ".join(graph.key for graph in self.manifest.graphs)
            )
        covering = [size for size in profiles if size[0] >= width and size[1] >= height]
        return covering[0] if covering else profiles[-1]

    def load(
        self,
        role: str,
        profile: tuple[int, int],
        device: str = "auto",
        *,
        precision: str = "fp32",
        threads: int = 0,
    ) -> Backend:
        """Load a graph and run its self-check.

        Args:
            role: what it computes.
            profile: (width, height), one of `profiles(role)`.
            device: "auto", "cpu", "cuda" or "cuda:N"; "auto" steps on where a device fails.
            precision: "fp32" or "fp16".
            threads: CPU threads inside an operator; 0 for all this process may use.

        Returns:
            The backend, its `choice_reason` set.

        Raises:
            UnknownGraph: there is none of that role, size and precision.
            BackendError: nothing here runs it, or not correctly.
        """
        entry = self.entry(role, *profile, precision)
        difference = float("nan")

        def attempt(way: choice.Candidate) -> Backend:
            nonlocal difference
            backend = way.open(self.folder / entry.file, threads, precision)
            try:
                _check_tensors(entry, backend)
                if self.manifest.reference is not None:
                    difference = reference.check(self.folder / self.manifest.reference.file, entry, backend)
            except BackendError:
                backend.close()
                raise
            return backend

        backend = choice.open_first(choice.candidates(device), attempt)
        self.choice_reason, self.self_check = backend.choice_reason, difference
        return backend


def _check_tensors(entry: GraphEntry, backend: Backend) -> None:
    for kind in ("inputs", "outputs"):
        says, has = set(getattr(entry, kind)), set(getattr(backend, kind).values())
        if says != has:
            raise BackendError(
                f"{entry.file}: its {kind} are {', '.join(sorted(map(str, has)))}, and {FILE_NAME} says "
                f"{', '.join(sorted(map(str, says)))}: export the model again"
            )
