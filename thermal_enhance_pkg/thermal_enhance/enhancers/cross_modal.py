"""The cross-modal tier: the learned network on top of the classical result, guided by RGB where it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.cross_modal_input import CrossModalInput, CrossModalInputBuilder, to_levels
from thermal_enhance.enhancers.guided import GuidedDetail
from thermal_enhance.enhancers.learned import (
    GraphPool,
    LearnedConfig,
    ModelUnavailableError,
    TaskMatrices,
    find_model,
    run_picture,
)
from thermal_enhance.enhancers.observation import (
    FULL,
    GuideAligner,
    ObservationConfig,
    Observer,
    Stopwatch,
    settle,
)
from thermal_enhance.enhancers.tiling import TilePlan, plan_tiles, run_tiled
from thermal_enhance.enhancers.upsampling import EdgeUpsampler, Image, resize_cubic
from thermal_enhance.imaging.alignment import Alignment
from thermal_enhance.imaging.frames import ThermalFrame, Units
from thermal_enhance.runtime.manifest import ModelManifest
from thermal_enhance.runtime.store import ModelStore

METHOD = "cross_modal"
CHANNELS = ("guided", "contrast", "detail")
"""What `CrossModalInputBuilder` puts into the thermal view; a model trained on another view is not run."""
HEADROOM = 32.0
"""Levels beyond 0..255 that the network is shown; a hot spot beyond them keeps the classical base."""


@dataclass(frozen=True, kw_only=True)
class CrossModalEnhancerConfig(ObservationConfig, LearnedConfig):
    """Parameters of `CrossModalEnhancer`: see `ObservationConfig` and `LearnedConfig`."""

    min_trust: float = 0.35

    def __post_init__(self) -> None:
        ObservationConfig.__post_init__(self)
        LearnedConfig.__post_init__(self)


class CrossModalEnhancer:
    """Super-resolution by a 3M-TI model for uint8, uint16 and float32 frames of any unit and size.

    A frame whose RGB is missing, or trusted less than `min_trust`, or no finer than thermal itself, takes the
    thermal-only graph that very frame: its result is then bit for bit that of a frame without RGB.

    Building one is cheap: the model's files are checked and its graphs loaded by `load`, which calling does
    too when it must. Everything but `refuses` and `is_loaded` belongs to one thread.

    Args:
        config: see `CrossModalEnhancerConfig`.
        store: where models are; None for the default folders.

    Raises:
        ModelUnavailableError: there is no such model, or nothing here runs models.
    """

    name = METHOD
    needs_rgb = False
    isolated = True

    def __init__(
        self, config: CrossModalEnhancerConfig | None = None, store: ModelStore | None = None
    ) -> None:
        self.config = config or CrossModalEnhancerConfig()
        self.uses_rgb = self.config.guided
        self._store = store or ModelStore()
        self.manifest: ModelManifest = find_model(self._store, METHOD, self.config.model)
        """What the model's model.yaml says."""
        self._builder = CrossModalInputBuilder(area_sampled=self.config.sampling == "area")
        self._guide = GuidedDetail(self._builder.guide)
        self._observer = Observer(self.config)
        self._aligner = GuideAligner(self.config)
        self._size: tuple[int, int] | None = None
        _check_channels(self.manifest)
        self._roles = ("two_view", "one_view") if self.config.guided else ("one_view",)
        self._profiles = _profiles(self.manifest, self._roles, self.config.precision)
        network = self.manifest.parameters.get("network", {})
        self._stride = int(self.manifest.parameters.get("stride", 32))
        self._matrices = TaskMatrices(int(network.get("task_rank", 0)) or 1)
        self._plans: dict[tuple[int, int], TilePlan] = {}
        self._pool: GraphPool | None = None
        self._loaded: frozenset[tuple[int, int]] = frozenset()

    def factory(self) -> CrossModalEnhancer:
        """A fresh one of the same parameters, with nothing loaded: replaces one that hung."""
        return CrossModalEnhancer(self.config, self._store)

    # ---- loading ----------------------------------------------------------------------------

    def refuses(self, request: EnhanceRequest) -> str:
        """Why frames of this scale are not for this model; empty when they are."""
        if request.scale in self.manifest.scales:
            return ""
        known = " and ".join(map(str, self.manifest.scales))
        return f"scale {request.scale} is not one of model {self.manifest.name}: it makes {known}"

    @property
    def description(self) -> str:
        """Model, and why it runs where it runs; empty before anything is loaded."""
        pool = self._pool
        if pool is None or not self._loaded:
            return ""
        return f"{self.manifest.name} {self.manifest.version}, {pool.model.choice_reason}"

    def is_loaded(self, request: EnhanceRequest) -> bool:
        """Are both graphs for frames of this size ready?"""
        return self._plan(request).profile in self._loaded

    def load(self, request: EnhanceRequest) -> None:
        """Load and warm up both graphs for frames of this size, so that no later frame waits for one.

        Raises:
            ModelFileError: a file of the model is missing or damaged.
            BackendError: nothing here runs the graphs, or their self-check failed.
        """
        profile = self._plan(request).profile
        if profile in self._loaded:
            return
        if self._pool is None:
            self._pool = GraphPool(self._store.open(self.manifest.name), self.config)
        for role in self._roles:
            self._pool.load(role, profile)
        self._loaded |= {profile}

    def _plan(self, request: EnhanceRequest) -> TilePlan:
        size = (request.thermal.size[0] * request.scale, request.thermal.size[1] * request.scale)
        if size not in self._plans:
            self._plans[size] = plan_tiles(size, self._profiles, step=self._stride)
        return self._plans[size]

    # ---- a frame ----------------------------------------------------------------------------

    def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
        """Enhance one frame.

        Returns:
            A frame of `request.scale` times the size, dtype and units of the input.

        Raises:
            ValueError: the model does not make this scale, or no pixel of the frame is finite.
            NonFiniteOutputError: the model gave NaN or infinity.
            BackendError, ModelFileError: the model does not run here.
        """
        refusal = self.refuses(request)
        if refusal:
            raise ValueError(refusal)
        self.load(request)
        watch = Stopwatch()
        thermal = request.thermal
        if thermal.size != self._size:
            self.reset("size")
            self._size = thermal.size
        # The network has learnt from 8-bit pictures as they are, never stretched.
        agc8 = thermal.units is Units.AGC8 and thermal.data.dtype == np.uint8
        seen = self._observer(request, (0.0, FULL) if agc8 else request.value_range)
        levels = seen.levels()
        watch.lap("prepare")

        alignment, gray = self._aligner(request, levels)
        if alignment is not None:
            watch.lap("align")
        shown = np.clip(levels, -HEADROOM, FULL + HEADROOM)
        used = alignment is not None and gray is not None and self._usable(alignment, gray, request)
        ready = self._input(shown, request, alignment if used else None)
        watch.lap("guide")
        enlarged = self._run(ready, request)
        watch.lap("model")
        beyond = levels - shown
        if beyond.any():
            enlarged += self._enlarge_linearly(beyond, request.scale)
        data, residual = settle(seen.to_units(enlarged), seen, request.scale, self.config)
        watch.lap("consistency")
        return EnhancedFrame(
            ThermalFrame(data, thermal.units, thermal.stamp_ns, thermal.frame_id),
            self.name,
            rgb_trust=float("nan") if alignment is None else alignment.trust,
            rgb_used=used,
            degradation=seen.degradation,
            consistency_residual=residual,
            stage_ms=watch.stages,
            repaired=seen.repaired,
        )

    def reset(self, reason: str) -> None:
        """Forget range, noise and stripes; the cameras' geometry only with a new size or scene."""
        self._observer.reset()
        if reason in ("size", "scene"):
            self._aligner.reset(reason)

    def close(self) -> None:
        """Free the graphs."""
        self._loaded = frozenset()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    @property
    def last_alignment(self) -> Alignment | None:
        """What was said about the latest frame with RGB; for diagnostics."""
        return self._aligner.last

    def _usable(self, alignment: Alignment, gray: NDArray[np.uint8], request: EnhanceRequest) -> bool:
        if alignment.trust < self.config.min_trust:
            return False
        return self._guide.finer(gray, alignment.homography, request.thermal.size[0])

    def _input(self, levels: Image, request: EnhanceRequest, alignment: Alignment | None) -> CrossModalInput:
        guide = None
        if alignment is not None and request.color is not None:
            guide = self._builder.place_color(
                request.color.data, alignment.homography, request.thermal.size, request.scale
            )
        return self._builder(levels, request.scale, guide)

    def _run(self, ready: CrossModalInput, request: EnhanceRequest) -> Image:
        """Levels of the enhanced picture."""
        assert self._pool is not None  # loaded by the caller
        plan = self._plan(request)
        pictures: dict[str, Any] = {"thermal": ready.thermal}
        if ready.rgb is not None:
            pictures["rgb"] = ready.rgb
        graph = self._pool.load("one_view" if ready.rgb is None else "two_view", plan.profile)
        task = self._matrices(request)

        def run(tile: dict[str, Image]) -> Image:
            return run_picture(graph, {"task": task, **{name: part[None] for name, part in tile.items()}})

        return to_levels(run_tiled(plan, pictures, run))

    def _enlarge_linearly(self, picture: Image, scale: int) -> Image:
        """What the network was not shown, put back on top."""
        base = EdgeUpsampler(self._builder.upsampling, self._builder.area_sampled).linear_base(picture, scale)
        return resize_cubic(base, (picture.shape[1] * scale, picture.shape[0] * scale))


def _check_channels(manifest: ModelManifest) -> None:
    """See that a model was trained on what this version shows it.

    Raises:
        ModelUnavailableError: it was not; its pictures would be wrong without a word.
    """
    trained = tuple(manifest.parameters.get("thermal_channels", ("(not said)",)))
    if trained != CHANNELS:
        raise ModelUnavailableError(
            f"model {manifest.name} was trained on the thermal channels {', '.join(trained)}, and this "
            f"version gives it {', '.join(CHANNELS)}: fetch or train the model anew"
        )


def _profiles(manifest: ModelManifest, roles: tuple[str, ...], precision: str) -> list[tuple[int, int]]:
    """Sizes for which a model has a graph of every role.

    Raises:
        ModelUnavailableError: there is none.
    """
    sizes = [
        {graph.profile for graph in manifest.graphs if (graph.role, graph.precision) == (role, precision)}
        for role in roles
    ]
    common = set.intersection(*sizes)
    if not common:
        raise ModelUnavailableError(
            f"model {manifest.name} has no {precision} graphs of {' and '.join(roles)}: export it again"
        )
    return sorted(common)
