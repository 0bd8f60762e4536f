"""models/<name>/model.yaml: what a model is, which graphs it has, and what their bytes hash to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from thermal_enhance.runtime.backend import TensorSpec

FILE_NAME = "model.yaml"
METHODS = ("cross_modal", "temporal", "restore", "detector", "segmenter")
PRECISIONS = ("fp32", "fp16")
DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
ROLE = re.compile(r"[a-z][a-z0-9_]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


class ManifestError(ValueError):
    """A model.yaml cannot be used; the message names the file, the field and what is wrong with it."""


@dataclass(frozen=True)
class FileEntry:
    """A file of the model's folder.

    Attributes:
        file: plain name in the folder, ending in .safetensors.
        sha256: 64 hex digits.
    """

    file: str
    sha256: str


@dataclass(frozen=True)
class GraphEntry:
    """One exported graph.

    Attributes:
        role: what it computes, for example "two_view", "one_view", "encoder", "body".
        profile: (width, height) in pixels of the picture it works on.
        precision: "fp32" or "fp16": the types in the graph, not a wish.
        file: plain name in the folder, ending in .onnx.
        sha256: 64 hex digits.
        inputs, outputs: its tensors, in order.
        tolerance: largest difference to the stored reference, relative to its largest value (at least 1).
    """

    role: str
    profile: tuple[int, int]
    precision: str
    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tolerance: float = 1e-3

    @property
    def key(self) -> str:
        """Name of the graph among those of its model: `two_view_512x512_fp32`."""
        return graph_key(self.role, self.profile, self.precision)


def graph_key(role: str, profile: tuple[int, int], precision: str) -> str:
    """`two_view_512x512_fp32`: unique among the graphs of a model."""
    return f"{role}_{profile[0]}x{profile[1]}_{precision}"


@dataclass(frozen=True)
class ModelManifest:
    """What model.yaml says.

    Attributes:
        name: name of the model and of its folder.
        method: one of METHODS.
        size: "edge", "base", "sd-turbo", ...
        version: version of the weights.
        scales: output size over input size that it was trained for.
        licence: terms of the weights.
        base: the model it builds on, if any ("stabilityai/sd-turbo"); empty for trained from scratch.
        tasks: names of the tasks it has prompts for.
        parameters: preprocessing, radiometry and whatever else the caller of the graphs needs to know.
        description: one line for people.
        weights: the one weights file; None only in a manifest that is not exported yet.
        reference: inputs and outputs for the self-check at start-up; None for none.
        graphs: the exported graphs; empty only before the export.
    """

    name: str
    method: str
    size: str
    version: str
    scales: tuple[int, ...]
    licence: str
    base: str = ""
    tasks: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    weights: FileEntry | None = None
    reference: FileEntry | None = None
    graphs: tuple[GraphEntry, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} must be lower-case letters, digits, '_', '-' and '.'")
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} must be one of {', '.join(METHODS)}")
        if not self.scales or any(scale < 1 for scale in self.scales):
            raise ValueError(f"scales {list(self.scales)} must be one or more whole numbers from 1")
        keys = [graph.key for graph in self.graphs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"graphs: {twice[0]} is listed twice")

    @classmethod
    def from_yaml(cls, path: str | Path) -> ModelManifest:
        """Read a model.yaml.

        Raises:
            FileNotFoundError: there is no such file.
            ManifestError: it cannot be used.
        """
        import yaml

        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path}: not YAML: {error}") from error
        reader = _Reader(path, "", content)
        manifest: dict[str, Any] = {
            "name": reader.text("name"),
            "method": reader.text("method"),
            "size": reader.text("size"),
            "version": reader.text("version"),
            "scales": reader.integers("scales"),
            "licence": reader.text("licence"),
            "base": reader.text("base", ""),
            "tasks": reader.texts("tasks"),
            "parameters": reader.mapping("parameters"),
            "description": reader.text("description", ""),
            "weights": _file_entry(reader.below("weights")),
            "reference": _file_entry(reader.below("reference")) if reader.has("reference") else None,
            "graphs": tuple(_graph_entry(entry) for entry in reader.each("graphs")),
        }
        reader.finish()
        if not manifest["graphs"]:
            raise ManifestError(f"{path}: graphs: must list at least one graph")
        try:
            return cls(**manifest)
        except ValueError as error:
            raise ManifestError(f"{path}: {error}") from error

    def to_yaml(self, path: str | Path) -> None:
        """Write a model.yaml that `from_yaml` reads back as this.

        Raises:
            ValueError: there are no graphs or weights yet.
        """
        import yaml

        if self.weights is None or not self.graphs:
            raise ValueError(f"model {self.name}: no graphs or weights to write a {FILE_NAME} for")
        content = {
            key: value
            for key, value in _plain(dataclasses.asdict(self)).items()
            if value not in (None, "", [], {})
        }
        text = yaml.safe_dump(
            content, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
        )
        Path(path).write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    """Tuples as lists: YAML's safe dumper knows no tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _file_entry(reader: _Reader) -> FileEntry:
    entry = FileEntry(reader.file("file", ".safetensors"), reader.matching("sha256", SHA256, "64 hex digits"))
    reader.finish()
    return entry


def _graph_entry(reader: _Reader) -> GraphEntry:
    profile = reader.integers("profile")
    if len(profile) != 2 or min(profile) < 1:
        raise reader.error("profile", f"must be [width, height] in pixels, not {list(profile)}")
    entry = GraphEntry(
        role=reader.matching("role", ROLE, "lower-case letters, digits and '_'"),
        profile=(profile[0], profile[1]),
        precision=reader.one_of("precision", PRECISIONS),
        file=reader.file("file", ".onnx"),
        sha256=reader.matching("sha256", SHA256, "64 hex digits"),
        inputs=tuple(_tensor_spec(item) for item in reader.each("inputs")),
        outputs=tuple(_tensor_spec(item) for item in reader.each("outputs")),
        tolerance=reader.positive("tolerance", 1e-3),
    )
    reader.finish()
    return entry


def _tensor_spec(reader: _Reader) -> TensorSpec:
    shape = reader.integers("shape")
    if any(size < 1 for size in shape):
        raise reader.error("shape", f"must be static, every size at least 1, not {list(shape)}")
    spec = TensorSpec(reader.text("name"), shape, reader.one_of("dtype", DTYPES))
    reader.finish()
    return spec


class _Reader:
    """A mapping of the file, read field by field, with errors that name file and field."""

    def __init__(self, path: Path, where: str, content: Any) -> None:
        self._path, self._where = path, where
        if not isinstance(content, dict):
            raise ManifestError(f"{path}: {where or 'the file'}: must be a mapping, not {content!r}")
        self._content = content
        self._read: set[str] = set()

    def error(self, key: str, reason: str) -> ManifestError:
        return ManifestError(f"{self._path}: {self._full(key)}: {reason}")

    def _full(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def has(self, key: str) -> bool:
        return self._content.get(key) is not None

    def _get(self, key: str, default: Any = ...) -> Any:
        self._read.add(key)
        value = self._content.get(key)
        if value is None:
            if default is ...:
                raise self.error(key, "is missing")
            return default
        return value

    def text(self, key: str, default: Any = ...) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or (default is ... and not value):
            raise self.error(key, f"must be a text, not {value!r}" + _quote_hint(value))
        return value

    def matching(self, key: str, pattern: re.Pattern[str], what: str) -> str:
        value = self.text(key)
        if not pattern.fullmatch(value):
            raise self.error(key, f"must be {what}, not {value!r}")
        return value

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in known:
            raise self.error(key, f"must be one of {', '.join(known)}, not {value!r}")
        return value

    def file(self, key: str, suffix: str) -> str:
        value = self.text(key)
        # A manifest must not lead out of its folder, and nothing but these formats is ever loaded.
        if PurePosixPath(value).name != value or "\\" in value or not value.endswith(suffix):
            raise self.error(key, f"must be the plain name of a {suffix} file of this folder, not {value!r}")
        return value

    def positive(self, key: str, default: float) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise self.error(key, f"must be a number above 0, not {value!r}")
        return float(value)

    def integers(self, key: str) -> tuple[int, ...]:
        value = self._get(key)
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise self.error(key, f"must be a list of whole numbers, not {value!r}")
        return tuple(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be a list of texts, not {value!r}")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, f"must be a mapping, not {value!r}")
        return value

    def below(self, key: str) -> _Reader:
        return _Reader(self._path, self._full(key), self._get(key))

    def each(self, key: str) -> list[_Reader]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, not {value!r}")
        return [_Reader(self._path, f"{self._full(key)}[{i}]", item) for i, item in enumerate(value)]

    def finish(self) -> None:
        """Raise on a field nobody asked for: most likely a misspelt one."""
        unknown = sorted(str(key) for key in self._content.keys() - self._read)
        if unknown:
            raise self.error(unknown[0], f"is unknown; known: {', '.join(sorted(self._read))}")


def _quote_hint(value: Any) -> str:
    return " (put it in quotes)" if isinstance(value, (int, float)) else ""
