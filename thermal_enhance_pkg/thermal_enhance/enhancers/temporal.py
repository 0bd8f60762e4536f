"""The temporal tier: a THERIS model makes, of a stream's last frames, the newest and what lies before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest, FrameDeclined
from thermal_enhance.enhancers.learned import LearnedConfig
from thermal_enhance.enhancers.observation import FULL, ObservationConfig, Observer, Stopwatch, settle
from thermal_enhance.enhancers.temporal_buffer import FrameRing, RingConfig, RingFrame
from thermal_enhance.enhancers.temporal_model import METHOD, TemporalModelRunner
from thermal_enhance.enhancers.temporal_output import (
    bound_by_neighbours,
    hold_still_means,
    reach,
    stamps_between,
    stillness,
)
from thermal_enhance.enhancers.upsampling import Image, resize_cubic
from thermal_enhance.imaging.consistency import to_dtype
from thermal_enhance.imaging.frames import ThermalFrame, Units
from thermal_enhance.imaging.motion import METHODS, Motion, MotionConfig
from thermal_enhance.runtime.manifest import ModelManifest
from thermal_enhance.runtime.store import ModelStore

MAX_FPS_OUT = 240.0

Frame = RingFrame[Motion]


@dataclass(frozen=True, kw_only=True)
class TemporalOptions:
    """What a temporal tier is told beyond other learned ones.

    Attributes:
        look_ahead: 0: the picture of the newest frame, at once. 1: that of the frame before it, which the
            newest then helps to make: better, and one frame later.
        fps_out: 0: one interpolated frame in the middle between two real ones. Else interpolated frames on a
            fixed grid of that many a second; see `stamps_between`.
        motion: how motion is found: dense, global or none; see `MotionConfig`.
        alone: make the first frame of a sequence too, from a window full of it. Else it is declined
            ("warming_up"), and a tier for single frames makes it.
        keep_repeats: take bit-identical pictures for frames (offline); see `RingConfig`.
    """

    look_ahead: int = 0
    fps_out: float = 0.0
    motion: str = "dense"
    alone: bool = False
    keep_repeats: bool = False

    def __post_init__(self) -> None:
        if self.look_ahead not in (0, 1):
            raise ValueError(f"look_ahead must be 0 or 1, not {self.look_ahead}")
        if not 0.0 <= self.fps_out <= MAX_FPS_OUT:
            raise ValueError(f"fps_out must lie in 0 (twice the rate) to {MAX_FPS_OUT:g}, not {self.fps_out}")
        if self.motion not in METHODS:
            raise ValueError(f"motion must be one of {', '.join(METHODS)}, not {self.motion!r}")


@dataclass(frozen=True, kw_only=True)
class TemporalEnhancerConfig(ObservationConfig, LearnedConfig, TemporalOptions):
    """Parameters of `TemporalEnhancer`: see `ObservationConfig`, `LearnedConfig` and `TemporalOptions`."""

    def __post_init__(self) -> None:
        ObservationConfig.__post_init__(self)
        LearnedConfig.__post_init__(self)
        TemporalOptions.__post_init__(self)


class TemporalEnhancer:
    """Super-resolution in space and time of one stream by a THERIS model, for frames of any unit.

    Each call takes one frame in and gives the observed frame (this one, or with `look_ahead` the one before)
    and the interpolated ones just before it. The window is filled with its oldest frame until the stream has
    X of them; no interpolated frame ever lies between frames that do not follow each other.

    The observed frame is true to its input by the same step as every other tier's. An interpolated one has no
    input; where nothing moves it meets the mean of the inputs around it, and it stays within the enhanced
    frames around it, as far around as things move.

    Building one is cheap: graphs are loaded by `load`. Everything but `refuses`, `is_loaded`, `counters` and
    `description` belongs to one thread.

    Args:
        config: see `TemporalEnhancerConfig`.
        store: where models are; None for the default folders.

    Raises:
        ModelUnavailableError: there is no such model, it was trained on other inputs, or nothing here runs
            models.
    """

    name = METHOD
    needs_rgb = False
    uses_rgb = False
    isolated = True

    def __init__(self, config: TemporalEnhancerConfig | None = None, store: ModelStore | None = None) -> None:
        self.config = config or TemporalEnhancerConfig()
        self._store = store or ModelStore()
        self._model = TemporalModelRunner(self.config, MotionConfig(method=self.config.motion), self._store)
        self._observer = Observer(self.config)
        self.ring: FrameRing[Motion] = FrameRing(
            RingConfig(capacity=self._model.window, keep_repeats=self.config.keep_repeats),
            lambda seen: self._model.padded(seen.levels()),
            self._model.encode,
            self._model.estimate,
        )
        """The last frames; for tests and benchmarks."""
        self._latest: EnhancedFrame | None = None
        self.counters: dict[str, int] = {}
        """What happened to the ring so far, for diagnostics; from any thread."""

    def factory(self) -> TemporalEnhancer:
        """A fresh one of the same parameters, with nothing loaded: replaces one that hung."""
        return TemporalEnhancer(self.config, self._store)

    @property
    def manifest(self) -> ModelManifest:
        """What the model's model.yaml says."""
        return self._model.manifest

    @property
    def window(self) -> int:
        """X: frames that the model looks at."""
        return self._model.window

    @property
    def description(self) -> str:
        """Model, and why it runs where it runs; empty before anything is loaded."""
        return self._model.description

    def refuses(self, request: EnhanceRequest) -> str:
        """Why frames of this scale and size are not for this model; empty when they are."""
        return self._model.refuses(request.scale, request.thermal.size)

    def is_loaded(self, request: EnhanceRequest) -> bool:
        """Are both graphs for frames of this size ready?"""
        return self._model.is_loaded(request.thermal.size)

    def load(self, request: EnhanceRequest) -> None:
        """Load and warm up both graphs for frames of this size, so that no later frame waits for one.

        Raises:
            ValueError: such frames are not for this model.
            ModelFileError: a file of the model is missing or damaged.
            BackendError: nothing here runs the graphs, or their self-check failed.
        """
        self._model.load(request.thermal.size)

    # ---- a frame ----------------------------------------------------------------------------

    def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
        """Take one frame in, and give the observed one that is due with those before it.

        Returns:
            A frame of `request.scale` times the size, dtype and units of the input. A picture that repeats
            the one before, bit for bit, gives the same result again under its own stamp, and no other frame.

        Raises:
            ValueError: the model does not make this scale or size, or no pixel of the frame is finite.
            FrameDeclined: the first frame of a sequence, a closed shutter, or a stamp that does not go on.
            NonFiniteOutputError: the model gave NaN or infinity.
            BackendError, ModelFileError: the model does not run here.
        """
        refusal = self.refuses(request)
        if refusal:
            raise ValueError(refusal)
        self.load(request)
        try:
            return self._enhance(request)
        finally:
            self.counters = self.ring.counters()

    def reset(self, reason: str) -> None:
        """Forget the stream: its frames, range, noise and stripes."""
        self.ring.reset(reason)
        self._observer.reset()
        self._latest = None
        self.counters = self.ring.counters()

    def close(self) -> None:
        """Free the graphs and the frames."""
        self.ring.reset("closed")
        self._model.close()

    def _enhance(self, request: EnhanceRequest) -> EnhancedFrame:
        watch = Stopwatch()
        thermal = request.thermal
        if request.shutter_closed:
            # Neither before nor after: what is seen now is no scene.
            self.reset("ffc")
            raise FrameDeclined("shutter_closed")
        refused = self.ring.admit(thermal)
        if not len(self.ring):
            self._observer.reset()
            self._latest = None if refused != "repeat" else self._latest
        if refused == "repeat":
            return self._again(request)
        if refused:
            raise FrameDeclined(refused)
        # Until this frame is made, a repeat of it must not be shown as the one before.
        self._latest = None
        # The network has learnt from 8-bit pictures as they are, never stretched.
        agc8 = thermal.units is Units.AGC8 and thermal.data.dtype == np.uint8
        seen = self._observer(request, (0.0, FULL) if agc8 else request.value_range)
        watch.lap("prepare")
        self.ring.push(thermal, seen)
        watch.lap("encode")
        if len(self.ring) == 1 and not self.config.alone:
            raise FrameDeclined("warming_up")
        return self._make(watch)

    def _again(self, request: EnhanceRequest) -> EnhancedFrame:
        latest = self._latest
        if latest is None or (self.config.look_ahead and not len(self.ring)):
            raise FrameDeclined("repeat")
        if self.config.look_ahead:
            # Nothing new is due; whoever publishes sees by its stamp that it has been shown.
            return dataclasses.replace(latest, extra=(), stage_ms={})
        thermal = dataclasses.replace(latest.thermal, stamp_ns=request.thermal.stamp_ns)
        return dataclasses.replace(latest, thermal=thermal, observed=None, extra=(), stage_ms={})

    def _make(self, watch: Stopwatch) -> EnhancedFrame:
        frames = self.ring.frames
        filled = [frames[0]] * (self.window - len(frames)) + list(frames)
        place = self.window - 1 - self.config.look_ahead
        observed, before = filled[place], filled[place - 1]
        stamps = () if before is observed else self._stamps(before, observed)
        taus = [place - 1 + _share(stamp, before, observed) for stamp in stamps]
        levels, between = self._run(filled, taus, float(place), watch)
        enlarged = observed.seen.to_units(levels)
        data, residual = settle(enlarged, observed.seen, self._model.scale, self.config)
        observed.enhanced = data
        watch.lap("consistency")
        extra = tuple(
            self._interpolated(picture, stamp, before, observed)
            for picture, stamp in zip(between, stamps, strict=True)
        )
        if extra:
            watch.lap("envelope")
        ahead = observed is not frames[-1]
        result = EnhancedFrame(
            dataclasses.replace(observed.thermal, data=data),
            self.name,
            degradation=observed.seen.degradation,
            consistency_residual=residual,
            stage_ms=watch.stages,
            extra=extra,
            repaired=observed.seen.repaired,
            observed=observed.thermal if ahead else None,
            source_stamps_ns=tuple(frame.stamp_ns for frame in frames),
        )
        self._latest = result
        return result

    def _stamps(self, before: Frame, observed: Frame) -> tuple[int, ...]:
        return stamps_between(before.stamp_ns, observed.stamp_ns, self.config.fps_out)

    def _run(
        self, filled: Sequence[Frame], taus: Sequence[float], place: float, watch: Stopwatch
    ) -> tuple[Image, list[Image]]:
        """Levels of the observed frame and of those between, all of (h * scale, w * scale)."""
        window = [frame.levels for frame in filled]
        features = [frame.features for frame in filled]
        motions = [
            after.motion
            if after is not before and after.motion is not None
            else Motion.none(*window[0].shape)
            for before, after in pairwise(filled)
        ]
        height, width = filled[0].thermal.data.shape
        crop = np.s_[: height * self._model.scale, : width * self._model.scale]
        made = [
            # The body makes two times at once; where no frame lies between, the first of them is of no use.
            [
                np.ascontiguousarray(p[crop])
                for p in self._model(window, features, motions, (tau, place), watch.lap)
            ]
            for tau in taus or [place - 0.5]
        ]
        return made[0][1], [picture for picture, _ in made] if taus else []

    def _interpolated(self, levels: Image, stamp_ns: int, before: Frame, after: Frame) -> ThermalFrame:
        around = [self._enhanced(frame) for frame in (before, after)]
        assert after.motion is not None  # not the oldest of the ring
        picture = after.seen.to_units(levels)
        if self.config.sampling == "area":
            share = np.float32(_share(stamp_ns, before, after))
            target = before.seen.clean + (after.seen.clean - before.seen.clean) * share
            still = stillness(after.motion, before.seen.clean, after.seen.clean)
            hold_still_means(picture, target, still, self._model.scale)
        bounded = bound_by_neighbours(picture, around[0], around[1], self._model.scale, reach(after.motion))
        return dataclasses.replace(after.thermal, data=to_dtype(bounded, after.seen.dtype), stamp_ns=stamp_ns)

    def _enhanced(self, frame: Frame) -> NDArray[Any]:
        """The picture of a frame that has been made, or would have been by enlarging it."""
        if frame.enhanced is None:
            height, width = frame.thermal.data.shape
            frame.enhanced = resize_cubic(
                frame.seen.clean, (width * self._model.scale, height * self._model.scale)
            )
        return frame.enhanced


def _share(stamp_ns: int, before: Frame, after: Frame) -> float:
    return (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
