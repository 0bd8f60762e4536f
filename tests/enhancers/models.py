"""Models for the tests: one that is a manifest only, and one that numpy computes."""

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
