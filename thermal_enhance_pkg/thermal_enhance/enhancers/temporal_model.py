"""A temporal model at work: its encoder and body for frames of any size that one of its graphs covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.learned import (
    GraphPool,
    LearnedConfig,
    ModelUnavailableError,
    NonFiniteOutputError,
    find_model,
)
from thermal_enhance.enhancers.observation import FULL
from thermal_enhance.enhancers.temporal_input import CHANNELS, CUES, TemporalInputBuilder, to_levels
from thermal_enhance.enhancers.upsampling import Image
from thermal_enhance.imaging.motion import Motion, MotionConfig, MotionEstimator
from thermal_enhance.runtime.backend import Backend
from thermal_enhance.runtime.manifest import ModelManifest
from thermal_enhance.runtime.store import ModelStore

METHOD = "temporal"
ROLES = ("encoder", "body")
HEADROOM = 32.0
"""Levels beyond 0..255 that network and motion are shown; what lies beyond them is enlarged linearly."""

Size = tuple[int, int]


class TemporalModelRunner:
    """Loads the graphs of a temporal model and runs them. Building one loads nothing.

    Frames smaller than a graph are reflected over their right and lower edge, before everything else, and
    what comes out is cropped. Everything but `refuses`, `is_loaded` and `description` belongs to one thread.

    Args:
        config: which model, on what.
        motion: how motion is found.
        store: where models are; None for the default folders.

    Raises:
        ModelUnavailableError: there is no such model, it was trained on other inputs, or nothing here runs
            models.
    """

    def __init__(
        self, config: LearnedConfig, motion: MotionConfig | None = None, store: ModelStore | None = None
    ) -> None:
        self._config = config
        self._store = store or ModelStore()
        self.manifest: ModelManifest = find_model(self._store, METHOD, config.model)
        """What the model's model.yaml says."""
        self.window, self.scale = _window_and_scale(self.manifest)
        self.profiles = _profiles(self.manifest, config.precision)
        """(width, height) of the frames that its graphs take, smallest first."""
        self._builder = TemporalInputBuilder(scale=self.scale)
        self._motion = MotionEstimator(motion or MotionConfig())
        self._pool: GraphPool | None = None
        self._loaded: frozenset[Size] = frozenset()

    # ---- loading ----------------------------------------------------------------------------

    def refuses(self, scale: int, size: Size) -> str:
        """Why frames of this scale and (width, height) are not for this model; empty when they are."""
        name = self.manifest.name
        if scale != self.scale:
            return f"scale {scale} is not that of model {name}: it makes {self.scale}"
        if self.profile(size) is None:
            given, largest = ("x".join(map(str, s)) for s in (size, self.profiles[-1]))
            return f"{given} frames are too large for model {name}, which takes up to {largest}"
        return ""

    def profile(self, size: Size) -> Size | None:
        """The smallest graph that covers frames of (width, height); None where none does."""
        fitting = (p for p in self.profiles if p[0] >= size[0] and p[1] >= size[1])
        return next(fitting, None)

    @property
    def description(self) -> str:
        """Model, and why it runs where it runs; empty before anything is loaded."""
        pool = self._pool
        if pool is None or not self._loaded:
            return ""
        return f"{self.manifest.name} {self.manifest.version}, {pool.model.choice_reason}"

    def is_loaded(self, size: Size) -> bool:
        """Are both graphs for frames of this size ready?"""
        return self.profile(size) in self._loaded

    def load(self, size: Size) -> None:
        """Load and warm up both graphs for frames of this size.

        Raises:
            ValueError: no graph covers them.
            ModelFileError: a file of the model is missing or damaged.
            BackendError: nothing here runs the graphs, or their self-check failed.
        """
        profile = self.profile(size)
        if profile is None:
            raise ValueError(self.refuses(self.scale, size))
        if profile in self._loaded:
            return
        if self._pool is None:
            self._pool = GraphPool(self._store.open(self.manifest.name), self._config)
        for role in ROLES:
            self._pool.load(role, profile)
        self._loaded |= {profile}

    def close(self) -> None:
        """Free the graphs."""
        self._loaded = frozenset()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # ---- running ----------------------------------------------------------------------------

    def padded(self, levels: Image) -> Image:
        """(h, w) float32 levels, reflected to the size of the graph that covers them."""
        height, width = levels.shape
        profile = self.profile((width, height))
        assert profile is not None  # loaded by the caller
        right, down = profile[0] - width, profile[1] - height
        if not (right or down):
            return levels
        return np.asarray(cv2.copyMakeBorder(levels, 0, down, 0, right, cv2.BORDER_REFLECT_101), np.float32)

    def encode(self, levels: Image) -> NDArray[np.float32]:
        """Features (C, h / 2, w / 2) of a padded frame.

        Raises:
            NonFiniteOutputError: they hold NaN or infinity.
        """
        ready = self._builder.encode(_shown(levels))
        return np.asarray(_run(self._graph("encoder", levels), {"frame": ready[None]}, "features")[0])

    def estimate(self, a: Image, b: Image) -> Motion:
        """Motion from one padded frame to the next."""
        return self._motion(_shown(a), _shown(b))

    def __call__(
        self,
        window: Sequence[Image],
        features: Sequence[NDArray[Any]],
        motions: Sequence[Motion],
        taus: tuple[float, float],
        lap: Callable[[str], None] = lambda _stage: None,
    ) -> NDArray[np.float32]:
        """The pictures at two times.

        Args:
            window: `window` padded frames, float32 levels, oldest first.
            features: of each, from `encode`.
            motions: between consecutive ones, from `estimate`.
            taus: the two times, in frames.
            lap: told when a stage ("align", "model") is over.

        Returns:
            (2, h * scale, w * scale) float32 levels, padded as the frames are.

        Raises:
            NonFiniteOutputError: they hold NaN or infinity.
        """
        shown = [_shown(levels) for levels in window]
        ready = self._builder(shown, motions, taus)
        base = ready.base
        beyond = [levels - clipped for levels, clipped in zip(window, shown)]
        if any(part.any() for part in beyond):
            # What the network was not shown, put back on top; the base is linear in the frames.
            base = base + self._builder(beyond, motions, taus).base
        lap("align")
        feeds = {
            "features": np.stack(features)[None],
            "grid": ready.grid[None],
            "tau": ready.tau[None],
            "cues": ready.cues[None],
        }
        residual = _run(self._graph("body", window[0]), feeds, "residual")[0, :, 0]
        levels = to_levels(base, residual)
        lap("model")
        return levels

    def _graph(self, role: str, levels: Image) -> Backend:
        assert self._pool is not None  # loaded by the caller
        return self._pool.load(role, (levels.shape[1], levels.shape[0]))


def _window_and_scale(manifest: ModelManifest) -> tuple[int, int]:
    """Of a model that was trained on what this version shows it.

    Raises:
        ModelUnavailableError: it was not; its pictures would be wrong without a word.
    """
    parameters = manifest.parameters
    for what, known in (("channels", CHANNELS), ("cues", CUES)):
        trained = tuple(parameters.get(what, ("(not said)",)))
        if trained != known:
            raise ModelUnavailableError(
                f"model {manifest.name} was trained on the {what} {', '.join(map(str, trained))}, and this "
                f"version gives it {', '.join(known)}: fetch or train the model anew"
            )
    window, scale = parameters.get("window"), parameters.get("scale")
    if not (isinstance(window, int) and 3 <= window <= 16 and scale in manifest.scales):
        raise ModelUnavailableError(
            f"model {manifest.name}: its parameters must have a window of 3 to 16 frames and a scale of "
            f"{' or '.join(map(str, manifest.scales))}, not {window} and {scale}: export it again"
        )
    return window, int(scale)


def _profiles(manifest: ModelManifest, precision: str) -> list[Size]:
    """Frame sizes for which a model has both graphs, smallest first.

    Raises:
        ModelUnavailableError: there is none.
    """
    sizes = [
        {graph.profile for graph in manifest.graphs if (graph.role, graph.precision) == (role, precision)}
        for role in ROLES
    ]
    common = sorted(set.intersection(*sizes), key=lambda size: (size[0] * size[1], size))
    if not common:
        raise ModelUnavailableError(
            f"model {manifest.name} has no {precision} graphs of {' and '.join(ROLES)}: export it again"
        )
    return common


def _shown(levels: Image) -> Image:
    return np.clip(levels, -HEADROOM, FULL + HEADROOM)


def _run(graph: Backend, feeds: dict[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    made = np.asarray(graph.run(feeds)[name], np.float32)
    # One pass: a sum is finite only if every term is (float64, so that it cannot overflow by itself).
    if not np.isfinite(made.sum(dtype=np.float64)):
        raise NonFiniteOutputError("non-finite: the model gave NaN or infinity")
    return made
