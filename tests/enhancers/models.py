"""Models for the tests: some that are a manifest only, and some that numpy computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermal_enhance.enhancers.cross_modal import CHANNELS
from thermal_enhance.runtime.backend import TensorSpec, check_feeds
from thermal_enhance.runtime.manifest import FILE_NAME, FileEntry, GraphEntry, ModelManifest
from thermal_enhance.runtime.store import ModelStore, StoredModel


def stub_model(
    folder: Path, name: str, method: str = "cross_modal", profiles: tuple[tuple[int, int], ...] = ((64, 64),)
) -> Path:
    """A model.yaml without the files it speaks of: enough for whatever does not load it."""
    views = {"two_view": ("thermal", "rgb"), "one_view": ("thermal",)}
    graphs = tuple(
        GraphEntry(
            role=role,
            profile=(width, height),
            precision="fp32",
            file=f"{role}_{width}x{height}.onnx",
            sha256="0" * 64,
            inputs=(
                *(TensorSpec(view, (1, 3, height, width), "float32") for view in pictures),
                TensorSpec("task", (3, 4, 4), "float32"),
            ),
            outputs=(TensorSpec("enhanced", (1, 1, height, width), "float32"),),
        )
        for role, pictures in views.items()
        for width, height in profiles
    )
    manifest = ModelManifest(
        name=name,
        method=method,
        size="edge",
        version="1",
        scales=(4, 8),
        licence="CC0-1.0",
        parameters={"stride": 32, "thermal_channels": list(CHANNELS), "network": {"task_rank": 4}},
        weights=FileEntry("weights.safetensors", "0" * 64),
        graphs=graphs,
    )
    (folder / name).mkdir()
    manifest.to_yaml(folder / name / FILE_NAME)
    return folder / name


class NumpyGraph:
    """A backend: sharpens the base a little; with RGB it also copies its texture, right or wrong."""

    name, device, precision, choice_reason = "numpy", "cpu", "fp32", "numpy, for tests"

    def __init__(self, entry: GraphEntry, spoil: Callable[[], bool]) -> None:
        self.inputs = {spec.name: spec for spec in entry.inputs}
        self.outputs = {spec.name: spec for spec in entry.outputs}
        self.runs, self.warmed, self.closed, self._spoil = 0, False, False, spoil

    def run(self, feeds: Any) -> dict[str, Any]:
        check_feeds(feeds, self.inputs)
        assert np.array_equal(feeds["task"], np.tile(np.eye(4, dtype=np.float32), (3, 1, 1)))
        self.runs += 1
        base = feeds["thermal"][0, 0]
        made = base + 0.3 * (base - cv2.GaussianBlur(base, (0, 0), 2.0))
        if "rgb" in feeds:
            gray = feeds["rgb"][0].mean(axis=0)
            made = made + 0.2 * (gray - cv2.GaussianBlur(gray, (0, 0), 2.0))
        if self._spoil():
            made[3, 4] = np.nan
        return {"enhanced": made[None, None].astype(np.float32)}

    def warm_up(self) -> None:
        self.warmed = True

    def close(self) -> None:
        self.closed = True


class NumpyStore(ModelStore):
    """A store with one cross-modal model, "numpy", whose graphs are `NumpyGraph`s.

    Attributes:
        graphs: (role, profile) of what was loaded, in order, with the graph.
        spoil: make the graphs give NaN.
        load_error: raised instead of loading.
    """

    def __init__(self, folder: Path, *profiles: tuple[int, int]) -> None:
        stub_model(folder, "numpy", profiles=profiles or ((64, 64), (256, 192)))
        super().__init__([folder])
        self.graphs: list[tuple[str, tuple[int, int], NumpyGraph]] = []
        self.spoil = False
        self.load_error: Exception | None = None

    def open(self, name: str) -> StoredModel:
        store = self

        class Model(StoredModel):
            def load(self, role: str, profile: tuple[int, int], *_: Any, **__: Any) -> Any:
                if store.load_error is not None:
                    raise store.load_error
                graph = NumpyGraph(self.entry(role, *profile), lambda: store.spoil)
                self.choice_reason = graph.choice_reason
                store.graphs.append((role, profile, graph))
                return graph

        return Model(self.folder(name), self.describe(name))


TEMPORAL_CHANNELS = 4


def temporal_stub_model(
    folder: Path,
    name: str,
    profiles: tuple[tuple[int, int], ...] = ((32, 24), (64, 48)),
    window: int = 3,
    scale: int = 4,
    **parameters: Any,
) -> Path:
    """The model.yaml of a temporal model, without the files it speaks of."""

    def specs(role: str, w: int, h: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        features, x = (TEMPORAL_CHANNELS, h // 2, w // 2), window
        shapes: dict[str, tuple[int, ...]]
        if role == "encoder":
            shapes, out = {"frame": (1, 2, h, w)}, ("features", (1, *features))
        else:
            shapes = {"features": (1, x, *features), "grid": (1, 2, x, h // 2, w // 2, 2), "tau": (1, 2)}
            shapes["cues"] = (1, 2, 4, h, w)
            out = ("residual", (1, 2, 1, h * scale, w * scale))
        inputs = tuple(TensorSpec(key, shape, "float32") for key, shape in shapes.items())
        return inputs, (TensorSpec(*out, "float32"),)

    graphs = []
    for role in ("encoder", "body"):
        for width, height in profiles:
            inputs, outputs = specs(role, width, height)
            file = f"{role}_{width}x{height}.onnx"
            graphs.append(GraphEntry(role, (width, height), "fp32", file, "0" * 64, inputs, outputs))
    manifest = ModelManifest(
        name=name,
        method="temporal",
        size="nano",
        version="1",
        scales=(scale,),
        licence="CC0-1.0",
        parameters={
            "window": window,
            "scale": scale,
            "channels": ["level", "contrast"],
            "cues": ["contrast", "difference", "gap", "outside"],
            **parameters,
        },
        weights=FileEntry("weights.safetensors", "0" * 64),
        graphs=tuple(graphs),
    )
    (folder / name).mkdir()
    manifest.to_yaml(folder / name / FILE_NAME)
    return folder / name


class TemporalGraph:
    """Encoder or body in numpy: what the body gives depends on every feature, cue and time it is fed."""

    name, device, precision, choice_reason = "numpy", "cpu", "fp32", "numpy, for tests"

    def __init__(self, entry: GraphEntry, store: TemporalStore) -> None:
        self.inputs = {spec.name: spec for spec in entry.inputs}
        self.outputs = {spec.name: spec for spec in entry.outputs}
        self.role, self.runs, self.closed, self._store = entry.role, 0, False, store

    def run(self, feeds: Any) -> dict[str, Any]:
        check_feeds(feeds, self.inputs)
        self.runs += 1
        self._store.feeds.append((self.role, {name: value.copy() for name, value in feeds.items()}))
        self._store.work()
        if self.role == "encoder":
            made = self._encode(feeds["frame"][0])
        else:
            made = self._body(**{name: value[0] for name, value in feeds.items()})
        if self._store.spoil == self.role:
            made.flat[3] = np.nan
        return {next(iter(self.outputs)): made[None].astype(np.float32)}

    def _encode(self, frame: Any) -> Any:
        level, contrast = (cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frame)
        return np.stack([level, contrast, level * level, cv2.GaussianBlur(level, (0, 0), 2.0)])

    def _body(self, features: Any, grid: Any, tau: Any, cues: Any) -> Any:
        height, width = features.shape[2:]
        pictures = []
        for t in range(len(tau)):
            total = np.zeros((height, width), np.float32)
            for x, planes in enumerate(features):
                places = (grid[t, x] + 1) * np.array([width, height], np.float32) / 2 - np.float32(0.5)
                mixed = np.ascontiguousarray(planes.transpose(1, 2, 0) @ np.array([1, 2, 1, -1], np.float32))
                looked = cv2.remap(mixed, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                total += looked * np.float32(np.exp(-abs(x - tau[t])))
            scale = self.outputs["residual"].shape[-1] // width
            small = cv2.resize(cues[t].sum(axis=0), (width, height), interpolation=cv2.INTER_AREA)
            made = cv2.resize(total + small, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            pictures.append(made * np.float32(self._store.strength))
        return np.stack(pictures)[:, None]

    def warm_up(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class TemporalStore(ModelStore):
    """A store with one temporal model, "numpy", whose graphs are `TemporalGraph`s.

    Attributes:
        graphs: (role, profile) of what was loaded, in order, with the graph.
        feeds: (role, feeds) of every run.
        strength: of what the body adds.
        spoil: role whose output holds NaN.
        work: called in every run.
    """

    def __init__(self, folder: Path, *profiles: tuple[int, int], **model: Any) -> None:
        temporal_stub_model(folder, "numpy", profiles or ((32, 24), (64, 48)), **model)
        super().__init__([folder])
        self.graphs: list[tuple[str, tuple[int, int], TemporalGraph]] = []
        self.feeds: list[tuple[str, dict[str, Any]]] = []
        self.strength, self.spoil = 0.02, ""
        self.work: Callable[[], None] = lambda: None

    def open(self, name: str) -> StoredModel:
        store = self

        class Model(StoredModel):
            def load(self, role: str, profile: tuple[int, int], *_: Any, **__: Any) -> Any:
                graph = TemporalGraph(self.entry(role, *profile), store)
                self.choice_reason = graph.choice_reason
                store.graphs.append((role, profile, graph))
                return graph

        return Model(self.folder(name), self.describe(name))
