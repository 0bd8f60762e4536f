"""What learned tiers share: which model to use, its graphs loaded when first needed, the task's matrices."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.runtime.backend import Backend
from thermal_enhance.runtime.manifest import ManifestError, ModelManifest
from thermal_enhance.runtime.store import ModelStore, StoredModel, UnknownModel

TASK_GROUPS = 3
"""Groups of layers with a C of their own: down, mid, up."""


class ModelUnavailableError(ValueError):
    """A learned mode cannot run here; the message says why and what to do."""


class NonFiniteOutputError(RuntimeError):
    """A model gave NaN or infinity."""


@dataclass(frozen=True, kw_only=True)
class LearnedConfig:
    """Which model runs, and on what.

    Attributes:
        model: its name; empty for the method's own (`find_model`).
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads inside an operator; 0 for all this process may use.
        precision: of the graphs: "fp32" or "fp16".
    """

    model: str = ""
    device: str = "auto"
    threads: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"threads must be 0 (all) or more, not {self.threads}")


def find_model(store: ModelStore, method: str, name: str = "") -> ModelManifest:
    """The model to use; its files are not looked at yet.

    Args:
        store: the models on this machine.
        method: "cross_modal", ...
        name: of the model; empty for `<method>-edge` or `<method>-nano`, or else the first one of the method.

    Raises:
        ModelUnavailableError: there is none, it is for another method, or nothing here runs models.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise ModelUnavailableError("it needs ONNX Runtime: `pip install onnxruntime`")
    known = models_of(store, method)
    if not name:
        shipped = (f"{method}-{size}" for size in ("edge", "nano"))
        name = next((name for name in (*shipped, *known) if name in known), "")
        if not name:
            places = ", ".join(str(folder) for folder in store.folders)
            raise ModelUnavailableError(f"there is no {method} model in {places}")
    if name in known:
        return known[name]
    listing = ", ".join(known) or "none"
    try:
        other = store.describe(name)
    except UnknownModel:
        raise ModelUnavailableError(
            f"model {name!r} is unknown; known for {method}: {listing} (`thermal-enhance models` lists all)"
        ) from None
    except ManifestError as error:
        raise ModelUnavailableError(str(error)) from error
    raise ModelUnavailableError(
        f"model {name!r} is for {other.method}, not {method}; known for {method}: {listing}"
    )


def models_of(store: ModelStore, method: str) -> dict[str, ModelManifest]:
    """Models of a method by name, sorted; those with a broken model.yaml are left out."""
    found = {}
    for name in store.names():
        try:
            manifest = store.describe(name)
        except (ManifestError, OSError):
            continue
        if manifest.method == method:
            found[name] = manifest
    return found


class TaskMatrices:
    """C of the task LoRA for a frame: where a task's prompt will act (METHODS.md 3). The identity for now.

    Args:
        rank: r of the model's task LoRA.
    """

    def __init__(self, rank: int) -> None:
        self._identity = np.tile(np.eye(rank, dtype=np.float32), (TASK_GROUPS, 1, 1))

    def __call__(self, request: EnhanceRequest) -> NDArray[np.float32]:
        """(3, r, r) float32 for this frame's task."""
        return self._identity


class GraphPool:
    """The graphs of one model, each loaded and warmed up when first asked for. Belongs to one thread.

    Args:
        model: files checked.
        config: device, threads, precision.
    """

    def __init__(self, model: StoredModel, config: LearnedConfig) -> None:
        self.model = model
        self.config = config
        self._graphs: dict[tuple[str, tuple[int, int]], Backend] = {}

    def load(self, role: str, profile: tuple[int, int]) -> Backend:
        """The graph, ready for a frame.

        Raises:
            UnknownGraph: the model has none such.
            BackendError: nothing here runs it, or its self-check failed.
        """
        key = (role, profile)
        if key not in self._graphs:
            config = self.config
            graph = self.model.load(
                role, profile, config.device, precision=config.precision, threads=config.threads
            )
            graph.warm_up()
            self._graphs[key] = graph
        return self._graphs[key]

    def close(self) -> None:
        """Free all graphs."""
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()


def run_picture(graph: Backend, feeds: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Run a graph that gives one picture.

    Args:
        graph: output "enhanced", (1, 1, H, W).
        feeds: by input name; those the graph does not take are left out (a model without task LoRA).

    Returns:
        (H, W) float32.

    Raises:
        NonFiniteOutputError: it holds NaN or infinity.
    """
    outputs = graph.run({name: value for name, value in feeds.items() if name in graph.inputs})
    picture = np.asarray(outputs["enhanced"][0, 0], np.float32)
    # One pass: a sum is finite only if every term is (float64, so that it cannot overflow by itself).
    if not np.isfinite(picture.sum(dtype=np.float64)):
        raise NonFiniteOutputError("non-finite: the model gave NaN or infinity")
    return picture
