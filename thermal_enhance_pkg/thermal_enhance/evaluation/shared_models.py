"""Models loaded once and used by many enhancers: a store that hands the same graphs out again and again.

A fresh enhancer for every still must not cost a fresh session: loading a graph and its first runs take longer
than the picture.
"""

from __future__ import annotations

from collections.abc import Mapping

from thermal_enhance.runtime.backend import Array, Backend
from thermal_enhance.runtime.store import ModelStore, StoredModel


class SharedGraph:
    """A loaded graph that outlives whoever uses it: closing does nothing, warming up is done once."""

    def __init__(self, graph: Backend) -> None:
        self._graph = graph
        self.name, self.device, self.precision = graph.name, graph.device, graph.precision
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.choice_reason = graph.choice_reason
        self._warm = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        return self._graph.run(feeds)

    def warm_up(self) -> None:
        """Warm the graph up the first time."""
        if not self._warm:
            self._graph.warm_up()
            self._warm = True

    def close(self) -> None:
        """Nothing: the store frees it."""

    def free(self) -> None:
        """Free the graph."""
        self._graph.close()


class SharedModel(StoredModel):
    """A model that loads each graph once."""

    def __init__(self, model: StoredModel) -> None:
        super().__init__(model.folder, model.manifest)
        self.graphs: dict[tuple[str, tuple[int, int], str, str, int], SharedGraph] = {}

    def load(
        self,
        role: str,
        profile: tuple[int, int],
        device: str = "auto",
        *,
        precision: str = "fp32",
        threads: int = 0,
    ) -> Backend:
        """See `StoredModel.load`."""
        key = (role, profile, device, precision, threads)
        if key not in self.graphs:
            self.graphs[key] = SharedGraph(
                super().load(role, profile, device, precision=precision, threads=threads)
            )
        return self.graphs[key]


class SharedModels(ModelStore):
    """A store that opens each model once.

    Args:
        store: where the models are.
    """

    def __init__(self, store: ModelStore) -> None:
        super().__init__(store.folders)
        self._open: dict[str, SharedModel] = {}

    def open(self, name: str) -> SharedModel:
        """See `ModelStore.open`."""
        if name not in self._open:
            self._open[name] = SharedModel(super().open(name))
        return self._open[name]

    def close(self) -> None:
        """Free every graph."""
        for model in self._open.values():
            for graph in model.graphs.values():
                graph.free()
        self._open.clear()
